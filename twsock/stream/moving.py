"""
Moves the connections of a server to another process: factory → **moving** → hand-overs.

`give_connections` offers each connection that can move, and continues here those that were not
taken. `take_connection` is the other side. `twsock.stream.resuming` decides which connections move,
and what moves with them. At most `MOST_AT_ONCE` hand-overs are under way, and no more of them begin
in one turn of the reactor. So memory is bounded, and all other connections are served meanwhile.
"""

from __future__ import annotations

import socket
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList, ensureDeferred
from twisted.internet.task import deferLater

from twsock.errors import SocketError
from twsock.handover.channel import DEFAULT_HANDOVER_TIMEOUT, HandoverError, take
from twsock.handover.detached import DetachedConnection
from twsock.log import TextLogger
from twsock.stream.counters import Counters
from twsock.stream.factory import StreamServerFactory
from twsock.stream.protocol import StreamProtocol
from twsock.stream.resuming import can_move, take_out
from twsock.waiters import Waiters

__all__ = [
    "MOST_AT_ONCE",
    "MOST_BYTES",
    "GivenConnections",
    "OfferConnection",
    "give_connections",
    "take_connection",
]

#: How many hand-overs are under way at once, and begin in one turn of the reactor: some 2 ms of
#: work. With 64 a turn takes four times as long, and no more connections move in a second.
MOST_AT_ONCE: Final = 16

#: How many bytes that are not in the kernel are under way at once; a connection that has more moves
#: alone. There are up to three copies of them in this process.
MOST_BYTES: Final = 16 * 1024 * 1024

#: How many connections that cannot move are skipped in one turn of the reactor, by each hand-over.
_MOST_SKIPPED: Final = 64

_log = TextLogger()


class OfferConnection(typing.Protocol):
    """Offers one connection to the other process."""

    def __call__(self, detached: DetachedConnection, record: bytes, /) -> Deferred[Any]:
        """
        Give a connection, as `twsock.handover.channel.give` does.

        :param record: the application's part of the hand-over.
        :returns: fires when the other process has acknowledged the connection. It fails with
            `HandoverError` when this process still has the connection, and with any other error
            when it has it and all further offers would fail as well.
        """


@dataclass(frozen=True, slots=True)
class GivenConnections:
    """
    The result of `give_connections`.

    :ivar given: connections that the other process has now.
    :ivar refused: connections that were offered, and that continue in this process.
    """

    given: int
    refused: int


def give_connections(
    factory: StreamServerFactory, offer: OfferConnection
) -> Deferred[GivenConnections]:
    """
    Give all connections of a server that can move now to another process.

    Stop the ports first: connections that are accepted later are not given. Connections that cannot
    move stay open; drain them afterwards, when this call has ended or was cancelled. After
    `MOST_AT_ONCE` refusals in a row the others are not offered any more.

    :returns: fires when each connection was given or continues here, also if the offers fail.
        Cancelling withdraws the offers under way, and begins no others.
    """
    return _Giving(factory, offer).begin()


