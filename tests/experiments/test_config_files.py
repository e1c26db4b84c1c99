"""Files that a run left, changed by something else: one error, with file, field and cure."""

import contextlib
import dataclasses
import json
import math
import pathlib
import shutil

import pytest

from clipjax.train.log import MetricsFile, read_jsonl
from experiments import evaluate, report
from experiments.config import MLP, SGD, ClippedSSTM, Duration, FCN32s, Graduated, NoiseProbe, Run
from experiments.report import results
from experiments.report.landscape import write_landscape
from experiments.report.noise import write_noise
from experiments.setup import config_files, reading
from experiments.setup.cli import explain
from experiments.setup.reading import DamagedFile
from experiments.setup.runs import finished
from tests.experiments.synthetic_grid import write_grid

RUN = Run(
    task="segmentation",
    dataset="digit_scenes",
    model=FCN32s(width=4, block_sizes=(1, 2), pool_stages=2),
    optimizer=ClippedSSTM(0.1, 10.0, None, clip_start=3),
    duration=Duration(epochs=2),
    batch_size=8,
    graduated=Graduated(3, decay="geometric", factor=0.5),
    crop=64,
    evaluate_every=Duration(examples=100),
    noise=NoiseProbe(every=5),
)
SCHEMA = "another schema"
NOT_JSON = {
    "cut": b'{"type": "Run", "task": "segm',
    "empty": b"",
    "zeros": bytes(200),
    "no text": b"\xff\xfe\x00{",
    "a byte order mark": b"\xef\xbb\xbf{}",
    "two values": b"{}{}",
    "brackets without end": b"[" * 100_000,
    "too many digits": b"1" * 5000,
}
OTHER_VALUES = {
    "a list": b"[1, 2]",
    "text": b'"Run"',
    "null": b"null",
    "a number": b"3",
    SCHEMA: b'{"version": 3, "entries": []}',
}


def write_config(folder: pathlib.Path, **changes) -> pathlib.Path:
    path = folder / "config.json"
    path.write_text(json.dumps(config_files.to_json(RUN) | changes))
    return path


# -- config.json ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "words"), [("[1]", r"it is \[1\]; expected"), ("{}", "type is")])
def test_what_is_wrong_with_a_whole_file_is_a_sentence(tmp_path, text, words):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(DamagedFile, match=rf"config\.json is damaged: {words}"):
        config_files.read(tmp_path / "config.json")


def test_a_config_is_read_as_it_was_written(tmp_path):
    assert config_files.read(write_config(tmp_path)) == RUN
    assert json.loads(write_config(tmp_path).read_text())["optimizer"]["type"] == "ClippedSSTM"


def test_fields_that_came_later_get_their_defaults(tmp_path):
    value = config_files.to_json(RUN)
    for name in ("noise", "graduated", "input_workers", "crop", "calibration_batches"):
        del value[name]
    del value["model"]["dtype"]
    (tmp_path / "config.json").write_text(json.dumps(value))
    old = dataclasses.replace(RUN, noise=NoiseProbe(), graduated=None, crop=None)
    assert config_files.read(tmp_path / "config.json") == old


