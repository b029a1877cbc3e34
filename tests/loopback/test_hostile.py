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
from datetime import timedelta
from typing import Any, ClassVar

import trustme
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.protocols.policies import TimeoutFactory, TrafficLoggingFactory, WrappingFactory

from tests.loopback.contract import OnEveryReactor
from tests.loopback.reactors import connect, on_every_reactor, receive_exactly
from tests.tls.peer import AUTHORITY, SERVER, ClientPeer, client_context, issue
from twsock.errors import BrokenError, LocalProtocolError, SocketError
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
from twsock.tls.levels import SocketProtectionLevel
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
            self.assertRegex(warning, r"^127\.0\.0\.1:\d+ (aborted|not let into TLS): \S")
        self.assertNotIn(EVIL.decode(), seen.text)


class InjectionTests(Hostile):
    """What an attacker in the middle writes into the plaintext, in front of the handshake."""

    @on_every_reactor
    def test_plaintext_in_one_piece_with_the_request(self) -> None:
        """S1: it is not handled, the connection ends, nothing but the go-ahead is answered."""
        for server in FORMATS:
            answers: list[bytes] = []

            def attack(address: Address, server: Format = server, answers: Any = answers) -> None:
                with attacker(address) as mallory:
                    mallory.send(server.request + server.evil)
                    answers.append(mallory.rest())

            seen = self.attack(attack, server)
            self.assert_refused(seen, 1)
            self.assertIn(answers, ([server.go_ahead], [b""]))

    def test_plaintext_wherever_it_is_cut(self) -> None:
        """S2, S3: within the request, at the boundary, behind the go-ahead, byte by byte."""
        for server in FORMATS:
            stream = server.request + server.evil
            cuts = range(1, len(stream))

            def attack(
                address: Address,
                server: Format = server,
                stream: bytes = stream,
                cuts: Any = cuts,
            ) -> None:
                for cut in cuts:
                    with attacker(address) as mallory:
                        mallory.send(stream[:cut])
                        if cut >= len(server.request):
                            mallory.receive(len(server.go_ahead))
                        mallory.send(stream[cut:])
                        self.assertIn(mallory.rest(), (server.go_ahead, b""))
                with attacker(address) as mallory:
                    mallory.send(stream, step=1)
                    self.assertIn(mallory.rest(), (server.go_ahead, b""))

            self.assert_refused(self.attack(attack, server, count=len(cuts) + 1), len(cuts) + 1)

    def test_a_message_does_not_cross_the_boundary(self) -> None:
        """S5: its beginning in plaintext, its end inside; each beginning of one."""
        for server in FORMATS:

            def attack(address: Address, server: Format = server) -> None:
                for cut in range(1, 6):
                    with attacker(address) as mallory:
                        mallory.send(server.request + server.evil[:cut] + mallory.tls.hello())
                        self.assertIn(mallory.rest(), (server.go_ahead, b""))

            self.assert_refused(self.attack(attack, server, count=5), 5)

    def test_a_second_request_is_no_handshake(self) -> None:
        """S6: in one piece with the first, and behind the go-ahead."""
        for server in FORMATS:

            def attack(address: Address, server: Format = server) -> None:
                for waits in (False, True):
                    with attacker(address) as mallory:
                        mallory.send(server.request)
                        if waits:
                            mallory.receive(len(server.go_ahead))
                        mallory.send(server.request)
                        self.assertIn(mallory.rest(), (server.go_ahead, b""))

            self.assert_refused(self.attack(attack, server, count=2), 2)

    def test_there_is_no_tls_in_tls(self) -> None:
        """S6: inside, the request is refused, and a ClientHello is a message like any other."""
        for server in FORMATS:
            refusal, answer = server.encode(b"NO"), server.encode(b"got x")

            def attack(
                address: Address,
                server: Format = server,
                refusal: bytes = refusal,
                answer: bytes = answer,
            ) -> None:
                with attacker(address) as mallory:
                    self.assertTrue(mallory.shake_hands())
                    for _ in range(2):
                        self.assertEqual(mallory.ask(server.request, len(refusal)), refusal)
                        self.assertEqual(mallory.ask(server.encode(b"x"), len(answer)), answer)
                    mallory.send(mallory.tls.say(ClientPeer(TLS13).hello() + b"\n"))
                    mallory.send(mallory.tls.end())
                    mallory.rest()

            seen = self.attack(attack, server)
            self.assertEqual(seen.secured, [True])
            self.assertNotIn(False, [is_secure for _, is_secure in seen.messages])

    def test_anything_but_a_hello(self) -> None:
        """S9: behind the go-ahead, and in front of everything where TLS comes first."""
        for server in FORMATS:

            def attack(address: Address, server: Format = server) -> None:
                for words in NO_HELLOS + BROKEN_HELLOS:
                    with attacker(address) as mallory:
                        mallory.send(server.request)
                        self.assertEqual(mallory.receive(len(server.go_ahead)), server.go_ahead)
                        mallory.send(words + server.evil)
                        mallory.finish()
                        self.assert_only_alerts(mallory.rest())

            count = len(NO_HELLOS + BROKEN_HELLOS)
            self.assert_refused(self.attack(attack, server, count=count), count)

    def test_anything_but_a_hello_where_tls_comes_first(self) -> None:
        """S9: the application does not hear of it."""

        def attack(address: Address) -> None:
            for words in (*NO_HELLOS, *BROKEN_HELLOS, FRAMES.request, FRAMES.evil):
                with attacker(address) as mallory:
                    mallory.send(words)
                    mallory.finish()
                    self.assert_only_alerts(mallory.rest())

        count = len(NO_HELLOS + BROKEN_HELLOS) + 2
        seen = self.attack(attack, FRAMES, IMPLICIT, count=count)
        self.assert_refused(seen, count)
        self.assertEqual((seen.announced, seen.lost), ([], []))

    def test_a_handshake_that_goes_wrong_in_its_middle(self) -> None:
        """S9: plaintext behind a true ClientHello is never handled, nor ever answered."""
        for server in FORMATS:

            def attack(address: Address, server: Format = server) -> None:
                for waits in (False, True):
                    with attacker(address) as mallory:
                        mallory.send(server.request)
                        mallory.receive(len(server.go_ahead))
                        mallory.send(mallory.tls.hello())
                        if waits:
                            mallory.some()
                        mallory.send(server.evil * 3)
                        mallory.finish()
                        self.assertNotIn(b"got", mallory.rest())

            self.assert_refused(self.attack(attack, server, count=2), 2)

    def assert_only_alerts(self, answer: bytes) -> None:
        """What is said to garbage is nothing, or an alert of TLS."""
        self.assertIn(answer[:2], (b"", b"\x15\x03"))
        self.assertLessEqual(len(answer), 14)


