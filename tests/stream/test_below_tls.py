"""What is written below a TLS engine goes to the kernel at once, and in order."""

from __future__ import annotations

import errno
from typing import Any

from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.tcp import Connection
from twisted.internet.testing import StringTransport
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.trial.unittest import SynchronousTestCase

from tests.stream.test_transport import CountingSocket, FakeProtocol, IdleReactor, tcp_pair
from twsock.stream.below_tls import TlsLowerTransport
from twsock.stream.descriptor import find_descriptor


class OutletTests(SynchronousTestCase):
    """Over a plain socket."""

    def setUp(self) -> None:
        here, self.peer = tcp_pair()
        self.socket = CountingSocket(fileno=here.detach())
        self.socket.sends = 0
        self.socket.error = None
        self.reactor = IdleReactor()
        self.descriptor: Any = Connection(self.socket, FakeProtocol(), self.reactor)  # type: ignore[arg-type]
        self.descriptor.connected = 1
        self.failures: list[OSError] = []
        self.taken: list[bytes] = []
        self.aborts = 0
        self.lower = TlsLowerTransport(self.descriptor, self.socket, self.descriptor, self)
        self.peer.setblocking(False)
        self.addCleanup(self.peer.close)
        self.addCleanup(self.socket.close)

    def take(self, data: bytes) -> None:
        self.taken.append(data)

    def output_broke(self, error: OSError) -> None:
        self.failures.append(error)

    def abort(self) -> None:
        self.aborts += 1

    def receive(self, size: int) -> bytes:
        """Take what has come, and let the transport send what waits, until there is so much."""
        received = b""
        while len(received) < size:
            if self.reactor.writers:
                self.descriptor.doWrite()
            try:
                received += self.peer.recv(size)
            except BlockingIOError:
                continue
        return received

    def test_nothing_leaves_in_plaintext_when_the_connection_is_gone(self) -> None:
        """Whoever kept the transport: it is not Twisted's write again."""
        self.lower.release()
        self.descriptor.write(b"secret")
        self.descriptor.writeSequence([b"secret"])
        self.assertEqual(self.taken, [])
        self.assertFalse(self.reactor.writers)
        self.assertRaises(BlockingIOError, self.peer.recv, 10)

    def test_the_ends_are_the_transports_again_when_the_connection_is_gone(self) -> None:
        """Its methods do not lead to the connection any more."""
        self.lower.release()
        for name in ("loseConnection", "abortConnection", "registerProducer"):
            self.assertNotIn(name, vars(self.descriptor), f"{name=}")

    def test_it_is_sent_at_once(self) -> None:
        """In one call, with nothing left for the reactor."""
        self.lower.write(b"answer")
        self.assertEqual(self.peer.recv(100), b"answer")
        self.assertEqual((self.socket.sends, self.reactor.writers), (1, set()))

    def test_an_abort_of_the_transport_aborts_the_connection(self) -> None:
        """The connection sends past the transport, and would go on."""
        self.descriptor.abortConnection()
        self.assertEqual(self.aborts, 1)
        self.assertTrue(self.descriptor._aborting)

    def test_an_abort_of_the_engine_is_not_one_of_the_connection(self) -> None:
        """The engine knows the reason, and gives it."""
        self.lower.abortConnection()
        self.assertEqual(self.aborts, 0)
        self.assertTrue(self.descriptor._aborting)

    def test_pieces_leave_together(self) -> None:
        """As one."""
        self.lower.writeSequence([b"one", b"two"])
        self.assertEqual(self.peer.recv(100), b"onetwo")
        self.assertEqual(self.socket.sends, 1)

    def test_what_the_kernel_has_no_room_for_waits(self) -> None:
        """What is written behind it does, too."""
        large = bytes(range(256)) * (1 << 15)
        self.lower.write(large)
        self.lower.write(b"behind it")
        self.assertEqual(self.socket.sends, 1)
        self.assertIn(self.descriptor, self.reactor.writers)
        self.assertTrue(self.receive(len(large) + 9) == large + b"behind it")

    def test_small_records_that_wait_are_joined(self) -> None:
        """Each would otherwise be an object of its own, larger than a small record."""
        large = bytes(range(256)) * (1 << 15)
        self.lower.write(large)
        waiting = self.descriptor._tempDataBuffer[0]
        for _ in range(1000):
            self.lower.write(b"small")
        # The large piece would be copied for each of them.
        self.assertIs(self.descriptor._tempDataBuffer[0], waiting)
        self.assertLess(len(self.descriptor._tempDataBuffer), 10)
        self.assertTrue(self.receive(len(large) + 5000) == large + b"small" * 1000)

    def test_a_queue_goes_first(self) -> None:
        """Whoever wrote to the transport itself."""
        Connection.write(self.descriptor, b"first ")
        self.lower.write(b"second")
        self.assertEqual(self.socket.sends, 0)
        self.assertEqual(self.receive(12), b"first second")

    def test_a_failure_is_reported_once_and_leaves_the_input_alone(self) -> None:
        """The transport would end the connection in front of what can still be read."""
        self.socket.error = OSError(errno.ECONNRESET, "Connection reset by peer")
        self.lower.write(b"answer")
        self.lower.write(b"another")
        (failure,) = self.failures
        self.assertEqual(failure.errno, errno.ECONNRESET)
        self.assertEqual(self.reactor.writers, set())

    def test_nothing_is_sent_behind_the_end(self) -> None:
        """FIN was the last."""
        self.lower.write(b"last")
        self.lower.loseWriteConnection()
        self.lower.write(b"too late")
        self.descriptor.doWrite()
        self.assertEqual((self.peer.recv(100), self.peer.recv(100)), (b"last", b""))
        self.assertEqual(self.failures, [])

    def test_a_lost_connection_is_no_failure(self) -> None:
        """Its socket is closed, and nobody waits for what is written."""
        self.descriptor.connected = 0
        self.socket.close()
        self.lower.write(b"too late")
        self.assertEqual(self.failures, [])

    def test_all_else_is_the_transports(self) -> None:
        """Its interfaces, its methods, and who is given what arrives."""
        self.assertTrue(ITCPTransport.providedBy(self.lower))
        self.assertEqual(self.lower.fileno(), self.socket.fileno())
        lower: Any = self.lower
        self.assertIs(find_descriptor(lower), self.descriptor)
        engine = FakeProtocol()
        self.lower.protocol = engine
        self.assertIs(self.descriptor.protocol, engine)
        self.assertIs(self.lower.protocol, engine)

    def test_what_others_write_is_kept(self) -> None:
        """Until there is an engine to write it."""
        self.descriptor.write(b"kept")
        self.descriptor.writeSequence([b"kept", b" too"])
        self.assertEqual(self.taken, [b"kept", b"kept too"])
        engine = StringTransport()
        self.lower.lead_to(engine, self)
        self.descriptor.write(b"through ")
        self.descriptor.writeSequence([b"the ", b"engine"])
        self.assertEqual(engine.value(), b"through the engine")
        self.lower.write(b"encrypted")
        self.assertEqual(self.peer.recv(100), b"encrypted")

    def test_who_kept_the_transport_ends_it_in_order(self) -> None:
        """Through the engine, which says so inside TLS."""
        engine = StringTransport()
        self.lower.lead_to(engine, self)
        self.descriptor.loseConnection()
        self.assertTrue(engine.disconnecting)
        self.assertFalse(self.descriptor.disconnecting)
        self.lower.loseConnection()
        self.assertTrue(self.descriptor.disconnecting)

    def test_no_room_in_the_system_is_no_failure(self) -> None:
        """It waits for some, as where there is none in the socket."""
        self.socket.error = OSError(errno.ENOBUFS, "No buffer space available")
        self.lower.write(b"answer")
        self.assertEqual(self.failures, [])
        self.assertFalse(self.lower.is_flushed)

    def test_what_is_no_plain_socket_writes_in_its_own_way(self) -> None:
        """A wrapper, or a transport in memory."""
        transport = StringTransport()
        lower = TlsLowerTransport(transport, None, None, self)
        transport.write(b"kept")
        lower.write(b"sent")
        self.assertEqual((transport.value(), self.taken), (b"sent", [b"kept"]))

    def test_the_end_of_the_output_is_the_descriptors(self) -> None:
        """A wrapper need not know it."""

        class Narrow:
            write = loseConnection = staticmethod(lambda *_: None)

        lower = TlsLowerTransport(Narrow(), None, self.descriptor, self)
        lower.loseWriteConnection()
        self.descriptor.doWrite()
        self.peer.settimeout(10)
        self.assertEqual(self.peer.recv(1), b"")

    def test_a_wrapper_has_another_name_for_the_receiver(self) -> None:
        """It is given what comes all the same."""
        wrapper: Any = ProtocolWrapper(WrappingFactory(Factory()), Protocol())
        wrapper.transport = StringTransport()
        lower = TlsLowerTransport(wrapper, None, None, self)
        engine = Protocol()
        lower.protocol = engine
        self.assertIs(wrapper.wrappedProtocol, engine)
        self.assertIs(lower.protocol, engine)


