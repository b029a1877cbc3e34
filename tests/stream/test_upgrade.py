"""The server side of an upgrade: no plaintext crosses the switch to TLS, in either direction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis.strategies import integers
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.stream.connections import FrameRecorder, LineRecorder
from tests.tls.peer import AUTHORITY, SERVER, ClientPeer, client_context
from tests.work import count_searched_bytes
from twsock.errors import SocketError
from twsock.protocols import FrameEcho, LineEcho, StreamProtocol, StreamServerFactory
from twsock.stream.transport import HIGH_WATER
from twsock.stream.upgrade import MAX_BEFORE_UPGRADE, UpgradePolicy, UpgradeToSsl
from twsock.tls.certificates import Certificate
from twsock.tls.server import ClientCertificatePolicy, ServerOptions, ServerTls
from twsock.wire import encode_frame
from twsock.wire.lines import encode_line

CERTIFICATE = Certificate.from_pem(SERVER.private_key_and_cert_chain_pem.bytes())
TRUSTING = client_context()
TLS = ServerTls(ServerOptions([CERTIFICATE]))
ALLOWED = UpgradeToSsl(TLS)
REQUIRED = UpgradeToSsl(TLS, UpgradePolicy.REQUIRED)
IMPLICIT = UpgradeToSsl(TLS, UpgradePolicy.IMPLICIT)
REQUEST, GO_AHEAD = encode_frame(b"STARTTLS"), encode_frame(b"OK")
FRAME = encode_frame(b"x")


class Recorder(FrameRecorder):
    """Answers each frame, and records its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.secured: list[bool] = []

    def frame_received(self, payload: bytes) -> None:
        self.received.append(payload)
        self.send_frame(b"got " + payload)

    def connection_secured(self) -> None:
        self.secured.append(self.is_secure)


class Announced(Recorder):
    """Records whether it was secure when `connection_made` was called."""

    def __init__(self) -> None:
        super().__init__()
        self.announced: list[bool] = []

    def connection_made(self) -> None:
        self.announced.append(self.is_secure)


class Talker(LineRecorder):
    """Answers each line, and records its calls."""

    def line_received(self, line: bytes) -> None:
        self.received.append(line)
        self.send_line(b"got " + line)


class StrictClock(Clock):
    """Refuses a delay below 0, as a reactor does."""

    def callLater(self, delay: float, *args: Any, **kwargs: Any) -> Any:
        assert delay >= 0, delay
        return super().callLater(delay, *args, **kwargs)


class Connection:
    """One server connection, with a peer that can do TLS."""

    def __init__(
        self,
        upgrade: UpgradeToSsl = ALLOWED,
        protocol: type[StreamProtocol] = Recorder,
        *,
        is_tls: bool = False,
        **limits: Any,
    ) -> None:
        self.clock = StrictClock()
        self.factory = StreamServerFactory(self.clock, protocol, **limits)
        built: Any = self.factory.buildProtocol(None)
        self.protocol = built
        built.upgrade = upgrade
        transport: Any = StringTransport()
        transport.TLS = is_tls
        self.transport = transport
        transport.protocol = built
        built.makeConnection(self.transport)
        self.peer = ClientPeer(TRUSTING)

    def receive(self, data: bytes, step: int = 0) -> None:
        """Deliver bytes to the server, in pieces of ``step`` bytes unless that is 0."""
        for start in range(0, len(data), step or len(data) or 1):
            if not self.transport.disconnected:
                self.transport.protocol.dataReceived(data[start : start + (step or len(data))])

    def sent(self) -> bytes:
        """Return the bytes that the server sent since the last call."""
        self.clock.advance(0)
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def shake_hands(self, step: int = 0, in_front: bytes = b"") -> None:
        """Do a handshake, to its end or the end of the connection."""
        self.receive(in_front + self.peer.hello(), step)
        self.converse(step)

    def converse(self, step: int = 0) -> None:
        """Pass on what each side sends, until neither sends more."""
        while (data := self.sent()) and not self.transport.disconnected:
            self.receive(self.peer.take(data), step)

    def ask(self, request: bytes) -> bytes:
        """Send bytes inside TLS, and return the answer inside TLS."""
        self.peer.received = b""
        self.receive(self.peer.say(request))
        self.converse()
        return self.peer.received


