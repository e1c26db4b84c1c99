"""Run experiments of the lecture from the command line."""

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from experiments.lecture import laboratory
from experiments.lecture.catalogue import EXPERIMENTS, find, listing
from experiments.lecture.experiment import Experiment
from experiments.report.files import publish
from experiments.setup.cli import Command, explain, parse, start_jax, working_in

USAGE = "usage: python -m experiments.lecture NAME|all --workdir DIR [--quick] [--help]"
ALL = "all"


@dataclass(frozen=True)
class LectureCommand(Command):
    """Compute the lecture's pictures and check its claims."""

    quick: bool = False
    """The sizes of the tests, which take seconds."""


def command_of(experiment: Experiment) -> Any:
    """Return the command with the flags of an experiment's config."""
    flags = Annotated[type(experiment.config), tyro.conf.arg(name="")]
    made = dataclasses.make_dataclass(
        "OneExperiment",
        [("config", flags, dataclasses.field(default=experiment.config))],
        bases=(LectureCommand,),
        frozen=True,
    )
    made.__doc__ = experiment.line
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; without a name, list what there is."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(f"{USAGE}\n\n{listing()}\n{ALL}: all of them, then a page")
        return 0
    name, *flags = given
    if name == ALL:
        chosen = list(EXPERIMENTS.values())
        command = parse(LectureCommand, flags)
    else:
        chosen = [find(name)]
        # `--quick` changes the defaults, so that flags beside it still count.
        start = chosen[0].quick if "--quick" in flags else chosen[0].config
        command = parse(command_of(chosen[0]), flags, config=start)
    start_jax(command)
    with working_in(command.workdir):
        for experiment in chosen:
            config = experiment.quick if command.quick else experiment.config
            done = laboratory.run(
                experiment, getattr(command, "config", config), command.workdir, command.data_dir
            )
            held = sum(claim.confirmed for claim in done.claims)
            print(
                f"{experiment.name}: {held} of {len(done.claims)} claims hold "
                f"({done.seconds:.1f} s)",
                file=sys.stderr,
            )
        found = laboratory.find_done(EXPERIMENTS.values(), command.workdir)
        publish(lambda: laboratory.page(found), command.workdir)
    return 0


if __name__ == "__main__":
    sys.exit(explain(main, kept="experiments that were done are kept; the same line goes on"))