class Nobody:
    """A connection that is told nothing."""

    def take(self, data: bytes) -> None:
        raise NotImplementedError

    def output_broke(self, error: OSError) -> None:
        raise NotImplementedError

    def abort(self) -> None:
        raise NotImplementedError


class Producer:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")


class ProducerTests(SynchronousTestCase):
    """One that the application registered before."""

    def setUp(self) -> None:
        here, peer = tcp_pair()
        self.addCleanup(here.close)
        self.addCleanup(peer.close)
        self.descriptor: Any = Connection(here, FakeProtocol(), IdleReactor())  # type: ignore[arg-type]
        self.descriptor.connected = 1
        self.producer = Producer()
        self.engine: Any = StringTransport()

    def hold(self, is_streaming: bool) -> TlsLowerTransport:
        """Begin an upgrade."""
        self.descriptor.registerProducer(self.producer, is_streaming)
        self.producer.told.clear()
        lower = TlsLowerTransport(self.descriptor, None, self.descriptor, Nobody())
        lower.take_producer()
        return lower

    def test_one_that_pushes_rests(self) -> None:
        """Until it produces for the engine."""
        lower = self.hold(True)
        self.assertEqual(self.producer.told, ["pause"])
        lower.lead_to(self.engine, Nobody())
        self.assertEqual(self.producer.told, ["pause"])  # What was held leaves first.
        lower.resume_producer()
        self.assertEqual(self.producer.told, ["pause", "resume"])
        self.assertEqual((self.engine.producer, self.engine.streaming), (self.producer, True))

    def test_one_that_is_asked_is_asked_by_the_engine(self) -> None:
        """And by nobody before."""
        lower = self.hold(False)
        self.assertIsNone(self.descriptor.producer)
        lower.lead_to(self.engine, Nobody())
        self.assertEqual((self.engine.producer, self.engine.streaming), (self.producer, False))
        self.assertEqual(self.producer.told, [])
        self.descriptor.unregisterProducer()
        self.assertIsNone(self.engine.producer)

    def test_one_that_is_done_before_is_gone(self) -> None:
        """The engine never hears of it."""
        lower = self.hold(True)
        self.descriptor.unregisterProducer()
        lower.lead_to(self.engine, Nobody())
        self.assertIsNone(self.engine.producer)

    def test_without_a_connection_it_stops(self) -> None:
        """Nobody else would tell it."""
        for end in ("lost", "release"):
            self.setUp()
            lower = self.hold(True)
            getattr(lower, end)()
            lower.lost()
            self.assertEqual(self.producer.told, ["pause", "stop"])

    def test_one_that_comes_later_rests_too(self) -> None:
        """Registered on the transport in the handshake, it is moved when that is done."""
        lower = TlsLowerTransport(self.descriptor, None, self.descriptor, Nobody())
        self.descriptor.registerProducer(self.producer, True)
        self.assertIsNone(self.descriptor.producer)
        self.assertEqual(self.producer.told, ["pause"])
        lower.lead_to(self.engine, Nobody())
        self.assertIs(self.engine.producer, self.producer)

    def test_one_that_comes_afterwards_is_the_engines(self) -> None:
        """Also on a transport that was kept."""
        lower = TlsLowerTransport(self.descriptor, None, self.descriptor, Nobody())
        lower.lead_to(self.engine, Nobody())
        self.descriptor.registerProducer(self.producer, False)
        self.assertIs(self.engine.producer, self.producer)
        self.assertIsNone(self.descriptor.producer)

    def test_the_engine_has_its_own(self) -> None:
        """On the transport itself, and without asking the engine for the way."""
        lower = self.hold(False)
        lower.lead_to(self.engine, Nobody())
        membrane = Producer()
        lower.registerProducer(membrane, True)
        self.assertIs(self.descriptor.producer, membrane)
        lower.unregisterProducer()
        self.assertIsNone(self.descriptor.producer)
        self.assertIs(self.engine.producer, self.producer)
