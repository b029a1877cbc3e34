"""
Questions to an owner that may be gone: part → **weak question** → socket, or a fixed answer.

Used for what belongs to a socket and asks it something: its options, its events. A plain reference
back would be a cycle, and the socket would stay in memory until the garbage collector finds it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TypeVar

__all__ = ["ask_weakly"]

T = TypeVar("T")


def ask_weakly(method: Callable[[], T], otherwise: T) -> Callable[[], T]:
    """
    Make a function that calls a bound method without keeping its object alive.

    :param otherwise: what the function returns once the object is gone.
    """
    reference = weakref.WeakMethod(method)

    def ask() -> T:
        found = reference()
        return otherwise if found is None else found()

    return ask
