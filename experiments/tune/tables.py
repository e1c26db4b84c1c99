"""What a search found, for the terminal."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from experiments.setup import chosen as chosen_files
from experiments.setup.chosen import ChosenFile, MethodRecord
from experiments.setup.labels import in_terminal, plain


def in_one_line(method: MethodRecord) -> str:
    """Return what was chosen, in a line."""
    count = len(method["trials"])
    if method["chosen"] is None:
        return f"all of {count} trials diverged"
    best = method["trials"][method["chosen"]]
    values = ", ".join(chosen_files.write(best["values"]))
    return f"{values}   {method['metric']} {best['score']:.4f}"


def table(found: ChosenFile) -> Table:
    """Return a terminal table: what was chosen for each run, and its neighbours.

    Neighbours are the trials with the next lower and next higher value of the first number that was
    searched, usually the learning rate; other values differ, too. Those that were stopped early
    have no score that could be compared.
    """
    shown = Table(box=None)
    for name in ("run", "chosen", "score", "next lower", "next higher"):
        shown.add_column(name, no_wrap=name in ("run", "chosen"))
    for key, method in found["methods"].items():
        lost = sum(trial["status"] == "diverged" for trial in method["trials"])
        said = [f"{lost} of {len(method['trials'])} diverged"] if lost else []
        if method["chosen"] is None:
            shown.add_row(in_terminal(key), "nothing", said[0], "–", "–")
            continue
        best = method["trials"][method["chosen"]]
        shown.add_row(
            in_terminal(key),
            _lines(chosen_files.write(best["values"])),
            _lines([f"{method['metric']} {best['score']:.4f}", *said]),
            *map(_write_neighbour, chosen_files.neighbours(method)),
        )
    return shown


def _lines(lines: Sequence[str]) -> Text:
    return Text("\n").join(map(in_terminal, lines))


def _write_neighbour(pair: chosen_files.Neighbour) -> str:
    if pair is None:
        return "–"
    value, trial = pair
    finished = trial["status"] == "finished" and trial["score"] is not None
    return f"{value:g}: {trial['score']:.4f}" if finished else f"{value:g}: {trial['status']}"


def remarks(found: ChosenFile) -> list[str]:
    """Return what a user should know of a search: nothing chosen, or values at an edge."""
    said = []
    for key, method in found["methods"].items():
        if method["chosen"] is None:
            said.append(
                f"{plain(key)}: nothing chosen, every trial that was left diverged; search it in "
                "another space, such as lower learning rates"
            )
        for path, side in chosen_files.at_the_edge(method).items():
            said.append(
                f"{plain(key)}: the chosen {path} is the {side} that was tried; a wider space may "
                "hold better values"
            )
    return said
