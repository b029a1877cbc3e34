"""
The services of a process during a restart: role → **services** → pause, resume, move, drain.

Used by both roles of a restart. Holds nothing but the services.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred

from twsock.errors import SocketError
from twsock.handover.channel import give
from twsock.handover.detached import DetachedConnection
from twsock.operation import fail
from twsock.protocols import StreamServerFactory
from twsock.services.listening import ListeningService
from twsock.stream.moving import GivenConnections, give_connections

__all__ = ["Served"]


class Served:
    """
    The services of a process.

    :param reactor: runs the hand-overs.
    :param services: returns all services that listen.
    """

    def __init__(self, reactor: Any, services: Callable[[], Iterable[ListeningService]]) -> None:
        self._reactor = reactor
        self._services = services

    def pause(self) -> None:
        """Accept no connection and read no datagram; the ports stay open."""
        for service in self._services():
            service.pause_ports()

    def resume(self) -> None:
        """Accept connections and read datagrams again."""
        for service in self._services():
            service.resume_ports()

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return sum(len(factory.group) for _, factory in self._factories())

    def factory(self, key: str) -> StreamServerFactory | None:
        """Return the factory with a key; None if there is none."""
        return dict(self._factories()).get(key)

    async def give(self, offer: Callable[[str, socket.socket], None]) -> GivenConnections:
        """
        Offer each connection that can move.

        :param offer: sends the key of a factory and one end of the channel of a hand-over.
        """
        given = refused = 0
        for key, factory in list(self._factories()):
            result = await give_connections(factory, _Offering(self._reactor, key, offer))
            given += result.given
            refused += result.refused
        return GivenConnections(given, refused)

    def drain(self) -> Deferred[Any]:
        """
        End all connections, and send all datagrams, within the drain timeout of each service.

        :returns: fires when nothing is left. Cancelling ends the wait; connections that were asked
            to end still do.
        """
        return ensureDeferred(self._drain())

    async def _drain(self) -> None:
        drains = [ensureDeferred(each.drain_rest()) for each in self._services()]
        try:
            for each in drains:
                await each
        finally:
            # Nothing to do for those that have ended.
            for each in drains:
                each.addErrback(lambda _: None)
                each.cancel()

    def _factories(self) -> Iterator[tuple[str, StreamServerFactory]]:
        """
        Yield each factory with its key.

        The key is the name of the protocol, and a number if several factories have it.
        """
        seen: dict[str, int] = {}
        for service in self._services():
            factory = service.factory
            if factory is not None:
                name = factory.protocol_name
                seen[name] = seen.get(name, 0) + 1
                yield (name if seen[name] == 1 else f"{name}#{seen[name]}"), factory


class _Offering:
    """Offers connections of one factory."""

    def __init__(self, reactor: Any, key: str, offer: Callable[[str, socket.socket], None]) -> None:
        self._reactor = reactor
        self._key = key
        self._offer = offer

    def __call__(self, detached: DetachedConnection, record: bytes, /) -> Deferred[None]:
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            return fail(SocketError.from_exception(error))
        self._offer(self._key, theirs)
        return give(self._reactor, ours, detached, application=record)
