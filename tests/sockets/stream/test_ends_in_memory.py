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
    """One whose output ends by itself; its peer ends when this end has."""

    def loseWriteConnection(self) -> None:
        self.protocol.readConnectionLost()  # type: ignore[attr-defined]


class SocketTests(SynchronousTestCase):
    """Every wait for an end fires, and nothing is left."""

    transport_class: type[StringTransportWithDisconnection] = StringTransportWithDisconnection

    def setUp(self) -> None:
        self.clock = Clock()
        self.socket = StreamSocket(self.clock)
        self.transport: Any = self.transport_class()
        self.transport.protocol = protocol = self.socket.build_protocol()
        protocol.makeConnection(self.transport)
        self.addCleanup(lambda: self.assertEqual(self.clock.getDelayedCalls(), []))

    def test_a_close_is_done(self) -> None:
        """With what was written before it; so is the next, and the wait for the end."""
        write = self.socket.output_stream.write(b"x")
        read = self.socket.input_stream.receive_some()
        self.successResultOf(self.socket.close())
        self.assertEqual(self.transport.value(), b"x")
        self.assertEqual(self.successResultOf(write), 1)
        self.failureResultOf(read, ClosedError)
        self.successResultOf(self.socket.close())
        self.successResultOf(self.socket.wait_closed())

    def test_an_abort_is_done(self) -> None:
        """What was written is dropped."""
        write = self.socket.output_stream.write(b"x")
        self.successResultOf(self.socket.abort())
        self.assertEqual(self.transport.value(), b"")
        self.failureResultOf(write, ClosedError)

    def test_a_block_ends(self) -> None:
        """In order, and by an error."""

        async def block(error: Exception | None) -> None:
            async with self.socket:
                await self.socket.output_stream.write(b"x")
                if error is not None:
                    raise error

        self.successResultOf(Deferred.fromCoroutine(block(None)))
        self.setUp()
        self.failureResultOf(Deferred.fromCoroutine(block(ValueError())), ValueError)

    def test_a_wait_for_the_end_may_close_again(self) -> None:
        """It is called back from within the close."""
        closed: list[Deferred[None]] = []
        self.socket.wait_closed().addCallback(lambda _: closed.append(self.socket.close()))
        self.successResultOf(self.socket.close())
        self.successResultOf(closed[0])


class HalvedTests(SocketTests):
    """The same where the output can be closed by itself."""

    transport_class = Halved

    def test_a_closed_output_is_done(self) -> None:
        """Though the peer ends from within the call, and with it the connection."""
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

    def test_an_end_is_done(self) -> None:
        """Closed or aborted."""
        for end in ("close", "abort"):
            protocol = self.connect()
            self.successResultOf(getattr(protocol, end)())
            self.assertEqual(len(protocol.lost), 1, end)

    def test_an_end_in_a_handler_is_done(self) -> None:
        """With the answer before it; no message comes after."""
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
    """A TLS engine of ours between the socket and such a transport."""

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

    def test_a_close_is_done(self) -> None:
        """Once the peer has answered it at the latest."""
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

    def test_an_abort_is_done(self) -> None:
        """At once."""
        self.successResultOf(self.socket.abort())
        self.successResultOf(self.socket.wait_closed())
