"""The client side of an upgrade: what a server sends before the handshake deceives no client."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import trustme
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport, StringTransportWithDisconnection
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.stream.connections import FrameRecorder, LineRecorder
from tests.tls.peer import AUTHORITY, ServerPeer
from twsock.errors import (
    BrokenError,
    ClosedError,
    LocalProtocolError,
    RemoteProtocolError,
    SocketError,
    SocketErrorStatus,
)
from twsock.names import HostName
from twsock.protocols import ClientUpgrade, ConnectionRegistry, StreamProtocol, UpgradeStyle
from twsock.stream.client_upgrade import MAX_GO_AHEAD
from twsock.tls import (
    Certificate,
    CertificateError,
    ChainValidationResult,
    ClientOptions,
    SocketProtectionLevel,
    choose_versions,
)
from twsock.wire import encode_frame

OPTIONS = ClientOptions(
    choose_versions(SocketProtectionLevel.SSL),
    HostName("localhost"),
    trust_roots=[Certificate.from_pem(AUTHORITY.cert_pem.bytes())],
)
DIRECT = ClientUpgrade(OPTIONS)
COMMAND = ClientUpgrade(OPTIONS, UpgradeStyle.COMMAND)
#: In TLS 1.2 the server sends the last message of a handshake; data can follow it in the same
#: segment.
COMMAND12 = ClientUpgrade(
    replace(OPTIONS, versions=choose_versions(SocketProtectionLevel.TLS12)), UpgradeStyle.COMMAND
)
REQUEST, GO_AHEAD = encode_frame(b"STARTTLS"), encode_frame(b"OK")
FRAME = encode_frame(b"x")


class Recorder(FrameRecorder):
    """Records when the connection becomes secure."""

    def __init__(self) -> None:
        super().__init__()
        self.secured: list[bool] = []

    def connection_secured(self) -> None:
        self.secured.append(self.is_secure)


class Pushing(Recorder):
    """Sends a frame when its output is full."""

    def writing_paused(self) -> None:
        super().writing_paused()
        self.send_frame(b"hook")


class Connection:
    """One client connection, with a server in memory."""

    def __init__(
        self, protocol: type[StreamProtocol] = Recorder, issued: trustme.LeafCert | None = None
    ) -> None:
        self.clock = Clock()
        built: Any = protocol()
        self.protocol = built
        built.group = ConnectionRegistry(self.clock)
        transport: Any = StringTransport()
        self.transport = transport
        transport.protocol = built
        built.makeConnection(transport)
        self.peer = ServerPeer() if issued is None else ServerPeer(issued)

    def receive(self, data: bytes, step: int = 0) -> None:
        """Deliver bytes to the client, in pieces of ``step`` bytes unless that is 0."""
        for start in range(0, len(data), step or len(data) or 1):
            if not self.transport.disconnected:
                self.transport.protocol.dataReceived(data[start : start + (step or len(data))])

    def sent(self) -> bytes:
        """Return the bytes that the client sent since the last call."""
        self.clock.advance(0)
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def converse(self, step: int = 0) -> None:
        """Pass on what each side sends, until neither sends more."""
        while (data := self.sent()) and not self.transport.disconnected:
            self.receive(self.peer.take(data), step)

    def lose(self) -> None:
        """Report a lost connection."""
        self.transport.protocol.connectionLost(Failure(ConnectionDone()))


class UpgradeTests(SynchronousTestCase):
    """Upgrades that succeed."""

    def test_what_a_hook_writes_behind_the_request_is_held(self) -> None:
        """The request may fill the output; `writing_paused` is then called within the send."""
        made = Connection(Pushing)
        write = made.transport.write

        def fill(data: bytes) -> None:
            write(data)
            if data == REQUEST:
                made.transport.producer.pauseProducing()

        made.transport.write = fill
        upgrading = made.protocol.upgrade_to_ssl(COMMAND)
        made.protocol.send_frame(b"secret")
        self.assertEqual(made.sent(), REQUEST)
        made.transport.producer.resumeProducing()
        made.receive(GO_AHEAD)
        made.converse()
        self.successResultOf(upgrading)
        self.assertEqual(made.peer.received, encode_frame(b"secret") + encode_frame(b"hook"))

    def test_without_a_command_the_next_bytes_are_a_client_hello(self) -> None:
        """A direct upgrade sends its ClientHello at once; messages then travel inside TLS."""
        for step in (0, 1):
            connection = Connection()
            upgrading = connection.protocol.upgrade_to_ssl(DIRECT)
            self.assertTrue(connection.transport.value().startswith(b"\x16\x03"), f"{step=}")
            self.assertFalse(connection.protocol.is_secure, f"{step=}")
            connection.converse(step)
            self.assertIsNone(self.successResultOf(upgrading), f"{step=}")
            self.assertTrue(connection.protocol.is_secure, f"{step=}")
            self.assertEqual(connection.protocol.secured, [True], f"{step=}")
            connection.protocol.send_frame(b"in")
            connection.converse()
            self.assertEqual(connection.peer.received, encode_frame(b"in"), f"{step=}")
            connection.receive(connection.peer.say(FRAME))
            self.assertEqual(connection.protocol.received, [b"x"], f"{step=}")
            shown = connection.protocol.peer_certificate
            assert shown is not None
            self.assertEqual(shown.subject, "server", f"{step=}")
            connection.lose()
            self.assertIs(connection.protocol.peer_certificate, shown, f"{step=}")

    def test_by_command_the_handshake_follows_the_go_ahead(self) -> None:
        """The request is sent, the go-ahead read, the handshake done, however the input is cut."""
        for step in (0, 1):
            connection = Connection()
            upgrading = connection.protocol.upgrade_to_ssl(COMMAND)
            self.assertEqual(connection.sent(), REQUEST, f"{step=}")
            connection.receive(GO_AHEAD, step)
            self.assertTrue(connection.transport.value().startswith(b"\x16\x03"), f"{step=}")
            connection.converse(step)
            self.assertIsNone(self.successResultOf(upgrading), f"{step=}")
            self.assertEqual(connection.protocol.received, [], f"{step=}")

    def test_other_command_words_upgrade_lines(self) -> None:
        """The request, go-ahead and refusal can be those of another protocol."""
        words = ClientUpgrade(OPTIONS, UpgradeStyle.COMMAND, request=b"STLS", go_ahead=b"+OK")
        connection = Connection(LineRecorder)
        upgrading = connection.protocol.upgrade_to_ssl(words)
        self.assertEqual(connection.sent(), b"STLS\r\n")
        connection.receive(b"+OK\r\n")
        connection.converse()
        self.assertIsNone(self.successResultOf(upgrading))

    def test_earlier_writes_leave_in_plaintext_and_later_ones_inside(self) -> None:
        """
        C17: bytes written before the upgrade leave before it; bytes written after are never in
        plaintext.
        """
        for settings, words in ((DIRECT, b""), (COMMAND, REQUEST)):
            connection = Connection()
            connection.protocol.send_frame(b"before")
            upgrading = connection.protocol.upgrade_to_ssl(settings)
            connection.protocol.send_frame(b"secret")
            sent = connection.sent()
            self.assertTrue(sent.startswith(encode_frame(b"before") + words), f"{words=}")
            self.assertNotIn(b"secret", sent, f"{words=}: {sent!r}")
            rest = sent[len(encode_frame(b"before") + words) :]
            connection.receive(GO_AHEAD if words else connection.peer.take(rest))
            self.assertNotIn(b"secret", connection.transport.value(), f"{words=}")
            connection.converse()
            self.assertIsNone(self.successResultOf(upgrading), f"{words=}")
            self.assertEqual(connection.peer.received, encode_frame(b"secret"), f"{words=}")

    def test_answers_of_the_handler_before_the_upgrade_leave_in_plaintext(self) -> None:
        """Although a handler's answers are sent at its end."""
        for settings, words in ((DIRECT, b""), (COMMAND, REQUEST)):

            class Polite(Recorder):
                def frame_received(self, payload: bytes, settings: Any = settings) -> None:
                    self.send_frame(b"before")
                    self.upgrading = self.upgrade_to_ssl(settings)

            connection = Connection(Polite)
            connection.receive(FRAME)
            self.assertTrue(
                connection.sent().startswith(encode_frame(b"before") + words),
                f"{settings=}, {words=}",
            )
            connection.lose()
            self.failureResultOf(connection.protocol.upgrading, BrokenError)

    def test_a_handler_that_continues_after_the_upgrade_is_awaited(self) -> None:
        """The next message waits for its end, as without an upgrade."""
        waiting: Deferred[None] = Deferred()

        class Patient(Recorder):
            async def frame_received(self, payload: bytes) -> None:
                self.received.append(payload)
                if payload == b"hello":
                    await self.upgrade_to_ssl(COMMAND)
                    await waiting

        connection = Connection(Patient)
        connection.receive(encode_frame(b"hello"))
        connection.sent()
        connection.receive(GO_AHEAD)
        connection.converse()
        connection.receive(connection.peer.say(FRAME))
        self.assertEqual(connection.protocol.received, [b"hello"])
        waiting.callback(None)
        self.assertEqual(connection.protocol.received, [b"hello", b"x"])

    def test_in_a_drain_a_handler_that_awaited_the_upgrade_is_the_last(self) -> None:
        """The connection closes when the handler ends, and waits for no first message."""
        waiting: Deferred[None] = Deferred()

        class Patient(Recorder):
            async def frame_received(self, payload: bytes) -> None:
                await self.upgrade_to_ssl(COMMAND)
                await waiting

        connection = Connection(Patient)
        connection.receive(encode_frame(b"hello"))
        connection.sent()
        connection.protocol.drain()
        connection.receive(GO_AHEAD)
        connection.converse()
        self.assertTrue(connection.protocol.is_secure)
        self.assertTrue(connection.protocol.is_open)
        waiting.callback(None)
        self.assertFalse(connection.protocol.is_open)

    def test_writes_to_the_transport_wait_for_the_handshake(self) -> None:
        """C17: bytes written to a transport that was kept from before are not sent in plaintext."""
        for settings in (DIRECT, COMMAND):
            connection = Connection()
            kept = connection.protocol.transport
            upgrading = connection.protocol.upgrade_to_ssl(settings)
            for transport in (kept, connection.protocol.transport):
                transport.write(b"secret")
                transport.writeSequence([b"sec", b"ret"])
            self.assertNotIn(b"secret", connection.sent(), f"{settings is COMMAND=}")
            connection.lose()
            self.failureResultOf(upgrading, BrokenError)

    def test_a_kept_transport_sends_no_plaintext_once_secure(self) -> None:
        """C17: bytes written to it when the connection is secure are encrypted."""
        connection = Connection()
        kept = connection.protocol.transport
        upgrading = connection.protocol.upgrade_to_ssl(DIRECT)
        connection.converse()
        self.assertIsNone(self.successResultOf(upgrading))
        kept.write(b"secret")
        kept.writeSequence([b"sec", b"ret"])
        self.assertNotIn(b"secret", connection.sent())

    def test_an_upgrade_in_a_handler_succeeds(self) -> None:
        """A handler may start the upgrade, or await it."""

        class Polite(Recorder):
            def frame_received(self, payload: bytes) -> None:
                super().frame_received(payload)
                if payload == b"hello":
                    self.upgrade_to_ssl(COMMAND)

        class Patient(Recorder):
            async def frame_received(self, payload: bytes) -> None:
                self.received.append(payload)
                if payload == b"hello":
                    await self.upgrade_to_ssl(COMMAND)
                    self.received.append(b"secure")

        for protocol, expected in ((Polite, []), (Patient, [b"secure"])):
            connection = Connection(protocol)
            connection.receive(encode_frame(b"hello"))
            self.assertEqual(connection.sent(), REQUEST, f"{protocol=}")
            connection.receive(GO_AHEAD)
            connection.converse()
            self.assertTrue(connection.protocol.is_secure, f"{protocol=}")
            connection.receive(connection.peer.say(FRAME))
            self.assertEqual(
                connection.protocol.received, [b"hello", *expected, b"x"], f"{protocol=}"
            )


