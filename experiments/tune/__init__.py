"""Search for good values of every method, with one budget for all.

    python -m experiments.tune --config configs/demo_tuning.py --workdir runs/demo_tuning

The config file yields a Search (`experiments.setup.search`, which also says what is fair). Trials
are scored on a part of the training split; the test split is never read. Written are

    WORKDIR/trials/TASK/METHOD.007/seed100/   a trial, a run like any other
    WORKDIR/chosen.json                       every trial's values and score, and which were chosen
    WORKDIR/chosen.py                         a config for experiments.compare: other seeds, test

All trials of a method are one after another in one process, so that those which differ in learning
rate, clip level, smoothness and seed alone share a compilation. Killed at any moment, the same line
goes on. More --trials later keep those that are done.
"""
