"""
Events: who wants to be told, and until when that may be said.

Held by a listener or socket, filled by its application before it is bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from twsock.errors import LocalProtocolError

__all__ = ["Event"]

H = TypeVar("H", bound=Callable[..., Any])


class Event(Generic[H]):
    """
    The handlers of one event, called in the order in which they were added.

    :param name: for messages.
    :param is_frozen: tells whether it is too late to add or remove one.
    """

    def __init__(self, name: str, is_frozen: Callable[[], bool]) -> None:
        self._name = name
        self._is_frozen = is_frozen
        self._handlers: list[H] = []

    def __len__(self) -> int:
        return len(self._handlers)

    def __iter__(self) -> Iterator[H]:
        return iter(list(self._handlers))

    def add(self, handler: H) -> H:
        """
        Have a function called, or a coroutine function. Usable as a decorator.

        :returns: the handler itself.
        :raises TypeError: when it cannot be called.
        :raises LocalProtocolError: when it is too late, since events may have been missed
            (HRESULT ``E_ILLEGAL_METHOD_CALL``).
        """
        if not callable(handler):
            raise TypeError(f"a handler is a function, not {handler!r}")
        self._check()
        self._handlers.append(handler)
        return handler

    def remove(self, handler: H) -> None:
        """
        Have a function called no more.

        :raises ValueError: when it was not added.
        :raises LocalProtocolError: when it is too late.
        """
        self._check()
        self._handlers.remove(handler)

    def clear(self) -> None:
        """Remove all handlers; called when the object of this event is closed."""
        self._handlers.clear()

    def _check(self) -> None:
        if self._is_frozen():
            raise LocalProtocolError(f"handlers of {self._name} are added before binding")
