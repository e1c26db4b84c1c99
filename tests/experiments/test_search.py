"""What a search tries, on which examples, and which trials go on: no training here."""

import dataclasses
import math

import numpy as np
import pytest
from scipy.stats import qmc

from clipjax import data
from experiments.config import (
    MLP,
    SGD,
    Adam,
    Choice,
    ClippedSGD,
    Duration,
    Graduated,
    LearningRateSchedule,
    LogUniform,
    Run,
    Search,
    Uniform,
)
from experiments.setup import inputs
from experiments.setup.halving import Measured, make_rungs, successive_halving
from experiments.setup.search import _replaced, validating, with_values
from tests.faults import material

RUN = Run(
    task="classification",
    dataset="digits",
    model=MLP(),
    optimizer=SGD(0.1),
    duration=Duration(steps=12),
    batch_size=64,
)
RUNS = {
    "digits/sgd": RUN,
    "digits/adam": dataclasses.replace(RUN, optimizer=Adam(0.1)),
    "digits/clipped_sgd": dataclasses.replace(RUN, optimizer=ClippedSGD(0.1, None)),
}
RATE = LogUniform(1e-4, 1.0)
SPACE = {
    "*": {"optimizer.learning_rate": RATE},
    "*/sgd": {"optimizer.momentum": Uniform(0.5, 0.9)},
    "*/clipped_sgd": {
        "optimizer.clip_level": LogUniform(1e-2, 1e2),
        "optimizer.clip": Choice("value", "global_norm"),
    },
}
SEARCH = Search(RUNS, SPACE, trials=16)


# -- Values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("sequence", ["sobol", "halton"])
def test_values_are_scipys_points_by_the_formulas(sequence):
    search = dataclasses.replace(SEARCH, sequence=sequence, sequence_seed=7, trials=13)
    if sequence == "halton":
        points = qmc.Halton(3, scramble=True, rng=7).random(13)
    else:
        points = qmc.Sobol(3, scramble=True, rng=7).random_base2(4)[:13]
    found = search.values("digits/clipped_sgd")
    assert [list(values) for values in found] == 13 * [
        ["optimizer.learning_rate", "optimizer.clip_level", "optimizer.clip"]
    ]
    u, v, w = points.T
    rates, levels, kinds = zip(*(values.values() for values in found), strict=True)
    # Four significant digits: a relative error of at most 5e-4.
    np.testing.assert_allclose(rates, 1e-4 * 1e4**u, rtol=5e-4)
    np.testing.assert_allclose(levels, 1e-2 * 1e4**v, rtol=5e-4)
    assert list(kinds) == ["value" if share < 0.5 else "global_norm" for share in w]


def test_values_cover_the_space_evenly():
    """Of 2^m scrambled Sobol points each of 2^m equal parts of every axis holds exactly one."""
    u = [math.log(v["optimizer.learning_rate"] / 1e-4, 1e4) for v in SEARCH.values("digits/sgd")]
    v = [(v["optimizer.momentum"] - 0.5) / 0.4 for v in SEARCH.values("digits/sgd")]
    for shares in (u, v):
        assert sorted(np.floor(16 * np.array(shares)).astype(int)) == list(range(16))
    kinds = [values["optimizer.clip"] for values in SEARCH.values("digits/clipped_sgd")]
    assert sorted(kinds) == 8 * ["global_norm"] + 8 * ["value"]


@pytest.mark.parametrize("sequence", ["sobol", "halton"])
def test_more_trials_keep_the_first(sequence):
    search = dataclasses.replace(SEARCH, sequence=sequence)
    fewer = dataclasses.replace(search, trials=5)
    assert fewer.values("digits/sgd") == search.values("digits/sgd")[:5]
    other = dataclasses.replace(fewer, sequence_seed=1)
    assert other.values("digits/sgd") != fewer.values("digits/sgd")


def test_every_method_has_the_same_budget():
    search = dataclasses.replace(SEARCH, rungs=2, reduction=3)
    assert {len(search.trial_runs(key)) for key in RUNS} == {16}
    assert len({tuple(search.stages(key, 90)) for key in RUNS}) == 1
    assert {run.seed for key in RUNS for run in search.trial_runs(key)} == {RUN.seed}
    # Nothing but the values and the splits differs from the run.
    values = search.values("digits/sgd")[3]
    tried = search.trial_runs("digits/sgd")[3]
    assert tried == with_values(validating(RUN, 0.1), values)
    assert tried.optimizer == SGD(values["optimizer.learning_rate"], values["optimizer.momentum"])


