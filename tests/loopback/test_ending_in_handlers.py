"""A handler that ends its connection through the transport has ended it for every message."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from typing_extensions import override

from tests.loopback.reactors import EveryReactor, connect, receive_all, receive_exactly
from tests.loopback.test_wrapped import make_tls_endpoint
from tests.tls.peer import SERVER, trusting
from twsock.errors import SocketError
from twsock.protocols import FrameProtocol, LineProtocol, StreamProtocol, UpgradeToSsl
from twsock.tls.certificates import Certificate
from twsock.tls.server import ServerOptions, ServerTls
from twsock.wire import encode_frame
from twsock.wire.lines import encode_line

UPGRADE = UpgradeToSsl(
    ServerTls(ServerOptions([Certificate.from_pem(SERVER.private_key_and_cert_chain_pem.bytes())]))
)
COMMANDS = (b"QUIT", b"DELETE 1", b"DELETE 2")

Act = Callable[[Any], object]


class Ending:
    """Answers each command, and ends the connection as the command says."""

    act: Act
    received: list[bytes]

    def handle(self, command: bytes) -> None:
        self.received.append(command)
        self.answer(b"answer to " + command)
        type(self).act(self)
        try:
            self.answer(b"late")
        except SocketError:
            pass  # As after `close` and `abort`.

    def answer(self, message: bytes) -> None:
        raise NotImplementedError


class EndingFrames(Ending, FrameProtocol):
    """With frames."""

    def frame_received(self, payload: bytes) -> None:
        self.handle(payload)

    def answer(self, message: bytes) -> None:
        self.send_frame(message)


class EndingLines(Ending, LineProtocol):
    """With lines."""

    def line_received(self, line: bytes) -> None:
        self.handle(line)

    def answer(self, message: bytes) -> None:
        self.send_line(message)


def close(protocol: Any) -> None:
    protocol.transport.loseConnection()


def abort(protocol: Any) -> None:
    protocol.transport.abortConnection()


def kept(act: Act) -> type[EndingFrames]:
    """Act on the transport that the protocol was connected to, whatever is above it now."""

    class Keeping(EndingFrames):
        def connection_made(self) -> None:
            self.kept = self.transport

        def frame_received(self, payload: bytes) -> None:
            self.handle(payload)

    Keeping.act = staticmethod(lambda protocol: act(_Kept(protocol.kept)))
    return Keeping


class _Kept:
    def __init__(self, transport: Any) -> None:
        self.transport = transport


class EndingTests(EveryReactor):
    """Real connections, on every reactor."""

    def exchange(
        self,
        protocol: type[Any],
        peer: Callable[[socket.socket], bytes | None],
        make_endpoint: Any = None,
        act: Act | None = None,
        **limits: Any,
    ) -> bytes | None:
        """
        Send three commands at once.

        :returns: the answers up to the end, or None if the end was no clean one.
        """
        received: list[bytes] = []
        answers: list[bytes | None] = []
        options = {"received": received} if act is None else {"received": received, "act": act}
        serving: type[StreamProtocol] = type("Serving", (protocol,), options)

        def run(address: tuple[str, int]) -> None:
            with connect(address) as connection:
                answers.append(peer(connection))

        self.serve(serving, run, make_endpoint, close_timeout=0.5, **limits)
        self.assertEqual(received, [b"QUIT"])
        return answers[0]

    def test_losing_the_connection_sends_earlier_answers_only(self) -> None:
        """With frames and lines; messages behind the command are not handled."""
        for protocol, encode in ((EndingFrames, encode_frame), (EndingLines, encode_line)):
            commands = b"".join(map(encode, COMMANDS))
            answered = self.exchange(protocol, talk(commands), act=close)
            self.assertEqual(answered, encode(b"answer to QUIT"), f"{protocol=}")

    def test_aborting_the_connection_sends_no_answer(self) -> None:
        """Neither earlier nor later ones; the peer reads a reset."""
        for protocol, encode in ((EndingFrames, encode_frame), (EndingLines, encode_line)):
            commands = b"".join(map(encode, COMMANDS))
            self.assertIsNone(self.exchange(protocol, talk(commands), act=abort), f"{protocol=}")

    def test_under_tls_the_ends_are_the_same(self) -> None:
        """With TLS from the first byte, by an endpoint of Twisted."""
        commands = b"".join(map(encode_frame, COMMANDS))
        answered = self.exchange(EndingFrames, talk(commands, secure), make_tls_endpoint, close)
        self.assertEqual(answered, encode_frame(b"answer to QUIT"))
        self.assertIsNone(
            self.exchange(EndingFrames, talk(commands, secure), make_tls_endpoint, abort)
        )

    def test_after_an_upgrade_the_ends_are_the_same(self) -> None:
        """Also through the transport that was kept from before it."""
        commands = b"".join(map(encode_frame, COMMANDS))
        for closing, aborting in (
            (acting(close), acting(abort)),
            (kept(close), kept(abort)),
        ):
            answered = self.exchange(closing, talk(commands, upgraded), upgrade=UPGRADE)
            self.assertEqual(answered, encode_frame(b"answer to QUIT"), f"{aborting=}")
            self.assertIsNone(
                self.exchange(aborting, talk(commands, upgraded), upgrade=UPGRADE), f"{aborting=}"
            )

    def test_a_kept_transport_of_twisted_sends_nothing_after_an_abort(self) -> None:
        """The code that connected it may have kept it: in plaintext, and below an upgrade."""

        class Keeping(EndingFrames):
            @override
            def makeConnection(self, transport: Any) -> None:
                self.own = transport
                super().makeConnection(transport)

            def frame_received(self, payload: bytes) -> None:
                self.handle(payload)

            def answer(self, message: bytes) -> None:
                if self.own._aborting:
                    self.send_frame(message)
                    self.close()

            @staticmethod
            def act(protocol: Any) -> None:
                protocol.own.abortConnection()

        command = encode_frame(b"QUIT")
        self.assertIsNone(self.exchange(Keeping, talk(command)))
        self.assertIsNone(self.exchange(Keeping, talk(command, upgraded), upgrade=UPGRADE))


class HangUpTests(EveryReactor):
    """A peer that ended its output, and may be gone."""

    def test_a_handler_is_cancelled_when_its_peer_is_gone(self) -> None:
        """
        While the connection is neither read nor written; a peer that is still there gets its
        answer.
        """
        cancelled = threading.Event()
        steps: list[str] = []

        class Endless(FrameProtocol):
            async def frame_received(self, payload: bytes) -> None:
                steps.append("started")
                try:
                    await Deferred()
                finally:
                    steps.append("ended")
                    cancelled.set()

        def peer(address: tuple[str, int]) -> None:
            with connect(address) as connection:
                connection.sendall(encode_frame(b"x"))
                connection.shutdown(socket.SHUT_WR)
                connection.settimeout(0.05)
                self.assertRaises(TimeoutError, connection.recv, 1)
                steps.append("gone")
                linger = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            cancelled.wait(60)

        self.serve(Endless, peer)
        self.assertEqual(steps, ["started", "gone", "ended"])
        self.assertEqual(self.flushLoggedErrors(), [])


def acting(act: Act) -> type[EndingFrames]:
    """Act on the transport that the protocol has now."""
    return type("Acting", (EndingFrames,), {"act": staticmethod(act)})


def talk(
    commands: bytes, wrap: Callable[[socket.socket], Any] | None = None
) -> Callable[[socket.socket], bytes | None]:
    """Make a peer that sends commands at once, and reads to the end."""

    def peer(connection: socket.socket) -> bytes | None:
        stream = connection if wrap is None else wrap(connection)
        try:
            stream.sendall(commands)
            answered = receive_all(stream)
        except OSError:
            return None
        finally:
            stream.close()
        return answered

    return peer


def upgraded(connection: socket.socket) -> ssl.SSLSocket:
    """Ask for TLS, and do the handshake as the client."""
    connection.sendall(encode_frame(b"STARTTLS"))
    assert receive_exactly(connection, 6) == encode_frame(b"OK")
    return secure(connection)


def secure(connection: socket.socket) -> ssl.SSLSocket:
    """Do a handshake as the client; an end without close_notify is an error."""
    return trusting().wrap_socket(
        connection, server_hostname="localhost", suppress_ragged_eofs=False
    )


for case in (EndingTests, HangUpTests):
    globals().update(case.makeTestCaseClasses())
del EndingTests, HangUpTests
