"""
Check of integer arguments: argument → **check** → the code that counts, binds or limits with it.

Every public call that takes a count, a port or a limit uses it. A comparison with bounds alone
accepts 1.5 and True.
"""

from __future__ import annotations

import operator

__all__ = ["checked_integer"]


def checked_integer(value: int, name: str) -> int:
    """
    Return an argument as an ``int`` if it is an integer; the caller checks its bounds.

    :param name: the name of the parameter, for the error.
    :raises TypeError: when it is a float, a text, None or a bool. Python itself accepts a bool as
        an integer.
    """
    if type(value) is int:
        return value
    if value is not True and value is not False:
        try:
            return operator.index(value)
        except TypeError:
            pass
    raise TypeError(f"{name} is a whole number, not {value!r}")