class PipelineTests(Hostile):
    """What an honest client may send in one piece, and what it is answered where."""

    def test_the_request_and_a_hello(self) -> None:
        """S4: in one piece, at every cut around the boundary, byte by byte."""
        for server in FORMATS:
            boundary = len(server.request)
            answer = server.encode(b"got x")

            def attack(
                address: Address,
                server: Format = server,
                boundary: int = boundary,
                answer: bytes = answer,
            ) -> None:
                for cut in (0, *range(boundary - 2, boundary + 7)):
                    with attacker(address) as client:
                        stream = server.request + client.tls.hello()
                        client.send(stream[:cut])
                        client.send(stream[cut:])
                        self.assertEqual(client.receive(len(server.go_ahead)), server.go_ahead)
                        self.assertTrue(client.go_on())
                        self.assertEqual(client.ask(server.encode(b"x"), len(answer)), answer)
                with attacker(address) as client:
                    client.send(server.request + client.tls.hello(), step=1)
                    client.receive(len(server.go_ahead))
                    self.assertTrue(client.go_on(step=1))
                    self.assertEqual(client.ask(server.encode(b"x"), len(answer)), answer)

            seen = self.attack(attack, server, count=11)
            self.assertEqual(seen.secured, [True] * 11)
            self.assertEqual(seen.messages, [(b"x", True)] * 11)
            self.assertEqual(seen.warnings, [])

    def test_answers_leave_before_the_go_ahead(self) -> None:
        """S11: in plaintext all of them, and none inside."""
        for server in FORMATS:
            before = server.encode(b"got before") * 3
            inside = server.encode(b"got inside")

            def attack(
                address: Address,
                server: Format = server,
                before: bytes = before,
                inside: bytes = inside,
            ) -> None:
                for middle in (server.request, b""):
                    with attacker(address) as client:
                        plain = server.encode(b"before") * 3 + middle
                        client.send(plain + client.tls.hello())
                        expected = before + (server.go_ahead if middle else b"")
                        self.assertEqual(client.receive(len(expected)), expected)
                        self.assertTrue(client.go_on(behind=server.encode(b"inside")))
                        self.assertEqual(client.inside(len(inside)), inside)

            seen = self.attack(attack, server, count=2)
            expected = [(b"before", False)] * 3 + [(b"inside", True)]
            self.assertEqual(seen.messages, expected * 2)

    @on_every_reactor
    def test_answers_that_the_peer_was_slow_to_take(self) -> None:
        """S11, S13: with a full send buffer and reading paused the order is kept, to the end."""
        for server in FORMATS:
            before = server.encode(bytes(1_500_000)) * 4
            inside = server.encode(b"got inside")

            def attack(
                address: Address,
                server: Format = server,
                before: bytes = before,
                inside: bytes = inside,
            ) -> None:
                with attacker(address) as client:
                    large = server.encode(b"large 1500000")
                    client.send(large * 4 + server.request + client.tls.hello())
                    self.assertTrue(client.receive(len(before)) == before)
                    self.assertEqual(client.receive(len(server.go_ahead)), server.go_ahead)
                    self.assertTrue(client.go_on(behind=server.encode(b"inside")))
                    self.assertEqual(client.inside(len(inside)), inside)

            seen = self.attack(attack, server)
            self.assertEqual(seen.secured, [True])
            self.assertEqual(seen.messages[-1], (b"inside", True))


class StateTests(Hostile):
    """What was said before, and what may be said before."""

    def test_who_somebody_claimed_to_be_is_forgotten(self) -> None:
        """S7: session fixation; with both triggers."""
        for server in FORMATS:
            nobody = server.encode(b"nobody")
            named = server.encode(b"got I am root")

            def attack(
                address: Address,
                server: Format = server,
                nobody: bytes = nobody,
                named: bytes = named,
            ) -> None:
                for trigger in (b"", server.request):
                    with attacker(address) as client:
                        client.send(server.encode(b"I am root") + trigger)
                        client.receive(len(named) + (len(server.go_ahead) if trigger else 0))
                        self.assertTrue(client.shake_hands())
                        self.assertEqual(client.ask(server.encode(b"who am I"), 6), nobody)

            seen = self.attack(attack, server, count=2)
            self.assertEqual(seen.messages[1::2], [(b"who am I", True)] * 2)

    @on_every_reactor
    def test_before_a_required_upgrade_nothing_is_obeyed(self) -> None:
        """S8: whatever is said; dropped, unanswered, and not kept for later."""
        for server in FORMATS:
            answer = server.encode(b"got x")

            def attack(address: Address, server: Format = server, answer: bytes = answer) -> None:
                for step in (0, 1):
                    for trigger in (b"", server.request):
                        with attacker(address) as mallory:
                            mallory.send(server.evil * 3 + trigger, step)
                            if trigger:
                                self.assertEqual(
                                    mallory.receive(len(server.go_ahead)), server.go_ahead
                                )
                            self.assertTrue(mallory.shake_hands(step))
                            self.assertEqual(mallory.ask(server.encode(b"x"), len(answer)), answer)

            seen = self.attack(attack, server, REQUIRED, count=4)
            self.assertEqual(seen.messages, [(b"x", True)] * 4)
            self.assertNotIn(EVIL.decode(), seen.text)

    def test_before_a_required_upgrade_a_flood_ends(self) -> None:
        """S8: after four KiB."""
        for server in FORMATS:

            def attack(address: Address, server: Format = server) -> None:
                with attacker(address) as mallory:
                    mallory.send(server.evil * 1000)
                    self.assertEqual(mallory.rest(), b"")

            self.assert_refused(self.attack(attack, server, REQUIRED), 1)


