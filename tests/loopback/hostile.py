"""
Hostile clients on real connections, against the server side of an upgrade.

They are plain sockets in a thread, whose TLS is that of Python's ``ssl`` in memory. The cases S1 to
S18 are those of docs/attacks.rst; cuts of the stream are mostly tested in memory, in
tests/stream/test_upgrade.py.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import trustme
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import LogLevel, formatEvent, globalLogPublisher

from tests.loopback.contract import OnEveryReactor
from tests.loopback.reactors import connect, receive_exactly
from tests.tls.peer import AUTHORITY, SERVER, ClientPeer, client_context, issue
from twsock.errors import SocketError
from twsock.protocols import (
    FrameProtocol,
    LineProtocol,
    StreamProtocol,
    StreamServerFactory,
    UpgradePolicy,
    UpgradeToSsl,
)
from twsock.sockets import StreamSocket, StreamSocketListener
from twsock.stream.listening.proxy_endpoint import ProxyEndpoint
from twsock.stream.protocol import Handled
from twsock.tls.certificates import Certificate
from twsock.tls.server import ClientCertificatePolicy, ServerOptions, ServerTls
from twsock.wire import encode_frame
from twsock.wire.lines import encode_line

CERTIFICATE = Certificate.from_pem(SERVER.private_key_and_cert_chain_pem.bytes())
ROOT = Certificate.from_pem(AUTHORITY.cert_pem.bytes())
STRANGER = trustme.CA(organization_name="somebody else")
TLS = ServerTls(ServerOptions([CERTIFICATE]))
ALLOWED = UpgradeToSsl(TLS)
REQUIRED = UpgradeToSsl(TLS, UpgradePolicy.REQUIRED)
IMPLICIT = UpgradeToSsl(TLS, UpgradePolicy.IMPLICIT)
VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
TLS12, TLS13 = (client_context(version=version) for version in VERSIONS)
Address = tuple[str, int]
#: Bytes that must be neither handled nor logged.
EVIL = b"evil-3f1c"
#: Bytes in place of a ClientHello: HTTP, an alert, the ClientHello of SSL 2, TLS of another kind,
#: unknown bytes.
NO_HELLOS = (
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x15\x03\x03\0\2\2\x28",
    b"\x80\x2e\x01\0\2\0\x15\0\0\0\x10\1\0\x80" + bytes(32),
    b"\x17\x03\x03\0\4" + EVIL[:4],
    bytes(64),
    b"\x16\x02",
)
#: Bytes that begin as a ClientHello does, and are none.
BROKEN_HELLOS = (
    b"\x16\x03\x01\0\2xx",
    b"\x16\x03\x03\0\4\1\0\0\0",
    b"\x16\x03\x01\xff\xff" + bytes(300),
    b"\x16\x03\xff\0\x10" + EVIL * 2,
)


@dataclass
class Seen:
    """The calls of the application, and the events of the log."""

    announced: list[bool] = field(default_factory=list)
    messages: list[tuple[bytes, bool]] = field(default_factory=list)
    secured: list[bool] = field(default_factory=list)
    certificates: list[str] = field(default_factory=list)
    lost: list[SocketError | None] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)

    @property
    def warnings(self) -> list[str]:
        """The log events that report attacks."""
        return [formatEvent(event) for event in self.events if event["log_level"] >= LogLevel.warn]

    @property
    def text(self) -> str:
        """The text of all log events, fields included."""
        return "\n".join(
            formatEvent(event) + " ".join(f"{name}={event[name]!r}" for name in event)
            for event in self.events
        )


class Watched(StreamProtocol):
    """Records its calls, answers each message, and drops a name that it received in plaintext."""

    seen: ClassVar[Seen]
    name = b"nobody"

    def connection_made(self) -> None:
        self.seen.announced.append(self.is_secure)

    def connection_secured(self) -> None:
        self.seen.secured.append(self.is_secure)
        self.name = b"nobody"

    def connection_lost(self, error: SocketError | None) -> None:
        self.seen.lost.append(error)

    def handle(self, message: bytes) -> None:
        self.seen.messages.append((message, self.is_secure))
        if self.peer_certificate is not None:
            self.seen.certificates.append(self.peer_certificate.subject)
        if message.startswith(b"I am "):
            self.name = message[5:]
        if message == b"who am I":
            self.send_message(self.name)
        elif message.startswith(b"large "):
            self.send_message(bytes(int(message[6:])))
        else:
            self.send_message(b"got " + message)


class Frames(Watched, FrameProtocol):
    """Answers frames."""

    def frame_received(self, payload: bytes) -> Handled:
        return self.handle(payload)  # type: ignore[func-returns-value]


class Lines(Watched, LineProtocol):
    """Answers lines."""

    max_payload = 2_000_000

    def line_received(self, line: bytes) -> Handled:
        return self.handle(line)  # type: ignore[func-returns-value]


@dataclass(frozen=True)
class Format:
    """A wire format, and a server protocol for it."""

    protocol: type[Watched]
    encode: Callable[[bytes], bytes]

    @property
    def request(self) -> bytes:
        return self.encode(b"STARTTLS")

    @property
    def go_ahead(self) -> bytes:
        return self.encode(b"OK")

    @property
    def evil(self) -> bytes:
        return self.encode(EVIL)


FRAMES, LINES = Format(Frames, encode_frame), Format(Lines, encode_line)
FORMATS = (FRAMES, LINES)


class Attacker:
    """A client that sends any bytes, whole or in pieces, with a timeout for each wait."""

    def __init__(
        self,
        address: tuple[str, int],
        context: ssl.SSLContext = TLS13,
        session: ssl.SSLSession | None = None,
    ) -> None:
        self.connection = connect(address)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.tls = ClientPeer(context, session)

    def send(self, data: bytes, step: int = 0) -> None:
        """Send, in pieces of ``step`` bytes unless that is 0; the peer may be gone."""
        try:
            for start in range(0, len(data), step or len(data) or 1):
                self.connection.sendall(data[start : start + (step or len(data))])
        except OSError:
            pass

    def receive(self, count: int) -> bytes:
        return receive_exactly(self.connection, count)

    def rest(self) -> bytes:
        """Receive until the server has ended the connection, in order or not."""
        received = bytearray()
        try:
            while chunk := self.connection.recv(65536):
                received += chunk
        except ConnectionError:
            pass
        return bytes(received)

    def shake_hands(self, step: int = 0, behind: bytes = b"") -> bool:
        """Do a handshake; return whether it succeeded for this side."""
        self.send(self.tls.hello(), step)
        return self.go_on(step, behind)

    def go_on(self, step: int = 0, behind: bytes = b"") -> bool:
        """
        Continue a handshake that has begun.

        :param behind: sent inside TLS, in one piece with its last message.
        """
        while True:
            data = self.some()
            answer = self.tls.take(data)
            is_done = self.tls.is_done and self.tls.error is None
            self.send(answer + (self.tls.say(behind) if is_done and behind else b""), step)
            if is_done or not data or self.tls.error:
                return is_done

    def ask(self, request: bytes, count: int) -> bytes:
        """Send bytes inside TLS, and return the answer."""
        self.tls.received = b""
        self.send(self.tls.say(request))
        return self.inside(count)

    def inside(self, count: int) -> bytes:
        """Receive this many bytes inside TLS; fewer only at the end."""
        while len(self.tls.received) < count and (data := self.some()):
            self.send(self.tls.take(data))
        return self.tls.received

    def say_nothing_for(self, seconds: float) -> bool:
        """Wait until the server sends something, at most this long; return whether it did."""
        return bool(select.select([self.connection], [], [], seconds)[0])

    def some(self) -> bytes:
        """Receive the bytes that have arrived; return none at the end."""
        try:
            return self.connection.recv(65536)
        except ConnectionError:
            return b""

    def finish(self) -> None:
        """Send FIN, without close_notify; the peer may be gone."""
        try:
            self.connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def reset(self) -> None:
        """Send RST."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


