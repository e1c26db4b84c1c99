"""The language of texts: what it says, and that it reaches nothing else."""

import importlib.metadata
import math
import sys
import time

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import clipjax
from clipjax import analysis, problems
from experiments.setup import allowed_names
from experiments.setup.expressions import evaluate


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of a user: a function, what it imported, and a module of its own."""
    folder = tmp_path / "lab_of_a_user"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "import os\nfrom os import system\nfrom math import hypot\nimport numpy as np\n"
        "from clipjax.problems import Normal\n"
        "_hidden = 3\nhalf = 0.5\nordinary = Normal(half)\n"
        "class Box:\n    @staticmethod\n    def two():\n        return 2\n"
        "def one():\n    return 1\n"
    )
    (folder / "sub.py").write_text("def three():\n    return 3\n")
    (folder / "_private.py").write_text("def four():\n    return 4\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder.name
    for name in [name for name in sys.modules if name.split(".")[0] == folder.name]:
        del sys.modules[name]


# -- What may be said -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2 * 2 ** 0.5", 2 * math.sqrt(2)),
        ("-3 + 1 / 4", -2.75),
        ("(1, 2.5, 'a', None, True)", (1, 2.5, "a", None, True)),
        ("numpy.pi", math.pi),
        ("numpy.inf", math.inf),
        ("math.log(8) / math.log(2)", 3.0),
        ("jax.numpy.sum(2 * jax.numpy.ones(3))", 6.0),
        ("jax.numpy.linalg.norm(jax.numpy.array((3.0, 4.0)))", 5.0),
        ("optax.exponential_decay(1.0, 1, 0.5)(2)", 0.25),
        ("jax.numpy.float32", jnp.float32),
        ("optax.adam", optax.adam),
        ("optax.nadam", optax.nadam),  # a functools.partial of optax's own
        ("optax.contrib.sophia", optax.contrib.sophia),
        ("clipjax.clipped_sgd", clipjax.clipped_sgd),
        ("clipjax.problems.Normal(2.0)", problems.Normal(2.0)),
        ("clipjax.theory.clipped_sgd_constants", clipjax.theory.clipped_sgd_constants),
        ("clipjax.analysis.quantiles", analysis.quantiles),
    ],
)
def test_texts_say_numbers_and_names_of_the_stated_packages(text, expected):
    assert evaluate(text, {}) == expected


def test_every_public_optimizer_and_clipping_can_be_named():
    for module in (clipjax, optax):
        for name in set(module.__all__) & set(vars(module)):
            value = getattr(module, name)
            if callable(value) and str(value.__module__).startswith(module.__name__):
                assert evaluate(f"{module.__name__}.{name}", {}) is value


# -- What may not ---------------------------------------------------------------------------------

ATTACKS = [
    # Modules that were never allowed, by any name.
    "os.system('touch X')",
    "subprocess.run(('touch', 'X'))",
    "builtins.eval('1')",
    "builtins.open('X', 'w')",
    "importlib.import_module('os')",
    "pathlib.Path('X')",
    "sys.exit()",
    "jax.config.update('jax_platforms', 'x')",
    "jax.numpy.os.getcwd()",
    "experiments.setup.expressions.ast.parse('1')",
    "tensorflow_datasets.load('x')",
    "os.getcwd",
    "ｏｓ.getcwd()",  # the parser reads these letters as os
    # Python's own functions, and what classes and instances lead to.
    "eval('1')",
    "__import__('os')",
    "().__class__",
    "optax.sgd.__globals__",
    "optax.sgd.__class__.__base__.__subclasses__()",
    "optax.__builtins__",
    "optax.__loader__.load_module('os')",
    "optax.GradientTransformation.mro()",
    "optax.GradientTransformation.init",
    "optax.nadam.func",
    "optax.sgd(0.1).init",
    "jax.numpy.float32.dtype",
    "clipjax.problems.Normal.__init__.__globals__",
    "clipjax.problems.Normal(1.0).__class__",
    # Private modules, and modules that allowed ones import.
    "optax._src.alias.functools.partial",
    "optax._src.base.jax.numpy.load('X.npy')",
    "optax.contrib._sam.jnp.load('X.npy')",
    "jax._src.numpy.lax_numpy.builtins.eval('1')",
    "clipjax.optim.clipping.norms.jax.numpy.load('X.npy')",
    "clipjax.optim.clipping.norms.optax.sgd",  # harmless, but optax.sgd is its name
    "clipjax.optim.clipping.norms.jnp.load('X.npy')",
    "clipjax.optim.theory.constants.math.factorial(1)",
    "clipjax.problems._draws.uniforms",
    "clipjax.analysis.quantiles.np.load('X')",
    "clipjax.analysis.tails.np.load('X')",
    "optax.contrib.os.system('touch X')",
    # Rooms of clipjax that read and write files.
    "clipjax.data.read_libsvm('X')",
    "clipjax.data.libsvm.Path('X')",
    "clipjax.train.log.write_json('X', 1)",
    "clipjax.train.log.os.system('touch X')",
    "clipjax.train.checkpoint.Checkpoints('X')",
    "clipjax.models.pretrained.load_vgg16('X')",
    "clipjax.typing.Any",
    # Functions that an allowed module has from elsewhere.
    "clipjax.problems.objectives.dataclass",
    "clipjax.optim.theory.constants.bisect_left((1,), 1)",
    # Files.
    "numpy.load('X')",
    "numpy.save('X', 1)",
    "numpy.fromfile('X')",
    "numpy.memmap('X')",
    "numpy.lib.npyio.DataSource",
    "numpy.testing.assert_equal",
    "numpy.ctypeslib.load_library('c', '/')",
    "numpy.float64",
    "jax.numpy.load('X.npy')",
    "jax.numpy.save('X', 1)",
    "jax.numpy.savez('X', 1)",
    "jax.numpy.fromfile('X')",
    "jax.numpy.set_printoptions(3)",
    # Modules alone, and what is not of the language.
    "optax",
    "jax.numpy",
    "(lambda: 1)()",
    "optax.sgd(**{'a': 1})",
    "optax.chain(*(1, 2))",
    "(1, 2)[0]",
    "[x for x in (1, 2)]",
    "1 if 2 else 3",
    "f'{1}'",
    "b'bytes'",
    "...",
    "2j",
    "(a := 1)",
    "await_",
    "1; 2",
    "1\n2",
    "1\0",
    "",
]


@pytest.mark.parametrize("text", ATTACKS)
def test_nothing_else_is_reached(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "X.npy", np.ones(1))
    (tmp_path / "X").write_text("+1 1:1\n")
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(ValueError, match="problem "):
        evaluate(text, {"key": 1}, "problem")
    assert sorted(p.name for p in tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "text",
    [
        "9 ** 9 ** 9",
        "(-9) ** 9 ** 9",
        "10 ** 400",
        "9" * 400,
        "9" * 5000,
        "1.0 + " * 20_000 + "1",
        "-" * 50_000 + "1",
        "(" * 50_000,
        "1" * 200_000,
        "2.0 ** 1e9",
        "(-8) ** 0.5",
        "1 / 0",
        "0 ** -1",
        "1e308 ** 2",
        "'a' * 1000000000",
        "(1,) * 1000000000",
        "(1, 2) + (3,)",
        "math.factorial(1000000000)",
        "math.comb(10 ** 9, 10 ** 8)",
        "math.perm(10 ** 9)",
        "math.lcm(2 ** 1000 + 1, 2 ** 1000 - 1)",
        "math.exp(1000)",
        "jax.numpy.ones(1000000000000)",
        "jax.numpy.ones((1000000, 1000000)) * 2",
        "jax.numpy.sum(jax.numpy.zeros((100000, 100000)))",
        "jax.numpy.linspace(0, 1, 10 ** 10)",
        "jax.numpy.outer(jax.numpy.ones(10 ** 5), jax.numpy.ones(10 ** 5))",
    ],
    ids=lambda text: text[:30],
)
def test_what_takes_for_ever_or_all_memory_is_refused_at_once(text):
    began = time.monotonic()
    with pytest.raises(ValueError, match="method ") as found:
        evaluate(text, {}, "method")
    assert time.monotonic() - began < 5
    assert len(str(found.value)) < 1000


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("optax.sgd(1 / 0)", "division by zero"),
        ("optax.adamm(1)", "optax has no 'adamm'; did you mean 'adam'"),
        ("optax.adam()", "missing 1 required"),
        ("jax.numpy.ones('x')", "jax.numpy.ones"),
        ("nowhere.adam(1)", "'nowhere' is none of clipjax, jax.numpy, math, numpy, optax"),
        ("nowhere.adam(1)", "--allow-import nowhere"),
        ("optax._src.alias.sgd(1)", "'_src' is private"),
        ("clipjax.optim.clipping.norms.jax.jit", "leads to 'jax', which is not allowed"),
    ],
)
def test_what_is_wrong_is_said(text, words):
    with pytest.raises(ValueError, match=words):
        evaluate(text, {})


# -- What others may allow ------------------------------------------------------------------------


def test_a_package_is_reached_once_it_is_allowed(package):
    with pytest.raises(ValueError, match=f"--allow-import {package}"):
        evaluate(f"{package}.one()", {})
    assert package not in sys.modules  # not even imported
    allow = (package,)
    for text, expected in (("one()", 1), ("half", 0.5), ("sub.three()", 3)):
        assert evaluate(f"{package}.{text}", {}, allow=allow) == expected
    assert evaluate(f"{package}.ordinary", {}, allow=allow) == problems.Normal(0.5)
    assert evaluate(f"{package}.sub.three()", {}, allow=(f"{package}.sub",)) == 3
    with pytest.raises(ValueError, match="may not be named"):
        evaluate(f"{package}.one()", {}, allow=(f"{package}.sub",))


@pytest.mark.parametrize(
    "text",
    ["os.getcwd()", "system('x')", "_hidden", "_private.four()", "Box.two()", "np.load('x')", "no"],
)
def test_of_an_allowed_package_only_its_own_public_things_are_reached(package, text):
    with pytest.raises(ValueError, match=package):
        evaluate(f"{package}.{text}", {}, allow=(package,))


def test_an_installed_package_may_register_itself(package, monkeypatch):
    entry = importlib.metadata.EntryPoint("mine", package, allowed_names.ENTRY_POINTS)
    found = {allowed_names.ENTRY_POINTS: (entry,)}
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: found[group])
    assert evaluate(f"{package}.one()", {}) == 1


@pytest.mark.parametrize("name", ["", ".", "a b", "../a", "_a", "a._b", "a.", 3])
def test_only_names_of_packages_can_be_allowed(name):
    with pytest.raises(ValueError, match="expected the public name of a package"):
        evaluate("math.pi", {}, allow=(name,))
