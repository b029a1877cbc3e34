"""
Whole numbers from a caller: parameter → **check** → whoever counts, binds or limits with it.

Used wherever a public call takes a count, a port or a limit. Python compares 1.5 and True with
bounds as it does 1, so a comparison alone lets both pass.
"""

from __future__ import annotations

import operator

__all__ = ["checked_integer"]


def checked_integer(value: int, name: str) -> int:
    """
    Return a parameter that is a whole number; its bounds are the caller's to check.

    :param name: of the parameter, for the error.
    :raises TypeError: for a float, a text or None; and for a bool, although Python counts with it.
    """
    if value is not True and value is not False:
        try:
            return operator.index(value)
        except TypeError:
            pass
    raise TypeError(f"{name} is a whole number, not {value!r}")