@contextmanager
def attacker(*arguments: Any) -> Iterator[Attacker]:
    """Make an attacker; close its socket at the end."""
    made = Attacker(*arguments)
    with made.connection:
        yield made


class Hostile(OnEveryReactor):
    """What all tests of hostile clients share."""

    has_variants = True

    def attack(
        self,
        attack: Callable[[Address], None],
        server: Format = FRAMES,
        upgrade: UpgradeToSsl = ALLOWED,
        *,
        count: int = 1,
        wrap: Callable[[Any, Any], Any] | None = None,
        behind_proxy: bool = False,
        **limits: Any,
    ) -> Seen:
        """
        Let a server be attacked, until it has ended every attacker's connection by itself.

        :param attack: called in a thread.
        :param count: the number of connections that it makes.
        :param wrap: called with the reactor and the factory; returns another factory.
        :returns: what the application and the log saw.
        """
        seen = Seen()
        protocol: Any = type("Watched", (server.protocol,), {"seen": seen})

        async def work(reactor: Any) -> None:
            factory = StreamServerFactory(reactor, protocol, upgrade=upgrade, **limits)
            endpoint: Any = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
            if behind_proxy:
                endpoint = ProxyEndpoint(reactor, endpoint)
            listening: Any = (
                endpoint.listen(wrap(reactor, factory)) if wrap else factory.listen(endpoint)
            )
            port = await listening
            address = "127.0.0.1", port.getHost().port
            await deferToThreadPool(reactor, reactor.getThreadPool(), attack, address)
            while factory.counters.accepted < count or len(factory.group):
                await deferLater(reactor, 0.001)
            await port.stopListening()
            await factory.drain(0)

        with self.watching_the_log(seen):
            self.conduct(work)
        return seen

    def attack_socket(
        self,
        attack: Callable[[Address], None],
        serve: Callable[[StreamSocket], Any],
        *,
        count: int = 1,
        **settings: Any,
    ) -> Seen:
        """Let a listener of sockets be attacked."""
        seen = Seen()

        async def work(reactor: Any) -> None:
            ended: list[object] = []

            async def handle(_listener: object, args: Any) -> None:
                seen.announced.append(args.socket.information.client_certificate is not None)
                try:
                    await serve(args.socket)
                finally:
                    ended.append(args)

            listener = StreamSocketListener(reactor, **settings)
            listener.connection_received.add(handle)
            await listener.bind_endpoint("127.0.0.1", "")
            address = "127.0.0.1", int(listener.information.local_port)
            await deferToThreadPool(reactor, reactor.getThreadPool(), attack, address)
            while len(ended) < count or len(listener):
                await deferLater(reactor, 0.001)
            await listener.close()

        with self.watching_the_log(seen):
            self.conduct(work)
        return seen

    @contextmanager
    def watching_the_log(self, seen: Seen) -> Iterator[None]:
        note: Any = seen.events.append
        globalLogPublisher.addObserver(note)
        try:
            yield
        finally:
            globalLogPublisher.removeObserver(note)

    def assert_refused(self, seen: Seen, count: int) -> None:
        """
        Require that no message was handled and no connection secure, and one event without payload
        each.
        """
        self.assertEqual(seen.messages, [])
        self.assertEqual(seen.secured, [])
        self.assertEqual(len(seen.warnings), count, seen.warnings)
        for warning in seen.warnings:
            self.assertRegex(
                warning,
                r"^(127\.0\.0\.1:\d+ aborted|TLS handshake with 127\.0\.0\.1:\d+ failed): \S",
                f"{warning=}",
            )
        self.assertNotIn(EVIL.decode(), seen.text)


GOOD_CERTIFICATE = issue()


def identified(policy: ClientCertificatePolicy) -> ServerOptions:
    return ServerOptions([CERTIFICATE], client_certificate=policy, client_authorities=[ROOT])


async def echo(accepted: StreamSocket) -> None:
    """Send received bytes back."""
    async with accepted:
        async for chunk in accepted.input_stream:
            await accepted.output_stream.send_all(chunk)
