"""
Callbacks that do not keep their object alive: part → **weak call** → socket, or a fixed result.

Used by the parts of a socket that call it, such as its options and events. A plain reference back
to the socket would be a cycle, which stays in memory until the garbage collector runs.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import ParamSpec, TypeVar

__all__ = ["weak_callback", "weak_factory", "weak_getter"]

T = TypeVar("T")
P = ParamSpec("P")


def weak_callback(method: Callable[P, None]) -> Callable[P, None]:
    """Return a function that calls a bound method, and does nothing once its object is freed."""
    reference = weakref.WeakMethod(method)

    def callback(*arguments: P.args, **named: P.kwargs) -> None:
        found = reference()
        if found is not None:
            found(*arguments, **named)

    return callback


def weak_factory(method: Callable[[], T], otherwise: Callable[[], T]) -> Callable[[], T]:
    """
    Return a function that calls a bound method without keeping its object alive.

    :param otherwise: called instead once the object is freed.
    """
    reference = weakref.WeakMethod(method)
    return lambda: (reference() or otherwise)()


def weak_getter(method: Callable[[], T], otherwise: T) -> Callable[[], T]:
    """
    Return a function that calls a bound method without keeping its object alive.

    :param otherwise: returned instead once the object is freed.
    """
    reference = weakref.WeakMethod(method)

    def get() -> T:
        found = reference()
        return otherwise if found is None else found()

    return get
