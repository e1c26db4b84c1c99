"""The main job on embedded real data: `make demo`.

Four methods x three tasks x three seeds, and the heavy-tail picture, then one page that shows them:
runs/demo/report.html. Called again, it does what is missing.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from clipjax.train import mesh as meshes
from experiments import config as configs
from experiments import high_probability, report
from experiments.compare import run_grid
from experiments.train import (
    EXIT_STOPPED,
    Workbench,
    common_arguments,
    enable_compilation_cache,
    explain,
    stop_on_sigterm,
)

CONFIG = Path(__file__).parent.parent / "configs" / "demo.py"


def main(arguments: Sequence[str] | None = None) -> int:
    """Do the whole demo."""
    parser = common_arguments(__doc__ or "")
    parser.add_argument("--config", type=Path, default=CONFIG, help="the grid to run")
    known = parser.parse_args(arguments)
    began = time.monotonic()
    meshes.initialize(known.distributed)
    enable_compilation_cache()
    grid = configs.load(known.config)
    if not isinstance(grid, configs.Grid):
        raise ValueError(f"{known.config} is one run; the demo needs a grid")
    bench = Workbench(known.data_dir)
    print("1/3  three vision tasks, four methods, three seeds", flush=True)
    if run_grid(grid, known.workdir, bench, should_stop=stop_on_sigterm()) is None:
        print("stopped and saved; the same line goes on", file=sys.stderr)
        return EXIT_STOPPED
    print("2/3  heavy-tailed noise, 2,000 replicas at once", flush=True)
    high_probability.run(high_probability.Config(), known.workdir / "high_probability")
    print("3/3  the report", flush=True)
    page = report.write_report(known.workdir)
    print(f"\nThe demo took {time.monotonic() - began:.0f} s. Open {page}")
    return 0


if __name__ == "__main__":
    sys.exit(explain(main))
