"""
A `BufferingTLSTransport` delivers the same bytes as Twisted's engine, for any cut of its input.
"""

from __future__ import annotations

import resource
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import SkipTest

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import (
    BufferingTLSTransport,
    TLSMemoryBIOFactory,
    TLSMemoryBIOProtocol,
)
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.tls.peer import SERVER, Peer
from twsock.stream.descriptor import engine_bytes, is_half_closing_engine
from twsock.tls.certificates import Certificate
from twsock.tls.engine import Engine, RecordBoundaries, adopt_engine, make_engine
from twsock.tls.server import ServerOptions, ServerTls


def record(size: int) -> bytes:
    """Make a TLS record of this size."""
    return b"\x17\x03\x03" + size.to_bytes(2, "big") + bytes(size)


STATM = Path("/proc/self/statm")


def resident_bytes() -> int:
    """Return the resident memory of this process, in bytes."""
    return int(STATM.read_text().split()[1]) * resource.getpagesize()


CERTIFICATE = Certificate.from_pem(SERVER.private_key_and_cert_chain_pem.bytes())


class RecordBoundariesTests(SynchronousTestCase):
    """The count of record boundaries in a stream."""

    def test_whole_records_are_counted(self) -> None:
        """One, several, and empty records."""
        boundaries = RecordBoundaries()
        self.assertEqual(boundaries.count(record(3)), 1)
        self.assertEqual(boundaries.count(record(0) + record(65_535) + record(1)), 3)
        self.assertEqual(boundaries.count(b""), 0)

    def test_a_cut_record_is_counted_in_the_piece_that_ends_it(self) -> None:
        """Each record counts once, at every cut."""
        stream = record(2) + record(0) + record(7)
        ends = {7, 12, 24}
        for cut in range(len(stream) + 1):
            boundaries = RecordBoundaries()
            counted = boundaries.count(stream[:cut]), boundaries.count(stream[cut:])
            first = sum(end <= cut for end in ends)
            self.assertEqual(counted, (first, 3 - first), cut)

    def test_a_record_in_single_bytes_is_counted_at_its_last_byte(self) -> None:
        """Earlier bytes count nothing."""
        boundaries = RecordBoundaries()
        stream = record(2) + record(0) + record(7)
        told = [boundaries.count(stream[at : at + 1]) for at in range(len(stream))]
        self.assertEqual([at + 1 for at, count in enumerate(told) if count], [7, 12, 24])


class Receiver(Protocol):
    """Records what it receives; sends an answer if it has one."""

    engine: Engine

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.answer = b""
        self.heard: Callable[[], object] = lambda: None
        self.reason: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.received.append(data)
        if self.answer:
            self.engine.write(self.answer)
        self.heard()

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        self.reason = reason


class Measured(bytes):
    """Counts how often its length is read."""

    questions = 0

    def __len__(self) -> int:
        Measured.questions += 1
        return super().__len__()

    def __getitem__(self, key: Any) -> Any:
        return Measured(super().__getitem__(key))


def converse(engine: Any, transport: StringTransport) -> Peer:
    """Do a handshake; return the peer, which has read all that was sent."""
    peer = Peer()
    data = peer.hello()
    while data:
        engine.dataReceived(data)
        data = peer.take(transport.value())
        transport.clear()
    return peer


