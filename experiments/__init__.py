"""The scripts: train, evaluate, compare, report, high_probability, demo."""

import sys

if sys.argv[:1] == ["-m"]:
    # `python -m experiments.X`: Python looks for X still. What X imports takes seconds, in which
    # Ctrl-C should not print a page of frames.
    from experiments.setup import signals

    signals.end_while_importing()
