"""The transport below a TLS engine: records go to the kernel at once, and in order."""

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


class TlsLowerTransportTests(SynchronousTestCase):
    """A `TlsLowerTransport` over a plain socket."""

    def setUp(self) -> None:
        here, self.peer = tcp_pair()
        self.socket = CountingSocket(fileno=here.detach())
        self.socket.sends = 0
        self.socket.error = None
        self.reactor = IdleReactor()
        self.protocol = FakeProtocol()
        self.descriptor: Any = Connection(self.socket, self.protocol, self.reactor)  # type: ignore[arg-type]
        self.descriptor.connected = 1
        self.failures: list[OSError] = []
        self.taken: list[bytes] = []
        self.aborts = self.waits = 0
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

    def close_waits(self) -> None:
        self.waits += 1

    def receive(self, size: int) -> bytes:
        """Read at the peer, and let the transport send its queue, until ``count`` bytes arrived."""
        received = b""
        while len(received) < size:
            if self.reactor.writers:
                self.descriptor.doWrite()
            try:
                received += self.peer.recv(size)
            except BlockingIOError:
                continue
        return received

    def test_a_write_after_the_loss_sends_no_plaintext(self) -> None:
        """A kept transport of a lost connection does not get Twisted's ``write`` back."""
        self.lower.release()
        self.descriptor.write(b"secret")
        self.descriptor.writeSequence([b"secret"])
        self.assertEqual(self.taken, [])
        self.assertFalse(self.reactor.writers)
        self.assertRaises(BlockingIOError, self.peer.recv, 10)

    def test_after_the_loss_the_transport_has_its_own_end_methods_again(self) -> None:
        """
        `loseConnection` and `abortConnection` of the transport do not reach the connection any
        more.
        """
        self.lower.release()
        for name in ("loseConnection", "abortConnection", "registerProducer"):
            self.assertNotIn(name, vars(self.descriptor), f"{name=}")

    def test_a_record_is_sent_in_one_call_at_once(self) -> None:
        """A record leaves in one system call, and nothing is left for the reactor."""
        self.lower.write(b"answer")
        self.assertEqual(self.peer.recv(100), b"answer")
        self.assertEqual((self.socket.sends, self.reactor.writers), (1, set()))

    def test_an_answered_connection_is_closed_at_once(self) -> None:
        """No turn of the reactor is needed if the kernel has all bytes."""
        self.lower.write(b"answer")
        self.lower.close_answered()
        self.assertEqual((self.socket.fileno(), self.waits), (-1, 0))
        self.assertEqual((len(self.protocol.reasons), self.reactor.writers), (1, set()))
        self.assertEqual((self.peer.recv(100), self.peer.recv(100)), (b"answer", b""))

    def test_an_answered_connection_sends_its_queue_before_it_is_closed(self) -> None:
        """The queue is sent as by `loseConnection`; the connection gets a deadline."""
        large = bytes(1 << 23)
        self.lower.write(large)
        self.lower.close_answered()
        self.assertEqual((self.protocol.reasons, self.waits), ([], 1))
        self.assertTrue(self.descriptor.disconnecting)
        self.assertEqual(self.receive(len(large)), large)

    def test_an_answered_connection_waits_for_the_producer_of_an_application(self) -> None:
        """The producer may still write."""
        producer = FakeProtocol()
        self.descriptor.producer = producer
        self.lower.close_answered()
        self.assertEqual((self.protocol.reasons, self.waits), ([], 1))
        self.assertTrue(self.descriptor.disconnecting)

    def test_aborting_the_transport_aborts_the_connection(self) -> None:
        """
        `abortConnection` of the plain transport reaches the connection, which would else go on
        sending.
        """
        self.descriptor.abortConnection()
        self.assertEqual(self.aborts, 1)
        self.assertTrue(self.descriptor._aborting)

    def test_aborting_the_engine_does_not_abort_the_connection_again(self) -> None:
        """The engine reports the reason of its abort by itself."""
        self.lower.abortConnection()
        self.assertEqual(self.aborts, 0)
        self.assertTrue(self.descriptor._aborting)

    def test_the_pieces_of_a_sequence_leave_together(self) -> None:
        """`writeSequence` sends all its pieces in one call."""
        self.lower.writeSequence([b"one", b"two"])
        self.assertEqual(self.peer.recv(100), b"onetwo")
        self.assertEqual(self.socket.sends, 1)

    def test_bytes_that_the_kernel_refuses_are_queued_in_order(self) -> None:
        """
        Bytes that the kernel's buffer has no room for are queued, and later writes queue behind
        them.
        """
        large = bytes(range(256)) * (1 << 15)
        self.lower.write(large)
        self.lower.write(b"behind it")
        self.assertEqual(self.socket.sends, 1)
        self.assertIn(self.descriptor, self.reactor.writers)
        self.assertTrue(self.receive(len(large) + 9) == large + b"behind it")

    def test_small_queued_records_are_joined(self) -> None:
        """
        Small records in the queue share one object: one each would take more memory than its bytes.
        """
        large = bytes(range(256)) * (1 << 15)
        self.lower.write(large)
        waiting = self.descriptor._tempDataBuffer[0]
        for _ in range(1000):
            self.lower.write(b"small")
        # The large piece would be copied for each of them.
        self.assertIs(self.descriptor._tempDataBuffer[0], waiting)
        self.assertLess(len(self.descriptor._tempDataBuffer), 10)
        self.assertTrue(self.receive(len(large) + 5000) == large + b"small" * 1000)

    def test_bytes_queued_by_others_are_sent_first(self) -> None:
        """Bytes that an application wrote to the transport itself leave before the next record."""
        Connection.write(self.descriptor, b"first ")
        self.lower.write(b"second")
        self.assertEqual(self.socket.sends, 0)
        self.assertEqual(self.receive(12), b"first second")

    def test_a_failed_write_is_reported_once_and_the_input_stays_readable(self) -> None:
        """The transport does not end the connection before the bytes that can still be read."""
        self.socket.error = OSError(errno.ECONNRESET, "Connection reset by peer")
        self.lower.write(b"answer")
        self.lower.write(b"another")
        (failure,) = self.failures
        self.assertEqual(failure.errno, errno.ECONNRESET)
        self.assertEqual(self.reactor.writers, set())

    def test_a_write_after_fin_is_dropped(self) -> None:
        """Nothing is sent after FIN."""
        self.lower.write(b"last")
        self.lower.loseWriteConnection()
        self.lower.write(b"too late")
        self.descriptor.doWrite()
        self.assertEqual((self.peer.recv(100), self.peer.recv(100)), (b"last", b""))
        self.assertEqual(self.failures, [])

    def test_a_write_after_the_loss_is_no_failure(self) -> None:
        """Writing to a lost connection reports no failure: its socket is closed."""
        self.descriptor.connected = 0
        self.socket.close()
        self.lower.write(b"too late")
        self.assertEqual(self.failures, [])

    def test_other_attributes_are_those_of_the_transport(self) -> None:
        """Interfaces, methods and the receiver of the input are those of the real transport."""
        self.assertTrue(ITCPTransport.providedBy(self.lower))
        self.assertEqual(self.lower.fileno(), self.socket.fileno())
        lower: Any = self.lower
        self.assertIs(find_descriptor(lower), self.descriptor)
        engine = FakeProtocol()
        self.lower.protocol = engine
        self.assertIs(self.descriptor.protocol, engine)
        self.assertIs(self.lower.protocol, engine)

    def test_writes_of_others_during_the_upgrade_are_kept_for_the_engine(self) -> None:
        """
        Bytes written to the transport before the engine exists are kept until it encrypts them.
        """
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

    def test_losing_a_kept_transport_sends_close_notify(self) -> None:
        """`loseConnection` of the transport ends the connection through the engine, in order."""
        engine = StringTransport()
        self.lower.lead_to(engine, self)
        self.descriptor.loseConnection()
        self.assertTrue(engine.disconnecting)
        self.assertFalse(self.descriptor.disconnecting)
        self.lower.loseConnection()
        self.assertTrue(self.descriptor.disconnecting)

    def test_a_kernel_without_memory_is_no_failure(self) -> None:
        """ENOBUFS queues the bytes, as a full socket buffer does."""
        self.socket.error = OSError(errno.ENOBUFS, "No buffer space available")
        self.lower.write(b"answer")
        self.assertEqual(self.failures, [])
        self.assertFalse(self.lower.is_flushed)

    def test_a_transport_without_a_plain_socket_is_written_to(self) -> None:
        """Over a wrapper, or a transport in memory, records go to the transport's own ``write``."""
        transport = StringTransport()
        lower = TlsLowerTransport(transport, None, None, self)
        transport.write(b"kept")
        lower.write(b"sent")
        self.assertEqual((transport.value(), self.taken), (b"sent", [b"kept"]))

    def test_ending_the_output_ends_that_of_the_descriptor(self) -> None:
        """A wrapper above it need not provide half-close."""

        class Narrow:
            write = loseConnection = staticmethod(lambda *_: None)

        lower = TlsLowerTransport(Narrow(), None, self.descriptor, self)
        lower.loseWriteConnection()
        self.descriptor.doWrite()
        self.peer.settimeout(10)
        self.assertEqual(self.peer.recv(1), b"")

    def test_a_wrapper_delivers_the_input_to_the_engine(self) -> None:
        """
        A wrapper calls its receiver ``wrappedProtocol``; the engine is given what arrives all the
        same.
        """
        wrapper: Any = ProtocolWrapper(WrappingFactory(Factory()), Protocol())
        wrapper.transport = StringTransport()
        lower = TlsLowerTransport(wrapper, None, None, self)
        engine = Protocol()
        lower.protocol = engine
        self.assertIs(wrapper.wrappedProtocol, engine)
        self.assertIs(lower.protocol, engine)


