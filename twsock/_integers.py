"""
Whole numbers from a caller: parameter → **check** → the code that counts, binds or limits with it.

Used wherever a public call takes a count, a port or a limit. Python compares 1.5 and True with
bounds as it does 1, so a comparison alone lets both pass.
"""

from __future__ import annotations

import operator

__all__ = ["checked_integer"]


def checked_integer(value: int, name: str) -> int:
    """
    Return a parameter that is a whole number, as an ``int``; the caller checks its bounds.

    :param name: the name of the parameter, for the error.
    :raises TypeError: when it is a float, a text, None, or a bool, which Python takes for a number.
    """
    if value is not True and value is not False:
        try:
            return operator.index(value)
        except TypeError:
            pass
    raise TypeError(f"{name} is a whole number, not {value!r}")
