"""The check that the models' attributes share."""

import difflib
from collections.abc import Sequence


def check_choice(name: str, value: str | None, choices: Sequence[str | None]) -> None:
    """Raise ValueError, with the nearest choice, unless `value` is one of `choices`.

    Examples:
        >>> check_choice("stem", "smal", ("imagenet", "small"))
        Traceback (most recent call last):
        ValueError: stem must be one of ('imagenet', 'small'), got 'smal'; did you mean 'small'?
    """
    if value in choices:
        return
    near = difflib.get_close_matches(str(value), [str(choice) for choice in choices], n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{name} must be one of {tuple(choices)}, got {value!r}{hint}")