@pytest.mark.parametrize("content", (NOT_JSON | OTHER_VALUES).values(), ids=NOT_JSON | OTHER_VALUES)
def test_a_damaged_config_is_named_with_a_cure(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(DamagedFile, match="delete it and train with the same config") as caught:
        config_files.read(path)
    assert str(caught.value).startswith(str(path))


def test_a_folder_in_place_of_a_config_is_named(tmp_path):
    (tmp_path / "config.json").mkdir()
    with pytest.raises(DamagedFile, match=r"config\.json is a folder, not a file"):
        config_files.read(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": "8"}, "batch_size is '8'; expected a whole number"),
        ({"batch_size": 8.0}, r"batch_size is 8\.0; expected a whole number"),
        ({"batch_size": True}, "batch_size is True; expected a whole number"),
        ({"batch_size": None}, "batch_size is None; expected a whole number"),
        ({"batch_size": 10**400}, "batch_size is an integer of 1329 bits"),
        ({"augment": "no"}, "augment is 'no'; expected True or False"),
        ({"task": "segmentatoin"}, "task is 'segmentatoin'; .* did you mean 'segmentation'"),
        ({"dataset": 3}, "dataset is 3; expected text"),
        ({"bacth_size": 3}, "Run has no field 'bacth_size'; did you mean 'batch_size'"),
        ({"type": "Rum"}, r"type is 'Rum'; did you mean 'Run'"),
        ({"type": ["Run"]}, r"type is \['Run'\]"),
        ({"model": "FCN32s"}, "model is 'FCN32s'; expected an object"),
        ({"model": {"type": "FCN32"}}, r"model\.type is 'FCN32'; did you mean 'FCN32s'"),
        ({"model": {"type": "SGD", "learning_rate": 0.1}}, r"model\.type is 'SGD'"),
        ({"model": {"type": "MLP", "hidden": 8}}, r"model\.hidden is 8; expected a tuple"),
        ({"model": {"type": "MLP", "hidden": [8, 0]}}, r"model\.hidden\[1\] is 0; expected"),
        ({"model": {"type": "MLP", "hidden": ["8"]}}, r"model\.hidden\[0\] is '8'; expected"),
        ({"optimizer": {"type": "SGD"}}, r"lacks optimizer\.learning_rate"),
        ({"optimizer": {"type": "SGD", "learning_rate": -1}}, r"optimizer\.learning_rate is -1"),
        ({"duration": {"type": "Duration"}}, "duration: .*expected exactly one of steps"),
        ({"graduated": {"type": "Graduated", "num_stages": 0}}, r"graduated\.num_stages is 0"),
        ({"pretrained": ""}, "pretrained is ''; expected text that is not empty"),
    ],
)
def test_a_wrong_field_of_a_config_is_named(tmp_path, changes, words):
    with pytest.raises(DamagedFile, match=rf"config\.json (is damaged: )?.*{words}"):
        config_files.read(write_config(tmp_path, **changes))


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_are_no_json_are_refused_in_a_config(tmp_path, constant):
    text = write_config(tmp_path).read_text().replace("10.0", constant)
    assert constant in text
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(DamagedFile, match=f"{constant} is no number that a config may hold"):
        config_files.read(tmp_path / "config.json")


# -- summary.json ---------------------------------------------------------------------------------


@pytest.fixture
def one_run(tmp_path):
    write_grid(tmp_path, tasks=("classification",), methods=("sgd",), seeds=(0,))
    return tmp_path / "classification" / "sgd" / "seed0"


def change(folder, **changes):
    path = folder / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return path


@pytest.mark.parametrize("content", (NOT_JSON | OTHER_VALUES).values(), ids=NOT_JSON | OTHER_VALUES)
def test_a_damaged_summary_is_named_with_a_cure(tmp_path, content):
    path = tmp_path / "summary.json"
    path.write_bytes(content)
    for read in (reading.read_summary, lambda path: finished(path.parent, RUN)):
        with pytest.raises(DamagedFile, match="delete it and run the same experiment again") as e:
            read(path)
        assert str(path) in str(e.value)
    path.unlink()
    path.mkdir()
    with pytest.raises(DamagedFile, match="is a folder"):
        reading.read_summary(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"status": "done"}, "status is 'done'; expected 'finished' or 'diverged'"),
        ({"seed": "0"}, "seed is '0'; expected a whole number"),
        ({"metrics": [0.5]}, r"metrics is \[0\.5\]; expected an object"),
        ({"metrics": {"top1": "good"}}, r"metrics\['top1'\] is 'good'; expected a number"),
        ({"metrics": {"top1": [0.5]}}, r"metrics\['top1'\] is \[0\.5\]"),
        ({"config": {"model": {"type": "ResNet"}}}, "model.type is 'ResNet'; .*MLP, ResNet18"),
        ({"config": {"model": {}}}, "lacks config.model.type, config.optimizer, config.batch_size"),
        ({"class_names": "abc"}, "class_names is 'abc'; expected a list"),
        ({"class_names": [1]}, r"class_names\[0\] is 1; expected text"),
        ({"wall_time": None}, "wall_time is None; expected a number"),
        ({"versions": {"jax": 1}}, r"versions\['jax'\] is 1; expected text"),
        ({"num_params": "many"}, "num_params is 'many'"),
    ],
)
def test_a_wrong_field_of_a_summary_is_named(one_run, changes, words):
    path = change(one_run, **changes)
    with pytest.raises(DamagedFile, match=words) as caught:
        reading.read_summary(path)
    assert str(path) in str(caught.value)


