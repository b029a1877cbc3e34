"""
Parsers for command-line values: text → checked value, or an error that names the option.

Used by the ``Options`` of each service. On a ``UsageError``, twistd prints its usage text and the
line of the error, and exits with status 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from twisted.python.usage import Options, UsageError

__all__ = ["choice_option", "count_option", "mode_option", "seconds_option"]


def choice_option(options: Options, name: str, choices: Sequence[str]) -> str:
    """
    Return an option whose value is one of several words.

    :param choices: two or more.
    :raises UsageError: when the value is none of them.
    """
    text = str(_text(options, name))
    if text not in choices:
        listed = f"{', '.join(choices[:-1])} or {choices[-1]}"
        raise UsageError(f"--{name} takes {listed}, not {text!r}")
    return text


def count_option(
    options: Options, name: str, minimum: int, maximum: int | None = None
) -> int | None:
    """
    Return an option whose value is a whole number.

    :param minimum: the smallest value allowed.
    :param maximum: the largest value allowed; None for no bound.
    :returns: None when the option was not given and has no default.
    :raises UsageError: when the value is not a whole number, or out of bounds.
    """
    text = _text(options, name)
    if text is None:
        return None
    bounds = f"{minimum} or more" if maximum is None else f"{minimum} to {maximum}"
    try:
        number = int(text)
    except ValueError:
        raise UsageError(f"--{name} takes a whole number, {bounds}, not {text!r}") from None
    if number < minimum or (maximum is not None and number > maximum):
        raise UsageError(f"--{name} takes a whole number, {bounds}, not {text!r}")
    return number


def mode_option(options: Options, name: str) -> int:
    """
    Return an option whose value is permissions in octal, as for chmod(1).

    :returns: 0 to 0o777.
    :raises UsageError: when the value is anything else.
    """
    text = str(_text(options, name))
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        raise UsageError(f"--{name} takes permissions in octal, such as 660, not {text!r}")
    return mode


def seconds_option(options: Options, name: str) -> float:
    """
    Return an option whose value is a time in seconds.

    :returns: 0 or more, fractions included.
    :raises UsageError: when the value is not a number, negative or not finite.
    """
    text = str(_text(options, name))
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise UsageError(f"--{name} takes seconds, 0 or more, not {text!r}")
    return seconds


def _text(options: Options, name: str) -> Any:
    values: Any = options
    return values[name]
