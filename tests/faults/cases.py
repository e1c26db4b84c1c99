"""What a case is."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Damage:
    """What is done to a file of the case's folder.

    Args:
        file: a pattern; of the files that fit, sorted, `pick` chooses one.
        how: write, cut, empty, flip, folder, missing, loop, drop or retype (a value of JSON).
        content: what "write" writes.
        value: what "retype" puts in the place of a value.
        pick, at: shares in [0, 1): which file, and where in it.
    """

    file: str
    how: str
    content: bytes = b""
    value: Any = None
    pick: float = 0.0
    at: float = 0.5


@dataclass(frozen=True)
class Case:
    """A command and what it meets; it runs in a folder of its own.

    Args:
        kind: what is wrong with the input, in a word or two.
        command: a name of `drive.COMMANDS`.
        arguments: as on the command line; paths are relative to the case's folder.
        needs: what of `material` is copied into the folder first.
        damages: what is done to the folder then.
        must_refuse: whether the exit code must be another than 0 (True), must be 0 (False), or may
            be either (None).
        names: what the message must hold, such as the flag or the file.
    """

    kind: str
    command: str
    arguments: tuple[str, ...]
    needs: tuple[str, ...] = ()
    damages: tuple[Damage, ...] = ()
    must_refuse: bool | None = None
    names: str = ""
