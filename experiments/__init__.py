"""The scripts: train, evaluate, compare, report, high_probability, demo."""

import os
import signal
import sys


def _leave(*_: object) -> None:
    os.write(2, b"stopped by Ctrl-C; nothing was begun\n")
    os._exit(130)


if sys.argv[:1] == ["-m"]:
    # Python is starting one of the scripts and imports JAX next, for seconds. Ctrl-C then would
    # print a page of imports; `experiments.setup.cli.explain` takes over from here.
    signal.signal(signal.SIGINT, _leave)
