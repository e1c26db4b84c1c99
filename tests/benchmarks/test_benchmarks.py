"""The benchmarks run, on sizes that say nothing, and count memory right."""

import re

from benchmarks import dispatch, growing_batches, optimizer_step


def test_optimizer_step_counts_the_state(capsys):
    optimizer_step.main(size=("tiny",), rounds=1, seconds=1e-3)
    printed = capsys.readouterr().out
    # Bytes of state a parameter, from the last but one column: 4 for each buffer of float32.
    state = {}
    for line in printed.splitlines():
        cells = [cell.strip() for cell in line.split("│")]
        if len(cells) > 2:
            state[cells[1]] = float(cells[-3])
    assert set(state) == {optimizer_step.COPY, *optimizer_step.optimizers()}
    for name in ("clipped_sstm", "clipped_sgd, momentum", "optax sgd momentum"):
        assert state[name] == 4, "one buffer"
    assert state["optax adam"] == 8, "two"
    assert state[optimizer_step.COPY] == 0
    assert re.search(r"optax clip, adam / clipped_sstm: \d+\.\d+", printed)


def test_dispatch_measures_every_optimizer(capsys):
    dispatch.main(scanned=10, looped=3, rounds=1)
    printed = capsys.readouterr().out
    for name in dispatch.optimizers():
        assert re.search(rf"{name} +│ +\d+ │ +[\d,]+ │ +[\d.]+ │ +[\d,]+ │", printed), name


def test_growing_batches_measures_both_forms(capsys):
    growing_batches.main(("MLP 784-128-10",), micro_batch=8, parts=(2, 4), repeats=1)
    printed = capsys.readouterr().out
    for count in (2, 4):
        assert re.search(rf"{count} x 8 +│ +[\d,]+/s +│ +[\d,]+/s +│ +\d+\.\d\d", printed)
