"""Objects and bytes that stay in memory after their connection, with the garbage collector off."""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

from twisted.logger import LimitedHistoryLogObserver, globalLogPublisher

__all__ = ["Lifetimes"]

#: How often a conversation is repeated that seems to leave bytes.
_ATTEMPTS: Final = 5

#: Classes whose objects are counted: those of twsock, and those that Twisted and pyOpenSSL make for
#: each connection.
_PER_CONNECTION = (
    "twsock.",
    "twisted.internet.tcp.Client",
    "twisted.internet.tcp.Connector",
    "twisted.internet.tcp.Server",
    "twisted.protocols.tls.",
    "OpenSSL.SSL.Connection",
)

#: Objects in log events that do not refer to a connection: loggers and values.
_FACTS = ("twsock.names.", "twsock.log.TextLogger")


class Lifetimes:
    """
    Compares the objects in memory with those that existed when this was made.

    The garbage collector has to be off meanwhile. Log events are kept, as Twisted keeps them before
    logging has begun: an event that refers to a connection keeps that connection alive.
    """

    def __init__(self) -> None:
        self._history = LimitedHistoryLogObserver(200)
        globalLogPublisher.addObserver(self._history)
        tracemalloc.start()
        # The objects are kept: a later object could otherwise have the identity of a freed one.
        self._before = {id(thing): thing for thing in _things()}
        self.count_bytes_from_now()

    def count_bytes_from_now(self) -> None:
        """Begin to count the bytes anew; objects are still compared with those of the beginning."""
        self._bytes_before = tracemalloc.get_traced_memory()[0]

    async def settle(self, converse: Callable[[], Awaitable[None]], limit: int) -> int:
        """
        Run a conversation until it leaves fewer bytes than a limit, at most five times.

        The interpreter's table of strings grows by 2 or 4 MB now and then, also twice in a row. A
        connection that leaves bytes does so each time.

        :returns: the bytes that the last conversation has left.
        """
        for _ in range(_ATTEMPTS):
            self.count_bytes_from_now()
            await converse()
            if self.retained_bytes < limit:
                break
        return self.retained_bytes

    @property
    def retained_bytes(self) -> int:
        """Return how much more memory is in use than before, in bytes."""
        return tracemalloc.get_traced_memory()[0] - self._bytes_before

    def retained_objects(self) -> dict[str, int]:
        """Count the new objects, by class."""
        return dict(
            Counter(_name(type(each)) for each in _things() if id(each) not in self._before)
        )

    def stop(self) -> None:
        """Stop measuring."""
        tracemalloc.stop()
        globalLogPublisher.removeObserver(self._history)


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _is_of_a_connection(kind: type) -> bool:
    name = _name(kind)
    return name.startswith(_PER_CONNECTION) and not name.startswith(_FACTS)


def _things() -> list[object]:
    # All objects of the process are looked at, which have few classes.
    found = gc.get_objects()
    kinds = {kind for kind in set(map(type, found)) if _is_of_a_connection(kind)}
    return [each for each in found if type(each) in kinds]
