"""
Hostile clients on real connections, against the server's side of TLS in mid-connection.

They are plain sockets in a thread, whose TLS is that of Python's ``ssl`` in memory. The cases S1 to
S18 are those of docs/attacks.rst; what only has to do with where a stream is cut is tested in
memory, in tests/stream/test_upgrade.py.
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
#: What must be neither handled nor logged.
EVIL = b"evil-3f1c"
#: What somebody may send in place of a ClientHello: HTTP, an alert, the ClientHello of SSL 2, TLS
#: of another kind, nothing at all that is known.
NO_HELLOS = (
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x15\x03\x03\0\2\2\x28",
    b"\x80\x2e\x01\0\2\0\x15\0\0\0\x10\1\0\x80" + bytes(32),
    b"\x17\x03\x03\0\4" + EVIL[:4],
    bytes(64),
    b"\x16\x02",
)
#: What begins like a ClientHello and is none.
BROKEN_HELLOS = (
    b"\x16\x03\x01\0\2xx",
    b"\x16\x03\x03\0\4\1\0\0\0",
    b"\x16\x03\x01\xff\xff" + bytes(300),
    b"\x16\x03\xff\0\x10" + EVIL * 2,
)


@dataclass
class Seen:
    """What the application, and whoever reads the log, got to know."""

    announced: list[bool] = field(default_factory=list)
    messages: list[tuple[bytes, bool]] = field(default_factory=list)
    secured: list[bool] = field(default_factory=list)
    certificates: list[str] = field(default_factory=list)
    lost: list[SocketError | None] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)

    @property
    def warnings(self) -> list[str]:
        """What the log says of attacks."""
        return [formatEvent(event) for event in self.events if event["log_level"] >= LogLevel.warn]

    @property
    def text(self) -> str:
        """All that was logged, fields included."""
        return "\n".join(
            formatEvent(event) + " ".join(f"{name}={event[name]!r}" for name in event)
            for event in self.events
        )


class Watched(StreamProtocol):
    """Notes what it is told, answers each message, forgets the name it was told in plaintext."""

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
    """A wire format, and a server that speaks it."""

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
    """A client that sends what it likes, whole or in pieces, and never waits for ever."""

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
        """Send, in pieces of ``step`` where that is not 0; to a peer that may be gone."""
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
        """Go through a handshake; say whether this side thinks that it succeeded."""
        self.send(self.tls.hello(), step)
        return self.go_on(step, behind)

    def go_on(self, step: int = 0, behind: bytes = b"") -> bool:
        """
        Go on with a handshake that was begun.

        :param behind: sent inside along with its last message.
        """
        while True:
            data = self.some()
            answer = self.tls.take(data)
            is_done = self.tls.is_done and self.tls.error is None
            self.send(answer + (self.tls.say(behind) if is_done and behind else b""), step)
            if is_done or not data or self.tls.error:
                return is_done

    def ask(self, request: bytes, count: int) -> bytes:
        """Send something inside, and give what comes back inside."""
        self.tls.received = b""
        self.send(self.tls.say(request))
        return self.inside(count)

    def inside(self, count: int) -> bytes:
        """Receive so many bytes inside; fewer only at the end."""
        while len(self.tls.received) < count and (data := self.some()):
            self.send(self.tls.take(data))
        return self.tls.received

    def say_nothing_for(self, seconds: float) -> bool:
        """Let time pass, until the server says something; tell whether it did."""
        return bool(select.select([self.connection], [], [], seconds)[0])

    def some(self) -> bytes:
        """Receive what is there; nothing at the end."""
        try:
            return self.connection.recv(65536)
        except ConnectionError:
            return b""

    def finish(self) -> None:
        """Send FIN, without a word inside; to a peer that may be gone."""
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
    """Make one, and let go of its socket at the end."""
    made = Attacker(*arguments)
    with made.connection:
        yield made


class Hostile(OnEveryReactor):
    """What every test here has."""

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
        Let a server be attacked, until it has got rid of every attacker by itself.

        :param attack: called in a thread.
        :param count: how many connections it makes.
        :param wrap: given the reactor and the factory, makes another factory.
        :returns: what was seen of it.
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
        """Let a listener for sockets be attacked."""
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
        """Nothing was handled, nobody became secure; one event for each, without what was sent."""
        self.assertEqual(seen.messages, [])
        self.assertEqual(seen.secured, [])
        self.assertEqual(len(seen.warnings), count, seen.warnings)
        for warning in seen.warnings:
            self.assertRegex(
                warning, r"^127\.0\.0\.1:\d+ (aborted|not let into TLS): \S", f"{warning=}"
            )
        self.assertNotIn(EVIL.decode(), seen.text)


GOOD_CERTIFICATE = issue()


def identified(policy: ClientCertificatePolicy) -> ServerOptions:
    return ServerOptions([CERTIFICATE], client_certificate=policy, client_authorities=[ROOT])


async def echo(accepted: StreamSocket) -> None:
    """Send back what comes."""
    async with accepted:
        async for chunk in accepted.input_stream:
            await accepted.output_stream.send_all(chunk)