class SilenceTests(Hostile):
    """Who begins and does not go on keeps nobody else waiting for ever."""

    def test_the_place_of_a_silent_client_is_freed(self) -> None:
        """S10: behind the go-ahead, in the middle of a hello, in the middle of a handshake."""
        # Two steps in each format: each costs a deadline.
        for server, steps in zip(FORMATS, ((0, 1), (2, 3)), strict=True):
            answer = server.encode(b"got x")

            def begin(mallory: Attacker, step: int, server: Format = server) -> None:
                if step < 2:
                    mallory.send(server.request)
                    mallory.receive(len(server.go_ahead))
                if step:
                    hello = mallory.tls.hello()
                    mallory.send(hello[:20] if step < 3 else hello)

            def attack(
                address: Address,
                begin: Any = begin,
                server: Format = server,
                answer: bytes = answer,
                steps: tuple[int, int] = steps,
            ) -> None:
                for step in steps:
                    with attacker(address) as mallory, attacker(address) as client:
                        begin(mallory, step)
                        mallory.rest()
                        client.shake_hands()
                        self.assertEqual(client.ask(server.encode(b"x"), len(answer)), answer)
                        client.send(client.tls.end())
                        client.rest()

            # Long enough for an honest client on a busy machine.
            hasty = UpgradeToSsl(TLS, handshake_timeout=1)
            seen = self.attack(attack, server, hasty, count=4, max_connections=1)
            self.assertEqual(seen.messages, [(b"x", True)] * 2)
            self.assertEqual(len(self.violations(seen)), 2, seen.warnings)

    @on_every_reactor
    def test_a_dripping_handshake_gets_no_more_time(self) -> None:
        """S10: one byte after the other, as long as it is let."""
        for upgrade in (
            UpgradeToSsl(TLS, handshake_timeout=0.1),
            UpgradeToSsl(TLS, UpgradePolicy.IMPLICIT, handshake_timeout=0.1),
        ):

            def attack(address: Address) -> None:
                with attacker(address) as mallory:
                    hello = mallory.tls.hello()
                    for byte in hello[:-1]:
                        mallory.send(bytes([byte]))
                        if mallory.say_nothing_for(0.01):
                            break
                    self.assertEqual(mallory.rest(), b"")

            seen = self.attack(attack, FRAMES, upgrade)
            self.assert_refused(seen, 1)

    def test_a_handshake_begun_in_time_has_no_more_than_what_is_left(self) -> None:
        """S10: the deadline is one, from the go-ahead to the end; idle timeouts do not matter."""

        def attack(address: Address) -> None:
            with attacker(address) as mallory:
                mallory.send(FRAMES.request)
                mallory.receive(len(FRAMES.go_ahead))
                mallory.send(mallory.tls.hello())
                self.assertTrue(mallory.rest().startswith(b"\x16\x03"))

        hasty = UpgradeToSsl(TLS, handshake_timeout=0.1)
        self.assert_refused(self.attack(attack, FRAMES, hasty, idle_timeout=None), 1)

    def violations(self, seen: Seen) -> list[str]:
        """What is told of peers that were not let in."""
        return [warning for warning in seen.warnings if "not let into TLS" in warning]


#: Who has to be turned away, and in which words of the log.
BAD_CERTIFICATES: tuple[tuple[bytes | None, str], ...] = (
    (None, "did not return a certificate"),
    (issue(STRANGER), "refused: IncompleteChain"),
    (issue(None), "refused: Untrusted"),
    (issue(begins=timedelta(hours=-2), ends=timedelta(hours=-1)), "refused: Expired"),
    (issue(begins=timedelta(hours=1), ends=timedelta(hours=2)), "refused: Expired"),
    (issue(usage=ExtendedKeyUsageOID.SERVER_AUTH), "refused: WrongUsage"),
)
GOOD_CERTIFICATE = issue()


def identified(policy: ClientCertificatePolicy) -> ServerOptions:
    return ServerOptions([CERTIFICATE], client_certificate=policy, client_authorities=[ROOT])


class CertificateTests(Hostile):
    """Clients that have to say who they are, and cannot."""

    def attack_without_identity(self, version: ssl.TLSVersion) -> Callable[[Address], None]:
        """Show what is no good, and send a message along with the last of the handshake."""
        contexts = [client_context(pem, version) for pem, _ in BAD_CERTIFICATES]

        def attack(address: Address) -> None:
            for context in contexts:
                with attacker(address, context) as mallory:
                    mallory.shake_hands(behind=FRAMES.evil)
                    self.assertEqual(mallory.inside(1), b"")

        return attack

    @on_every_reactor
    def test_who_is_not_identified_is_not_let_in(self) -> None:
        """S12: in either version; the application sees no byte, and no hook is called."""
        tls = ServerTls(identified(ClientCertificatePolicy.REQUIRED))
        for version in VERSIONS:
            attack = self.attack_without_identity(version)
            seen = self.attack(attack, upgrade=UpgradeToSsl(tls), count=len(BAD_CERTIFICATES))
            self.assert_refused(seen, len(BAD_CERTIFICATES))
            for warning, (_, reason) in zip(seen.warnings, BAD_CERTIFICATES, strict=True):
                self.assertIn(reason, warning)

    def test_where_tls_comes_first_nobody_hears_of_it(self) -> None:
        """S12: no beginning and no end is told."""
        tls = ServerTls(identified(ClientCertificatePolicy.REQUIRED))
        upgrade = UpgradeToSsl(tls, UpgradePolicy.IMPLICIT)
        for version in VERSIONS:
            attack = self.attack_without_identity(version)
            seen = self.attack(attack, upgrade=upgrade, count=len(BAD_CERTIFICATES))
            self.assert_refused(seen, len(BAD_CERTIFICATES))
            self.assertEqual((seen.announced, seen.lost), ([], []))

    def test_a_listener_hears_nothing_either(self) -> None:
        """S12: of a socket that was not let in."""
        for version in VERSIONS:
            attack = self.attack_without_identity(version)

            def then_come_in(
                address: Address, attack: Any = attack, version: Any = version
            ) -> None:
                attack(address)
                with attacker(address, client_context(GOOD_CERTIFICATE, version)) as client:
                    client.shake_hands()
                    self.assertEqual(client.ask(b"inside", 6), b"inside")
                    client.send(client.tls.end())
                    client.rest()

            tls = identified(ClientCertificatePolicy.REQUIRED)
            seen = self.attack_socket(then_come_in, echo, tls=tls)
            self.assertEqual(seen.announced, [True])
            self.assertEqual(len(seen.warnings), len(BAD_CERTIFICATES))
            self.assertNotIn(EVIL.decode(), seen.text)

    def test_where_it_is_optional_a_bad_one_is_worse_than_none(self) -> None:
        """S12: who shows none comes in as nobody, who shows a bad one does not."""
        tls = ServerTls(identified(ClientCertificatePolicy.OPTIONAL))
        answer = FRAMES.encode(b"got x")

        def attack(address: Address) -> None:
            for pem in (None, GOOD_CERTIFICATE):
                with attacker(address, client_context(pem)) as client:
                    self.assertTrue(client.shake_hands())
                    self.assertEqual(client.ask(FRAMES.encode(b"x"), len(answer)), answer)
            for pem, _ in BAD_CERTIFICATES[1:]:
                with attacker(address, client_context(pem)) as mallory:
                    mallory.shake_hands(behind=FRAMES.evil)
                    self.assertEqual(mallory.inside(1), b"")

        count = len(BAD_CERTIFICATES) + 1
        seen = self.attack(attack, upgrade=UpgradeToSsl(tls), count=count)
        self.assertEqual(seen.messages, [(b"x", True)] * 2)
        self.assertEqual(seen.certificates, ["mallory"])
        self.assertEqual(len(seen.warnings), len(BAD_CERTIFICATES) - 1)