@implementer(IHandshakeListener)
class Eager(Protocol):
    """Writes as soon as the handshake is done, and ends its output."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def handshakeCompleted(self) -> None:
        engine: Any = self.transport
        engine.write(self._data)
        engine.loseWriteConnection()


@implementer(IHalfCloseableProtocol)
class Ending(Receiver):
    """Ends the connection as soon as the peer has ended its output."""

    def __init__(self, end: str) -> None:
        super().__init__()
        self._end = end

    def readConnectionLost(self) -> None:
        getattr(self.engine, self._end)()
        self.received.append(b"end")

    def writeConnectionLost(self) -> None: ...


class ClosingTransport(StringTransport):
    """Records how the connection was closed."""

    def __init__(self, receiver: Receiver) -> None:
        super().__init__()
        self.receiver = receiver
        self.events: list[str] = []

    def loseConnection(self) -> None:
        self.events.append("closed later")

    def abortConnection(self) -> None:
        self.events.append("aborted")

    def close_answered(self) -> None:
        # The receiver has returned from the report of the end.
        self.events.append(f"closed after {self.receiver.received}")


class EngineTests(SynchronousTestCase):
    """An engine over a transport in memory, with Python's ``ssl`` as the peer."""

    def setUp(self) -> None:
        creator, _ = ServerTls(ServerOptions([CERTIFICATE])).begin()
        self.receiver = Receiver()
        self.clock = Clock()
        self.engine: Engine = make_engine(creator, False, self.receiver, self.clock)
        self.receiver.engine = self.engine
        self.transport: Any = StringTransport()
        self.peer = Peer()
        self.engine.makeConnection(self.transport)
        self.engine.dataReceived(self.peer.hello())
        self.engine.dataReceived(self.peer.take(self.sent()))
        self.peer.take(self.sent())

    def sent(self) -> bytes:
        """Return the bytes that the engine wrote since the last call."""
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def receive_without_keeping(self, size: int) -> None:
        if not STATM.exists():
            raise SkipTest("this system has no /proc/self/statm")
        more = record(64 * 1024 - 5)
        before = resident_bytes()
        for _ in range(size // len(more)):
            self.engine.dataReceived(more)
        self.assertLess(resident_bytes() - before, size // 4)
        self.assertEqual(self.receiver.received, [])

    def damaged(self, data: bytes) -> bytes:
        """Make a record whose last byte is wrong."""
        evil = bytearray(self.peer.say(data))
        evil[-1] ^= 1
        return bytes(evil)

    def test_one_record_is_answered_by_one_record(self) -> None:
        """One request and its answer take one record each."""
        self.engine.dataReceived(self.peer.say(b"question"))
        self.engine.write(b"answer")
        self.peer.take(self.sent())
        self.assertEqual((self.receiver.received, self.peer.received), ([b"question"], b"answer"))

    def test_a_close_within_the_end_of_the_input_follows_that_event(self) -> None:
        """The receiver is not called within its own call; an abort acts at once."""
        for end, expected in (
            ("loseConnection", ["closed after [b'end']"]),
            ("abortConnection", ["aborted"]),
        ):
            creator, _ = ServerTls(ServerOptions([CERTIFICATE])).begin()
            receiver = Ending(end)
            receiver.engine = make_engine(creator, False, receiver, Clock())
            transport = ClosingTransport(receiver)
            receiver.engine.makeConnection(transport)
            peer = converse(receiver.engine, transport)
            receiver.engine.dataReceived(peer.end())
            self.assertEqual(transport.events, expected, end)

    def test_bytes_written_before_the_handshake_leave_first(self) -> None:
        """Also if more is written as soon as the handshake is done."""
        transport = StringTransport()
        creator, _ = ServerTls(ServerOptions([CERTIFICATE])).begin()
        engine = make_engine(creator, False, Eager(b"second"), Clock())
        engine.makeConnection(transport)
        engine.write(b"first, ")
        peer = converse(engine, transport)
        self.assertEqual(peer.received, b"first, second")
        self.assertTrue(peer.is_ended)

    def test_many_records_are_delivered_in_one_call(self) -> None:
        """Bytes behind the last whole record wait for the rest of it."""
        stream = b"".join(self.peer.say(word) for word in (b"one", b"two", b"three"))
        self.engine.dataReceived(stream[:-1])
        self.engine.dataReceived(stream[-1:])
        self.assertEqual(self.receiver.received, [b"onetwo", b"three"])

    def test_data_cut_anywhere_arrives_in_order(self) -> None:
        """No byte is lost at any cut."""
        words = (b"one", b"two", b"three")
        size = len(b"".join(map(self.peer.say, words)))
        self.setUp()
        for cut in range(1, size):
            stream = b"".join(map(self.peer.say, words))
            self.engine.dataReceived(stream[:cut])
            self.engine.dataReceived(stream[cut:])
            self.assertEqual(b"".join(self.receiver.received), b"onetwothree", cut)
            self.receiver.received.clear()

    def test_a_connection_lost_within_a_long_write_takes_no_more(self) -> None:
        """A transport in memory may call ``connectionLost`` within its ``write``."""
        writes: list[bytes] = []

        def write(data: bytes) -> None:
            writes.append(data)
            if len(writes) == 1:
                self.engine.connectionLost(Failure(ConnectionLost()))

        self.transport.write = write
        self.engine.write(bytes(1024 * 1024))
        # The second one is an alert, as the peer's end was no close_notify.
        self.assertLess(sum(map(len, writes)), 128 * 1024)
        assert self.receiver.reason is not None
        self.receiver.reason.trap(ConnectionLost)

    def test_writes_after_the_loss_are_dropped(self) -> None:
        """A plain transport drops them, too, after any kind of end."""
        for reason in (ConnectionDone(), ConnectionLost()):
            self.setUp()
            self.engine.connectionLost(Failure(reason))
            self.sent()
            self.engine.write(b"late")
            self.engine.writeSequence([b"too", b"late"])
            self.assertEqual(self.sent(), b"", reason)

    def test_a_long_write_arrives_whole(self) -> None:
        """It is longer than a batch of records, and may be any kind of buffer."""
        data = bytes(range(256)) * 1024
        self.engine.write(data)
        self.engine.write(b"end")
        self.peer.take(self.sent())
        self.assertEqual(self.peer.received, data + b"end")

    def test_an_empty_write_sends_no_record(self) -> None:
        """Nothing is sent."""
        self.engine.write(b"")
        self.assertEqual(self.sent(), b"")

    def test_data_in_one_segment_with_close_notify_is_delivered_first(self) -> None:
        """The end follows the data."""
        stream = self.peer.say(b"last words") + self.peer.end()
        self.engine.dataReceived(stream)
        self.assertEqual(self.receiver.received, [b"last words"])
        self.assertTrue(self.transport.disconnecting)
        self.engine.connectionLost(Failure(ConnectionDone()))
        assert self.receiver.reason is not None
        self.assertTrue(self.receiver.reason.check(ConnectionDone))

    def test_bytes_behind_close_notify_take_no_memory(self) -> None:
        """OpenSSL would keep them, and never reads them."""
        self.engine.dataReceived(self.peer.end())
        self.receive_without_keeping(64 * 1024 * 1024)

    def test_bytes_behind_a_failure_take_no_memory(self) -> None:
        """The transport may receive more until its queue and the alert have left."""
        self.engine.dataReceived(self.damaged(b"evil"))
        self.receive_without_keeping(64 * 1024 * 1024)

    def test_bytes_behind_a_failure_do_not_replace_its_reason(self) -> None:
        """The first reason is reported."""
        self.engine.dataReceived(self.damaged(b"evil"))
        self.engine.dataReceived(record(100))
        self.engine.connectionLost(Failure(ConnectionDone()))
        assert self.receiver.reason is not None
        self.assertIn("bad record mac", str(self.receiver.reason.value))

    def test_close_notify_behind_an_abort_is_not_answered(self) -> None:
        """The receiver aborts while it gets the data before close_notify."""
        for split in (False, True):
            self.setUp()
            self.receiver.heard = self.engine.abortConnection
            data, end = self.peer.say(b"data"), self.peer.end()
            self.sent()
            for piece in (data, end) if split else (data + end,):
                self.engine.dataReceived(piece)
            self.assertEqual(self.receiver.received, [b"data"], f"{split=}")
            self.assertEqual(self.sent(), b"", f"split: {split}")

    def test_a_damaged_record_ends_the_connection(self) -> None:
        """Data before it is delivered; the reason is OpenSSL's error."""
        self.engine.dataReceived(self.peer.say(b"good") + self.damaged(b"evil"))
        self.assertEqual(self.receiver.received, [b"good"])
        self.assertTrue(self.transport.disconnecting)
        self.engine.connectionLost(Failure(ConnectionDone()))
        reason = self.receiver.reason
        assert reason is not None
        self.assertTrue(reason.check(SSL.Error))
        # A frame would keep the engine as long as the application keeps the reason.
        assert reason.value is not None
        self.assertIsNone(reason.value.__traceback__)

    def test_after_a_failure_a_peer_that_does_not_read_is_aborted_after_5_seconds(
        self,
    ) -> None:
        """The transport would wait for ever for the peer to take the bytes before the alert."""
        self.engine.dataReceived(self.damaged(b"evil"))
        self.clock.advance(4.9)
        self.assertFalse(self.transport.disconnected)
        self.clock.advance(0.2)
        self.assertTrue(self.transport.disconnected)

    def test_after_a_failure_a_reading_peer_leaves_no_delayed_call(self) -> None:
        """The peer took the alert in time."""
        self.engine.readConnectionLost()
        self.assertTrue(self.transport.disconnecting)
        self.engine.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_after_fin_a_failure_ends_the_connection_at_once(self) -> None:
        """The peer that the unsent bytes were for is gone."""

        def lose() -> None:
            self.engine.connectionLost(Failure(ConnectionDone()))

        self.transport.loseConnection = lose
        self.engine.dataReceived(self.peer.say(b"good") + self.damaged(b"evil"))
        self.assertEqual(self.receiver.received, [])
        assert self.receiver.reason is not None
        self.assertIn("bad record mac", str(self.receiver.reason.value))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_an_answer_after_a_failure_does_not_replace_its_reason(self) -> None:
        """The answer can't be sent, and fails for another reason."""
        self.receiver.answer = b"answer"
        self.engine.dataReceived(self.peer.say(b"good") + self.damaged(b"evil"))
        self.assertEqual(self.receiver.received, [b"good"])
        self.engine.connectionLost(Failure(ConnectionDone()))
        assert self.receiver.reason is not None
        self.assertIn("bad record mac", str(self.receiver.reason.value))

    def test_a_failed_connection_sends_no_close_notify(self) -> None:
        """The peer would take it for an end in order."""
        self.engine.readConnectionLost()
        self.sent()
        self.engine.loseWriteConnection()
        self.assertEqual(self.sent(), b"")

    def test_all_encrypted_bytes_are_sent(self) -> None:
        """Also the bytes that wait in OpenSSL, however many."""
        inside = self.engine.getHandle()
        for _ in range(10):
            inside.send(bytes(16_384))
        self.engine.write(b"end")
        self.peer.take(self.sent())
        self.assertEqual(self.peer.received, bytes(163_840) + b"end")

    def test_unread_answers_to_key_updates_are_bounded(self) -> None:
        """A peer that asks for new keys again and again, and reads no answer, is aborted."""
        self.transport.is_flushed = False
        inside = self.engine.getHandle()
        for _ in range(100):
            if not self.transport.disconnected:
                inside.send(bytes(1000))  # OpenSSL does this by itself for a message of the peer.
                self.engine.dataReceived(self.peer.say(b"x"))
                self.engine._flushSendBIO()
        self.assertTrue(self.transport.disconnected)
        self.assertLess(len(self.sent()), 70_000)

    def test_answers_that_are_read_are_not_counted(self) -> None:
        """A peer that reads may ask for any number of key updates."""
        inside = self.engine.getHandle()
        for is_flushed in (True, False) * 50:
            self.transport.is_flushed = is_flushed
            inside.send(bytes(10_000))
            self.engine._flushSendBIO()
        self.assertFalse(self.transport.disconnected)

    def test_after_an_abort_nothing_is_delivered(self) -> None:
        """Whatever bytes arrive."""
        self.engine.abortConnection()
        self.engine.dataReceived(self.peer.say(b"too late"))
        self.assertEqual(self.receiver.received, [])

    def test_after_a_close_nothing_is_sent(self) -> None:
        """A write would follow close_notify; it is dropped, and the end is in order."""
        self.engine.loseConnection()
        self.sent()
        self.engine.write(b"too late")
        self.assertEqual(self.sent(), b"")
        self.engine.connectionLost(Failure(ConnectionDone()))
        self.assert_lost_with(ConnectionDone)

    def test_an_abort_sends_nothing(self) -> None:
        """With close_notify the peer would take the bytes it has for all."""
        self.engine.abortConnection()
        self.engine.write(b"too late")
        self.assertEqual(self.sent(), b"")
        self.assertTrue(self.transport.disconnected)

    def test_after_a_failure_nothing_is_sent(self) -> None:
        """OpenSSL has sent its alert."""
        self.engine.dataReceived(self.damaged(b"evil"))
        self.sent()
        self.engine.write(b"too late")
        self.assertEqual(self.sent(), b"")

    def test_a_loss_after_only_the_output_ended_is_a_truncation(self) -> None:
        """The peer's close_notify was not received."""
        self.engine.loseWriteConnection()
        self.engine.connectionLost(Failure(ConnectionDone()))
        self.assert_lost_with(ConnectionLost)

    def assert_lost_with(self, kind: type[Exception]) -> None:
        reason = self.receiver.reason
        assert reason is not None
        self.assertTrue(reason.check(kind), reason)

    def test_a_handshake_message_is_not_data(self) -> None:
        """A record with a handshake message in front of one with data."""
        # A client's second flight once more: the alert that answers it shows that OpenSSL read it.
        self.engine.dataReceived(b"\x16\x03\x03\x00\x01\x00" + self.peer.say(b"data"))
        self.assertEqual(self.receiver.received, [])
        self.assertTrue(self.transport.disconnecting)


class HandshakeTests(SynchronousTestCase):
    """An engine before its handshake is done."""

    def shaking_hands(self, receiver: Receiver) -> tuple[Engine, Any]:
        """Make an engine that has received nothing, and its transport."""
        creator, _ = ServerTls(ServerOptions([CERTIFICATE])).begin()
        engine = receiver.engine = make_engine(creator, False, receiver, Clock())
        transport = StringTransport()
        engine.makeConnection(transport)
        return engine, transport

    def test_ending_the_output_during_the_handshake_ends_it_afterwards(self) -> None:
        """Earlier writes are sent first; the input stays open."""
        for words in ([], [b"early"], [bytes(2000), bytes(3000)]):
            receiver = Receiver()
            engine, transport = self.shaking_hands(receiver)
            for word in words:
                engine.write(word)
            engine.loseWriteConnection()
            peer = converse(engine, transport)
            self.assertEqual(peer.received, b"".join(words), f"{words=}")
            self.assertTrue(peer.is_ended, f"{words=}")
            engine.dataReceived(peer.say(b"answer"))
            self.assertEqual(receiver.received, [b"answer"], f"{words=}")

    def test_bytes_that_wait_for_the_handshake_are_lost_with_the_connection(self) -> None:
        """The end is an error, and the bytes take no memory afterwards."""
        receiver, data = Receiver(), bytes(2000)
        references = sys.getrefcount(data)
        engine, _ = self.shaking_hands(receiver)
        engine.write(data)
        engine.loseConnection()
        engine.connectionLost(Failure(ConnectionDone()))
        assert receiver.reason is not None
        self.assertTrue(receiver.reason.check(ConnectionLost), receiver.reason)
        self.assertEqual(sys.getrefcount(data), references)

    def test_a_receiver_may_end_the_connection_at_the_first_data(self) -> None:
        """The data came in one segment with the end of the handshake."""
        receiver = Receiver()
        engine, transport = self.shaking_hands(receiver)

        def lose() -> None:
            receiver.heard = lambda: None
            engine.connectionLost(Failure(ConnectionDone()))

        receiver.heard = lose
        peer = Peer()
        engine.dataReceived(peer.hello())
        engine.dataReceived(peer.take(self.take(transport)) + peer.say(b"one"))
        self.assertEqual(receiver.received, [b"one"])

    def test_ending_the_output_twice_leaves_the_input_open(self) -> None:
        """OpenSSL still holds data that came with the end of the handshake."""
        receiver = Receiver()
        engine, transport = self.shaking_hands(receiver)
        receiver.heard = engine.loseWriteConnection
        peer = Peer()
        engine.dataReceived(peer.hello())
        words = [b"one", b"two", b"three"]
        last = peer.take(self.take(transport)) + b"".join(map(peer.say, words))
        engine.dataReceived(last)
        self.assertEqual(receiver.received, words)

    def test_writes_during_the_handshake_are_sent_after_it(self) -> None:
        """In plaintext nothing is sent."""
        certificate = Certificate.from_pem(SERVER.private_key_and_cert_chain_pem.bytes())
        creator, _ = ServerTls(ServerOptions([certificate])).begin()
        engine = make_engine(creator, False, Receiver(), Clock())
        transport: Any = StringTransport()
        peer = Peer()
        engine.makeConnection(transport)
        engine.write(b"early")
        engine.dataReceived(peer.hello())
        engine.dataReceived(peer.take(self.take(transport)))
        peer.take(self.take(transport))
        self.assertEqual(peer.received, b"early")

    def test_small_writes_during_the_handshake_are_joined_in_order(self) -> None:
        """One object each would take more memory than their bytes."""
        creator, _ = ServerTls(ServerOptions([CERTIFICATE])).begin()
        engine = make_engine(creator, False, Receiver(), Clock())
        transport = StringTransport()
        engine.makeConnection(transport)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for number in range(10_000):
            engine.write(b"%d " % number)
        taken, _ = tracemalloc.get_traced_memory()
        words = [b"%d " % number for number in range(10_000)] + [bytes(2000), b"end"]
        engine.write(words[-2])
        engine.write(words[-1])
        size = sum(map(len, words))
        self.assertLess(taken, 2 * size)
        self.assertEqual(engine_bytes(engine), size)
        peer = converse(engine, transport)
        self.assertEqual(peer.received, b"".join(words))
        self.assertEqual(engine_bytes(engine), 0)

    def test_the_length_of_waiting_writes_is_not_computed_anew(self) -> None:
        """The length is kept, so that each write can check it against the limit."""
        creator, _ = ServerTls(ServerOptions([CERTIFICATE])).begin()
        engine = make_engine(creator, False, Receiver(), Clock())
        engine.makeConnection(StringTransport())
        for _ in range(100):
            engine.write(Measured(2000))
        Measured.questions = 0
        self.assertEqual(engine_bytes(engine), 200_000)
        self.assertEqual(Measured.questions, 0)

    def take(self, transport: Any) -> bytes:
        data: bytes = transport.value()
        transport.clear()
        return data


class AdoptedTests(SynchronousTestCase):
    """An engine of a TLS endpoint of Twisted, turned into one of twsock."""

    def made_by_twisted(self, kind: type[TLSMemoryBIOProtocol]) -> tuple[Any, StringTransport]:
        creator, _ = ServerTls(ServerOptions([CERTIFICATE])).begin()
        factory = TLSMemoryBIOFactory(creator, False, Factory(), Clock())
        engine = kind(factory, Receiver())
        transport = StringTransport()
        engine.makeConnection(transport)
        return engine, transport

    def test_bytes_written_before_are_sent(self) -> None:
        """Twisted keeps them until the next reactor turn."""
        for kind in (BufferingTLSTransport, TLSMemoryBIOProtocol):
            engine, transport = self.made_by_twisted(kind)
            engine.write(b"early")
            adopt_engine(engine)
            self.assertEqual(engine_bytes(engine), 5, f"{kind=}")
            self.assertEqual(converse(engine, transport).received, b"early", f"{kind=}")

    def test_later_writes_leave_at_once(self) -> None:
        """They do not wait for the next reactor turn; and the two directions end separately."""
        engine, transport = self.made_by_twisted(BufferingTLSTransport)
        adopt_engine(engine)
        peer = converse(engine, transport)
        engine.write(b"now")
        peer.take(transport.value())
        self.assertEqual(peer.received, b"now")
        self.assertTrue(is_half_closing_engine(engine))

    def test_an_engine_after_its_handshake_is_not_changed(self) -> None:
        """The boundary of its next record is unknown."""
        engine, transport = self.made_by_twisted(TLSMemoryBIOProtocol)
        converse(engine, transport)
        adopt_engine(engine)
        self.assertIs(type(engine), TLSMemoryBIOProtocol)

    def test_an_engine_of_another_class_is_not_changed(self) -> None:
        """A subclass may behave in another way."""

        class Own(TLSMemoryBIOProtocol):
            pass

        engine, _ = self.made_by_twisted(Own)
        adopt_engine(engine)
        self.assertIs(type(engine), Own)