def test_what_no_run_would_lack_and_what_a_diverged_one_does(one_run):
    summary = json.loads((one_run / "summary.json").read_text())
    for name in ("steps", "examples", "num_params"):
        del summary[name]
    path = one_run / "summary.json"
    path.write_text(json.dumps(summary))
    with pytest.raises(DamagedFile, match="lacks steps, examples, num_params"):
        reading.read_summary(path)
    change(one_run, status="diverged", metrics={"loss": None})
    assert reading.read_summary(path)["metrics"] == {"loss": None}


def test_an_unmeasured_metric_is_no_score(one_run):
    """Similarities of pictures too small for a window are NaN; null says the same in JSON."""
    for value in (math.nan, None, "nan", "inf"):
        change(one_run, metrics={"top1": 0.5, "top5": value})
        group = results.read_grid(one_run.parents[2])["classification"]["sgd"]
        assert group.score("top5") is None
        assert group.score("top1") == results.Score(0.5, None, 1)


def test_evaluate_needs_no_summary_unless_it_writes(tmp_path, monkeypatch, capsys):
    """Without --write a damaged one is not looked at; with it, the file and the way on are told."""
    write_config(tmp_path)
    (tmp_path / "summary.json").write_bytes(b"{")
    seen = []
    monkeypatch.setattr(evaluate, "restore", lambda workdir, bench: seen.append(1) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        evaluate.evaluate_run(tmp_path, bench=None)
    assert seen
    with pytest.raises(DamagedFile, match=r"summary\.json is damaged"):
        evaluate._last(tmp_path, RUN, 3)
    (tmp_path / "summary.json").unlink()
    with pytest.raises(ValueError, match=r"leave out --write, or train with the same config"):
        evaluate._last(tmp_path, RUN, 3)


# -- metrics.jsonl --------------------------------------------------------------------------------


def test_a_cut_last_row_is_left_out_with_a_warning(one_run):
    path = one_run / "metrics.jsonl"
    rows = results.read_run(one_run).rows
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.warns(UserWarning, match=r"metrics\.jsonl: its last row was cut short"):
        assert results.read_run(one_run).rows == rows[:-1]


def test_training_goes_on_without_a_word_where_the_last_row_was_cut(tmp_path):
    """It is about to be made again. Warnings are errors here."""
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "lo')
    with MetricsFile(path, step=1):
        pass
    assert read_jsonl(path) == [{"step": 1, "loss": 0.5}]


@pytest.mark.parametrize("line", [b'{"a": 1}', b"[1]", b"\xff\xfe", b""])
def test_training_that_goes_on_says_what_to_do_about_a_damaged_row(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    before = b'{"step": 1}\n' + line + b'\n{"step": 2}\n'
    path.write_bytes(before)
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2, is damaged.*delete that line"):
        MetricsFile(path, step=2)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"split": "train", "step": 20, "ex', "is damaged"),
        (b"", "is damaged"),
        (b"\xff\xff", "is damaged"),
        (b"[1]", "no row with a step"),
        (b'{"split": "train"}', "no row with a step"),
        (b'{"split": "train", "step": "2"}', "no row with a step"),
        (b'{"split": "train", "step": 2}', "lacks examples"),
        (b'{"split": 3, "step": 2, "examples": 2}', "split is 3; expected text"),
        (b'{"split": "a", "step": 2, "examples": 2, "loss": "low"}', "loss is 'low'; expected"),
        (b'{"split": "a", "step": 2, "examples": 2, "loss": {}}', "loss is {}; expected"),
    ],
)
def test_a_damaged_row_in_the_middle_names_file_and_line(one_run, line, words):
    path = one_run / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n")
    lines[2] = line
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(DamagedFile, match=rf"metrics\.jsonl, line 3,.*{words}.*run it again"):
        results.read_run(one_run)