PRODUCED = encode_frame(b"produced")


class Producing(Frames):
    """Is a producer of the transport that it had at the beginning, asked for each piece."""

    def connection_made(self) -> None:
        self.cached = self.transport
        self.cached.registerProducer(self, False)

    def resumeProducing(self) -> None:
        if self.is_open:
            self.cached.write(PRODUCED)

    def stopProducing(self) -> None:
        """It is asked no more."""

    def connection_lost(self, error: SocketError | None) -> None:
        self.cached.unregisterProducer()


PRODUCING = Format(Producing, encode_frame)


class OrderTests(Hostile):
    """Whatever is under way when the switch falls, nothing is sent on the wrong side of it."""

    @on_every_reactor
    def test_while_a_handler_runs_the_request_waits(self) -> None:
        """S13: its answer leaves in plaintext, in front of the go-ahead."""

        class Slow(Frames):
            async def frame_received(self, payload: bytes) -> None:
                await deferLater(self.clock, 0.01)
                self.handle(payload)

        slow = Format(Slow, encode_frame)
        before, inside = slow.encode(b"got before"), slow.encode(b"got inside")

        def attack(address: Address) -> None:
            for step in (0, 1):
                with attacker(address) as client:
                    client.send(slow.encode(b"before") + slow.request + client.tls.hello(), step)
                    self.assertEqual(client.receive(len(before)), before)
                    self.assertEqual(client.receive(len(slow.go_ahead)), slow.go_ahead)
                    self.assertTrue(client.go_on(step, slow.encode(b"inside")))
                    self.assertEqual(client.inside(len(inside)), inside)

        seen = self.attack(attack, slow, count=2)
        self.assertEqual(seen.messages, [(b"before", False), (b"inside", True)] * 2)

    def test_what_the_application_pushes_meanwhile_is_sent_inside(self) -> None:
        """S11, S13: much of it, with a ClientHello that comes in two pieces."""
        size = 100_000

        class Pushing(Frames):
            is_pushing = False

            def push(self) -> None:
                if self.is_open and not self.is_secure:
                    self.send_frame(EVIL + bytes(size))

            def connection_made(self) -> None:
                # Once the go-ahead has left and before the handshake is done.
                self.clock.callLater(0.05, self.push)

        pushing = Format(Pushing, encode_frame)
        pushed = pushing.encode(EVIL + bytes(size))

        def attack(address: Address) -> None:
            with attacker(address) as client:
                hello = client.tls.hello()
                client.send(pushing.request)
                client.receive(len(pushing.go_ahead))
                client.say_nothing_for(0.1)  # Until the application has pushed.
                client.send(hello[:1])
                client.say_nothing_for(0.05)  # Until that has arrived by itself.
                client.send(hello[1:])
                self.assertTrue(client.go_on())
                self.assertTrue(client.inside(len(pushed)) == pushed)
                answer = pushing.encode(b"got x")
                self.assertEqual(client.ask(pushing.encode(b"x"), len(answer)), answer)

        hasty = UpgradeToSsl(TLS, handshake_timeout=1)
        seen = self.attack(attack, pushing, hasty)
        self.assertEqual(seen.messages, [(b"x", True)])

    def test_a_producer_on_the_transport_does_not_write_into_the_handshake(self) -> None:
        """S13: registered by the application before, with the transport that it had then."""

        def attack(address: Address) -> None:
            with attacker(address) as client:
                client.send(PRODUCING.request)
                received = client.receive(12)
                while PRODUCING.go_ahead not in received:
                    received += client.some()
                client.send(client.tls.hello())
                while client.say_nothing_for(0.05) and len(received) < 1_000_000:
                    received += client.some()
                behind = received[received.index(PRODUCING.go_ahead) :]
                self.assertNotIn(PRODUCED, behind)
                client.reset()

        seen = self.attack(attack, PRODUCING)
        self.assertEqual(seen.messages, [])

    @on_every_reactor
    def test_a_producer_on_the_transport_goes_on_inside(self) -> None:
        """S13: it is asked for more when the connection is secure."""

        def attack(address: Address) -> None:
            with attacker(address) as client:
                client.connection.settimeout(60)
                client.send(PRODUCING.request + client.tls.hello())
                received = b""
                while PRODUCING.go_ahead + b"\x16\x03" not in received:
                    received += client.some()
                _, _, tls = received.partition(PRODUCING.go_ahead)
                client.send(client.tls.take(tls))
                expected = PRODUCED * 3
                self.assertEqual(client.inside(len(expected))[: len(expected)], expected)
                client.reset()

        seen = self.attack(attack, PRODUCING)
        self.assertEqual(seen.secured, [True])


