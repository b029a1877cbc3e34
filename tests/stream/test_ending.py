"""A connection ends in order, by a reset, or at its deadline, as the table says."""

from __future__ import annotations

import errno
import os
import select
import sys
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.stream.test_transport import KernelCase, Owner, Whole
from tests.tls.peer import SERVER, Peer, twisted_options
from twsock.errors import (
    BrokenError,
    ClosedError,
    OperationNotSupported,
    SocketError,
    SocketErrorStatus,
)
from twsock.stream.connection import Connection as StreamConnection
from twsock.stream.descriptor import queued_bytes
from twsock.stream.ending import DEFAULT_CLOSE_TIMEOUT
from twsock.stream.transport import HIGH_WATER
from twsock.tls.certificates import Certificate
from twsock.tls.engine import make_engine
from twsock.tls.server import ServerOptions, ServerTls


class EndingTests(KernelCase):
    """A connection over a plain socket."""

    def break_sending(self) -> BrokenError:
        """Fail a send by a reset of the peer; return the error that the owner received."""
        self.socket.error = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
        self.stream.write(b"answer")
        self.stream.send()
        (error,) = self.owner.failures
        return error

    def test_the_error_of_a_failed_send_is_the_reason_of_the_end(self) -> None:
        """Twisted may report an end in order later."""
        self.assertIs(self.break_sending().status, SocketErrorStatus.CONNECTION_RESET_BY_PEER)
        self.stream.abort()
        self.reactor.advance(0)
        error = self.lost(self.protocol.reasons[0])
        assert error is not None
        self.assertIsInstance(error, BrokenError)
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_RESET_BY_PEER)

    def test_after_a_failed_send_the_input_can_be_read(self) -> None:
        """Bytes that arrived before the reset are read; writing raises an error."""
        self.break_sending()
        self.assertFalse(self.stream.is_open)
        self.assertRaises(BrokenError, self.stream.write, b"more")
        self.assertIn(self.descriptor, self.reactor.readers)
        self.assertEqual(self.protocol.reasons, [])

    def test_after_a_failed_send_the_end_of_the_input_is_clean(self) -> None:
        """
        The kernel reports an error once, so the input then ends as if the peer had ended in order.
        """
        self.break_sending()
        self.stream.peer_ended()
        self.reactor.advance(0)
        self.assertEqual((len(self.protocol.reasons), self.owner.ends), (1, 0))

    def test_a_close_after_a_failed_send_aborts(self) -> None:
        """The peer sends no FIN to wait for."""
        self.break_sending()
        self.stream.close()
        self.reactor.advance(0)
        self.assertEqual(len(self.protocol.reasons), 1)

    def test_a_callback_of_the_end_may_cancel_another_wait_for_it(self) -> None:
        """The remaining waits still end."""
        first, second, third = (self.stream.when_lost() for _ in range(3))
        first.addCallback(lambda _: second.cancel())
        second.addErrback(lambda _: None)
        self.stream.lost(Failure(ConnectionDone()))
        self.successResultOf(third)

    def test_each_end_frees_unsent_bytes(self) -> None:
        """A transport that is still referenced holds no unsent bytes."""
        ends: dict[str, Callable[[], object]] = {
            "lost": lambda: self.stream.lost(Failure(ConnectionLost())),
            "aborted": lambda: self.stream.abort(),
            "broken": lambda: self.stream.output_broke(OSError(errno.EPIPE, "Broken pipe")),
        }
        for name, end in ends.items():
            self.setUp()
            data = bytes(5000)
            references = sys.getrefcount(data)
            self.stream.write(data)
            end()
            self.assertEqual(sys.getrefcount(data), references, name)

    def test_the_deadline_of_a_close_is_checked_by_the_call(self) -> None:
        """A wrong value raises an error at once."""
        self.owner.close_timeout = -1
        self.assertRaises(ValueError, StreamConnection, self.owner, self.descriptor, self.reactor)

    def test_writing_after_an_abort_raises_closed_error(self) -> None:
        """The error stays the same after the loss: this end closed."""
        self.stream.abort()
        self.assertRaises(ClosedError, self.stream.write, b"x")
        self.stream.lost(Failure(ConnectionAborted()))
        self.assertRaises(ClosedError, self.stream.write, b"x")

    def test_at_the_deadline_a_close_sends_no_reset(self) -> None:
        """The socket is closed, and the kernel delivers the bytes that it has to a slow peer."""
        data = bytes(range(256)) * 1000
        self.stream.write(data)
        self.stream.close()
        self.descriptor.doWrite()
        # Unread input does not turn the close into a reset.
        self.peer.sendall(b"unread")
        select.select([self.socket], [], [], 10)
        self.reactor.advance(DEFAULT_CLOSE_TIMEOUT)
        self.reactor.advance(0)
        self.assertEqual(len(self.protocol.reasons), 1)
        error = self.lost(self.protocol.reasons[0])
        self.assertIsInstance(error, ClosedError)
        self.peer.settimeout(10)
        received = b""
        while chunk := self.peer.recv(1 << 20):
            received += chunk
        self.assertEqual(received, data)

    def test_ending_the_output_leaves_the_input_open(self) -> None:
        """FIN is sent; the peer's bytes are still read, and writing raises an error."""
        self.stream.end_output()
        self.descriptor.doWrite()
        self.assertEqual(self.peer.recv(10), b"")
        self.assertIn(self.descriptor, self.reactor.readers)
        self.assertRaises(ClosedError, self.stream.write, b"late")
        self.assertEqual(self.protocol.reasons, [])

    def test_with_both_halves_ended_the_connection_is_lost(self) -> None:
        """Either side may end first."""
        self.stream.end_output()
        self.descriptor.doWrite()
        self.stream.peer_ended()
        self.reactor.advance(0)
        self.assertEqual(len(self.protocol.reasons), 1)

    def test_ending_the_output_after_the_peers_fin_ends_the_connection(self) -> None:
        """Neither side can send any more."""
        self.stream.peer_ended()
        self.stream.end_output()
        self.assertIsInstance(self.descriptor.doWrite(), ConnectionDone)

    def test_a_close_after_the_output_ended_waits_for_the_peer(self) -> None:
        """The close sends no second FIN, and lasts until the peer's FIN or the deadline."""
        self.stream.end_output()
        self.descriptor.doWrite()
        self.stream.close()
        self.assertEqual(self.protocol.reasons, [])
        self.reactor.advance(DEFAULT_CLOSE_TIMEOUT)
        self.reactor.advance(0)
        self.assertEqual(len(self.protocol.reasons), 1)

    def test_a_close_sends_fin_and_waits_for_the_peers_fin(self) -> None:
        """The connection ends when the peer has ended, too."""
        self.stream.write(b"last")
        closed = self.stream.close()
        self.descriptor.doWrite()
        self.assertEqual(self.peer.recv(100), b"last")
        self.assertEqual(self.peer.recv(100), b"")
        self.assertNoResult(closed)
        self.stream.peer_ended()
        self.assertIsNone(self.lost(self.protocol.reasons[0]))
        self.successResultOf(closed)

    def test_a_close_sends_the_queue_first(self) -> None:
        """FIN follows the last queued byte."""
        sent = self.fill()
        self.stream.close()
        received = self.receive()
        self.descriptor.doWrite()
        self.assertEqual(received + self.receive(), sent)
        self.assertEqual(self.peer.recv(1), b"")

    def test_a_close_without_an_answer_aborts_at_its_deadline(self) -> None:
        """A peer that neither reads nor ends is aborted, and the error says so."""
        self.fill()
        closed = self.stream.close()
        self.reactor.advance(4.9)
        self.assertEqual(self.protocol.reasons, [])
        self.reactor.advance(0.2)
        self.reactor.advance(0)
        reason = self.protocol.reasons[0]
        self.assertTrue(reason.check(ConnectionAborted))
        self.assertIn("5 s", str(self.lost(reason)))
        self.successResultOf(closed)

    def test_closing_twice_is_one_close(self) -> None:
        """The second close changes nothing, and both Deferreds fire at the end."""
        first, second = self.stream.close(), self.stream.close()
        self.stream.lost(Failure(ConnectionDone()))
        self.successResultOf(first)
        self.successResultOf(second)

    def test_a_close_of_a_held_connection_that_cannot_send_aborts(self) -> None:
        """Its output was ended, or a send has failed; no handshake can follow."""
        for is_broken in (False, True):
            if is_broken:
                self.break_sending()
            else:
                self.stream.end_output()
            self.stream.hold()
            self.stream.close()
            self.reactor.advance(0)
            (reason,) = self.protocol.reasons
            self.assertTrue(reason.check(ConnectionAborted), f"{is_broken=}")
            self.setUp()

    def test_a_further_close_does_not_move_the_deadline(self) -> None:
        """Both directions have ended, and the socket is not writable."""
        self.stream.peer_ended()
        self.stream.end_output()
        self.reactor.pump([0.5] * 8)
        self.stream.close()
        self.assertEqual(self.protocol.reasons, [])
        self.reactor.advance(1)
        self.assertEqual(len(self.protocol.reasons), 1)

    def test_the_waits_end_although_the_owner_fails(self) -> None:
        """A handler's Deferred may have a canceller that raises an error."""

        def fail(error: SocketError | None, _reason: Failure) -> None:
            raise ZeroDivisionError

        closed, finished = self.stream.close(), self.stream.when_fin_sent()
        self.owner.connection_ended = fail  # type: ignore[method-assign]
        self.assertRaises(ZeroDivisionError, self.stream.lost, Failure(ConnectionDone()))
        self.successResultOf(closed)
        self.successResultOf(finished)

    def test_a_close_resumes_reading(self) -> None:
        """A paused connection is read again, to receive the peer's FIN."""
        self.stream.pause_reading()
        self.assertNotIn(self.descriptor, self.reactor.readers)
        self.stream.close()
        self.assertIn(self.descriptor, self.reactor.readers)

    def test_the_first_of_several_errors_is_the_reason(self) -> None:
        """Later errors are mostly consequences of the first error."""
        self.stream.note_error(BrokenError("the first"))
        self.stream.note_error(BrokenError("the second"))
        self.stream.abort(BrokenError("the third"))
        error = self.lost(Failure(ConnectionAborted()))
        self.assertIsInstance(error, BrokenError)
        self.assertEqual(str(error), "the first")

    def test_a_close_after_the_peers_fin_does_not_resume_reading(self) -> None:
        """Otherwise the reactor would report the FIN a second time."""
        self.fill()
        self.stream.pause_reading()
        self.stream.peer_ended()
        self.stream.resume_reading()
        self.assertFalse(self.stream.is_reading)
        self.stream.close()  # It waits for what is queued.
        self.assertFalse(self.stream.is_reading)
        self.assertNotIn(self.descriptor, self.reactor.readers)

    def test_cancelling_the_wait_does_not_cancel_the_close(self) -> None:
        """The connection ends nevertheless."""
        closed = self.stream.close()
        closed.cancel()
        self.failureResultOf(closed)
        self.descriptor.doWrite()
        self.assertEqual(self.peer.recv(1), b"")

    def test_an_abort_drops_the_queue(self) -> None:
        """The connection ends in the next turn, and the rest is not sent."""
        self.fill()
        self.stream.abort()
        self.reactor.advance(0)
        self.assertTrue(self.protocol.reasons[0].check(ConnectionAborted))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_writing_after_close_is_refused(self) -> None:
        """The call raises an error, so no byte is dropped silently."""
        self.stream.close()
        self.assertRaises(ClosedError, self.stream.write, b"late")

    def test_writing_to_a_broken_connection_is_refused(self) -> None:
        """The error names the reason of the loss."""
        self.stream.lost(Failure(ConnectionLost()))
        error = self.assertRaises(BrokenError, self.stream.write, b"late")
        self.assertIsNotNone(error.__cause__)

    def test_a_lost_connection_leaves_no_delayed_call(self) -> None:
        """The deadline of a close is stopped, too."""
        self.fill()
        self.stream.close()
        self.stream.lost(Failure(ConnectionLost()))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_calls_to_a_lost_connection_do_nothing(self) -> None:
        """The calls raise no error, and the connection stays lost."""
        self.descriptor.connectionLost(Failure(ConnectionLost()))
        self.stream.lost(self.protocol.reasons[0])
        self.stream.send_pieces([b"too late"])
        self.assertFalse(self.stream.has_hung_up)
        self.assertFalse(self.stream.has_unread_input)
        self.successResultOf(self.stream.when_lost())


