"""
Pairs of transports in memory: each call to one end causes an event at the other end.

With `memory_pair` the event comes in a later turn of the reactor, as with a socket; with
`synchronous_pair` within the call.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConsumer, IPushProducer, ITransport
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

__all__ = ["MemoryTransport", "SynchronousTransport", "memory_pair", "synchronous_pair"]

#: The number of bytes under way at which a producer is paused.
_HIGH_WATER = 64 * 1024
#: The number of bytes of one delivery.
_RECEIVE = 64 * 1024


@implementer(ITransport, IConsumer, IPushProducer)
class MemoryTransport:
    """One end of the connection."""

    def __init__(self, reactor: Any) -> None:
        self.protocol: Any = None
        self.peer: MemoryTransport
        self.disconnecting = False
        self._reactor = reactor
        self._producer: Any = None
        self._is_producer_paused = False
        self._outgoing = bytearray()
        self._is_paused = False
        self._has_ended = False
        self._has_told_end = False
        self._is_lost = False
        self._turn: Any = None

    # Called by protocols.

    def write(self, data: bytes) -> None:
        if not self._is_lost and not self._has_ended:
            self._outgoing += data
            if (
                len(self._outgoing) >= _HIGH_WATER
                and self._producer
                and not self._is_producer_paused
            ):
                self._is_producer_paused = True
                self._producer.pauseProducing()
            self._wake()

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def loseWriteConnection(self) -> None:
        self._has_ended = True
        self._wake()

    def loseConnection(self) -> None:
        self.disconnecting = True
        self._has_ended = True
        self._wake()

    def abortConnection(self) -> None:
        self._outgoing.clear()
        self._lose_later(ConnectionAborted())
        self.peer._lose_later(ConnectionLost())

    def getPeer(self) -> Any:
        return None

    def getHost(self) -> Any:
        return None

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._producer = producer

    def unregisterProducer(self) -> None:
        self._producer = None
        self._is_producer_paused = False

    def pauseProducing(self) -> None:
        self._is_paused = True

    def resumeProducing(self) -> None:
        self._is_paused = False
        self.peer._wake()

    def stopProducing(self) -> None:
        self.loseConnection()

    # The delivery of bytes.

    def _wake(self) -> None:
        if self._turn is None and not self._is_lost:
            self._turn = self._reactor.callLater(0, self._deliver)

    def _deliver(self) -> None:
        self._turn = None
        peer = self.peer
        if self._outgoing and not peer._is_paused and not peer._is_lost:
            chunk = bytes(self._outgoing[:_RECEIVE])
            del self._outgoing[:_RECEIVE]
            peer.protocol.dataReceived(chunk)
            if self._outgoing:
                self._wake()
        if not self._outgoing:
            self._note_drained()

    def _note_drained(self) -> None:
        if self._is_producer_paused:
            self._is_producer_paused = False
            self._producer.resumeProducing()
        if self._has_ended and not self._outgoing:
            self._end()

    def _end(self) -> None:
        peer = self.peer
        if not self._has_told_end:
            self._has_told_end = True
            if not peer._is_lost:
                peer.protocol.readConnectionLost()
        if self.disconnecting:
            self._lose_later(ConnectionDone())

    def _lose_later(self, reason: Exception) -> None:
        self._reactor.callLater(0, self._lose, reason)

    def _lose(self, reason: Exception) -> None:
        if not self._is_lost:
            self._is_lost = True
            if self._turn is not None:
                self._turn.cancel()
                self._turn = None
            self.protocol.connectionLost(Failure(reason))


class SynchronousTransport(MemoryTransport):
    """
    One end of a connection whose other end is called before a call to this end returns.

    ``write`` calls the other ``dataReceived``, which may write back within it; ``loseConnection``
    and ``abortConnection`` call ``connectionLost`` at both ends; ``loseWriteConnection`` calls the
    other ``readConnectionLost``. Bytes for a paused end wait until it resumes.
    """

    @override
    def _wake(self) -> None:
        if not self._is_lost:
            self._deliver()

    @override
    def _deliver(self) -> None:
        peer = self.peer
        while self._outgoing and not peer._is_paused and not peer._is_lost:
            chunk = bytes(self._outgoing[:_RECEIVE])
            del self._outgoing[:_RECEIVE]
            peer.protocol.dataReceived(chunk)
        if not self._outgoing:
            self._note_drained()

    @override
    def _end(self) -> None:
        super()._end()
        if self.disconnecting:
            self.peer._lose_later(ConnectionDone())

    @override
    def _lose_later(self, reason: Exception) -> None:
        self._lose(reason)


def memory_pair(reactor: Any) -> tuple[MemoryTransport, MemoryTransport]:
    """Make both ends; the caller connects them to protocols."""
    near, far = MemoryTransport(reactor), MemoryTransport(reactor)
    near.peer, far.peer = far, near
    return near, far


def synchronous_pair(reactor: Any) -> tuple[SynchronousTransport, SynchronousTransport]:
    """Make both ends of a connection without a turn of the reactor between them."""
    near, far = SynchronousTransport(reactor), SynchronousTransport(reactor)
    near.peer, far.peer = far, near
    return near, far