async def echo(accepted: StreamSocket) -> None:
    """Send back what comes."""
    async with accepted:
        async for chunk in accepted.input_stream:
            await accepted.output_stream.send_all(chunk)


class EndTests(Hostile):
    """Connections that end in the middle of something."""

    #: What a client does, one after the other.
    STEPS = ("nothing", "half a request", "request", "go-ahead", "half a hello", "hello", "secure")

    def go(self, mallory: Attacker, step: str) -> None:
        """Go as far as this step."""
        reached = self.STEPS.index(step)
        hello = mallory.tls.hello()
        if reached >= 1:
            mallory.send(FRAMES.request[:7])
        if reached >= 2:
            mallory.send(FRAMES.request[7:])
        if reached >= 3:
            mallory.receive(len(FRAMES.go_ahead))
        if reached >= 4:
            mallory.send(hello[:50])
        if reached >= 5:
            mallory.send(hello[50:])
        if reached >= 6:
            self.assertTrue(mallory.go_on())

    @on_every_reactor
    def test_a_reset_at_each_step_is_told_once(self) -> None:
        """S14: one end for each beginning, no message, and nothing is left."""
        for end in (Attacker.reset, Attacker.finish):

            def attack(address: Address, end: Callable[[Attacker], None] = end) -> None:
                for step in self.STEPS:
                    with attacker(address) as mallory:
                        self.go(mallory, step)
                        end(mallory)
                        if end is Attacker.finish:
                            mallory.rest()

            seen = self.attack(attack, count=len(self.STEPS))
            self.assertEqual(len(seen.announced), len(self.STEPS))
            self.assertEqual(len(seen.lost), len(self.STEPS))
            self.assertEqual((seen.messages, seen.secured), ([], [True]))

    def test_a_reset_where_tls_comes_first(self) -> None:
        """S14: only who was secure was ever there."""

        def attack(address: Address) -> None:
            for end in (Attacker.reset, Attacker.finish):
                for cut in (0, 1, 50, 10_000):
                    with attacker(address) as mallory:
                        mallory.send(mallory.tls.hello()[:cut])
                        end(mallory)
                with attacker(address) as mallory:
                    mallory.shake_hands()
                    end(mallory)

        seen = self.attack(attack, upgrade=IMPLICIT, count=10)
        self.assertEqual((seen.announced, len(seen.lost)), ([True] * 2, 2))

    def test_a_farewell_in_place_of_a_hello(self) -> None:
        """S15: close_notify in plaintext right behind the go-ahead is no end in order."""
        farewell = b"\x15\x03\x03\0\2\1\0"

        def attack(address: Address) -> None:
            for hello in (False, True):
                with attacker(address) as mallory:
                    mallory.send(FRAMES.request)
                    mallory.receive(len(FRAMES.go_ahead))
                    if hello:
                        mallory.send(mallory.tls.hello())
                        mallory.some()
                    mallory.send(farewell)
                    mallory.rest()

        seen = self.attack(attack, count=2)
        self.assert_refused(seen, 2)
        self.assertEqual([isinstance(error, SocketError) for error in seen.lost], [True] * 2)

    def test_a_farewell_inside_is_an_end_in_order(self) -> None:
        """S15: right behind the handshake, and behind a message, which is handled."""
        for version in (TLS12, TLS13):

            def attack(address: Address, version: ssl.SSLContext = version) -> None:
                for message in (b"", FRAMES.encode(b"x")):
                    with attacker(address, version) as client:
                        self.assertTrue(client.shake_hands())
                        client.send(
                            (client.tls.say(message) if message else b"") + client.tls.end()
                        )
                        client.rest()

            seen = self.attack(attack, count=2)
            self.assertEqual(seen.lost, [None, None])
            self.assertEqual(seen.messages, [(b"x", True)])

    @on_every_reactor
    def test_an_end_without_farewell_is_a_truncation(self) -> None:
        """S15: FIN alone, at a boundary and in the middle of a message; it is told as an error."""
        for version in (TLS12, TLS13):

            def attack(address: Address, version: ssl.SSLContext = version) -> None:
                for message in (b"", FRAMES.evil, FRAMES.evil[:6]):
                    with attacker(address, version) as mallory:
                        self.assertTrue(mallory.shake_hands())
                        if message:
                            mallory.send(mallory.tls.say(message))
                        mallory.finish()
                        mallory.rest()

            seen = self.attack(attack, count=3)
            self.assertEqual([isinstance(error, BrokenError) for error in seen.lost], [True] * 3)
            self.assertEqual(seen.messages, [(EVIL, True)])


PROXY = b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 2000\r\n"


