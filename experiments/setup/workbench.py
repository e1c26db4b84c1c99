"""What the runs of one process share: devices, decoded data and compiled programs."""

from pathlib import Path
from typing import Any

from clipjax.train import mesh as meshes
from clipjax.train.step import Program
from experiments.setup import build
from experiments.setup import config as configs


class Workbench:
    """What runs in one process share: devices, decoded data and compiled programs."""

    def __init__(self, data_dir: Path | None = None, allow: tuple[str, ...] = ()):
        self.mesh = meshes.make_mesh()
        self.data_dir = data_dir
        self.allow = allow
        """Packages that texts may name, beside those that configs allow themselves."""
        self._sources: dict[Any, build.Sources] = {}
        self._programs: dict[Any, Program] = {}

    def sources(self, run: configs.Run) -> build.Sources:
        """Return the records of a run's splits, loaded once."""
        key = run.dataset, run.train_split, run.evaluation_dataset, run.evaluation_split
        if key not in self._sources:
            self._sources[key] = build.load_sources(run, self.data_dir)
        return self._sources[key]

    def program(self, run: configs.Run) -> Program:
        """Return a run's compiled functions, shared by runs that differ in seed and rates alone."""
        sources = self.sources(run)
        key = build.program_key(run, len(sources[0]))
        if key not in self._programs:
            self._programs[key] = build.make_program(run, sources, self.mesh, self.allow)
        return self._programs[key]