class _Giving:
    """The hand-overs of one server."""

    def __init__(self, factory: StreamServerFactory, offer: OfferConnection) -> None:
        self._factory = factory
        self._offer = offer
        members = typing.cast("tuple[StreamProtocol, ...]", factory.group.members)
        self._waiting: Iterator[StreamProtocol] = iter(members)
        self._given = self._refused = self._in_a_row = 0
        self._reason: SocketError | None = None
        self._lanes: list[Deferred[None]] = []
        # Whether no further connection is offered.
        self._is_stopped = False
        self._bytes = 0
        # Waits for the end of a hand-over.
        self._ended = Waiters()

    def begin(self) -> Deferred[GivenConnections]:
        """Begin the first hand-overs."""
        done: Deferred[GivenConnections] = Deferred(self._cancel)
        self._lanes = [ensureDeferred(self._give_in_turn()) for _ in range(MOST_AT_ONCE)]
        DeferredList(self._lanes, consumeErrors=True).addCallback(self._end, done)
        return done

    def _cancel(self, _done: Deferred[GivenConnections]) -> None:
        self._is_stopped = True
        for lane in self._lanes:
            lane.cancel()

    def _end(self, _results: object, done: Deferred[GivenConnections]) -> None:
        self._lanes.clear()
        if self._refused:
            _log.warn(
                "{refused} connections were not handed over and continue here: {reason}",
                refused=self._refused,
                reason=self._reason,
            )
        if not done.called:
            done.callback(GivenConnections(self._given, self._refused))

    async def _give_in_turn(self) -> None:
        skipped = 0
        while (protocol := next(self._waiting, None)) is not None:
            if not await self._await_room(protocol.buffered):
                return
            offered = self._take_out(protocol)
            if offered is not None:
                await self._give_within(*offered, protocol.port_counters)
            elif (skipped := skipped + 1) % _MOST_SKIPPED == 0:
                await self._next_turn()

    async def _await_room(self, size: int) -> bool:
        """Wait until that many more bytes may be under way; return whether to go on."""
        while self._bytes and self._bytes + size > MOST_BYTES and not self._is_stopped:
            await self._ended.wait()
        return not self._is_stopped

    def _next_turn(self) -> Deferred[None]:
        return deferLater(typing.cast(Any, self._factory.group.clock), 0)

    def _take_out(self, protocol: StreamProtocol) -> tuple[DetachedConnection, bytes] | None:
        """Take a connection out of the reactor; return None if it stays."""
        if not can_move(protocol):
            return None
        peer = protocol.peer
        try:
            return take_out(protocol)
        except SocketError as error:
            _log.warn("{peer} is not handed over: {error}", peer=peer, error=error)
        except Exception:  # noqa: BLE001 - logged; the connection is served as before
            _log.failure("{peer} is not handed over: export_state failed", peer=peer)
        return None

    async def _give_within(
        self, detached: DetachedConnection, record: bytes, counters: Counters
    ) -> None:
        """Offer one connection, whose bytes count until its hand-over has ended."""
        size = len(detached.unread) + len(detached.unsent) + len(record)
        self._bytes += size
        try:
            await self._give(detached, record, counters)
        finally:
            self._bytes -= size
            # A waiter that has to wait again waits for the next end.
            ended, self._ended = self._ended, Waiters()
            ended.fire()

    async def _give(self, detached: DetachedConnection, record: bytes, counters: Counters) -> None:
        """Offer one connection; continue it here if it is not taken."""
        is_late = False
        try:
            offering = self._offer(detached, record)
            is_late = not offering.called
            await offering
        except Exception as error:  # noqa: BLE001 - logged; the connection continues
            self._refused += 1
            self._in_a_row += 1
            self._reason = self._reason or SocketError.from_exception(error)
            if not isinstance(error, HandoverError) or self._in_a_row == MOST_AT_ONCE:
                self._is_stopped = True
            self._continue(detached, record)
        else:
            self._given += 1
            self._in_a_row = 0
            counters.given += 1
        if not is_late:
            # Otherwise offers that end at once would all be made in this turn of the reactor.
            await self._next_turn()

    def _continue(self, detached: DetachedConnection, record: bytes) -> None:
        try:
            self._factory.resume(detached, record).port_counters.returned()
        except SocketError as error:
            _log.info("a connection ended while it was handed over: {error}", error=error)
            detached.close()
        except Exception:  # noqa: BLE001 - logged, and the peer sees the end of the connection
            _log.failure("a connection that was not handed over cannot continue")
            detached.close()


def take_connection(
    factory: StreamServerFactory,
    channel: socket.socket,
    *,
    timeout: float = DEFAULT_HANDOVER_TIMEOUT,
) -> Deferred[StreamProtocol]:
    """
    Take a connection of `give_connections`; it becomes one of this server.

    :param channel: see `twsock.handover.channel.take`, also for ``timeout``.
    :returns: fires with the protocol of the connection. It fails with `HandoverError` when no
        connection was taken, or its peer has ended it meanwhile. Cancelling takes none.
    """
    return ensureDeferred(_take(factory, channel, timeout))


async def _take(
    factory: StreamServerFactory, channel: socket.socket, timeout: float
) -> StreamProtocol:
    reactor = factory.group.clock
    detached, restored = await take(reactor, channel, accept=factory.restore, timeout=timeout)
    try:
        return restored.resume(detached)
    except SocketError as error:
        detached.close()
        raise HandoverError(f"the connection ended while it was taken: {error}") from error