class WrapperTests(Hostile):
    """Under other factories, which stand between the socket and the protocol."""

    #: Factories of Twisted that wrap ours.
    WRAPS: tuple[Callable[[Any, Any], Any], ...] = (
        lambda _reactor, factory: WrappingFactory(factory),
        lambda _reactor, factory: TimeoutFactory(WrappingFactory(factory), 30),
    )

    @on_every_reactor
    def test_an_upgrade_is_told_and_true(self) -> None:
        """S16: both triggers, and an end in order."""
        tls = ServerTls(identified(ClientCertificatePolicy.REQUIRED))
        context = client_context(GOOD_CERTIFICATE)
        answer = FRAMES.encode(b"got x")

        def attack(address: Address) -> None:
            for trigger in (b"", FRAMES.request):
                with attacker(address, context) as client:
                    client.send(trigger + client.tls.hello())
                    if trigger:
                        self.assertEqual(client.receive(len(FRAMES.go_ahead)), FRAMES.go_ahead)
                    self.assertTrue(client.go_on())
                    self.assertEqual(client.ask(FRAMES.encode(b"x"), len(answer)), answer)
                    client.send(client.tls.end())
                    client.rest()

        for wrap in self.WRAPS:
            seen = self.attack(attack, upgrade=UpgradeToSsl(tls), count=2, wrap=wrap)
            self.assertEqual(seen.announced, [False] * 2)
            self.assertEqual(seen.secured, [True] * 2)
            self.assertEqual(seen.messages, [(b"x", True)] * 2)
            self.assertEqual(seen.certificates, ["mallory"] * 2)
            self.assertEqual(seen.lost, [None] * 2)

    def test_attacks_are_refused_as_ever(self) -> None:
        """S16: plaintext behind the request, garbage for a hello, silence."""

        def attack(address: Address) -> None:
            for behind in (FRAMES.evil, BROKEN_HELLOS[0], b""):
                with attacker(address) as mallory:
                    mallory.send(FRAMES.request + behind)
                    self.assertNotIn(b"got", mallory.rest())

        hasty = UpgradeToSsl(TLS, handshake_timeout=0.1)
        for wrap in self.WRAPS:
            self.assert_refused(self.attack(attack, upgrade=hasty, count=3, wrap=wrap), 3)

    def test_a_log_of_the_traffic_has_no_plaintext_of_after(self) -> None:
        """S16: who writes down what passes on the wire sees what is said before, and TLS."""
        logged: list[bytes] = []

        class Log(TrafficLoggingFactory):
            def open(self, name: str) -> Any:
                return self

            def write(self, line: str) -> None:
                logged.append(line.encode())

            def flush(self) -> None:
                """Nothing is kept back."""

            def close(self) -> None:
                """It stays open for the next."""

        def attack(address: Address) -> None:
            with attacker(address) as client:
                client.send(FRAMES.encode(b"open") + FRAMES.request + client.tls.hello())
                client.receive(len(FRAMES.encode(b"got open") + FRAMES.go_ahead))
                self.assertTrue(client.go_on(behind=FRAMES.encode(b"secret")))
                answer = FRAMES.encode(b"got secret")
                self.assertEqual(client.inside(len(answer)), answer)

        seen = self.attack(attack, wrap=lambda _reactor, factory: Log(factory, "traffic"))
        self.assertEqual(seen.messages, [(b"open", False), (b"secret", True)])
        self.assertIn(b"got open", b"".join(logged))
        self.assertNotIn(b"secret", b"".join(logged))

    def test_behind_a_proxy_in_one_piece(self) -> None:
        """S17: header, request and ClientHello, wherever they are cut."""
        for server in FORMATS:
            front = PROXY + server.request
            end = len(front)
            cuts = (0, 3, len(PROXY) - 1, len(PROXY), *range(end - 1, end + 4))
            answer = server.encode(b"got x")

            def attack(
                address: Address,
                server: Format = server,
                front: bytes = front,
                cuts: Any = cuts,
                answer: bytes = answer,
            ) -> None:
                for cut in cuts:
                    with attacker(address) as client:
                        stream = front + client.tls.hello()
                        client.send(stream[:cut])
                        client.send(stream[cut:])
                        self.assertEqual(client.receive(len(server.go_ahead)), server.go_ahead)
                        self.assertTrue(client.go_on())
                        self.assertEqual(client.ask(server.encode(b"x"), len(answer)), answer)

            seen = self.attack(attack, server, count=9, behind_proxy=True)
            self.assertEqual(seen.secured, [True] * 9)
            self.assertEqual(seen.messages, [(b"x", True)] * 9)

    def test_behind_a_proxy_attacks_are_refused_as_ever(self) -> None:
        """S17: a message behind the request, in one segment with the header; a second header."""

        def attack(address: Address) -> None:
            for behind in (FRAMES.evil, PROXY):
                with attacker(address) as mallory:
                    mallory.send(PROXY + FRAMES.request + behind)
                    self.assertIn(mallory.rest(), (FRAMES.go_ahead, b""))

        seen = self.attack(attack, count=2, behind_proxy=True)
        self.assertEqual((seen.messages, seen.secured), ([], []))
        for warning in seen.warnings:
            self.assertRegex(warning, r"^192\.0\.2\.1:1000 aborted: plaintext behind")
        self.assertEqual(len(seen.warnings), 2)


class ResumptionTests(Hostile):
    """Sessions of before open no door."""

    def test_a_session_is_no_certificate(self) -> None:
        """S18: of a listener that asks for none, taken up with one that does."""
        for policy in (ClientCertificatePolicy.REQUIRED, ClientCertificatePolicy.OPTIONAL):
            strict = UpgradeToSsl(ServerTls(identified(policy)))
            for version in VERSIONS:
                context = client_context(version=version)
                sessions: list[Any] = []

                def get(address: Address, context: Any = context, sessions: Any = sessions) -> None:
                    with attacker(address, context) as client:
                        client.shake_hands()
                        client.ask(FRAMES.encode(b"x"), 9)
                        sessions.append(client.tls.session)

                def attack(
                    address: Address, context: Any = context, sessions: Any = sessions
                ) -> None:
                    for session in sessions:
                        with attacker(address, context, session) as mallory:
                            mallory.shake_hands(behind=FRAMES.evil)
                            mallory.inside(1)
                            mallory.connection.close()

                self.attack(get)
                self.assertEqual(len(sessions), 1)
                seen = self.attack(attack, upgrade=strict)
                self.assertEqual(seen.certificates, [])
                if policy is ClientCertificatePolicy.REQUIRED:
                    self.assert_refused(seen, 1)

    def test_who_was_identified_once_is_identified_again(self) -> None:
        """S18: by the same listener; the application always knows who it is."""
        strict = UpgradeToSsl(ServerTls(identified(ClientCertificatePolicy.REQUIRED)))
        for version in VERSIONS:
            context = client_context(GOOD_CERTIFICATE, version)

            def attack(address: Address, context: ssl.SSLContext = context) -> None:
                session = None
                for _ in range(3):
                    with attacker(address, context, session) as client:
                        self.assertTrue(client.shake_hands())
                        self.assertEqual(
                            client.ask(FRAMES.encode(b"x"), 9), FRAMES.encode(b"got x")
                        )
                        session = client.tls.session

            seen = self.attack(attack, upgrade=strict, count=3)
            self.assertEqual(seen.certificates, ["mallory"] * 3)

    def test_a_stolen_session_lets_nobody_in(self) -> None:
        """S18: of somebody who was identified, taken up by somebody who has no certificate."""
        strict = UpgradeToSsl(ServerTls(identified(ClientCertificatePolicy.REQUIRED)))
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):

            def attack(address: Address, version: int = version) -> None:
                session: Any = None
                context = openssl_context(version)
                for pem in (GOOD_CERTIFICATE, None):
                    with connect(address) as connection:
                        client = OpenSslClient(connection, context, pem)
                        if session is not None:
                            client.engine.set_session(session)
                        client.shake_hands()
                        client.say(FRAMES.encode(b"x") if pem else FRAMES.evil)
                        answer = client.hear()
                        session = client.engine.get_session()
                        self.assertEqual(answer, FRAMES.encode(b"got x") if pem else b"")

            seen = self.attack(attack, upgrade=strict, count=2)
            self.assertEqual(seen.messages, [(b"x", True)])
            self.assertEqual(seen.certificates, ["mallory"])

    @on_every_reactor
    def test_nothing_comes_before_the_handshake_is_done(self) -> None:
        """S18: what is sent as early data is not read, in plaintext or not."""
        for server in FORMATS:

            def attack(address: Address, server: Format = server) -> None:
                for trigger in (b"", server.request):
                    with attacker(address) as mallory:
                        early = b"\x17\x03\x03" + struct.pack(">H", len(server.evil)) + server.evil
                        mallory.send(trigger + mallory.tls.hello() + early)
                        mallory.go_on()
                        mallory.finish()
                        self.assertNotIn(b"got", mallory.rest())

            self.assert_refused(self.attack(attack, server, count=2), 2)