@implementer(IHalfCloseableProtocol)
class Receiver(Protocol):
    """Records the calls of an engine, and reports the end of the input to the connection."""

    stream: StreamConnection
    reason: Failure | None = None

    def readConnectionLost(self) -> None:
        self.stream.peer_ended()

    def writeConnectionLost(self) -> None: ...

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        self.reason = reason


class AboveTlsTests(KernelCase):
    """A `Connection` over TLS: the peer's close_notify ends the input, and FIN does not."""

    def setUp(self) -> None:
        super().setUp()
        certificate = Certificate.from_pem(SERVER.private_key_and_cert_chain_pem.bytes())
        creator, _ = ServerTls(ServerOptions([certificate])).begin()
        self.receiver = Receiver()
        self.engine = make_engine(creator, False, self.receiver, self.reactor)
        self.client = Peer()
        lower = self.stream.hold()
        lower.protocol = self.engine
        self.engine.makeConnection(lower)

    def begin(self) -> None:
        """Receive the first message of the handshake, and answer it."""
        self.engine.dataReceived(self.client.hello())

    def secure(self) -> None:
        """Do the handshake, and replace the transport below."""
        self.begin()
        self.engine.dataReceived(self.client.take(self.peer.recv(1 << 16)))
        self.receiver.stream = self.stream
        self.stream.rebind(self.engine)

    def fail_sending(self, error: int) -> None:
        """Make the kernel refuse all further sends."""
        self.socket.error = OSError(error, os.strerror(error))

    def lose(self, reason: Exception) -> SocketError | None:
        """End the TCP connection; return the error that the transport reports."""
        self.engine.connectionLost(Failure(reason))
        assert self.receiver.reason is not None
        return self.lost(self.receiver.reason)

    def end_input(self) -> None:
        """Deliver the peer's close_notify."""
        self.engine.dataReceived(self.client.end())

    def test_a_failed_write_ends_the_output_and_not_the_input(self) -> None:
        """The peer's close_notify may still wait in the kernel; the end is then in order."""
        self.secure()
        self.fail_sending(errno.EPIPE)
        self.stream.write(b"answer")
        self.stream.send()
        self.assertEqual(len(self.owner.failures), 1)
        self.assertFalse(self.stream.is_open)
        self.end_input()
        self.assertEqual(self.owner.ends, 1)

    def test_a_failed_send_of_close_notify_is_the_reason_of_the_end(self) -> None:
        """The failure calls no method of the owner; the error holds no frame."""
        self.secure()
        self.fail_sending(errno.ECONNRESET)
        self.stream.close()
        self.assertEqual(self.owner.failures, [])
        error = self.lose(ConnectionDone())
        assert isinstance(error, BrokenError)
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_RESET_BY_PEER)
        assert error.__cause__ is not None
        self.assertIsNone(error.__cause__.__traceback__)

    def test_a_failed_send_of_close_notify_after_the_peers_is_an_end_in_order(self) -> None:
        """Both directions have ended."""
        self.secure()
        self.end_input()
        self.fail_sending(errno.ECONNRESET)
        self.stream.close()
        self.assertIsNone(self.lose(ConnectionLost()))

    def test_a_queued_close_notify_after_the_peers_is_an_end_in_order(self) -> None:
        """The kernel has all other bytes."""
        self.secure()
        self.end_input()
        self.fail_sending(errno.EAGAIN)
        self.stream.close()
        self.assertGreater(queued_bytes(self.descriptor), 0)
        self.assertIsNone(self.lose(ConnectionLost()))

    def test_queued_bytes_at_the_loss_are_an_error_after_the_peers_end(self) -> None:
        """The kernel lacks a part of the answer."""
        self.secure()
        self.end_input()
        self.fail_sending(errno.EAGAIN)
        self.stream.write(b"answer")
        self.stream.send()
        self.assertIsInstance(self.lose(ConnectionLost()), BrokenError)

    def test_unsent_bytes_at_the_loss_are_an_error_after_the_peers_end(self) -> None:
        """The bytes wait for the end of the call that wrote them."""
        self.secure()
        self.end_input()
        self.stream.write(b"answer")
        self.assertIsInstance(self.lose(ConnectionLost()), BrokenError)

    def test_a_failed_send_in_the_handshake_leaves_the_input_readable(self) -> None:
        """The peer's alert may still wait in the kernel."""
        self.begin()
        self.fail_sending(errno.EPIPE)
        self.engine.dataReceived(self.client.take(self.peer.recv(1 << 16)))
        self.assertEqual((self.owner.failures, self.stream.is_open), ([], True))
        error = self.lost(Failure(ConnectionDone()))
        self.assertIsInstance(error, BrokenError)

    def test_a_close_after_the_output_ended_sends_fin(self) -> None:
        """The end of the output has sent close_notify only."""
        self.secure()
        self.stream.end_output()
        self.client.take(self.peer.recv(1 << 16))
        self.assertTrue(self.client.is_ended)
        self.stream.close()
        self.descriptor.doWrite()
        self.peer.settimeout(10)
        self.assertEqual(self.peer.recv(1), b"")

    def test_a_close_notify_queued_at_the_deadline_ends_in_a_reset(self) -> None:
        """FIN without close_notify would look like a truncation."""
        self.secure()
        self.fail_sending(errno.EAGAIN)
        self.stream.close()
        self.assertGreater(queued_bytes(self.descriptor), 0)
        self.reactor.advance(DEFAULT_CLOSE_TIMEOUT)
        self.assertRaises(ConnectionResetError, self.read_to_the_end)

    def test_a_close_during_the_handshake_aborts(self) -> None:
        """Bytes that wait for the handshake cannot be sent."""
        self.stream.write(b"waits")
        self.stream.close()
        self.assertRaises(ConnectionResetError, self.read_to_the_end)

    def test_a_close_of_a_drain_before_the_peers_first_byte_is_an_end_in_order(self) -> None:
        """No byte is lost, and a second close changes nothing."""
        self.stream.close_drained()
        self.stream.close()
        self.read_to_the_end()

    def test_a_close_of_a_drain_with_unsent_bytes_aborts(self) -> None:
        """The bytes are lost, and the reset shows the loss."""
        self.stream.write(b"waits")
        self.stream.close_drained()
        self.assertRaises(ConnectionResetError, self.read_to_the_end)

    def test_a_close_of_a_drain_in_the_middle_of_a_handshake_aborts(self) -> None:
        """The peer would take FIN for an answer."""
        self.begin()
        self.stream.close_drained()
        self.assertRaises(ConnectionResetError, self.read_to_the_end)

    def test_a_close_of_a_drain_with_an_unread_client_hello_aborts(self) -> None:
        """The peer has begun its handshake, although the server has not read it."""
        self.peer.sendall(self.client.hello())
        select.select([self.socket], [], [], 10)
        self.stream.close_drained()
        self.assertRaises(ConnectionResetError, self.read_to_the_end)

    def read_to_the_end(self) -> None:
        """Run the reactor, and read at the peer up to FIN."""
        self.reactor.advance(0)
        if self.descriptor in self.reactor.writers:
            reason = self.descriptor.doWrite()
            if reason is not None:
                self.descriptor.connectionLost(Failure(reason))
        self.peer.settimeout(10)
        while self.peer.recv(1 << 16):
            pass

    def test_a_write_of_others_is_dropped_by_an_abort(self) -> None:
        """Such a write waited for the handshake."""
        self.stream.abort()
        self.descriptor.write(b"too late")
        self.assertEqual(self.stream.unsent, 0)