class DirectTests(SynchronousTestCase):
    """A ClientHello at a message boundary, with no command before it."""

    def test_a_hello_at_the_start_or_after_messages_upgrades(self) -> None:
        """Messages before it are answered before it, in plaintext."""
        for before in (b"", FRAME, FRAME * 3):
            connection = Connection()
            connection.receive(before)
            self.assertEqual(
                connection.sent(),
                encode_frame(b"got x") * (len(before) // len(FRAME)),
                f"{before=}",
            )
            connection.shake_hands()
            self.assertTrue(connection.peer.is_done, f"{before=}")
            self.assertTrue(connection.protocol.is_secure, f"{before=}")
            self.assertEqual(
                connection.ask(encode_frame(b"in")), encode_frame(b"got in"), f"{before=}"
            )

    def test_a_message_in_one_segment_with_the_hello_is_answered_in_plaintext(self) -> None:
        """S4, S11: the answer leaves in front of the handshake."""
        connection = Connection()
        connection.receive(FRAME + connection.peer.hello())
        sent = connection.sent()
        self.assertTrue(sent.startswith(encode_frame(b"got x") + b"\x16\x03"))
        connection.receive(connection.peer.take(sent[len(encode_frame(b"got x")) :]))
        connection.converse()
        self.assertTrue(connection.protocol.is_secure)

    @given(integers(1, 40))
    @settings(max_examples=15, deadline=None)
    def test_a_hello_cut_anywhere_upgrades(self, step: int) -> None:
        """The hello arrives byte by byte, or in larger pieces."""
        connection = Connection()
        connection.shake_hands(step)
        self.assertTrue(connection.protocol.is_secure)
        self.assertEqual(connection.ask(FRAME), encode_frame(b"got x"))

    def test_a_hello_between_lines_upgrades(self) -> None:
        """No line can begin as a ClientHello does."""
        connection = Connection(protocol=Talker)
        connection.receive(b"plain\r\n")
        self.assertEqual(connection.sent(), b"got plain\r\n")
        connection.shake_hands()
        self.assertEqual(connection.ask(b"in\r\n"), b"got in\r\n")

    def test_echoes_answer_before_and_after_the_upgrade(self) -> None:
        """With frames and with lines."""
        for protocol, message in ((FrameEcho, FRAME), (LineEcho, b"x\r\n")):
            connection = Connection(protocol=protocol)
            connection.receive(message * 2)
            self.assertEqual(connection.sent(), message * 2, f"{protocol=}")
            connection.shake_hands()
            self.assertEqual(connection.ask(message * 3), message * 3, f"{protocol=}")

    def test_a_line_that_begins_with_half_a_hello_is_a_line(self) -> None:
        """One byte of the record header is not enough for a trigger."""
        connection = Connection(protocol=Talker)
        connection.receive(b"\x16")
        self.assertEqual(connection.sent(), b"")
        connection.receive(b"x\r\n")
        self.assertEqual(connection.sent(), b"got \x16x\r\n")


class CommandTests(SynchronousTestCase):
    """The in-band command: request, go-ahead, handshake."""

    def test_the_go_ahead_is_the_last_plaintext(self) -> None:
        """Bytes written after it are sent inside TLS."""
        connection = Connection()
        connection.receive(REQUEST)
        self.assertEqual(connection.sent(), GO_AHEAD)
        connection.protocol.send_frame(b"late")
        self.assertEqual(connection.sent(), b"")
        connection.shake_hands()
        self.assertEqual(connection.peer.received, encode_frame(b"late"))
        self.assertEqual(connection.protocol.secured, [True])
        counters = connection.factory.counters
        self.assertEqual((counters.upgrades, counters.upgrade_failures), (1, {}))
        self.assertEqual(sum(counters.handshake_seconds.counts), 1)

    def test_a_hello_pipelined_with_the_request_upgrades(self) -> None:
        """S4: in one piece with the request, or byte by byte."""
        for step in (0, 1):
            connection = Connection()
            connection.receive(REQUEST + connection.peer.hello(), step)
            sent = connection.sent()
            self.assertTrue(sent.startswith(GO_AHEAD), f"{step=}")
            connection.receive(connection.peer.take(sent[len(GO_AHEAD) :]), step)
            connection.converse(step)
            self.assertEqual(connection.ask(FRAME), encode_frame(b"got x"), f"{step=}")

    def test_plaintext_behind_the_request_aborts(self) -> None:
        """S1, S2, S3, S5, S6: it is never handled, wherever the stream is cut."""
        for rest in (
            FRAME,
            b"\0\0\0",
            REQUEST,
            b"\x16\x02",
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x15\x03\x03",
        ):
            for step in (0, 1, 3):
                for together in (True, False):
                    connection = Connection()
                    if together:
                        connection.receive(REQUEST + rest, step)
                    else:
                        connection.receive(REQUEST)
                        connection.receive(rest, step)
                    self.assertTrue(connection.transport.disconnected, rest)
                    self.assertEqual(
                        connection.protocol.received, [], f"{rest=}, {step=}, {together=}"
                    )
                    self.assertEqual(connection.sent(), GO_AHEAD, f"{rest=}, {step=}, {together=}")

    def test_half_a_frame_in_plaintext_is_not_completed_inside_tls(self) -> None:
        """S5: three bytes of a length prefix before the hello abort."""
        connection = Connection()
        connection.receive(REQUEST + b"\0\0\0")
        self.assertTrue(connection.transport.disconnected)
        self.assertFalse(connection.protocol.is_secure)

    def test_a_request_inside_tls_is_refused(self) -> None:
        """S6: the answer is the refusal, and the connection continues."""
        connection = Connection()
        connection.shake_hands()
        self.assertEqual(connection.ask(REQUEST), encode_frame(b"NO"))
        self.assertEqual(connection.ask(FRAME), encode_frame(b"got x"))
        self.assertEqual(connection.protocol.secured, [True])

    def test_other_command_words_upgrade(self) -> None:
        """The request, go-ahead and refusal can be those of another protocol."""
        words = UpgradeToSsl(TLS, request=b"PLEASE", go_ahead=b"220 go", refusal=b"503 no")
        connection = Connection(words, Talker)
        connection.receive(b"STARTTLS\r\n")
        self.assertEqual(connection.sent(), b"got STARTTLS\r\n")
        connection.receive(b"PLEASE\r\n")
        self.assertEqual(connection.sent(), b"220 go\r\n")
        connection.shake_hands()
        self.assertEqual(connection.ask(b"PLEASE\r\n"), b"503 no\r\n")

    def test_a_request_behind_a_byte_order_mark_is_a_line(self) -> None:
        """Some .NET clients send the mark in front of their first line; it is part of that line."""
        connection = Connection(protocol=Talker)
        connection.receive(b"\xef\xbb\xbfSTARTTLS\r\n")
        self.assertEqual(connection.sent(), b"got \xef\xbb\xbfSTARTTLS\r\n")
        connection.receive(b"STARTTLS\r\n")
        self.assertEqual(connection.sent(), b"OK\r\n")

    def test_silence_after_the_go_ahead_ends_at_the_deadline(self) -> None:
        """S10: one event reports it, and no timer is left."""
        connection = Connection(idle_timeout=None)
        connection.receive(REQUEST)
        connection.clock.advance(9.9)
        self.assertFalse(connection.transport.disconnected)
        connection.clock.advance(0.1)
        self.assertTrue(connection.transport.disconnected)
        self.assertEqual(connection.factory.counters.violations, 1)
        self.assertEqual(connection.factory.counters.upgrade_failures, {"ConnectionTimedOut": 1})
        connection.protocol.connectionLost()
        self.assertEqual(connection.clock.getDelayedCalls(), [])

    def test_a_handshake_in_single_bytes_ends_at_the_deadline(self) -> None:
        """S10: its time begins with its first byte."""
        connection = Connection(idle_timeout=None)
        for byte in connection.peer.hello()[:23]:
            connection.receive(bytes([byte]))
            connection.clock.advance(0.5)
        self.assertTrue(connection.transport.disconnected)


class BoundaryTests(SynchronousTestCase):
    """The boundary of the upgrade, in both formats: byte by byte, and cut in two at any place."""

    #: A protocol, the encoder of its messages, and bytes that are no handshake.
    FORMATS = (
        (Recorder, encode_frame, (FRAME, b"\0\0\0", b"\0", b"\x16\x02", b"\x80\x2e\1\0\2")),
        (Talker, encode_line, (b"x\r\n", b"\n", b"x", b"\x16\x02", b"\x80\x2e\1\0\2")),
    )

    def test_bytes_behind_the_request_are_a_handshake_or_abort(self) -> None:
        """S1, S2, S3, S5, S6, S9: one byte at a time, and in any two pieces."""
        for protocol, encode, wrong in self.FORMATS:
            request, go_ahead = encode(b"STARTTLS"), encode(b"OK")
            for behind in (*wrong, request, b"GET / HTTP/1.1\r\n\r\n", b"\x15\x03\x03\0\2\2\x28"):
                stream = request + behind
                for cut in range(len(stream) + 1):
                    connection = Connection(protocol=protocol)
                    connection.receive(stream[:cut], step=1 if cut == len(stream) else 0)
                    connection.receive(stream[cut:])
                    self.assertTrue(connection.transport.disconnected, (stream, cut))
                    self.assertEqual(
                        connection.protocol.received, [], f"{protocol=}, {behind=}, {cut=}"
                    )
                    self.assertEqual(connection.sent(), go_ahead, f"{protocol=}, {behind=}, {cut=}")

    def test_a_pipelined_hello_upgrades_at_every_cut(self) -> None:
        """S4, S11: at every cut around the boundary; earlier answers leave before it."""
        for protocol, encode, _ in self.FORMATS:
            front = encode(b"x") + encode(b"STARTTLS")
            answer = encode(b"got x") + encode(b"OK")
            for cut in range(len(front) - 3, len(front) + 8):
                connection = Connection(protocol=protocol)
                stream = front + connection.peer.hello()
                connection.receive(stream[:cut])
                connection.receive(stream[cut:])
                sent = connection.sent()
                self.assertTrue(sent.startswith(answer + b"\x16\x03"), cut)
                connection.receive(connection.peer.take(sent[len(answer) :]))
                connection.converse()
                self.assertEqual(
                    connection.ask(encode(b"in")), encode(b"got in"), f"{protocol=}, {cut=}"
                )
                self.assertEqual(
                    connection.protocol.received, [b"x", b"in"], f"{protocol=}, {cut=}"
                )

    def test_a_message_begun_in_plaintext_is_not_completed_inside_tls(self) -> None:
        """S5: whatever bytes arrive inside TLS."""
        for protocol, encode, _ in self.FORMATS:
            message = encode(b"begun outside")
            for cut in range(1, len(message)):
                for trigger in (b"", encode(b"STARTTLS")):
                    connection = Connection(protocol=protocol)
                    connection.receive(trigger + message[:cut] + connection.peer.hello())
                    connection.converse()
                    self.assertFalse(
                        connection.protocol.is_secure, f"{protocol=}, {cut=}, {trigger=}"
                    )
                    self.assertFalse(connection.peer.is_done, f"{protocol=}, {cut=}, {trigger=}")

    def test_plaintext_behind_the_request_is_logged_once(self) -> None:
        """The event has the peer and the reason, and no byte that the peer sent."""
        for protocol, encode, _ in self.FORMATS:
            events: list[Any] = []
            note: Any = events.append
            globalLogPublisher.addObserver(note)
            self.addCleanup(globalLogPublisher.removeObserver, note)
            connection = Connection(protocol=protocol)
            connection.receive(encode(b"STARTTLS") + encode(b"evil"))
            globalLogPublisher.removeObserver(note)
            (event,) = events
            self.assertEqual(
                formatEvent(event),
                "192.168.1.1:54321 aborted: plaintext after the request for TLS",
                f"{protocol=}",
            )
            self.assertNotIn("evil", repr(event), f"{protocol=}")
            self.assertEqual(connection.factory.counters.violations, 1, f"{protocol=}")


class Eager(StringTransport):
    """A transport whose peer sends bytes while the go-ahead is being written."""

    protocol: Any
    said = b""

    def write(self, data: bytes) -> None:
        super().write(data)
        said, self.said = self.said, b""
        if said:
            self.protocol.dataReceived(said)


class SwitchTests(SynchronousTestCase):
    """Bytes that are written or arrive during the switch."""

    def test_bytes_that_arrive_while_the_go_ahead_is_written_are_plaintext(self) -> None:
        """S1: plaintext behind a ClientHello that came with the request is never handled."""
        for late in (encode_frame(b"evil"), b"\0\0"):
            connection = Connection()
            connection.transport.__class__ = Eager
            connection.transport.said = late
            connection.receive(REQUEST + connection.peer.hello())
            sent = connection.sent()
            connection.receive(connection.peer.take(sent[len(GO_AHEAD) :]))
            connection.converse()
            self.assertFalse(connection.protocol.is_secure, f"{late=}")
            self.assertEqual(connection.protocol.received, [], f"{late=}")

    def test_a_hello_that_arrives_while_the_go_ahead_is_written_is_used_once(self) -> None:
        """Its rest goes into the handshake, and is no message afterwards."""
        connection = Connection()
        connection.transport.__class__ = Eager
        hello = connection.peer.hello()
        connection.transport.said = hello[50:]
        connection.receive(REQUEST + hello[:50])
        sent = connection.sent()
        connection.receive(connection.peer.take(sent[len(GO_AHEAD) :]))
        connection.converse()
        for attempt in range(2):
            self.assertEqual(connection.ask(FRAME), encode_frame(b"got x"), f"{attempt=}")

    def test_plaintext_that_reaches_the_protocol_in_a_handshake_is_not_handled(self) -> None:
        """S1: a wrapper may keep its own reference to the protocol, and deliver to it."""
        connection = Connection()
        connection.receive(connection.peer.hello())
        connection.sent()
        connection.protocol.dataReceived(encode_frame(b"evil") + REQUEST)
        self.assertEqual((connection.protocol.received, connection.sent()), ([], b""))

    def test_a_request_waits_while_the_output_is_full(self) -> None:
        """The go-ahead is an answer like any other: it is sent when the peer reads again."""
        connection, large = Connection(), bytes(HIGH_WATER)
        connection.transport.producer.pauseProducing()
        connection.receive(encode_frame(large) + REQUEST)
        self.assertEqual(connection.sent(), encode_frame(b"got " + large))
        connection.transport.producer.resumeProducing()
        self.assertEqual(connection.sent(), GO_AHEAD)

    def test_a_request_waits_for_a_running_handler(self) -> None:
        """As every message does; the handler's answer is sent first."""
        connection = Connection(protocol=Slow)
        connection.receive(FRAME + REQUEST)
        self.assertEqual(connection.sent(), b"")
        connection.protocol.waits.pop().callback(None)
        self.assertEqual(connection.sent(), GO_AHEAD)

    def test_writes_to_the_transport_are_not_sent_in_plaintext(self) -> None:
        """S13: behind the go-ahead, in the handshake, and later; also to a kept transport."""
        for steps in range(3):
            for is_kept in (True, False):
                connection = Connection()
                kept = connection.protocol.transport
                connection.receive(REQUEST)
                connection.sent()
                if steps == 1:
                    connection.receive(connection.peer.hello())
                    connection.sent()
                if steps == 2:
                    connection.shake_hands()
                (kept if is_kept else connection.protocol.transport).write(b"secret")
                self.assertNotIn(b"secret", connection.sent(), (steps, is_kept))

    def test_many_pushes_do_not_stall_the_handshake(self) -> None:
        """S13: the handshake is read although the output is full."""
        for cut in (0, 1, 100):
            connection = Connection()
            connection.receive(REQUEST)
            connection.sent()
            pushed = bytes(100_000)
            connection.protocol.send_frame(pushed)
            hello = connection.peer.hello()
            connection.receive(hello[:cut])
            self.assertEqual(connection.transport.producerState, "producing", cut)
            connection.receive(hello[cut:])
            connection.converse()
            self.assertEqual(connection.peer.received, encode_frame(pushed), f"{cut=}")
            self.assertEqual(connection.protocol.brakes, ["paused", "resumed"], f"{cut=}")
            self.assertEqual(connection.ask(FRAME), encode_frame(b"got x"), f"{cut=}")

    def test_close_notify_in_the_handshake_is_one_line_in_the_log(self) -> None:
        """S15: an attacker writes no tracebacks into the log."""
        for behind in (0, 1):
            connection = Connection(idle_timeout=None)
            connection.receive(connection.peer.hello())
            if behind:
                connection.peer.take(connection.sent())
            connection.receive(b"\x15\x03\x03\0\2\1\0")
            self.assertTrue(connection.transport.disconnecting, f"{behind=}")
            connection.transport.protocol.connectionLost(Failure(ConnectionDone()))
            self.assertEqual(connection.protocol.received, [], f"{behind=}")
            self.assertEqual(len(connection.protocol.lost), 1, f"{behind=}")
            self.assertEqual(connection.clock.getDelayedCalls(), [], f"{behind=}")


class PolicyTests(SynchronousTestCase):
    """The policies: off, allowed, required."""

    def test_messages_before_a_required_upgrade_are_dropped(self) -> None:
        """S8: they are not answered; the connection continues inside TLS."""
        connection = Connection(REQUIRED)
        connection.receive(encode_frame(b"secret") * 3)
        self.assertEqual(connection.sent(), b"")
        connection.shake_hands()
        self.assertEqual(connection.protocol.received, [])
        self.assertEqual(connection.ask(FRAME), encode_frame(b"got x"))

    def test_more_than_four_kib_before_a_required_upgrade_aborts(self) -> None:
        """The bytes of the handshake do not count."""
        connection = Connection(REQUIRED)
        connection.receive(encode_frame(bytes(MAX_BEFORE_UPGRADE)))
        self.assertFalse(connection.transport.disconnected)
        connection.receive(FRAME)
        self.assertTrue(connection.transport.disconnected)
        connection = Connection(REQUIRED)
        connection.receive(encode_frame(bytes(MAX_BEFORE_UPGRADE)))
        connection.shake_hands()
        self.assertTrue(connection.protocol.is_secure)

    def test_on_a_tls_endpoint_the_request_is_refused(self) -> None:
        """A connection that a TLS endpoint accepted is secure already."""
        for policy in (REQUIRED, ALLOWED):
            connection = Connection(policy, is_tls=True)
            connection.receive(FRAME + REQUEST + FRAME)
            answers = b"".join(map(encode_frame, (b"got x", b"NO", b"got x")))
            self.assertEqual(connection.sent(), answers, f"{policy=}")

    def test_over_a_tls_endpoint_implicit_tls_is_that_of_the_endpoint(self) -> None:
        """The connection is reported, and the command's words are data."""
        for ignores_case in (False, True):
            implicit = replace(IMPLICIT, ignores_case=ignores_case)
            connection = Connection(implicit, Announced, is_tls=True)
            self.assertEqual(len(connection.protocol.announced), 1, f"{ignores_case=}")
            connection.receive(FRAME + REQUEST)
            answers = encode_frame(b"got x") + encode_frame(b"got STARTTLS")
            self.assertEqual(connection.sent(), answers, f"{ignores_case=}")

    def test_a_tls_endpoint_under_required_client_certificates_ends_connections(self) -> None:
        """A TLS endpoint has not asked the client for a certificate."""
        authority = Certificate.from_pem(AUTHORITY.cert_pem.bytes())
        options = ServerOptions(
            [CERTIFICATE],
            client_certificate=ClientCertificatePolicy.REQUIRED,
            client_authorities=[authority],
        )
        connection = Connection(UpgradeToSsl(ServerTls(options)), is_tls=True)
        self.assertTrue(connection.transport.disconnected)
        connection.protocol.dataReceived(FRAME)
        self.assertEqual(connection.protocol.received, [])
        off = UpgradeToSsl(ServerTls(options), UpgradePolicy.OFF)
        connection = Connection(off, is_tls=True)
        connection.receive(FRAME)
        self.assertEqual(connection.sent(), encode_frame(b"got x"))

    def test_a_hello_in_the_turn_of_the_deadline_is_too_late(self) -> None:
        """A busy process reads the hello after the deadline has passed."""
        connection = Connection(idle_timeout=None)
        connection.receive(REQUEST)
        connection.clock.rightNow += 11
        connection.receive(connection.peer.hello())
        self.assertFalse(connection.transport.disconnected)
        connection.clock.advance(0)
        self.assertTrue(connection.transport.disconnected)

    def test_empty_messages_before_a_required_upgrade_count(self) -> None:
        """S8: their headers count against the four KiB."""
        for protocol, message in ((Recorder, encode_frame(b"")), (Talker, b"\n")):
            connection = Connection(REQUIRED, protocol)
            connection.receive(message * (MAX_BEFORE_UPGRADE + 1))
            self.assertTrue(connection.transport.disconnected, f"{protocol=}")
            self.assertEqual(connection.protocol.received, [], f"{protocol=}")

    def test_a_large_message_before_a_required_upgrade_is_refused_at_its_length(self) -> None:
        """It takes no memory; inside TLS the application's own limit holds."""
        connection = Connection(REQUIRED)
        connection.receive(encode_frame(bytes(MAX_BEFORE_UPGRADE + 1))[:4])
        self.assertTrue(connection.transport.disconnected)
        connection = Connection(REQUIRED)
        connection.shake_hands()
        large = encode_frame(bytes(2 * MAX_BEFORE_UPGRADE))
        self.assertEqual(len(connection.ask(large)), len(large) + len(b"got "))

    def test_before_a_required_upgrade_a_smaller_limit_stays(self) -> None:
        """The one of the application."""
        connection = Connection(REQUIRED, max_payload=100)
        connection.receive(encode_frame(bytes(101))[:4])
        self.assertTrue(connection.transport.disconnected)

    def test_switched_off_both_triggers_are_data(self) -> None:
        """The command is a message, and a ClientHello is a length prefix that is too large."""
        off = UpgradeToSsl(TLS, UpgradePolicy.OFF)
        connection = Connection(off)
        connection.receive(REQUEST)
        self.assertEqual(connection.sent(), encode_frame(b"got STARTTLS"))
        connection.receive(connection.peer.hello())
        self.assertTrue(connection.transport.disconnected)

    def test_a_frame_limit_that_a_hello_could_reach_is_refused(self) -> None:
        """As a length prefix ``16 03`` means 369,295,360 bytes or more; a line has no prefix."""
        for policy, is_counted, is_refused in (
            (UpgradePolicy.ALLOWED, True, True),
            (UpgradePolicy.REQUIRED, True, True),
            (UpgradePolicy.OFF, True, False),
            (UpgradePolicy.ALLOWED, False, False),
        ):
            upgrade = UpgradeToSsl(TLS, policy)
            if is_refused:
                self.assertRaises(ValueError, upgrade.check_limit, 0x16030000, is_counted)
                upgrade.check_limit(0x1602FFFF, is_counted)
            else:
                upgrade.check_limit(0x16030000, is_counted)

    def test_such_a_limit_of_a_factory_or_a_class_is_refused(self) -> None:
        """The factory's constructor refuses it, and so does the connection."""
        reactor = Clock()
        self.assertRaises(
            ValueError,
            StreamServerFactory,
            reactor,
            Recorder,
            max_payload=0x16030000,
            upgrade=ALLOWED,
        )

        class Wide(Recorder):
            max_payload = 0x16030000

        built = StreamServerFactory(reactor, Wide, upgrade=ALLOWED).buildProtocol(None)
        assert built is not None
        transport = StringTransport()
        self.assertRaises(ValueError, built.makeConnection, transport)
        self.assertTrue(transport.disconnected)

    def test_settings_out_of_bounds_are_refused(self) -> None:
        """A wrong setting raises an error before any connection exists."""
        for wrong in ({"handshake_timeout": 0}, {"request": b""}, {"go_ahead": b""}):
            self.assertRaises(ValueError, UpgradeToSsl, TLS, **wrong)


class ImplicitTests(SynchronousTestCase):
    """TLS from the first byte."""

    def test_connection_made_is_called_when_the_connection_is_secure(self) -> None:
        """The application gets no call before; inside TLS the command's words are data."""
        connection = Connection(IMPLICIT, Announced)
        self.assertEqual(connection.protocol.announced, [])
        connection.shake_hands()
        self.assertEqual(connection.protocol.announced, [True])
        self.assertEqual(connection.protocol.secured, [])
        self.assertEqual(connection.ask(REQUEST), encode_frame(b"got STARTTLS"))

    def test_plaintext_ends_the_connection_unseen(self) -> None:
        """A message, a request or other bytes end it, and the application gets no call."""
        for wrong in (FRAME, REQUEST, b"\0", b"GET / HTTP/1.1", b"\x16\x02"):
            connection = Connection(IMPLICIT, Announced)
            connection.receive(wrong)
            self.assertTrue(connection.transport.disconnected, wrong)
            connection.protocol.connectionLost()
            self.assertEqual(connection.sent(), b"", f"{wrong=}")
            self.assertEqual(
                (connection.protocol.announced, connection.protocol.lost), ([], []), f"{wrong=}"
            )

    def test_silence_ends_the_connection_at_the_deadline(self) -> None:
        """
        S10: after no byte and after half a handshake; arriving bytes do not extend the deadline.
        """
        for piece in (b"", b"\x16", b"\x16\x03\x01"):
            connection = Connection(IMPLICIT, Announced, idle_timeout=None)
            connection.clock.advance(5)
            connection.receive(piece)
            connection.clock.advance(4.9)
            self.assertFalse(connection.transport.disconnected, f"{piece=}")
            connection.clock.advance(0.2)
            self.assertTrue(connection.transport.disconnected, f"{piece=}")
            connection.transport.protocol.connectionLost(Failure(ConnectionDone()))
            self.assertEqual(connection.clock.getDelayedCalls(), [], f"{piece=}")

    def test_a_large_frame_limit_is_accepted(self) -> None:
        """No trigger is looked for among frames, so the limit has no upper bound of the upgrade."""
        IMPLICIT.check_limit(0xFFFF_FFFF, is_counted=True)
        self.assertIs(IMPLICIT.policy, UpgradePolicy.IMPLICIT)


class TriggerTests(SynchronousTestCase):
    """The search for triggers, which messages that can't be one do not cost."""

    def test_a_large_message_is_not_searched_again_and_again(self) -> None:
        """A partial message is searched only while it is small."""
        connection = Connection(protocol=FrameEcho)
        payload = bytes(2 * 1024 * 1024)
        connection.receive(encode_frame(payload), 64 * 1024)
        self.assertEqual(connection.sent(), encode_frame(payload))

    def test_triggers_inside_messages_are_data(self) -> None:
        """Only a whole message that starts at a boundary is a trigger."""
        for payload in (b"say STARTTLS now", b"\x16\x03\x01", b"STARTTLS!"):
            connection = Connection(protocol=FrameEcho)
            connection.receive(encode_frame(payload) * 2)
            self.assertEqual(connection.sent(), encode_frame(payload) * 2, f"{payload=}")
            connection.shake_hands()
            self.assertEqual(
                connection.ask(encode_frame(payload)), encode_frame(payload), f"{payload=}"
            )

    def test_command_words_match_in_any_case_if_set(self) -> None:
        """``ignores_case`` decides."""
        for ignores_case in (True, False):
            words = UpgradeToSsl(TLS, ignores_case=ignores_case)
            connection = Connection(words, Talker)
            connection.receive(b"StartTls\r\n")
            expected = b"OK\r\n" if ignores_case else b"got StartTls\r\n"
            self.assertEqual(connection.sent(), expected, f"{ignores_case=}")

    def test_inside_tls_a_line_that_begins_as_a_hello_is_a_line(self) -> None:
        """It is handled, also if every line is compared with the request."""
        for ignores_case in (True, False):
            connection = Connection(UpgradeToSsl(TLS, ignores_case=ignores_case), Talker)
            connection.shake_hands()
            for line in (b"\x16", b"\x16\x03", b"\x16\x03\x01"):
                self.assertEqual(
                    connection.ask(line + b"\r\n"),
                    b"got " + line + b"\r\n",
                    f"{ignores_case=}, {line=}",
                )


class EndTests(SynchronousTestCase):
    """
    Ends of connections around an upgrade: nothing is left, and nothing falls back to plaintext.
    """

    def test_a_broken_hello_aborts(self) -> None:
        """S9: bytes that begin as a ClientHello does."""
        for garbage in (b"\x16\x03\x01\x00\x02xx", b"\x16\x03" + bytes(300)):
            connection = Connection(idle_timeout=None)
            connection.receive(garbage)
            connection.clock.advance(10)
            self.assertTrue(
                connection.transport.disconnecting or connection.transport.disconnected,
                f"{garbage=}",
            )
            connection.receive(FRAME)
            self.assertEqual(connection.protocol.received, [], f"{garbage=}")
            self.assertFalse(connection.protocol.is_secure, f"{garbage=}")

    def test_a_loss_at_any_step_is_reported_once(self) -> None:
        """S14: before, in and after the handshake; no timer is left."""
        for step in range(4):
            connection = Connection(idle_timeout=None)
            if step >= 1:
                connection.receive(REQUEST)
            if step == 2:
                connection.sent()
                connection.receive(connection.peer.hello())
            if step == 3:
                connection.sent()
                connection.shake_hands()
            connection.transport.protocol.connectionLost(Failure(ConnectionDone()))
            self.assertEqual(len(connection.protocol.lost), 1, step)
            self.assertEqual(connection.clock.getDelayedCalls(), [], step)

    def test_closing_in_a_handshake_sends_no_plaintext(self) -> None:
        """Bytes written meanwhile are dropped."""
        connection = Connection()
        connection.receive(REQUEST)
        connection.sent()
        connection.protocol.send_frame(b"never in plaintext")
        connection.protocol.close()
        self.assertTrue(connection.transport.disconnected)
        # Twisted's transports take late writes without an error.
        connection.transport.write(b"never")
        self.assertNotIn(b"never", connection.sent())

    def test_a_handshake_that_ends_after_the_close_is_ignored(self) -> None:
        """A transport may still deliver the peer's last flight: nothing is handled."""
        for end in ("close", "abort"):
            connection = Connection()
            connection.receive(connection.peer.hello())
            flight = connection.peer.take(connection.sent())
            getattr(connection.protocol, end)()
            connection.transport.protocol.dataReceived(flight + connection.peer.say(FRAME))
            self.assertEqual(
                (connection.protocol.secured, connection.protocol.received), ([], []), f"{end=}"
            )
            self.assertFalse(connection.protocol.is_secure, f"{end=}")
            connection.transport.protocol.connectionLost(Failure(ConnectionDone()))
            self.assertEqual(len(connection.protocol.lost), 1, f"{end=}")
            self.assertEqual(connection.clock.getDelayedCalls(), [], f"{end=}")

    def test_state_from_before_the_upgrade_can_be_dropped(self) -> None:
        """
        S7: the hook is called when the connection is secure, and before any message inside TLS.
        """

        class Stateful(Recorder):
            name = b"nobody"

            def frame_received(self, payload: bytes) -> None:
                self.send_frame(self.name)
                self.name = payload

            def connection_secured(self) -> None:
                self.name = b"nobody"

        connection = Connection(protocol=Stateful)
        connection.receive(encode_frame(b"mallory"))
        connection.sent()
        connection.shake_hands()
        self.assertEqual(connection.ask(FRAME), encode_frame(b"nobody"))

    def test_an_end_without_close_notify_is_a_truncation(self) -> None:
        """S15: it is no end in order."""
        connection = Connection()
        connection.shake_hands()
        connection.transport.protocol.connectionLost(Failure(ConnectionDone()))
        (error,) = connection.protocol.lost
        self.assertIsInstance(error, SocketError)


class Slow(Recorder):
    """Handles each frame until the test calls it to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[Deferred[None]] = []

    def frame_received(self, payload: bytes) -> Deferred[None]:  # type: ignore[override]
        self.received.append(payload)
        self.waits.append(Deferred())
        return self.waits[-1]


class SearchCostTests(SynchronousTestCase):
    """An upgrade that is allowed costs the messages nothing."""

    def searched(self, upgrade: UpgradeToSsl | None, protocol: Any, data: bytes, step: int) -> int:
        """Count the bytes that were searched while data arrived in pieces."""
        connection = Connection(upgrade, protocol)  # type: ignore[arg-type]
        connection.receive(data[:-3000])
        with count_searched_bytes() as searched:
            connection.receive(data[-3000:], step)
        self.assertFalse(connection.transport.disconnected)
        return searched.value

    def test_a_partial_message_is_not_searched(self) -> None:
        """With the upgrade on, an unfinished frame or line is searched no more than with it off."""
        frame = encode_frame(bytes(400_000))[:200_000]
        for protocol, data in (
            (Recorder, frame),
            (FrameEcho, frame),
            (Talker, b"x" * 60_000),
            (LineEcho, b"x" * 60_000),
        ):
            without = self.searched(None, protocol, data, 1)
            for ignores_case in (False, True):
                upgrade = UpgradeToSsl(TLS, ignores_case=ignores_case)
                self.assertEqual(
                    self.searched(upgrade, protocol, data, 1),
                    without,
                    f"{protocol=}, {data=}, {ignores_case=}",
                )

    def test_messages_inside_tls_are_not_searched(self) -> None:
        """There a request is refused, and everything else is a message."""
        connection = Connection(ALLOWED, FrameEcho)
        connection.shake_hands()
        connection.ask(encode_frame(bytes(400_000))[:200_000])
        with count_searched_bytes() as searched:
            for _ in range(100):
                connection.ask(b"x")
        self.assertLess(searched.value, 200_000)

    def test_messages_that_wait_for_a_handler_are_not_searched(self) -> None:
        """However often a handler ends and the next one begins."""
        connection = Connection(ALLOWED, Slow)
        with count_searched_bytes() as searched:
            connection.receive(FRAME * 2000)
            for _ in range(2000):
                connection.protocol.waits.pop().callback(None)
        self.assertEqual(len(connection.protocol.received), 2000)
        self.assertEqual(searched.value, 0)

    def test_a_request_behind_messages_is_answered_behind_them(self) -> None:
        """In one segment, in both formats; plaintext behind the request ends the connection."""
        for protocol, before, request in (
            (FrameEcho, encode_frame(b"a STARTTLS in here"), REQUEST),
            (FrameEcho, encode_frame(b"STARTTLX") * 20, REQUEST),
            (LineEcho, b"a STARTTLS in here\r\n", b"STARTTLS\n"),
            (LineEcho, b"x\r\nSTARTTLS.\r\n", b"STARTTLS\r\n"),
        ):
            connection = Connection(ALLOWED, protocol)
            connection.receive(before + request)
            go_ahead = GO_AHEAD if protocol is FrameEcho else b"OK\r\n"
            self.assertEqual(connection.sent(), before + go_ahead, f"{protocol=}, {request=}")
            connection.receive(before)
            self.assertTrue(connection.transport.disconnected, f"{protocol=}, {request=}")


class DrainTests(SynchronousTestCase):
    """A drain of a server answers one message behind a handshake that has begun."""

    def drain(
        self,
        upgrade: UpgradeToSsl,
        first: bytes | None = None,
        protocol: type[StreamProtocol] = Recorder,
    ) -> Connection:
        """Begin a handshake, drain the server, and finish the handshake."""
        connection = Connection(upgrade, protocol)
        hello = connection.peer.hello()
        if first is not None:
            connection.receive(first)
            connection.sent()
            connection.factory.drain(10)
            connection.clock.pump([0.05] * 10)
            self.assertFalse(connection.transport.disconnecting)
            connection.receive(hello)
        else:
            connection.receive(hello)
            connection.factory.drain(10)
            connection.clock.pump([0.05] * 10)
        connection.converse()
        self.assertTrue(connection.protocol.is_secure)
        return connection

    def drained(self) -> Iterator[Connection]:
        yield self.drain(IMPLICIT)
        yield self.drain(ALLOWED)
        yield self.drain(ALLOWED, REQUEST)

    def test_the_first_message_after_the_handshake_is_answered(self) -> None:
        """The connection ends after the answer."""
        for number, connection in enumerate(self.drained()):
            connection.clock.advance(0.9)
            self.assertTrue(connection.protocol.is_open, f"{number=}")
            self.assertEqual(connection.ask(FRAME), encode_frame(b"got x"), f"{number=}")
            self.assertFalse(connection.protocol.is_open, f"{number=}")
            connection.transport.protocol.connectionLost(Failure(ConnectionDone()))
            self.assertEqual(connection.clock.getDelayedCalls(), [], f"{number=}")

    def test_the_handler_of_the_first_message_is_awaited(self) -> None:
        """Longer than a client without a message."""
        connection = self.drain(ALLOWED, protocol=Slow)
        connection.ask(FRAME)
        connection.clock.advance(1.1)
        self.assertTrue(connection.protocol.is_open)
        connection.protocol.waits.pop().callback(None)
        self.assertFalse(connection.protocol.is_open)

    def test_a_client_without_a_message_ends_after_a_second(self) -> None:
        """The second begins with the end of the handshake."""
        for number, connection in enumerate(self.drained()):
            connection.clock.advance(1.1)
            self.assertFalse(connection.protocol.is_open, f"{number=}")

    def test_a_handshake_within_one_turn_is_followed_by_the_same_wait(self) -> None:
        """One of its first two bytes had arrived when the drain began."""
        connection = Connection()
        hello = connection.peer.hello()
        connection.receive(hello[:1])
        connection.factory.drain(10)
        connection.receive(hello[1:])
        connection.converse()
        self.assertTrue(connection.protocol.is_secure)
        connection.clock.advance(0.9)
        self.assertEqual(connection.ask(FRAME), encode_frame(b"got x"))
        self.assertFalse(connection.protocol.is_open)

    def test_a_lost_connection_leaves_no_timer_of_the_drain(self) -> None:
        """No delayed call is left."""
        for number, connection in enumerate(self.drained()):
            connection.transport.protocol.connectionLost(Failure(ConnectionDone()))
            self.assertEqual(connection.clock.getDelayedCalls(), [], f"{number=}")