def openssl_context(version: int) -> SSL.Context:
    """Make the context of one, or of several that know each other's sessions."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_max_proto_version(version)
    context.set_session_cache_mode(SSL.SESS_CACHE_CLIENT)
    return context


class OpenSslClient:
    """A client's side that can do what Python's ``ssl`` does not offer."""

    def __init__(self, connection: Any, context: SSL.Context, pem: bytes | None = None) -> None:
        self.engine = SSL.Connection(context, None)
        if pem is not None:
            own, key = Certificate.from_pem(pem).to_cryptography()
            self.engine.use_certificate(own)
            self.engine.use_privatekey(key)
        self.engine.set_connect_state()
        self._connection = connection

    def shake_hands(self) -> bool:
        """Say whether this side thinks that it succeeded."""
        while True:
            try:
                self.engine.do_handshake()
            except SSL.WantReadError:
                self.flush()
                if not self.feed():
                    return False
            except SSL.Error:
                self.flush()
                return False
            else:
                self.flush()
                return True

    def say(self, data: bytes) -> None:
        """Send something inside, where there is an inside."""
        try:
            self.engine.send(data)
        except SSL.Error:
            pass
        self.flush()

    def hear(self) -> bytes:
        """Receive something inside; nothing at the end."""
        while True:
            try:
                return self.engine.recv(65536)
            except SSL.WantReadError:
                self.flush()
                if not self.feed():
                    return b""
            except SSL.Error:
                self.flush()
                return b""

    def flush(self) -> None:
        try:
            self._connection.sendall(self.engine.bio_read(65536))
        except (SSL.WantReadError, OSError):
            pass

    def feed(self) -> bool:
        try:
            data = self._connection.recv(65536)
        except OSError:
            return False
        if data:
            self.engine.bio_write(data)
        return bool(data)


class RenegotiationTests(Hostile):
    """A second handshake inside the first, which TLS 1.2 has."""

    @on_every_reactor
    def test_a_client_cannot_begin_one(self) -> None:
        """It is refused: the connection goes on as it was, or ends; nothing is told twice."""

        def attack(address: Address) -> None:
            for request in (b"", FRAMES.request):
                with connect(address) as connection:
                    connection.sendall(request)
                    receive_exactly(connection, len(FRAMES.go_ahead) if request else 0)
                    client = OpenSslClient(connection, openssl_context(SSL.TLS1_2_VERSION))
                    self.assertTrue(client.shake_hands())
                    client.say(FRAMES.encode(b"x"))
                    self.assertEqual(client.hear(), FRAMES.encode(b"got x"))
                    self.assertTrue(client.engine.renegotiate())
                    self.assertFalse(client.shake_hands())
                    client.say(FRAMES.evil)
                    connection.shutdown(socket.SHUT_WR)
                    while client.hear():
                        pass

        seen = self.attack(attack, count=2)
        self.assertEqual(seen.secured, [True] * 2)
        self.assertEqual(len(seen.lost), 2)
        self.assertEqual({is_secure for _, is_secure in seen.messages}, {True})


class SocketTests(Hostile):
    """Accepted sockets that the application upgrades where it knows a boundary."""

    def upgraded(
        self, delivered: list[bytes], timeout: float = 5, before: bytes = b""
    ) -> Callable[[StreamSocket], Any]:
        """Serve: a request of two bytes, a go-ahead, then an echo inside."""

        async def serve(accepted: StreamSocket) -> None:
            async with accepted:
                self.assertEqual(await accepted.input_stream.receive_exactly(2), b"GO")
                await accepted.output_stream.write(before + b"OK")
                upgrading = accepted.upgrade_to_ssl(
                    SocketProtectionLevel.TLS13, certificate=CERTIFICATE, timeout=timeout
                )
                # Refused where the connection is gone already.
                accepted.output_stream.write(b"first inside").addErrback(lambda _: None)
                await upgrading
                async for chunk in accepted.input_stream:
                    delivered.append(chunk)
                    await accepted.output_stream.send_all(chunk)

        return serve

    def assert_nothing_got_in(self, seen: Seen, delivered: list[bytes]) -> None:
        self.assertEqual(delivered, [])
        self.assertNotIn(EVIL.decode(), seen.text)

    def test_what_follows_the_request_is_a_hello_or_the_end(self) -> None:
        """S1, S2, S3, S5, S9: with it, or behind the go-ahead; nothing of it is delivered."""
        delivered: list[bytes] = []
        words = (EVIL, *NO_HELLOS, *BROKEN_HELLOS)

        def attack(address: Address) -> None:
            for behind in words:
                for waits in (False, True):
                    with attacker(address) as mallory:
                        mallory.send(b"GO" + (b"" if waits else behind))
                        if waits:
                            mallory.receive(2)
                            mallory.send(behind)
                        mallory.send(EVIL)
                        mallory.finish()
                        self.assertNotIn(b"inside", mallory.rest())

        seen = self.attack_socket(attack, self.upgraded(delivered), count=2 * len(words))
        self.assert_nothing_got_in(seen, delivered)
        self.assertEqual(len(self.ends(seen)), 2 * len(words))
        # What was there when the upgrade was asked for, and what failed in its handshake.
        self.assertEqual(len(seen.warnings), 2 * len(words))
        for warning in seen.warnings:
            self.assertRegex(
                warning,
                r"^127\.0\.0\.1 port \d+ (aborted: peer sent \d+ bytes|not let into TLS: )",
            )

    @on_every_reactor
    def test_what_was_written_before_leaves_before(self) -> None:
        """S4, S11, S13: with a full send buffer; what is written after the call waits."""
        delivered: list[bytes] = []
        before = bytes(2_000_000) + b"OK"

        def attack(address: Address) -> None:
            for cut in (1, 2, 3, 4, 5, 10_000):
                with attacker(address) as client:
                    stream = b"GO" + client.tls.hello()
                    client.send(stream[:cut])
                    client.send(stream[cut:])
                    self.assertTrue(client.receive(len(before)) == before)
                    self.assertTrue(client.go_on(behind=b"inside"))
                    self.assertEqual(client.inside(18), b"first insideinside")
                    client.send(client.tls.end())
                    client.rest()

        serve = self.upgraded(delivered, before=bytes(2_000_000))
        self.attack_socket(attack, serve, count=6)
        self.assertEqual(delivered, [b"inside"] * 6)

    def test_silence_frees_its_place(self) -> None:
        """S10: without a hello, with half of one, with one and nothing behind it."""
        delivered: list[bytes] = []

        def attack(address: Address) -> None:
            for cut in (0, 100, 10_000):
                with attacker(address) as mallory, attacker(address) as client:
                    mallory.send(b"GO")
                    mallory.receive(2)
                    mallory.send(mallory.tls.hello()[:cut])
                    mallory.rest()
                    client.send(b"GO")
                    client.receive(2)
                    self.assertTrue(client.shake_hands(behind=b"x"))
                    self.assertEqual(client.inside(13), b"first insidex")
                    client.send(client.tls.end())
                    client.rest()

        serve = self.upgraded(delivered, timeout=1)
        self.attack_socket(attack, serve, count=6, max_connections=1)
        self.assertEqual(delivered, [b"x"] * 3)

    @on_every_reactor
    def test_an_end_at_each_step_is_told(self) -> None:
        """S14: reset or FIN; the handler is told once, and nothing is left."""
        delivered: list[bytes] = []

        def attack(address: Address) -> None:
            for end in (Attacker.reset, Attacker.finish):
                for step in range(6):
                    with attacker(address) as mallory:
                        if step:
                            mallory.send(b"GO"[:step])
                        if step > 2:
                            mallory.receive(2)
                            mallory.send(mallory.tls.hello()[: 50 if step == 3 else None])
                        if step > 4:
                            mallory.go_on()
                        end(mallory)
                        if end is Attacker.finish:
                            mallory.rest()

        seen = self.attack_socket(attack, self.upgraded(delivered, timeout=1), count=12)
        self.assertEqual(len(seen.announced), 12)
        self.assertEqual(len(self.ends(seen)), 12)
        self.assert_nothing_got_in(seen, delivered)

    def test_there_is_no_tls_in_tls(self) -> None:
        """S6: a second upgrade is refused, and disturbs nothing."""
        refused: list[BaseException] = []

        async def serve(accepted: StreamSocket) -> None:
            async with accepted:
                for _ in range(2):
                    await accepted.input_stream.receive_exactly(2)
                    upgrading: Deferred[None] = accepted.upgrade_to_ssl(
                        SocketProtectionLevel.TLS13, certificate=CERTIFICATE
                    )
                    try:
                        await upgrading
                    except LocalProtocolError as error:
                        refused.append(error)
                await echo(accepted)

        def attack(address: Address) -> None:
            with attacker(address) as client:
                client.send(b"GO")
                self.assertTrue(client.shake_hands(behind=b"GO"))
                self.assertEqual(client.ask(b"inside", 6), b"inside")
                client.send(client.tls.end())
                client.rest()

        self.attack_socket(attack, serve)
        self.assertEqual(len(refused), 1)

    def test_an_end_without_farewell_is_a_truncation(self) -> None:
        """S15: what came is delivered, and then an error; with close_notify it is the end."""
        ends: list[object] = []

        async def serve(accepted: StreamSocket) -> None:
            async with accepted:
                await accepted.input_stream.receive_exactly(2)
                await accepted.upgrade_to_ssl(SocketProtectionLevel.TLS13, certificate=CERTIFICATE)
                self.assertEqual(await accepted.input_stream.receive_exactly(4), b"half")
                try:
                    ends.append(await accepted.input_stream.receive_some())
                except SocketError as error:
                    ends.append(type(error))

        def attack(address: Address) -> None:
            for is_polite in (False, True):
                with attacker(address) as client:
                    client.send(b"GO")
                    client.shake_hands(behind=b"half")
                    if is_polite:
                        client.send(client.tls.end())
                    client.finish()
                    client.rest()

        self.attack_socket(attack, serve, count=2)
        self.assertEqual(ends, [BrokenError, b""])

    def ends(self, seen: Seen) -> list[str]:
        """What the listener tells of handlers that ended."""
        return [text for text in map(formatEvent, seen.events) if " ended: " in text]


cases = (
    InjectionTests,
    PipelineTests,
    StateTests,
    SilenceTests,
    CertificateTests,
    OrderTests,
    EndTests,
    WrapperTests,
    ResumptionTests,
    RenegotiationTests,
    SocketTests,
)
for case in cases:
    globals().update(case.makeTestCaseClasses())
del InjectionTests, PipelineTests, StateTests, SilenceTests, CertificateTests, OrderTests
del EndTests, WrapperTests, ResumptionTests, RenegotiationTests, SocketTests, case, cases