class DeceptionTests(SynchronousTestCase):
    """Servers that send hostile bytes before the handshake."""

    def deceive(self, answer: bytes, step: int = 0, first: int = 0) -> None:
        """
        Deliver a server's answer; require that the connection is aborted and one event logged.

        :param first: the size of a first piece, delivered before the rest.
        """
        events: list[Any] = []
        note: Any = events.append
        globalLogPublisher.addObserver(note)
        self.addCleanup(globalLogPublisher.removeObserver, note)
        connection = Connection()
        upgrading = connection.protocol.upgrade_to_ssl(COMMAND)
        connection.protocol.send_frame(b"password")
        connection.receive(answer[:first])
        connection.receive(answer[first:], step)
        self.failureResultOf(upgrading, RemoteProtocolError)
        self.assertTrue(connection.transport.disconnected)
        self.assertEqual(connection.protocol.received, [])
        self.assertNotIn(b"password", connection.sent())
        # Its deadline passes without effect, also if the loss is reported late.
        connection.clock.advance(3600)
        self.assertEqual(len(events), 1)
        self.assertIn("TLS upgrade with", events[0]["log_format"])
        self.assertEqual(connection.protocol.group.counters.violations, 1)
        connection.lose()
        self.assertEqual(connection.clock.getDelayedCalls(), [])

    def test_plaintext_behind_the_go_ahead_aborts(self) -> None:
        """C1, C2, C3: a whole message behind the go-ahead, or the beginning of one, aborts."""
        for behind in (FRAME, b"\0", b"\0\0\0", FRAME * 3, b"\x16\x03\x03"):
            self.deceive(GO_AHEAD + behind)

    def test_plaintext_behind_the_go_ahead_aborts_however_it_is_cut(self) -> None:
        """C1, C2, C3: the stream is cut in two at each place up to the end of the go-ahead."""
        for behind in (FRAME, b"\0", b"\x16\x03\x03\0\x10"):
            for place in range(1, len(GO_AHEAD)):
                self.deceive(GO_AHEAD + behind, first=place)

    def test_bytes_after_the_client_hello_are_never_messages(self) -> None:
        """C1, C3: bytes that arrive in the handshake go to the TLS engine and are not handled."""
        for behind in (FRAME, b"\0" * 5, GO_AHEAD, b"\x16\x03\x03\0\x10"):
            connection = Connection()
            upgrading = connection.protocol.upgrade_to_ssl(COMMAND)
            connection.protocol.send_frame(b"password")
            connection.sent()
            connection.receive(GO_AHEAD)
            hello = connection.sent()
            connection.receive(behind + connection.peer.take(hello))
            connection.lose()
            self.failureResultOf(upgrading, BrokenError)
            self.assertNotIn(b"password", connection.sent(), f"{behind=}")
            self.assertEqual(
                (connection.protocol.received, connection.peer.received), ([], b""), f"{behind=}"
            )

    def test_words_of_the_server_are_in_no_error_and_no_log(self) -> None:
        """C9: a reader could take the server's text for text of the client."""
        events: list[Any] = []
        note: Any = events.append
        globalLogPublisher.addObserver(note)
        self.addCleanup(globalLogPublisher.removeObserver, note)
        words = b"please call 555-0100"
        for protocol, message in (
            (Recorder, encode_frame(words)),
            (LineRecorder, words + b"\r\n"),
        ):
            connection = Connection(protocol)
            upgrading = connection.protocol.upgrade_to_ssl(COMMAND)
            connection.receive(message)
            error = self.failureResultOf(upgrading, RemoteProtocolError).value
            self.assertNotIn("please call", f"{error} {error!r} {error.__cause__}", f"{protocol=}")
            connection.lose()
            # Equal, and not the same object: a raised exception keeps its frames alive.
            (lost,) = connection.protocol.lost
            self.assertEqual((type(lost), str(lost)), (type(error), str(error)), f"{protocol=}")
            self.assertIsNot(lost, error, f"{protocol=}, {lost=}")
        self.assertNotIn("please call", "".join(map(str, events)))

    def test_an_answer_that_is_no_go_ahead_aborts(self) -> None:
        """
        C4, C6, C9: a refusal, an unknown answer, a claim to be secure already; the log shows none.
        """
        for answer in (b"NO", b"", b"ok", b"OK ", b"PREAUTH", b"please call 555-0100"):
            for step in (0, 1):
                self.deceive(encode_frame(answer), step=step)

    def test_a_go_ahead_without_a_request_is_a_message(self) -> None:
        """
        C7: it is handled like any message, and does not count as the answer to a later request.
        """
        connection = Connection()
        connection.receive(GO_AHEAD)
        self.assertEqual(connection.protocol.received, [b"OK"])
        upgrading = connection.protocol.upgrade_to_ssl(COMMAND)
        self.assertEqual(connection.sent(), REQUEST)
        self.assertNoResult(upgrading)
        upgrading.addErrback(lambda failure: failure.trap(BrokenError))
        connection.lose()

    def test_half_a_message_before_the_upgrade_aborts(self) -> None:
        """A partial message in the buffer when the upgrade begins can't be part of a handshake."""
        for settings in (DIRECT, COMMAND):
            connection = Connection()
            connection.receive(b"\0\0")
            upgrading = connection.protocol.upgrade_to_ssl(settings)
            self.failureResultOf(upgrading, RemoteProtocolError)
            self.assertTrue(connection.transport.disconnected, f"{settings is COMMAND=}")
            self.assertEqual(connection.sent(), b"", f"{settings is COMMAND=}")

    def test_messages_behind_the_one_that_starts_the_upgrade_abort(self) -> None:
        """They arrived in the same segment and are not handled."""

        class Polite(Recorder):
            def frame_received(self, payload: bytes) -> None:
                super().frame_received(payload)
                self.upgrade_to_ssl(COMMAND).addErrback(
                    lambda failure: failure.trap(RemoteProtocolError)
                )

        connection = Connection(Polite)
        connection.receive(encode_frame(b"hello") + GO_AHEAD)
        self.assertTrue(connection.transport.disconnected)
        self.assertEqual(connection.protocol.received, [b"hello"])

    def test_a_message_that_arrives_within_the_handler_aborts_the_upgrade(self) -> None:
        """A transport in memory may deliver it then: it is plaintext before the handshake."""

        class Polite(Recorder):
            early = b""

            def frame_received(self, payload: bytes) -> None:
                super().frame_received(payload)
                self.dataReceived(self.early)
                self.upgrading = self.upgrade_to_ssl(DIRECT)

        for early in (FRAME, b"\0\0"):
            connection = Connection(Polite)
            connection.protocol.early = early
            connection.receive(encode_frame(b"hello"))
            self.assertTrue(connection.transport.disconnected, f"{early=}")
            self.assertEqual(connection.protocol.received, [b"hello"], f"{early=}")
            self.failureResultOf(connection.protocol.upgrading, RemoteProtocolError)

    def test_a_huge_answer_is_refused_at_its_length(self) -> None:
        """
        C18: an answer above the limit is refused at its length prefix, before it takes memory.
        """
        connection = Connection()
        upgrading = connection.protocol.upgrade_to_ssl(COMMAND)
        connection.receive(encode_frame(bytes(MAX_GO_AHEAD + 1))[:4])
        self.assertTrue(connection.transport.disconnected)
        connection.lose()
        self.failureResultOf(upgrading, RemoteProtocolError, BrokenError)

    def test_silence_ends_the_upgrade_at_its_deadline(self) -> None:
        """C13: before the go-ahead, in the middle of it, and in the handshake."""
        for answers, status in (
            ([], SocketErrorStatus.CONNECTION_TIMED_OUT),
            ([GO_AHEAD[:3]], SocketErrorStatus.CONNECTION_TIMED_OUT),
            ([GO_AHEAD], SocketErrorStatus.CONNECTION_TIMED_OUT),
        ):
            connection = Connection()
            upgrading = connection.protocol.upgrade_to_ssl(COMMAND)
            for answer in answers:
                connection.receive(answer)
            connection.clock.advance(9.9)
            self.assertNoResult(upgrading)
            connection.clock.advance(0.2)
            error = self.failureResultOf(upgrading, SocketError).value
            self.assertIs(error.status, status, f"{answers=}, {error.status=}")
            self.assertTrue(connection.transport.disconnected, f"{answers=}")

    def test_a_line_without_an_end_is_refused_at_the_limit(self) -> None:
        """C18, C13: a line that answers the request may be no longer than the limit."""
        connection = Connection(LineRecorder)
        upgrading = connection.protocol.upgrade_to_ssl(COMMAND)
        connection.receive(bytes(MAX_GO_AHEAD + 2), step=512)
        self.assertTrue(connection.transport.disconnected)
        connection.lose()
        self.failureResultOf(upgrading, RemoteProtocolError, BrokenError)

    def test_an_answer_in_single_bytes_ends_at_the_same_deadline(self) -> None:
        """C13: the deadline is for the whole upgrade; arriving bytes do not extend it."""
        connection = Connection()
        upgrading = connection.protocol.upgrade_to_ssl(COMMAND)
        for byte in GO_AHEAD[:-1]:
            connection.receive(bytes([byte]))
            connection.clock.advance(1.9)
        self.assertNoResult(upgrading)
        connection.receive(GO_AHEAD[-1:])
        flight = connection.peer.take(connection.sent().removeprefix(REQUEST))
        connection.receive(flight[:10])
        connection.clock.advance(0.6)
        error = self.failureResultOf(upgrading, SocketError).value
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_TIMED_OUT)
        self.assertTrue(connection.transport.disconnected)

    def test_a_server_that_fails_verification_gets_no_data(self) -> None:
        """C10: the reason is named and logged, and what was written is not sent."""
        events: list[Any] = []
        note: Any = events.append
        globalLogPublisher.addObserver(note)
        self.addCleanup(globalLogPublisher.removeObserver, note)
        stranger = trustme.CA(organization_name="somebody else")
        connection = Connection(issued=stranger.issue_cert("localhost"))
        upgrading = connection.protocol.upgrade_to_ssl(COMMAND)
        connection.protocol.send_frame(b"password")
        connection.sent()
        connection.receive(GO_AHEAD)
        hello = connection.sent()
        connection.receive(connection.peer.take(hello))
        connection.lose()
        error = self.failureResultOf(upgrading, CertificateError).value
        self.assertEqual(error.errors, (ChainValidationResult.INCOMPLETE_CHAIN,))
        assert error.certificate is not None
        (lost,) = connection.protocol.lost
        self.assertIsInstance(lost, CertificateError)
        self.assertEqual(["TLS upgrade with" in event["log_format"] for event in events], [True])
        self.assertFalse(connection.protocol.is_secure)
        self.assertIsNone(connection.protocol.peer_certificate)
        self.assertEqual(connection.peer.received, b"")
        self.assertEqual(connection.protocol.secured, [])