class AboveTwistedsTlsTests(KernelCase):
    """A connection above an engine of Twisted, whose directions end together."""

    def setUp(self) -> None:
        super().setUp()
        options = twisted_options(SERVER.private_key_and_cert_chain_pem.bytes())
        self.client = Peer()
        self.wrapper: Any = ProtocolWrapper(WrappingFactory(Factory()), Protocol())
        factory = TLSMemoryBIOFactory(options, False, Factory(), self.reactor)
        self.engine: Any = TLSMemoryBIOProtocol(factory, self.wrapper)
        self.descriptor.protocol = self.engine
        self.engine.makeConnection(self.descriptor)

    def secure(self) -> None:
        """Do the handshake."""
        self.engine.dataReceived(self.client.hello())
        self.descriptor.doWrite()
        self.engine.dataReceived(self.client.take(self.peer.recv(1 << 16)))

    def test_ending_the_output_alone_is_refused(self) -> None:
        """The connection stays open."""
        self.secure()
        stream = StreamConnection(self.owner, self.engine, self.reactor)
        self.assertRaises(OperationNotSupported, stream.end_output)
        self.assertTrue(stream.is_open)

    def test_a_wrapper_that_knows_of_half_close_is_no_engine(self) -> None:
        """Its close sends FIN, as below every wrapper that keeps bytes unchanged."""

        @implementer(IHalfCloseableProtocol)
        class HalfClosing(ProtocolWrapper):
            readConnectionLost = writeConnectionLost = lambda _self: None

        wrapper: Any = HalfClosing(WrappingFactory(Factory()), Protocol())
        wrapper.makeConnection(self.descriptor)
        stream = StreamConnection(self.owner, wrapper, self.reactor)
        stream.close()
        self.descriptor.doWrite()
        self.peer.settimeout(10)
        self.assertEqual(self.peer.recv(1), b"")

    def test_a_close_above_a_wrapper_sends_close_notify(self) -> None:
        """FIN alone would be a truncation."""
        self.secure()
        stream = StreamConnection(self.owner, self.wrapper, self.reactor)
        stream.write(b"last")
        stream.close()
        while self.descriptor in self.reactor.writers and not self.client.is_ended:
            self.descriptor.doWrite()
            self.client.take(self.peer.recv(1 << 16))
        self.assertEqual(self.client.received, b"last")
        self.assertTrue(self.client.is_ended)

    def test_bytes_that_wait_for_the_handshake_leave_before_the_end(self) -> None:
        """A close before the handshake is done waits for it; FIN would make it fail."""
        self.wrapper.writeConnectionLost = lambda: None
        stream = StreamConnection(self.owner, self.engine, self.reactor)
        stream.write(b"last")
        stream.close()
        self.secure()
        self.reactor.pump([0.01] * 3)
        while not self.client.is_ended:
            self.descriptor.doWrite()
            self.client.take(self.peer.recv(1 << 16))
        self.assertEqual(self.client.received, b"last")

    def test_bytes_that_wait_for_the_handshake_at_the_deadline_end_in_a_reset(self) -> None:
        """After FIN the peer would not know that bytes are missing."""
        for size in (1, HIGH_WATER):
            self.setUp()
            stream = StreamConnection(self.owner, self.engine, self.reactor)
            stream.write(bytes(size))
            stream.send()
            stream.close()
            self.reactor.pump([DEFAULT_CLOSE_TIMEOUT / 10] * 10)
            self.reactor.advance(0)
            self.peer.settimeout(10)
            with self.assertRaises(ConnectionResetError, msg=f"{size=}"):
                self.peer.recv(1)


class InMemoryTests(SynchronousTestCase):
    """A connection over a transport without a descriptor."""

    def setUp(self) -> None:
        self.transport = StringTransport()
        self.clock = Clock()
        self.owner = Owner()
        self.stream = StreamConnection(self.owner, self.transport, self.clock)

    def test_a_close_unregisters_the_producer_and_loses_the_connection(self) -> None:
        """A registered producer would delay the end."""
        self.stream.close()
        self.assertIsNone(self.transport.producer)
        self.assertTrue(self.transport.disconnecting)

    def test_an_abort_aborts_the_transport(self) -> None:
        """`abort` calls the transport's `abortConnection`."""
        self.stream.abort()
        self.assertTrue(self.transport.disconnected)

    def test_ending_the_output_without_half_close_is_refused(self) -> None:
        """The call raises an error and changes nothing."""
        stream = StreamConnection(self.owner, Whole(), self.clock)
        self.assertRaises(OperationNotSupported, stream.end_output)
        self.assertTrue(stream.is_open)