class SilentConnection:
    """A connection that takes reports and does nothing."""

    def take(self, data: bytes) -> None:
        raise NotImplementedError

    def output_broke(self, error: OSError) -> None:
        raise NotImplementedError

    def abort(self) -> None:
        raise NotImplementedError

    def close_waits(self) -> None:
        raise NotImplementedError


class Producer:
    """Records the calls to a producer."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")


class ProducerTests(SynchronousTestCase):
    """Producers that an application registers with the transport around an upgrade."""

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
        lower = TlsLowerTransport(self.descriptor, None, self.descriptor, SilentConnection())
        lower.take_producer()
        return lower

    def test_a_push_producer_is_paused_until_the_engine_takes_it(self) -> None:
        """
        A push producer that was registered before the upgrade is paused until it produces for the
        engine.
        """
        lower = self.hold(True)
        self.assertEqual(self.producer.told, ["pause"])
        lower.lead_to(self.engine, SilentConnection())
        self.assertEqual(self.producer.told, ["pause"])  # What was held leaves first.
        lower.resume_producer()
        self.assertEqual(self.producer.told, ["pause", "resume"])
        self.assertEqual((self.engine.producer, self.engine.streaming), (self.producer, True))

    def test_a_pull_producer_is_asked_by_the_engine_only(self) -> None:
        """
        A pull producer that was registered before the upgrade is not asked before the engine
        exists.
        """
        lower = self.hold(False)
        self.assertIsNone(self.descriptor.producer)
        lower.lead_to(self.engine, SilentConnection())
        self.assertEqual((self.engine.producer, self.engine.streaming), (self.producer, False))
        self.assertEqual(self.producer.told, [])
        self.descriptor.unregisterProducer()
        self.assertIsNone(self.engine.producer)

    def test_a_producer_unregistered_before_the_engine_is_not_passed_on(self) -> None:
        """The engine never gets a producer that unregistered during the upgrade."""
        lower = self.hold(True)
        self.descriptor.unregisterProducer()
        lower.lead_to(self.engine, SilentConnection())
        self.assertIsNone(self.engine.producer)

    def test_a_producer_of_a_lost_connection_is_stopped(self) -> None:
        """A producer that is held during the upgrade is stopped when the connection is lost."""
        for end in ("lost", "release"):
            self.setUp()
            lower = self.hold(True)
            for _ in range(2):
                getattr(lower, end)()
            self.assertEqual(self.producer.told, ["pause", "stop"], f"{end=}")

    def test_a_producer_registered_in_the_handshake_is_paused_until_its_end(self) -> None:
        """The engine takes the producer when the handshake is done."""
        lower = TlsLowerTransport(self.descriptor, None, self.descriptor, SilentConnection())
        self.descriptor.registerProducer(self.producer, True)
        self.assertIsNone(self.descriptor.producer)
        self.assertEqual(self.producer.told, ["pause"])
        lower.lead_to(self.engine, SilentConnection())
        self.assertIs(self.engine.producer, self.producer)

    def test_a_producer_registered_after_the_upgrade_is_the_engines(self) -> None:
        """Registering with a kept transport registers with the engine."""
        lower = TlsLowerTransport(self.descriptor, None, self.descriptor, SilentConnection())
        lower.lead_to(self.engine, SilentConnection())
        self.descriptor.registerProducer(self.producer, False)
        self.assertIs(self.engine.producer, self.producer)
        self.assertIsNone(self.descriptor.producer)

    def test_the_engine_registers_its_own_producer_with_the_transport(self) -> None:
        """The engine's own producer is registered with the plain transport, not with the engine."""
        lower = self.hold(False)
        lower.lead_to(self.engine, SilentConnection())
        membrane = Producer()
        lower.registerProducer(membrane, True)
        self.assertIs(self.descriptor.producer, membrane)
        lower.unregisterProducer()
        self.assertIsNone(self.descriptor.producer)
        self.assertIs(self.engine.producer, self.producer)