class AfterwardsTests(SynchronousTestCase):
    """C14: a connection after the upgrade, without any state from before it."""

    def upgrade(self, connection: Connection, inside: bytes = b"") -> None:
        """
        Upgrade by command; the server sends ``behind`` in one segment with the end of its
        handshake.
        """
        upgrading = connection.protocol.upgrade_to_ssl(COMMAND12)
        connection.sent()
        connection.receive(GO_AHEAD)
        while True:
            flight = connection.peer.take(connection.sent())
            if connection.peer.is_done:
                break
            connection.receive(flight)
        connection.receive(flight + (connection.peer.say(inside) if inside else b""))
        self.assertIsNone(self.successResultOf(upgrading))

    def test_the_secured_hook_runs_before_the_first_message(self) -> None:
        """
        Also before a message in the same segment as the end of the handshake; state can be dropped
        there.
        """

        class Learner(Recorder):
            def connection_secured(self) -> None:
                super().connection_secured()
                self.received.clear()

        connection = Connection(Learner)
        connection.receive(encode_frame(b"LOGIN not needed"))
        self.upgrade(connection, encode_frame(b"LOGIN needed"))
        self.assertEqual(connection.protocol.received, [b"LOGIN needed"])

    def test_the_limit_for_the_answer_ends_with_the_upgrade(self) -> None:
        """Messages inside TLS may be as long as the protocol's own limit."""
        connection = Connection()
        self.upgrade(connection, encode_frame(bytes(2 * MAX_GO_AHEAD)))
        self.assertEqual(connection.protocol.received, [bytes(2 * MAX_GO_AHEAD)])

    def test_a_go_ahead_inside_tls_is_a_message(self) -> None:
        """The words of the upgrade have no meaning inside TLS."""
        connection = Connection()
        self.upgrade(connection, GO_AHEAD)
        self.assertEqual(connection.protocol.received, [b"OK"])
        self.assertEqual(connection.protocol.secured, [True])


