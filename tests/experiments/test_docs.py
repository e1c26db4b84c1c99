"""docs/api.md and the README say what is so: names, signatures, snippets, pictures, docstrings."""

import doctest
import inspect
import io
import re

import jax
import numpy as np
import pytest
from PIL import Image

import clipjax
from experiments.report import docs
from experiments.report.clippings import FIGURES, SPIKES, figure, spiky_gradients

ROOT = docs.PAGE.parents[1]
OBJECTS = docs.public_objects()
FUNCTIONS = sorted(name for name, value in OBJECTS.items() if inspect.isfunction(value))
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def entries():
    """The text below each heading of a public name, up to the next heading."""
    page = docs.PAGE.read_text()
    heads = list(docs.HEADING.finditer(page))
    texts = (
        re.split(r"^#", page[head.end() :], maxsplit=1, flags=re.MULTILINE)[0] for head in heads
    )
    return [(head.group(1), text) for head, text in zip(heads, texts, strict=True)]


ENTRIES = dict(entries())


def test_every_public_name_has_one_entry():
    names = [name for name, _ in entries()]
    missing = set(OBJECTS) - set(names)
    assert not missing, f"add a heading ### `name` to docs/api.md, then `make docs`: {missing}"
    assert not set(names) - set(OBJECTS), "entries of names that are not public"
    assert len(names) == len(set(names))


def test_signatures_are_those_of_the_code():
    assert docs.render(docs.PAGE.read_text()) == docs.PAGE.read_text(), "run `make docs`"
    for (
        name
    ) in FUNCTIONS:  # not by the writer alone: the block is Python, and calls with these names
        block = FENCE.search(ENTRIES[name]).group(1)
        written = re.findall(
            r"(\w+)(?==|,|\)|$)", re.sub(r"=(\([^)]*\)|[^,)\n]*)", "=", block).partition("(")[2]
        )
        assert written == list(inspect.signature(OBJECTS[name]).parameters), name


def preamble():
    return FENCE.search(docs.PAGE.read_text()).group(1)


def run_examples(name, text):
    parser = doctest.DocTestParser()
    source = "\n".join([preamble(), *(block for block in FENCE.findall(text) if ">>>" in block)])
    test = parser.get_doctest(source, {}, name, str(docs.PAGE), 0)
    output = io.StringIO()
    result = doctest.DocTestRunner(optionflags=FLAGS).run(test, out=output.write)
    assert not result.failed, output.getvalue()
    return result.attempted - len(parser.get_examples(preamble()))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_snippets_run(name):
    """Each function's entry has one; states have one where it helps."""
    assert run_examples(name, ENTRIES[name]) > 0


def test_snippets_of_the_other_entries_run():
    for name in set(ENTRIES) - set(FUNCTIONS):
        run_examples(name, ENTRIES[name])


def test_every_function_has_a_formula_and_every_entry_says_something():
    for name, text in ENTRIES.items():
        assert ("```text\n" in text) == (name in FUNCTIONS), name
        prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        assert len(prose.split()) > (8 if name in FUNCTIONS else 2), name


def test_links_lead_somewhere():
    page = docs.PAGE.read_text()
    anchors = {
        re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in page.splitlines()
        if line.startswith("#")
    }
    for text in (page, (ROOT / "README.md").read_text()):
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if target.startswith("#"):
                assert text is not page or target[1:] in anchors, target
            elif "://" not in target:
                folder = docs.PAGE.parent if text is page else ROOT
                assert (folder / target.partition("#")[0]).exists(), target


def test_every_clipping_has_its_picture():
    """A clipping is a public transformation whose only state is a clipping's."""
    params = {"w": np.zeros(2, np.float32)}
    arguments = {"clip_with_probability": (1.0, 0.5, jax.random.key(0))}
    kinds = {name for name in OBJECTS if name.startswith("clip_") and name != "clip_stats"}
    assert set(FIGURES) == {*kinds, "normalize_by_global_norm"}
    for name in FIGURES:
        tx = getattr(clipjax, name)(
            *arguments.get(name, (0.5,) if name.startswith("clip_") else ())
        )
        assert clipjax.clip_stats(tx.init(params)).fraction == 0
        assert f"]({name}.png)" in ENTRIES[name]
        data = (docs.PAGE.parent / f"{name}.png").read_bytes()
        assert len(data) < 60_000
        with Image.open(io.BytesIO(data)) as image:
            assert image.width > 2 * image.height


@pytest.mark.parametrize("name", ["clip_by_value", "clip_by_adaptive_norm"])
def test_pictures_are_drawn(name):
    """The size of the committed one to a few pixels: fonts may differ."""
    with (
        Image.open(io.BytesIO(figure(name))) as drawn,
        Image.open(docs.PAGE.parent / f"{name}.png") as committed,
    ):
        np.testing.assert_allclose(drawn.size, committed.size, rtol=0.05)
        assert len(drawn.getcolors()) > 10


def test_the_gradients_of_the_pictures_have_spikes():
    gradients = spiky_gradients()
    norms = np.linalg.norm(gradients["w"], axis=1)
    spikes = np.flatnonzero(norms > 2.5 * np.median(norms))
    np.testing.assert_array_equal(spikes, list(SPIKES))
    assert len(spikes) == 5, "as the page says"


@pytest.mark.parametrize("name", sorted(OBJECTS))
def test_every_public_name_has_a_docstring_and_every_function_an_example(name):
    """pytest runs the examples themselves (--doctest-modules)."""
    value = OBJECTS[name]
    assert value.__doc__
    if name in FUNCTIONS:
        assert "Examples:" in value.__doc__
        assert doctest.DocTestParser().get_examples(value.__doc__)


def test_the_snippets_of_the_readme_run():
    blocks = FENCE.findall((ROOT / "README.md").read_text())
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {"print": lambda *values: None})
