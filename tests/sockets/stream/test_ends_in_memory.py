"""A transport in memory may call ``connectionLost`` from within ``loseConnection``."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.trial.unittest import SynchronousTestCase

from tests.stream.connections import FrameRecorder, Recorder
from tests.tls.peer import AUTHORITY, SERVER, ServerPeer
from twsock import ClosedError, SocketProtectionLevel, StreamSocket
from twsock.protocols import StreamServerFactory
from twsock.tls.certificates import Certificate
from twsock.wire import encode_frame

ROOT = Certificate.from_pem(AUTHORITY.cert_pem.bytes())


class Halved(StringTransportWithDisconnection):
    """A transport that can close one direction; its peer closes when this end has."""

    def loseWriteConnection(self) -> None:
        self.protocol.readConnectionLost()  # type: ignore[attr-defined]


class SocketTests(SynchronousTestCase):
    """Every wait for an end fires, and no object stays in memory."""

    transport_class: type[StringTransportWithDisconnection] = StringTransportWithDisconnection

    def setUp(self) -> None:
        self.clock = Clock()
        self.socket = StreamSocket(self.clock)
        self.transport: Any = self.transport_class()
        self.transport.protocol = protocol = self.socket.build_protocol()
        protocol.makeConnection(self.transport)
        self.addCleanup(lambda: self.assertEqual(self.clock.getDelayedCalls(), []))

    def test_a_close_fires(self) -> None:
        """After the bytes before it; so do the next close, and the wait for the end."""
        write = self.socket.output_stream.write(b"x")
        read = self.socket.input_stream.receive_some()
        self.successResultOf(self.socket.close())
        self.assertEqual(self.transport.value(), b"x")
        self.assertEqual(self.successResultOf(write), 1)
        self.failureResultOf(read, ClosedError)
        self.successResultOf(self.socket.close())
        self.successResultOf(self.socket.wait_closed())

    def test_an_abort_fires(self) -> None:
        """Queued bytes are dropped."""
        write = self.socket.output_stream.write(b"x")
        self.successResultOf(self.socket.abort())
        self.assertEqual(self.transport.value(), b"")
        self.failureResultOf(write, ClosedError)

    def test_async_with_ends(self) -> None:
        """At its end and by an error."""

        async def block(error: Exception | None) -> None:
            async with self.socket:
                await self.socket.output_stream.write(b"x")
                if error is not None:
                    raise error

        self.successResultOf(Deferred.fromCoroutine(block(None)))
        self.setUp()
        self.failureResultOf(Deferred.fromCoroutine(block(ValueError())), ValueError)

    def test_a_wait_for_the_end_may_close_again(self) -> None:
        """Its callback runs within the close."""
        closed: list[Deferred[None]] = []
        self.socket.wait_closed().addCallback(lambda _: closed.append(self.socket.close()))
        self.successResultOf(self.socket.close())
        self.successResultOf(closed[0])


class HalvedTests(SocketTests):
    """The same if the output can be closed alone."""

    transport_class = Halved

    def test_closing_the_output_fires(self) -> None:
        """Though the peer ends the connection within the call."""
        self.socket.output_stream.write(b"x")
        self.successResultOf(self.socket.output_stream.close())
        self.assertEqual(self.transport.value(), b"x")
        self.assertEqual(self.successResultOf(self.socket.input_stream.receive_some()), b"")
        self.successResultOf(self.socket.close())


class ProtocolTests(SynchronousTestCase):
    """The classes of ``twsock.protocols``."""

    def connect(self, protocol: type[Recorder] = FrameRecorder) -> Any:
        self.clock = Clock()
        factory = StreamServerFactory(self.clock, protocol, idle_timeout=None)
        built: Any = factory.buildProtocol(None)
        self.transport: Any = StringTransportWithDisconnection()
        self.transport.protocol = built
        built.makeConnection(self.transport)
        self.addCleanup(lambda: self.assertEqual(self.clock.getDelayedCalls(), []))
        return built

    def test_a_close_or_abort_fires(self) -> None:
        """From outside."""
        for end in ("close", "abort"):
            protocol = self.connect()
            self.successResultOf(getattr(protocol, end)())
            self.assertEqual(len(protocol.lost), 1, end)

    def test_a_close_in_a_handler_fires(self) -> None:
        """After the answer before it; no further message is delivered."""
        ends: list[Deferred[None]] = []

        class Ending(FrameRecorder):
            def frame_received(self, payload: bytes) -> None:
                super().frame_received(payload)
                self.send_frame(payload)
                ends.append(self.close())

        protocol = self.connect(Ending)
        protocol.dataReceived(encode_frame(b"x") * 3)
        self.successResultOf(ends[0])
        self.assertEqual((protocol.received, len(ends)), ([b"x"], 1))
        self.assertEqual(self.transport.value(), encode_frame(b"x"))
        self.assertEqual(protocol.brakes, [])


class UpgradedTests(SynchronousTestCase):
    """With a TLS engine of ours between the socket and such a transport."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.socket = StreamSocket(self.clock)
        self.socket.control.trust_roots = [ROOT]
        self.transport: Any = StringTransportWithDisconnection()
        self.transport.protocol = protocol = self.socket.build_protocol()
        protocol.makeConnection(self.transport)
        upgrading = self.socket.upgrade_to_ssl(SocketProtectionLevel.SSL, "localhost")
        self.peer = ServerPeer(SERVER)
        while not upgrading.called:
            self.transport.protocol.dataReceived(self.peer.take(self.sent()))
        self.successResultOf(upgrading)
        self.addCleanup(lambda: self.assertEqual(self.clock.getDelayedCalls(), []))

    def sent(self) -> bytes:
        self.clock.advance(0)
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def test_a_close_fires(self) -> None:
        """At the latest when the peer has answered it."""
        self.socket.output_stream.write(b"x")
        closing = self.socket.close()
        self.peer.take(self.sent())
        if self.transport.connected:
            self.transport.protocol.dataReceived(self.peer.end())
        self.assertEqual(self.peer.received, b"x")
        self.successResultOf(closing)
        if self.transport.connected:
            self.transport.loseConnection()
        self.successResultOf(self.socket.wait_closed())

    def test_an_abort_fires(self) -> None:
        """At once."""
        self.successResultOf(self.socket.abort())
        self.successResultOf(self.socket.wait_closed())