class EndTests(SynchronousTestCase):
    """
    Upgrades that fail, are cancelled or are closed; each end is reported once and leaves nothing.
    """

    def test_a_loss_at_any_step_fails_the_upgrade_once(self) -> None:
        """C15: the connection is lost before the go-ahead, or in the handshake."""
        for settings, answer in ((COMMAND, b""), (COMMAND, GO_AHEAD), (DIRECT, b"")):
            connection = Connection()
            upgrading = connection.protocol.upgrade_to_ssl(settings)
            connection.receive(answer)
            connection.lose()
            self.failureResultOf(upgrading, BrokenError)
            self.assertEqual(len(connection.protocol.lost), 1, f"{settings is COMMAND=}, {answer=}")
            self.assertEqual(
                connection.clock.getDelayedCalls(), [], f"{settings is COMMAND=}, {answer=}"
            )

    def test_a_reset_before_the_go_ahead_is_the_reason_of_both_ends(self) -> None:
        """The upgrade and the connection report the same error."""
        connection = Connection()
        upgrading = connection.protocol.upgrade_to_ssl(COMMAND)
        connection.protocol.connectionLost(Failure(ConnectionResetError(104, "reset by peer")))
        error = self.failureResultOf(upgrading, BrokenError).value
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_RESET_BY_PEER)
        (lost,) = connection.protocol.lost
        self.assertEqual(str(lost), str(error))

    def test_cancelling_at_any_step_aborts_the_connection(self) -> None:
        """C15: a cancelled upgrade leaves no usable connection."""
        for settings, answer in ((COMMAND, b""), (COMMAND, GO_AHEAD), (DIRECT, b"")):
            connection = Connection()
            upgrading = connection.protocol.upgrade_to_ssl(settings)
            connection.receive(answer)
            upgrading.cancel()
            self.failureResultOf(upgrading, CancelledError)
            self.assertTrue(connection.transport.disconnected, f"{settings is COMMAND=}, {answer=}")
            # The deadline of the upgrade passes without effect, also when the loss is reported
            # late.
            connection.clock.advance(3600)
            self.assertEqual(
                connection.protocol.group.counters.violations,
                0,
                f"{settings is COMMAND=}, {answer=}",
            )
            connection.lose()
            self.assertEqual(
                connection.clock.getDelayedCalls(), [], f"{settings is COMMAND=}, {answer=}"
            )

    def test_a_loss_while_the_kept_bytes_are_sent_fails_the_upgrade(self) -> None:
        """The transport reports it within its write; `connection_secured` is not called then."""
        connection = Connection()
        upgrading = connection.protocol.upgrade_to_ssl(DIRECT)
        connection.protocol.send_frame(b"kept")
        answer = connection.peer.take(connection.sent())
        lower = connection.transport.protocol.transport
        send, engine = lower.write, connection.transport.protocol

        def write(data: bytes) -> None:
            send(data)
            if connection.protocol.is_secure:
                lower.write = send
                engine.connectionLost(Failure(ConnectionDone()))

        lower.write = write
        connection.receive(answer)
        self.failureResultOf(upgrading, BrokenError)
        self.assertEqual(connection.protocol.secured, [])
        self.assertEqual(len(connection.protocol.lost), 1)
        self.assertEqual(connection.clock.getDelayedCalls(), [])

    def test_cancelling_in_the_secured_hook_aborts_the_connection(self) -> None:
        """The connection is secure already when the application cancels the upgrade."""

        class Fickle(Recorder):
            def connection_secured(self) -> None:
                super().connection_secured()
                upgrading.cancel()

        connection = Connection(Fickle)
        upgrading = connection.protocol.upgrade_to_ssl(DIRECT)
        connection.converse()
        self.failureResultOf(upgrading, CancelledError)
        self.assertEqual(connection.protocol.secured, [True])
        self.assertTrue(connection.transport.disconnected)
        connection.lose()
        self.assertEqual(connection.clock.getDelayedCalls(), [])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_cancelling_over_a_transport_that_ends_at_once_reports_the_cancel(self) -> None:
        """The transport calls back within the abort."""
        connection = Connection()
        connection.transport.__class__ = StringTransportWithDisconnection
        upgrading = connection.protocol.upgrade_to_ssl(COMMAND)
        upgrading.cancel()
        self.failureResultOf(upgrading, CancelledError)
        self.assertEqual(len(connection.protocol.lost), 1)

    def test_an_end_in_the_middle_of_the_servers_flight_is_reported_once(self) -> None:
        """
        C15: the connection is lost, closed or aborted, or the upgrade cancelled, after each part of
        it.
        """
        for place in range(0, 600, 50):
            for end in ("lose", "cancel", "close", "abort"):
                connection = Connection()
                upgrading = connection.protocol.upgrade_to_ssl(DIRECT)
                connection.receive(connection.peer.take(connection.sent())[:place])
                if end == "cancel":
                    upgrading.cancel()
                elif end != "lose":
                    getattr(connection.protocol, end)()
                connection.lose()
                self.failureResultOf(upgrading, SocketError, CancelledError)
                self.assertEqual(len(connection.protocol.lost), 1, f"{place=}, {end=}")
                self.assertFalse(connection.protocol.is_secure, f"{place=}, {end=}")
                self.assertEqual(connection.clock.getDelayedCalls(), [], f"{place=}, {end=}")

    def test_closing_during_the_upgrade_aborts(self) -> None:
        """A half-done handshake can't be ended in order."""
        for answer in (b"", GO_AHEAD):
            connection = Connection()
            upgrading = connection.protocol.upgrade_to_ssl(COMMAND)
            connection.receive(answer)
            connection.protocol.close()
            self.assertTrue(connection.transport.disconnected, f"{answer=}")
            connection.lose()
            self.failureResultOf(upgrading, SocketError)

    def test_over_a_tls_endpoint_an_upgrade_is_refused(self) -> None:
        """The connection is secure already, and continues."""
        connection = Connection()
        connection.transport.TLS = True
        self.failureResultOf(connection.protocol.upgrade_to_ssl(DIRECT), LocalProtocolError)
        self.assertFalse(connection.transport.disconnected)
        self.assertEqual(connection.sent(), b"")

    def test_an_upgrade_at_the_wrong_time_is_refused(self) -> None:
        """During another upgrade, after it, and after the connection was closed."""
        connection = Connection()
        first = connection.protocol.upgrade_to_ssl(DIRECT)
        self.failureResultOf(connection.protocol.upgrade_to_ssl(DIRECT), LocalProtocolError)
        connection.converse()
        self.assertIsNone(self.successResultOf(first))
        self.failureResultOf(connection.protocol.upgrade_to_ssl(DIRECT), LocalProtocolError)
        connection.protocol.abort()
        self.failureResultOf(connection.protocol.upgrade_to_ssl(DIRECT), ClosedError)

    def test_a_handler_that_awaits_a_failed_upgrade_ends_without_a_traceback(self) -> None:
        """The failure was reported already."""

        class Patient(Recorder):
            async def frame_received(self, payload: bytes) -> None:
                await self.upgrade_to_ssl(COMMAND)

        connection = Connection(Patient)
        connection.receive(FRAME)
        connection.receive(encode_frame(b"NO"))
        self.assertTrue(connection.transport.disconnected)
        connection.lose()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_settings_out_of_bounds_are_refused_by_the_constructor(self) -> None:
        """A wrong setting raises an error before any connection exists."""
        for wrong in ({"timeout": 0}, {"request": b""}, {"go_ahead": b""}):
            self.assertRaises(ValueError, ClientUpgrade, OPTIONS, **wrong)

    def test_an_upgrade_returns_its_deferred_before_it_fires(self) -> None:
        """The Deferred has started, and can be cancelled."""
        self.assertIsInstance(Connection().protocol.upgrade_to_ssl(DIRECT), Deferred)
