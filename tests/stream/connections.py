"""Protocols on a transport in memory, for the tests of this folder."""

from __future__ import annotations

from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from twsock.errors import SocketError
from twsock.protocols import FrameProtocol, LineProtocol, StreamProtocol, StreamServerFactory
from twsock.stream.protocol import Handled

P = TypeVar("P", bound=StreamProtocol)


class Recorder(StreamProtocol):
    """Records what the protocol is called with."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.lost: list[SocketError | None] = []
        self.brakes: list[str] = []

    def connection_lost(self, error: SocketError | None) -> None:
        self.lost.append(error)

    def writing_paused(self) -> None:
        self.brakes.append("paused")

    def writing_resumed(self) -> None:
        self.brakes.append("resumed")


class FrameRecorder(Recorder, FrameProtocol):
    """Records each frame; answers nothing."""

    def frame_received(self, payload: bytes) -> Handled:
        self.received.append(payload)
        return None


class LineRecorder(Recorder, LineProtocol):
    """Records each line; answers nothing."""

    def line_received(self, line: bytes) -> Handled:
        self.received.append(line)
        return None


class Waiting(Recorder, FrameProtocol):
    """Answers a frame when the test calls `go_on`."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[Deferred[None]] = []
        self.ended: list[str] = []

    async def frame_received(self, payload: bytes) -> None:
        self.received.append(payload)
        wait: Deferred[None] = Deferred()
        self.waits.append(wait)
        try:
            await wait
        except Exception as error:
            self.ended.append(type(error).__name__)
            raise
        self.send_frame(payload)

    def go_on(self) -> None:
        """Let the handler that waits answer its frame."""
        self.waits.pop(0).callback(None)


class Connected(Generic[P]):
    """One server connection on a transport in memory."""

    def __init__(
        self,
        protocol: type[P],
        clock: Clock | None = None,
        factory: StreamServerFactory | None = None,
        **limits: object,
    ) -> None:
        self.clock = clock or Clock()
        self.factory = factory or StreamServerFactory(self.clock, protocol, **limits)  # type: ignore[arg-type]
        self.transport = StringTransport()
        built = self.factory.buildProtocol(None)
        assert isinstance(built, protocol)
        self.protocol: P = built
        self.protocol.makeConnection(self.transport)

    def receive(self, data: bytes, step: int = 0) -> None:
        """Deliver bytes to the connection, in pieces of ``step`` bytes unless that is 0."""
        for start in range(0, len(data), step or len(data) or 1):
            self.protocol.dataReceived(data[start : start + (step or len(data))])

    def sent(self) -> bytes:
        """Return the bytes that were sent since the last call."""
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def end(self) -> None:
        """Deliver the peer's FIN."""
        self.protocol.readConnectionLost()

    def lose(self, error: Exception | None = None) -> None:
        """Report a lost connection."""
        self.protocol.connectionLost(Failure(error or ConnectionDone()))

    def reset(self) -> None:
        """Report a reset by the peer."""
        self.lose(ConnectionLost())