def test_a_missing_metrics_file_or_a_folder_is_named(one_run):
    (one_run / "metrics.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match=r"metrics\.jsonl is missing"):
        results.read_run(one_run)
    (one_run / "metrics.jsonl").mkdir()
    with pytest.raises(DamagedFile, match=r"metrics\.jsonl is a folder"):
        results.read_run(one_run)


# -- The report -----------------------------------------------------------------------------------


def test_all_damaged_runs_of_a_grid_are_named_at_once(tmp_path, capsys):
    write_grid(tmp_path, tasks=("classification",), methods=("sgd", "adam"), seeds=(0, 1))
    bad = [
        tmp_path / "classification" / name / "summary.json" for name in ("sgd/seed1", "adam/seed0")
    ]
    bad[0].write_bytes(b"{")
    bad[1].unlink()
    assert explain(lambda: report.write.main(["--workdir", str(tmp_path)])) == 1
    said = capsys.readouterr().err
    assert all(str(path) in said for path in bad)
    assert "Traceback" not in said
    assert not (tmp_path / "report.md").exists()


@pytest.mark.parametrize(
    ("name", "write"), [("landscape", write_landscape), ("noise", write_noise)]
)
@pytest.mark.parametrize("content", (NOT_JSON | OTHER_VALUES).values(), ids=NOT_JSON | OTHER_VALUES)
def test_a_damaged_landscape_or_noise_is_named_with_its_command(tmp_path, name, write, content):
    (tmp_path / f"{name}.json").write_bytes(content)
    with pytest.raises(DamagedFile, match=rf"{name}\.json.*run python -m experiments\.{name}"):
        write(tmp_path)


def test_a_field_of_noise_and_of_landscape_that_is_wrong_is_named(tmp_path):
    both = {"name": "a", "step": 3, "examples": 4, "examples_asked": 4}
    both |= {"calibration": {"batches": 0, "batch_size": 4}}
    (tmp_path / "landscape.json").write_text(json.dumps(both | {"loss": "low", "reach": 1.0}))
    with pytest.raises(DamagedFile, match="loss is 'low'"):
        write_landscape(tmp_path)
    summary = both | {"mean_gradient_norm": 1.0, "seed": 0}
    (tmp_path / "noise.json").write_text(json.dumps(summary | {"noise": {"x": {}}}))
    with pytest.raises(DamagedFile, match=r"lacks noise\['x'\]\.values"):
        write_noise(tmp_path)


def test_arrays_that_are_lacking_cut_or_flipped_are_named(tmp_path, one_run):
    path = one_run / "figures" / "samples.npz"
    with pytest.raises(DamagedFile, match=r"samples\.npz lacks nothing_like_it"):
        results.read_arrays(path, ["nothing_like_it"])
    whole = path.read_bytes()
    for at in range(0, len(whole), len(whole) // 40):
        flipped = bytearray(whole)
        flipped[at] ^= 0xFF
        for content in (whole[:at], bytes(flipped)):
            path.write_bytes(content)
            # A flipped byte in what zip does not read back changes nothing.
            with contextlib.suppress(DamagedFile):
                results.read_arrays(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DamagedFile, match=r"samples\.npz is damaged"):
        results.read_arrays(path)
    shutil.rmtree(path.parent)
    path.mkdir(parents=True)
    with pytest.raises(DamagedFile, match="is a folder"):
        results.read_arrays(path)


def test_any_config_class_reads_alone():
    for config in (SGD(0.1), MLP((3,)), Duration(steps=1)):
        assert config_files.from_json(config_files.to_json(config)) == config
