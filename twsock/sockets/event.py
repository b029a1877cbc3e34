"""
Events of sockets and listeners: the handlers of one event, and when they can be added.

Held by a listener or socket. The application adds handlers before it binds the socket.
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

    :param name: name of the event in error messages.
    :param is_frozen: returns whether handlers can no longer be added or removed; None if they
        always can.
    :ivar handlers: the handlers, in order; a new tuple after each change.
    """

    __slots__ = ("_is_frozen", "_name", "handlers")

    def __init__(self, name: str, is_frozen: Callable[[], bool] | None = None) -> None:
        self._name = name
        self._is_frozen = is_frozen
        self.handlers: tuple[H, ...] = ()

    def __len__(self) -> int:
        return len(self.handlers)

    def __iter__(self) -> Iterator[H]:
        return iter(self.handlers)

    def add(self, handler: H) -> H:
        """
        Add a handler: a function or coroutine function. Usable as a decorator.

        :returns: the handler itself.
        :raises TypeError: when the handler is not callable.
        :raises LocalProtocolError: when the socket is in use, since the handler may have missed
            events (HRESULT ``E_ILLEGAL_METHOD_CALL``).
        """
        if not callable(handler):
            raise TypeError(f"a handler is a function, not {handler!r}")
        self._check()
        self.handlers = (*self.handlers, handler)
        return handler

    def remove(self, handler: H) -> None:
        """
        Remove a handler.

        :raises ValueError: when it was not added.
        :raises LocalProtocolError: when the socket is in use.
        """
        self._check()
        left = list(self.handlers)
        left.remove(handler)
        self.handlers = tuple(left)

    def clear(self) -> None:
        """Remove all handlers; called when the object of this event is closed."""
        self.handlers = ()

    def _check(self) -> None:
        if self._is_frozen is not None and self._is_frozen():
            raise LocalProtocolError(f"handlers of {self._name} are added before binding")