def test_a_path_reaches_into_mappings():
    owner = {"rates": {"lr": 1e-3, "wd": 0.1}}
    assert _replaced(owner, "rates.lr", 0.5) == {"rates": {"lr": 0.5, "wd": 0.1}}
    assert owner["rates"]["lr"] == 1e-3
    with pytest.raises(ValueError, match="no field 'lrr'; did you mean 'lr'"):
        _replaced(owner, "rates.lrr", 0.5)


def test_values_stay_between_their_ends():
    drawn = LogUniform(0.00012345, 0.00012346)  # both would round to 0.0001234 or 0.0001235
    assert all(drawn.low <= drawn.at(share) <= drawn.high for share in np.linspace(0, 1, 9))


# -- Successive halving ---------------------------------------------------------------------------


def written_out(scores, losses, n, steps, rungs, eta):
    """Algorithm 1's inner loop, with lists: scores[trial][r], NaN where the trial diverged."""
    alive, trained = list(range(n)), {}
    for r in range(rungs):
        length = -(-steps // eta ** (rungs - 1 - r))
        for trial in alive:
            trained[trial] = length
        fine = [trial for trial in alive if not math.isnan(scores[trial][r])]
        fine.sort(key=lambda trial: (-scores[trial][r], losses[trial][r], trial))
        keep = max(1, int(n / eta ** (r + 1)))
        alive = fine[:keep] if r < rungs - 1 else fine
    return trained, alive[0] if alive else None


@pytest.mark.parametrize("seed", range(20))
def test_halving_is_the_written_out_algorithm(seed):
    rng = np.random.default_rng(seed)
    n, rungs, eta = int(rng.integers(1, 30)), int(rng.integers(1, 4)), int(rng.integers(2, 5))
    # Few distinct scores, so that ties are many; some diverge; rank correlation between rungs.
    scores = rng.integers(0, 4, (n, rungs)).astype(float)
    scores[rng.random((n, rungs)) < 0.2] = np.nan
    losses = rng.integers(0, 3, (n, rungs)).astype(float)
    stages = make_rungs(n, 200, rungs=rungs, reduction=eta)
    asked = []

    def measure(numbers, rung):
        r = stages.index(rung)
        asked.extend((number, rung.steps) for number in numbers)
        found = [(scores[k, r], losses[k, r]) for k in numbers]
        return [Measured(None, None) if math.isnan(s) else Measured(s, v) for s, v in found]

    trials, chosen = successive_halving(stages, measure)
    trained, best = written_out(scores.tolist(), losses.tolist(), n, 200, rungs, eta)
    assert {trial.number: trial.steps for trial in trials} == trained
    assert chosen == best
    assert len(asked) == len(set(asked))  # nobody is asked twice for one rung
    ends = {trial.number: trial.status for trial in trials}
    assert chosen is None or ends[chosen] == "finished"
    assert all(t.measured.diverged == (t.status == "diverged") for t in trials)


@pytest.mark.parametrize("stopping", [0, 1])
def test_a_stop_in_any_rung_stops_the_search(stopping):
    stages = make_rungs(4, 100, rungs=2, reduction=2)

    def measure(numbers, rung):
        return None if rung == stages[stopping] else [Measured(0.0, 0.0) for _ in numbers]

    assert successive_halving(stages, measure) is None


# -- Splits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("holdout", [0.1, 0.125, 0.5])
@pytest.mark.parametrize("name", ["digits", "digit_scenes", "photos_x4", "image_folder/few"])
def test_validation_is_cut_from_training_and_is_never_test(name, holdout, tmp_path):
    folder = None
    if name.startswith("image_folder"):
        folder = tmp_path / "data"
        for i in range(12):  # eight to train on, all of them different
            path = tmp_path / "raw" / ("val" if i % 3 == 0 else "train") / "ab"[i % 2] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(material.picture(i, 8, 8))
        data.prepare(name, folder, raw_dir=tmp_path / "raw")
    cut = validating(dataclasses.replace(RUN, dataset=name), holdout)
    splits = {s: data.load(name, s, folder) for s in ("train", cut.train_split)}
    splits["validation"] = data.load(name, cut.evaluation_split, folder)
    test = inputs.held_out(data.splits(name, folder), name)
    splits["test"] = data.load(name, test, folder)

    def pictures(split):
        return [splits[split][i]["image"].tobytes() for i in range(len(splits[split]))]

    fit, validation, whole = map(pictures, (cut.train_split, "validation", "train"))
    assert fit + validation == whole
    assert abs(len(validation) - holdout * len(whole)) <= 0.5
    assert not set(validation) & set(pictures("test"))
    assert not set(validation) & set(fit)


# -- Bad input ------------------------------------------------------------------------------------


def test_bad_distributions_are_named():
    for make, said in (
        (lambda: LogUniform(1.0, 1.0), r"LogUniform\(low=1.0, high=1.0\) is empty"),
        (lambda: LogUniform(0.0, 1.0), "LogUniform.low is 0.0; expected a number that is positive"),
        (lambda: LogUniform(-1.0, 1.0), "LogUniform.low is -1.0"),
        (lambda: LogUniform(1e-3, math.inf), "LogUniform.high is inf"),
        (lambda: LogUniform(math.nan, 1.0), "LogUniform.low is nan"),
        (lambda: Uniform(0.9, 0.1), "low below high"),
        (lambda: Uniform(0.0, math.inf), "Uniform.high is inf"),
        (lambda: Choice("value"), r"Choice\('value'\) offers no choice"),
        (lambda: Choice(0.9, 0.9), "all distinct"),
    ):
        with pytest.raises(ValueError, match=said):
            make()


def search(space=None, **changes):
    space = {"*": {"optimizer.learning_rate": RATE}} if space is None else space
    return Search(**{"runs": {"digits/sgd": RUN}, "space": space, "trials": 4} | changes)


def changed(**changes):
    return {"digits/sgd": dataclasses.replace(RUN, **changes)}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: search(trials=0), "Search.trials is 0; expected a whole number from 1"),
        (lambda: search(seeds=(1, 1)), "distinct seeds"),
        (lambda: search(holdout=0.0), "Search.holdout is 0.0"),
        (lambda: search(holdout=1.0), "Search.holdout is 1.0"),
        (lambda: search({}), r"Search.space is \{\}"),
        (lambda: search({"*": {}}), "Search.space"),
        (lambda: search({"digits/sdg": {"batch_size": Choice(1, 2)}}), "mean 'digits/sgd'"),
        (lambda: search({"*": {"optimizer.learning_rat": RATE}}), "mean 'learning_rate'"),
        (lambda: search({"*": {"optimiser.learning_rate": RATE}}), "mean 'optimizer'"),
        (lambda: search({"*": {"optimizer": RATE}}), "'optimizer' is no single value"),
        (lambda: search({"*": {"graduated.power": RATE}}), "None has no fields"),
        (lambda: search({"*": {"optimizer.momentum": Uniform(0, 1)}}), "SGD.momentum is 1"),
        (lambda: search({"*": {"batch_size": Uniform(1, 9.5)}}), "expected a whole number"),
        (lambda: search({"*": {"model.dtype": Choice("float32", "float8")}}), "MLP.dtype"),
        (lambda: search({"*": {"seed": Choice(1, 2)}}), "is not searched"),
        (lambda: search({"*": {"duration.steps": Choice(1, 2)}}), "is not searched"),
        (lambda: search(runs=changed(train_split="train[:50%]")), r"'train\[:50%\]'; a search"),
        (lambda: search(runs=changed(train_split="train+test")), "from a whole split"),
        (lambda: search(runs=changed(train_split="test", evaluation_split="test")), "both 'test'"),
        (
            lambda: search(rungs=2, runs=changed(schedule=LearningRateSchedule("cosine"))),
            "cannot be continued: make rungs 1",
        ),
        (
            lambda: search(
                rungs=2, runs=changed(graduated=Graduated(2), duration=Duration(epochs=1))
            ),
            "cannot be continued",
        ),
        (lambda: search(rungs=4).stages("digits/sgd", 3), "would end at"),
        (
            lambda: search(
                {"*": {"batch_size": Choice(8, 16), "accumulation": Choice(8, 16)}}, trials=8
            ).trial_runs("digits/sgd"),
            "takes .*does not split into",
        ),
    ],
)
def test_a_bad_search_is_refused_with_what_is_wrong(make, said):
    with pytest.raises(ValueError, match=said):
        make()
