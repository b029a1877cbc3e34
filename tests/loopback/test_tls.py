"""Sockets as TLS clients and servers; the peer is Python's ``ssl``."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any

import trustme
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import (
    SSL4ClientEndpoint,
    SSL4ServerEndpoint,
    TCP4ClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.ssl import Certificate as TwistedCertificate
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.threads import deferToThreadPool

from tests.loopback.contract import OnEveryReactor, failure_of, turns
from tests.loopback.reactors import connect, on_every_reactor, receive_all, receive_exactly
from tests.loopback.tls_wire import Wire
from tests.tls.peer import AUTHORITY, SERVER, trusting, twisted_options
from twsock import (
    ClosedError,
    LocalProtocolError,
    OperationNotSupported,
    RemoteProtocolError,
    SocketError,
    SocketErrorStatus,
    StreamSocket,
    StreamSocketListener,
)
from twsock.tls.certificates import Certificate
from twsock.tls.levels import SocketProtectionLevel
from twsock.tls.server import ClientCertificatePolicy, ServerOptions, ServerTls
from twsock.tls.validation import ChainValidationResult, SocketSslErrorSeverity

Level = SocketProtectionLevel
Status = SocketErrorStatus
Result = ChainValidationResult

STRANGER = trustme.CA(organization_name="somebody else")
CLIENT = AUTHORITY.issue_cert("client@example.com", common_name="client")
NOW = datetime.now(timezone.utc)

#: The 22 bytes that the guide's sample sends before the upgrade.
GREETING = b"\0\0\0\x12" + "Hello, World! ☺ ".encode()


def root(authority: trustme.CA = AUTHORITY) -> Certificate:
    return Certificate.from_pem(authority.cert_pem.bytes())


def with_key(issued: trustme.LeafCert) -> Certificate:
    return Certificate.from_pem(issued.private_key_and_cert_chain_pem.bytes())


def make_context(issued: trustme.LeafCert = SERVER, asks: bool = False) -> ssl.SSLContext:
    """Make a server's context; with ``asks`` it requires a client certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issued.configure_cert(context)
    if asks:
        AUTHORITY.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def echo(secure: ssl.SSLSocket) -> None:
    """Send received bytes back."""
    while data := secure.recv(65536):
        secure.sendall(data)


def drop(connection: socket.socket) -> None:
    """Read, and never answer."""
    while connection.recv(1 << 16):
        pass


class Server:
    """A server in a thread, for any number of connections one after the other."""

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self.seen: list[str] = []
        self._serve = serve
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(60)

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(60)
            with connection:
                try:
                    self._serve(connection)
                except OSError as error:
                    self.seen.append(str(error))


@contextmanager
def secure_server(
    context: ssl.SSLContext | None = None, prelude: int = 0, before: bytes = b""
) -> Iterator[Server]:
    """
    Serve an echo inside TLS.

    :param prelude: the number of plaintext bytes to read first.
    :param before: bytes that are sent in plaintext before the handshake.
    """
    chosen = context or make_context()

    def serve(connection: socket.socket) -> None:
        server.seen.append(receive_exactly(connection, prelude).decode("latin-1"))
        connection.sendall(before)
        with chosen.wrap_socket(connection, server_side=True) as secure:
            peer = secure.getpeercert()
            server.seen.append(str(peer))
            echo(secure)

    server = Server(serve)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def plain_server(serve: Callable[[socket.socket], None]) -> Iterator[Server]:
    server = Server(serve)
    try:
        yield server
    finally:
        server.close()


class ClientCase(OnEveryReactor):
    """What all tests of clients share."""

    has_variants = True

    def client(self, reactor: Any) -> StreamSocket:
        """Make a socket that trusts the authority of the tests."""
        made = StreamSocket(reactor)
        made.control.trust_roots = [root()]
        return made

    async def assert_echoes(self, client: StreamSocket) -> None:
        await client.output_stream.write(b"inside")
        self.assertEqual(await client.input_stream.receive_exactly(6), b"inside")

    def assert_refused(
        self,
        issued: trustme.LeafCert,
        status: SocketErrorStatus,
        *errors: ChainValidationResult,
        host: str = "localhost",
        roots: Any = (),
    ) -> None:
        """Connect to a server with a wrong certificate; check the error."""

        async def work(reactor: Any) -> None:
            with secure_server(make_context(issued)) as server:
                client = self.client(reactor)
                if roots != ():
                    client.control.trust_roots = roots
                await client.connect("127.0.0.1", server.port)
                error = await failure_of(client.upgrade_to_ssl(Level.TLS13, host))
                self.assertIs(error.status, status)
                information = client.information
                self.assertEqual(set(information.server_certificate_errors), set(errors))
                shown = Certificate.from_pem(issued.cert_chain_pems[0].bytes())
                self.assertEqual(information.server_certificate, shown)
                self.assertFalse(client.is_open)
                await client.wait_closed()

        self.conduct(work)


class ConnectTests(ClientCase):
    """TLS from the first byte."""

    @on_every_reactor
    def test_a_level_is_negotiated_up_to_itself(self) -> None:
        """E11, E14, E15: the level is the highest version; level and version are both reported."""

        async def work(reactor: Any) -> None:
            with secure_server() as server:
                for level, version in (
                    (Level.TLS12, "TLSv1.2"),
                    (Level.TLS13, "TLSv1.3"),
                    (Level.SSL, "TLSv1.3"),
                ):
                    async with self.client(reactor) as client:
                        await client.connect("localhost", server.port, level)
                        await self.assert_echoes(client)
                        self.assertIs(
                            client.information.protection_level,
                            level,
                            f"{level=}, {client.information.protection_level=}",
                        )
                        self.assertEqual(
                            client.information.negotiated_version, version, f"{level=}"
                        )
                        self.assertNotEqual(
                            client.information.cipher, "", f"{level=}, {client.information.cipher=}"
                        )
                        self.assertEqual(
                            client.information.server_certificate_errors, (), f"{level=}"
                        )
                        await client.close()
                        await client.wait_closed()

        self.conduct(work)

    def test_a_server_below_the_floor_is_refused(self) -> None:
        """E12: as a server without TLS is; the socket can connect again."""

        async def work(reactor: Any) -> None:
            context = make_context()
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            with secure_server(context) as server:
                client = self.client(reactor)
                client.control.min_protection_level = Level.TLS13
                await failure_of(client.connect("localhost", server.port, Level.TLS13))
                client.control.min_protection_level = Level.TLS12
                await client.connect("localhost", server.port, Level.TLS13)
                await self.assert_echoes(client)
                await client.close()
                await client.wait_closed()

        self.conduct(work)

    def test_a_level_that_openssl_lacks_sends_no_packet(self) -> None:
        """E16: the call fails at once."""

        async def work(reactor: Any) -> None:
            client = self.client(reactor)
            for level in (Level.TLS10, Level.SSL3_ALLOW_WEAK_ENCRYPTION):
                error = await failure_of(client.connect("192.0.2.1", 1, level))
                self.assertIsInstance(error, OperationNotSupported, f"{level=}")
            self.assertRaises(ValueError, client.connect, "localhost", 1, Level.UNSPECIFIED)

        self.conduct(work)

    def test_a_refused_socket_connects_again_with_all_errors_ignored(self) -> None:
        """
        A.1.5: the same object, with the errors it reported; ignoring one of them is not enough.
        """
        fabrikam = STRANGER.issue_cert("www.fabrikam.com")

        async def work(reactor: Any) -> None:
            with secure_server(make_context(fabrikam)) as server:
                client = self.client(reactor)
                error = await failure_of(client.connect("localhost", server.port, Level.TLS12))
                self.assertIs(error.status, Status.CERTIFICATE_UNTRUSTED_ROOT)
                information = client.information
                reported = information.server_certificate_errors
                self.assertEqual(set(reported), {Result.INCOMPLETE_CHAIN, Result.INVALID_NAME})
                severity = information.server_certificate_error_severity
                self.assertIs(severity, SocketSslErrorSeverity.IGNORABLE)
                forgiven = client.control.ignorable_server_certificate_errors
                forgiven.append(Result.UNTRUSTED)
                error = await failure_of(client.connect("localhost", server.port, Level.TLS12))
                forgiven.clear()
                forgiven.extend(reported)
                await client.connect("localhost", server.port, Level.TLS12)
                await self.assert_echoes(client)
                self.assertEqual(set(information.server_certificate_errors), set(reported))
                await client.close()
                await client.wait_closed()

        self.conduct(work)

    @on_every_reactor
    def test_a_silent_server_fails_the_connect_at_its_deadline(self) -> None:
        """E22: the socket can connect again."""

        async def work(reactor: Any) -> None:
            with plain_server(drop) as server:
                client = self.client(reactor)
                connecting = client.connect("localhost", server.port, Level.TLS12, timeout=0.1)
                self.assertIs((await failure_of(connecting)).status, Status.CONNECTION_TIMED_OUT)
                await client.connect("localhost", server.port)
                upgrading = client.upgrade_to_ssl(Level.TLS12, "localhost", timeout=0.1)
                self.assertIs((await failure_of(upgrading)).status, Status.CONNECTION_TIMED_OUT)
                await client.wait_closed()

        self.conduct(work)

    @on_every_reactor
    def test_a_failed_handshake_leaves_the_socket_unconnected(self) -> None:
        """The loss of the failed connection, reported later, changes nothing."""

        async def work(reactor: Any) -> None:
            with plain_server(drop) as silent, secure_server(make_context()) as server:
                for how in ("times out", "is cancelled"):
                    client = self.client(reactor)
                    seconds = 0.1 if how == "times out" else None
                    connecting = client.connect(
                        "localhost", silent.port, Level.TLS12, timeout=seconds
                    )
                    if seconds is None:
                        reactor.callLater(0.1, connecting.cancel)
                    with self.assertRaises((SocketError, CancelledError)):
                        await connecting
                    await turns(reactor)
                    self.assertFalse(client.was_lost, how)
                    client.control.min_protection_level = Level.TLS12
                    await client.connect("localhost", server.port, Level.TLS12)
                    await self.assert_echoes(client)
                    await client.close()
                    await client.wait_closed()

        self.conduct(work)


class AlertTests(ClientCase):
    """A refused handshake: both ends know the reason."""

    #: Version of the server, whether it requires a certificate, level of the client, status.
    refused_by_server = (
        ("TLSv1_3", False, Level.UNSPECIFIED, Level.TLS12, Status.CONNECTION_REFUSED),
        ("TLSv1_2", False, Level.TLS13, Level.TLS13, Status.CONNECTION_REFUSED),
        ("TLSv1_2", True, Level.UNSPECIFIED, Level.TLS13, Status.CONNECTION_REFUSED),
        ("TLSv1_3", True, Level.UNSPECIFIED, Level.TLS13, Status.CERTIFICATE_IS_INVALID),
    )

    @on_every_reactor
    def test_a_refused_client_has_the_status_of_the_alert(self) -> None:
        """
        A wrong version or missing certificate; TLS 1.3 reports the latter at the first read only.
        """

        async def work(reactor: Any) -> None:
            for version, asks, floor, level, status in self.refused_by_server:
                context = make_context(asks=asks)
                context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
                with secure_server(context) as server:
                    client = self.client(reactor)
                    client.control.min_protection_level = floor

                    async def connect(
                        client: StreamSocket = client, port: int = server.port, level: Any = level
                    ) -> None:
                        await client.connect("localhost", port, level)
                        await client.input_stream.receive_some()

                    error = await failure_of(Deferred.fromCoroutine(connect()))
                    self.assertIs(error.status, status, (version, asks))
                    await client.abort()

        self.conduct(work)

    def test_a_refusing_server_has_the_status_of_the_reason(self) -> None:
        """Version, cipher, missing certificate, ALPN protocol; also where the client refused."""
        local, remote = Status.SOFTWARE_CAUSED_CONNECTION_ABORT, Status.CERTIFICATE_UNTRUSTED_ROOT
        shown = [with_key(SERVER)]
        required = ClientCertificatePolicy.REQUIRED
        plain = ServerOptions(shown)
        old = trusting()
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        weak = trusting()
        weak.maximum_version = ssl.TLSVersion.TLSv1_2
        weak.set_ciphers("AES128-SHA")
        other = trusting()
        other.set_alpn_protocols(["other"])
        cases = (
            (ServerOptions(shown, min_protection_level=Level.TLS13), old, local),
            (plain, weak, local),
            (ServerOptions(shown, application_protocols=[b"mine"]), other, local),
            (plain, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), remote),
            (
                ServerOptions(shown, client_certificate=required, client_authorities=[root()]),
                trusting(),
                Status.CERTIFICATE_IS_INVALID,
            ),
        )

        async def work(reactor: Any) -> None:
            async with StreamSocketListener(reactor) as listener:
                await listener.bind_endpoint("127.0.0.1", "")
                port = int(listener.information.local_port)
                for options, context, status in cases:
                    connecting = deferToThreadPool(
                        reactor, reactor.getThreadPool(), refuse_to_shake, port, context
                    )
                    accepted = await listener.accept()
                    error = await failure_of(accepted.secure_as_server(ServerTls(options), 5))
                    self.assertIs(error.status, status, f"{status=}, {error.status=}")
                    await connecting

        self.conduct(work)


def refuse_to_shake(port: int, context: ssl.SSLContext) -> None:
    """Be a client whose handshake fails at one of its ends."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        try:
            with context.wrap_socket(connection, server_hostname="localhost") as inside:
                inside.recv(1)
        except OSError:
            pass


class VerificationTests(ClientCase):
    """Wrong certificates."""

    @on_every_reactor
    def test_a_certificate_for_another_name_is_refused(self) -> None:
        """C10: a host name, an address, a wildcard of another domain, no name at all."""
        for issued, host in (
            (SERVER, "wrong.example"),
            (SERVER, "127.0.0.2"),
            (AUTHORITY.issue_cert("*.example.com"), "a.b.example.com"),
            (AUTHORITY.issue_cert("localhost"), "127.0.0.1"),
            (CLIENT, "localhost"),
        ):
            self.assert_refused(
                issued,
                Status.CERTIFICATE_COMMON_NAME_IS_INCORRECT,
                Result.INVALID_NAME,
                host=host,
            )

    def test_a_certificate_of_an_untrusted_authority_is_refused(self) -> None:
        """Also with the platform's authorities, with another one, and with none."""
        for roots in (None, [root(STRANGER)], []):
            self.assert_refused(
                SERVER, Status.CERTIFICATE_UNTRUSTED_ROOT, Result.INCOMPLETE_CHAIN, roots=roots
            )

    def test_an_expired_certificate_is_refused(self) -> None:
        """The error is that of an expired certificate."""
        expired = AUTHORITY.issue_cert("localhost", not_after=NOW - timedelta(hours=1))
        self.assert_refused(expired, Status.CERTIFICATE_EXPIRED, Result.EXPIRED)

    def test_matching_names_are_accepted(self) -> None:
        """C10: an address, a wildcard, an international name (IDNA 2008)."""

        async def work(reactor: Any) -> None:
            for issued, host in (
                (SERVER, "127.0.0.1"),
                (AUTHORITY.issue_cert("*.example.com"), "www.example.com"),
                (AUTHORITY.issue_cert("xn--strae-oqa.example"), "straße.example"),
            ):
                with secure_server(make_context(issued)) as server:
                    client = self.client(reactor)
                    await client.connect("127.0.0.1", server.port)
                    await client.upgrade_to_ssl(Level.TLS13, host)
                    await self.assert_echoes(client)
                    await client.close()
                    await client.wait_closed()

        self.conduct(work)

    def test_a_client_sends_its_certificate_if_asked(self) -> None:
        """A server that requires one refuses a client without it."""

        async def work(reactor: Any) -> None:
            with secure_server(make_context(asks=True)) as server:
                client = self.client(reactor)
                client.control.client_certificate = with_key(CLIENT)
                await client.connect("localhost", server.port, Level.TLS12)
                await self.assert_echoes(client)
                await client.close()
                await client.wait_closed()
                self.assertIn("client", server.seen[-1])
                anonymous = self.client(reactor)
                await failure_of(anonymous.connect("localhost", server.port, Level.TLS12))

        self.conduct(work)

    def test_an_unverified_server_gets_no_client_certificate(self) -> None:
        """C16: the client verifies the server first."""
        impostor = STRANGER.issue_cert("localhost")

        async def work(reactor: Any) -> None:
            for level in (Level.TLS12, Level.TLS13):
                with secure_server(make_context(impostor, asks=True)) as server:
                    client = self.client(reactor)
                    client.control.client_certificate = with_key(CLIENT)
                    await failure_of(client.connect("localhost", server.port, level))
                self.assertNotIn("client", "".join(server.seen), f"{level=}")

        self.conduct(work)


class UpgradeTests(ClientCase):
    """TLS in the middle of a connection."""

    @on_every_reactor
    def test_the_walk_of_the_guide_succeeds(self) -> None:
        """E5, E.4: 22 bytes in plaintext, the handshake, everything else encrypted."""
        for level in (Level.TLS12, Level.SSL):

            async def work(reactor: Any, level: Level = level) -> None:
                with secure_server(prelude=len(GREETING)) as server:
                    client = self.client(reactor)
                    await client.connect("localhost", server.port)
                    await client.output_stream.write(GREETING)
                    await client.upgrade_to_ssl(level, "localhost")
                    await self.assert_echoes(client)
                    self.assertEqual(server.seen[0], GREETING.decode("latin-1"))
                    await client.close()
                    await client.wait_closed()

            self.conduct(work)

    def test_writes_during_the_handshake_are_sent_inside_tls(self) -> None:
        """C17: the server receives no plaintext behind the request."""
        received: list[bytes] = []

        def look(connection: socket.socket) -> None:
            received.append(connection.recv(1 << 16, socket.MSG_PEEK))
            with make_context().wrap_socket(connection, server_side=True) as secure:
                echo(secure)

        async def work(reactor: Any) -> None:
            with plain_server(look) as server:
                client = self.client(reactor)
                await client.connect("localhost", server.port)
                upgrading = client.upgrade_to_ssl(Level.TLS13, "localhost")
                writing = client.output_stream.write(b"inside")
                flushing = client.output_stream.flush()
                self.assertFalse(writing.called)
                await upgrading
                self.assertEqual(await client.input_stream.receive_exactly(6), b"inside")
                self.assertEqual(await writing, 6)
                self.assertTrue(await flushing)
                await client.close()
                await client.wait_closed()

        self.conduct(work)
        self.assertEqual(received[0][:2], b"\x16\x03")
        self.assertNotIn(b"inside", received[0])

    def test_unread_plaintext_aborts_the_upgrade(self) -> None:
        """E9, C1: it could be taken for data that came encrypted."""

        async def work(reactor: Any) -> None:
            with secure_server(prelude=2, before=b"OK, and more") as server:
                client = self.client(reactor)
                await client.connect("localhost", server.port)
                await client.output_stream.write(b"GO")
                self.assertEqual(await client.input_stream.receive_exactly(2), b"OK")
                error = await failure_of(client.upgrade_to_ssl(Level.TLS13, "localhost"))
                self.assertIsInstance(error, RemoteProtocolError)
                await failure_of(client.input_stream.receive_some())
                await client.wait_closed()

        self.conduct(work)

    def test_plaintext_in_place_of_the_handshake_fails_the_upgrade(self) -> None:
        """C3, C7, S9: garbage, an answer, an alert; nothing of it is delivered."""
        for answer in (
            b"220 go ahead\r\n",
            b"\x15\x03\x03\0\2\2\x28",
            b"\x16\x03\x03\0\4abcd",
            b"\0" * 50,
        ):

            def serve(connection: socket.socket, answer: bytes = answer) -> None:
                connection.recv(1 << 16)
                connection.sendall(answer)
                while connection.recv(1 << 16):
                    pass

            async def work(reactor: Any, serve: Callable[[socket.socket], None] = serve) -> None:
                with plain_server(serve) as server:
                    client = self.client(reactor)
                    await client.connect("localhost", server.port)
                    await failure_of(client.upgrade_to_ssl(Level.TLS13, "localhost"))
                    self.assertFalse(client.is_open)
                    await failure_of(client.input_stream.receive_some())
                    await client.wait_closed()

            self.conduct(work)

    def test_an_upgrade_at_the_wrong_time_is_refused(self) -> None:
        """E2, E3, E4, E7, E8: the connection is not disturbed."""

        async def work(reactor: Any) -> None:
            with secure_server(prelude=2) as server:
                client = self.client(reactor)
                early = await failure_of(client.upgrade_to_ssl(Level.TLS12, "localhost"))
                self.assertEqual(early.hresult, 0x8000000E)
                for level in (Level.PLAIN_SOCKET, Level.UNSPECIFIED):
                    self.assertRaises(ValueError, client.upgrade_to_ssl, level, "localhost")
                for name in ("", None, "not a host"):
                    self.assertRaises(ValueError, client.upgrade_to_ssl, Level.TLS12, name)
                await client.connect("localhost", server.port)
                reading = client.input_stream.receive_some()
                error = await failure_of(client.upgrade_to_ssl(Level.TLS12, "localhost"))
                self.assertEqual(error.hresult, 0x8000000E)
                await client.cancel_io()
                await failure_of(reading)
                writing = client.output_stream.write(b"GO")
                error = await failure_of(client.upgrade_to_ssl(Level.TLS12, "localhost"))
                self.assertIsInstance(error, LocalProtocolError)
                await writing
                await client.upgrade_to_ssl(Level.TLS12, "localhost")
                again = await failure_of(client.upgrade_to_ssl(Level.TLS12, "localhost"))
                self.assertIsInstance(again, LocalProtocolError)
                await self.assert_echoes(client)
                await client.close()
                late = await failure_of(client.upgrade_to_ssl(Level.TLS12, "localhost"))
                self.assertEqual(late.hresult, 0x80000013)
                await client.wait_closed()

        self.conduct(work)

    def test_ending_an_upgrade_ends_the_connection(self) -> None:
        """C15: cancelled, closed or aborted; bytes that waited are not sent."""
        received: list[bytes] = []

        def collect(connection: socket.socket) -> None:
            while data := connection.recv(1 << 16):
                received.append(data)

        async def work(reactor: Any) -> None:
            with plain_server(collect) as server:
                for end in ("cancel", "close", "abort"):
                    client = self.client(reactor)
                    await client.connect("localhost", server.port)
                    upgrading = client.upgrade_to_ssl(Level.TLS12, "localhost")
                    writing = client.output_stream.write(b"never in plaintext")
                    if end == "cancel":
                        upgrading.cancel()
                        with self.assertRaises(CancelledError):
                            await upgrading
                    else:
                        getattr(client, end)()
                        self.assertIsInstance(await failure_of(upgrading), ClosedError, f"{end=}")
                    await failure_of(writing)
                    await client.wait_closed()
                await turns(reactor)

        self.conduct(work)
        self.assertNotIn(b"never in plaintext", b"".join(received))

    @on_every_reactor
    def test_an_end_without_close_notify_is_a_truncation(self) -> None:
        """S15: it is no end in order."""

        def cut(connection: socket.socket) -> None:
            secure = make_context().wrap_socket(connection, server_side=True)
            secure.sendall(b"half")
            secure.recv(1)
            socket.socket(fileno=secure.detach()).close()

        async def work(reactor: Any) -> None:
            with plain_server(cut) as server:
                client = self.client(reactor)
                await client.connect("localhost", server.port, Level.TLS13)
                self.assertEqual(await client.input_stream.receive_exactly(4), b"half")
                await client.output_stream.write(b"x")
                await failure_of(client.input_stream.receive_some())
                await client.wait_closed()

        self.conduct(work)

    @on_every_reactor
    def test_a_closed_output_leaves_the_input_open(self) -> None:
        """The server reads the end of the stream, and its answers arrive."""

        def serve(connection: socket.socket) -> None:
            peer = Wire(connection, make_context())
            question = peer.receive_to_the_end()
            peer.send(b"answer to " + question, ends=True)
            receive_all(connection)

        async def work(reactor: Any) -> None:
            for level in (Level.TLS12, Level.TLS13):
                with plain_server(serve) as server:
                    client = self.client(reactor)
                    await client.connect("localhost", server.port, level)
                    await client.output_stream.write(b"question")
                    await client.output_stream.close()
                    answer = b"".join([chunk async for chunk in client.input_stream])
                    self.assertEqual(answer, b"answer to question", f"{level=}")
                    await client.close()
                self.assertEqual(server.seen, [], f"{level=}")

        self.conduct(work)


async def echo_inside(_listener: StreamSocketListener, args: Any) -> None:
    """Send received bytes back."""
    async with args.socket as accepted:
        async for chunk in accepted.input_stream:
            await accepted.output_stream.send_all(chunk)


class Hello:
    """A client side of TLS whose messages the test sends."""

    def __init__(self) -> None:
        context = trusting()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.secure = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

    def first(self) -> bytes:
        """Return the ClientHello."""
        try:
            self.secure.do_handshake()
        except ssl.SSLWantReadError:
            pass
        return self._outgoing.read()

    def finish(self, connection: socket.socket) -> None:
        """Do the handshake to its end."""
        while True:
            try:
                self.secure.do_handshake()
                break
            except ssl.SSLWantReadError:
                connection.sendall(self._outgoing.read())
                self._feed(connection)
        connection.sendall(self._outgoing.read())

    def ask(self, connection: socket.socket, request: bytes) -> bytes:
        """Send bytes inside TLS, and return the answer."""
        self.secure.write(request)
        connection.sendall(self._outgoing.read())
        while True:
            try:
                return self.secure.read(65536)
            except ssl.SSLWantReadError:
                self._feed(connection)

    def _feed(self, connection: socket.socket) -> None:
        data = connection.recv(65536)
        if not data:
            raise ConnectionError("ended")
        self._incoming.write(data)


class ServerCase(ClientCase):
    """What all tests of servers share."""

    async def listen(
        self, reactor: Any, handler: Any = echo_inside, *, timeout: float = 10.0, **options: Any
    ) -> StreamSocketListener:
        """Listen with TLS from the first byte."""
        offered = options.pop("certificates", [with_key(SERVER)])
        listener = StreamSocketListener(
            reactor,
            max_connections=options.pop("max_connections", None),
            tls=ServerOptions(offered, **options),
            handshake_timeout=timeout,
        )
        listener.connection_received.add(handler)
        await listener.bind_endpoint("127.0.0.1", "")
        return listener

    async def connect(
        self, reactor: Any, listener: StreamSocketListener, host: str = "localhost", **given: Any
    ) -> StreamSocket:
        client = self.client(reactor)
        for name, value in given.items():
            setattr(client.control, name, value)
        await client.connect("127.0.0.1", listener.information.local_port)
        await client.upgrade_to_ssl(Level.TLS13, host)
        return client

    async def connect_in_time(self, reactor: Any, listener: StreamSocketListener) -> StreamSocket:
        """Connect; try again if a busy machine missed a short deadline."""
        while True:
            try:
                return await self.connect(reactor, listener)
            except SocketError:
                pass

    async def refuse(self, reactor: Any, listener: StreamSocketListener, given: Any) -> None:
        """Require that a client is refused, in its handshake or at its first read."""
        client = self.client(reactor)
        client.control.client_certificate = given
        await client.connect("127.0.0.1", listener.information.local_port)
        upgrading = client.upgrade_to_ssl(Level.TLS13, "localhost")
        try:
            await upgrading
        except SocketError:
            pass
        else:
            await failure_of(client.input_stream.receive_some())
        await client.wait_closed()


class ServerTests(ServerCase):
    """A listener with TLS from the first byte."""

    @on_every_reactor
    def test_messages_inside_tls_come_back(self) -> None:
        """Small and large ones, up to the end."""

        async def work(reactor: Any) -> None:
            listener = await self.listen(reactor)
            client = await self.connect(reactor, listener)
            await self.assert_echoes(client)
            writing = client.output_stream.write(bytes(3_000_000))
            self.assertEqual(len(await client.input_stream.receive_exactly(3_000_000)), 3_000_000)
            self.assertEqual(await writing, 3_000_000)
            await client.close()
            await client.wait_closed()
            self.assertEqual(await listener.close_all(5), 0)

        self.conduct(work)

    def test_a_peer_without_a_handshake_calls_no_handler(self) -> None:
        """S9, S10: silence and garbage end at the deadline, and the place is free again."""
        called: list[object] = []

        async def note(listener: StreamSocketListener, args: Any) -> None:
            called.append(args)
            await echo_inside(listener, args)

        async def work(reactor: Any) -> None:
            listener = await self.listen(reactor, note, timeout=0.1, max_connections=1)
            for words in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x40\0", bytes(100)):
                silent = StreamSocket(reactor)
                await silent.connect("127.0.0.1", listener.information.local_port)
                silent.output_stream.write(words)
                while True:
                    try:
                        if not await silent.input_stream.receive_some():
                            break
                    except SocketError:
                        break
                await silent.abort()
            self.assertEqual(called, [])
            client = await self.connect_in_time(reactor, listener)
            await self.assert_echoes(client)
            await client.close()
            await client.wait_closed()
            await listener.close_all(5)

        self.conduct(work)
        self.assertEqual(len(called), 1)

    def test_a_required_client_certificate_is_verified(self) -> None:
        """S12: a valid one of the authority is accepted; for other clients no handler is called."""
        seen: list[str] = []

        async def note(listener: StreamSocketListener, args: Any) -> None:
            seen.append(args.socket.information.client_certificate.subject)
            await echo_inside(listener, args)

        expired = AUTHORITY.issue_cert("old@example.com", not_after=NOW - timedelta(hours=1))
        stranger = STRANGER.issue_cert("client@example.com")

        async def work(reactor: Any) -> None:
            required = ClientCertificatePolicy.REQUIRED
            listener = await self.listen(
                reactor, note, client_certificate=required, client_authorities=[root()]
            )
            for given in (None, with_key(expired), with_key(stranger)):
                await self.refuse(reactor, listener, given)
            self.assertEqual(seen, [])
            client = await self.connect(reactor, listener, client_certificate=with_key(CLIENT))
            await self.assert_echoes(client)
            await client.close()
            await client.wait_closed()
            await listener.close_all(5)

        self.conduct(work)
        self.assertEqual(seen, ["client"])

    def test_an_optional_client_certificate_may_be_missing(self) -> None:
        """A client without one is accepted; one with a wrong one is refused."""

        async def work(reactor: Any) -> None:
            listener = await self.listen(
                reactor,
                client_certificate=ClientCertificatePolicy.OPTIONAL,
                client_authorities=[root()],
            )
            client = await self.connect(reactor, listener)
            await self.assert_echoes(client)
            await client.close()
            await client.wait_closed()
            await self.refuse(reactor, listener, with_key(STRANGER.issue_cert("a@example.com")))
            await listener.close_all(5)

        self.conduct(work)

    def test_the_certificate_is_chosen_by_the_server_name(self) -> None:
        """The first one is the default."""
        other = AUTHORITY.issue_cert("other.example", "*.wild.example", common_name="other")

        async def work(reactor: Any) -> None:
            listener = await self.listen(reactor, certificates=[with_key(SERVER), with_key(other)])
            for host, subject in (
                ("localhost", "server"),
                ("other.example", "other"),
                ("a.wild.example", "other"),
                ("127.0.0.1", "server"),
            ):
                client = await self.connect(reactor, listener, host)
                shown = client.information.server_certificate
                assert shown is not None
                self.assertEqual(shown.subject, subject, f"{host=}")
                await client.close()
                await client.wait_closed()
            await listener.close_all(5)

        self.conduct(work)

    def test_replaced_certificates_are_used_from_the_next_handshake_on(self) -> None:
        """Open connections are not affected."""
        renewed = AUTHORITY.issue_cert("localhost", common_name="renewed")

        async def work(reactor: Any) -> None:
            listener = await self.listen(reactor)
            before = await self.connect(reactor, listener)
            self.assertRaises(ValueError, listener.replace_certificates, [])
            listener.replace_certificates([with_key(renewed)])
            after = await self.connect(reactor, listener)
            for client, subject in ((before, "server"), (after, "renewed")):
                shown = client.information.server_certificate
                assert shown is not None
                self.assertEqual(shown.subject, subject, f"{subject=}")
                await self.assert_echoes(client)
                await client.close()
                await client.wait_closed()
            await listener.close_all(5)

        self.conduct(work)


class SecureTests(ServerCase):
    """``is_secure`` of a socket, for each way to TLS."""

    def assert_plain(self, given: StreamSocket) -> None:
        """Check a socket before any handshake is done."""
        information = given.information
        self.assertFalse(given.is_secure)
        self.assertIs(information.protection_level, Level.PLAIN_SOCKET)
        self.assertEqual(
            (information.negotiated_version, information.cipher, information.alpn_protocol),
            ("", "", ""),
        )

    def assert_secure(self, given: StreamSocket, level: SocketProtectionLevel = Level.SSL) -> None:
        self.assertTrue(given.is_secure)
        self.assertIs(given.information.protection_level, level)
        self.assertEqual(given.information.negotiated_version, "TLSv1.3")
        self.assertNotEqual(given.information.cipher, "")

    @on_every_reactor
    def test_an_accepted_socket_has_the_level_of_its_listener(self) -> None:
        """And the negotiated version; so does one that was upgraded as a server."""

        async def work(reactor: Any) -> None:
            for level in (Level.SSL, Level.TLS13):
                met: Deferred[StreamSocket] = Deferred()

                async def note(
                    listener: StreamSocketListener,
                    args: Any,
                    met: Deferred[StreamSocket] = met,
                    level: SocketProtectionLevel = level,
                ) -> None:
                    self.assert_secure(args.socket, level)
                    met.callback(args.socket)
                    await echo_inside(listener, args)

                listener = await self.listen(reactor, note, protection_level=level)
                client = await self.connect(reactor, listener)
                accepted = await met
                await client.close()
                await client.wait_closed()
                await listener.close_all(5)
                self.assertFalse(accepted.is_secure, f"{level=}")
                self.assertIs(
                    accepted.information.protection_level,
                    level,
                    f"{level=}, {accepted.information.protection_level=}",
                )
                self.assertEqual(accepted.information.negotiated_version, "TLSv1.3", f"{level=}")

        self.conduct(work)

    def test_a_client_is_secure_when_its_handshake_is_done(self) -> None:
        """Not when it has begun, and not after a failed one."""

        async def work(reactor: Any) -> None:
            with secure_server() as server:
                client = self.client(reactor)
                self.assert_plain(client)
                await client.connect("localhost", server.port)
                self.assert_plain(client)
                upgrading = client.upgrade_to_ssl(Level.TLS13, "localhost")
                self.assertFalse(client.is_secure)
                await upgrading
                self.assert_secure(client, Level.TLS13)
                await client.close()
                await client.wait_closed()
                refused = self.client(reactor)
                refused.control.trust_roots = []
                await refused.connect("localhost", server.port)
                await failure_of(refused.upgrade_to_ssl(Level.TLS13, "localhost"))
                self.assertFalse(refused.is_secure)

        self.conduct(work)

    def test_over_a_tls_endpoint_a_socket_is_secure_after_its_handshake(self) -> None:
        """At both ends: Twisted reports the connection before."""
        options = optionsForClientTLS(
            "localhost", TwistedCertificate.loadPEM(AUTHORITY.cert_pem.bytes())
        )
        shown = twisted_options(SERVER.private_key_and_cert_chain_pem.bytes())

        async def work(reactor: Any) -> None:
            listener = StreamSocketListener(reactor)
            await listener.listen(SSL4ServerEndpoint(reactor, 0, shown, interface="127.0.0.1"))
            port = int(listener.information.local_port)
            for endpoint in (
                wrapClientTLS(options, TCP4ClientEndpoint(reactor, "127.0.0.1", port)),
                SSL4ClientEndpoint(reactor, "127.0.0.1", port, options),
            ):
                client = StreamSocket(reactor)
                await client.connect_endpoint(endpoint)
                self.assert_plain(client)
                accepted = await listener.accept()
                await client.output_stream.write(b"x")
                self.assertEqual(
                    await accepted.input_stream.receive_exactly(1),
                    b"x",
                    f"{type(endpoint).__name__=}",
                )
                self.assert_secure(accepted)
                await accepted.output_stream.write(b"y")
                self.assertEqual(
                    await client.input_stream.receive_exactly(1),
                    b"y",
                    f"{type(endpoint).__name__=}",
                )
                self.assert_secure(client)
                await client.abort()
                self.assertFalse(client.is_secure, f"{type(endpoint).__name__=}")
                self.assertEqual(
                    client.information.negotiated_version, "TLSv1.3", f"{type(endpoint).__name__=}"
                )
                await accepted.abort()
            await listener.close()

        self.conduct(work)


class ServerUpgradeTests(ServerCase):
    """Accepted sockets that the application upgrades at a boundary it knows."""

    def ask(self, peer: Callable[[tuple[str, int]], Any]) -> tuple[Any, list[bytes]]:
        """Serve one peer in a thread: a request for TLS, a go-ahead, an echo inside TLS."""
        delivered: list[bytes] = []
        said: list[Any] = []

        async def serve(_listener: StreamSocketListener, args: Any) -> None:
            async with args.socket as accepted:
                await accepted.input_stream.receive_exactly(2)
                await accepted.output_stream.write(b"OK")
                await accepted.upgrade_to_ssl(Level.TLS13, certificate=with_key(SERVER), timeout=1)
                async for chunk in accepted.input_stream:
                    delivered.append(chunk)
                    await accepted.output_stream.send_all(chunk)

        async def work(reactor: Any) -> None:
            listener = StreamSocketListener(reactor)
            listener.connection_received.add(serve)
            await listener.bind_endpoint("127.0.0.1", "")
            address = "127.0.0.1", int(listener.information.local_port)
            pool = reactor.getThreadPool()
            said.append(await deferToThreadPool(reactor, pool, peer, address))
            await listener.close_all(5)

        self.conduct(work)
        self.flushLoggedErrors()
        return said[0], delivered

    @on_every_reactor
    def test_after_request_and_go_ahead_the_handshake_succeeds(self) -> None:
        """The peer is Python's ``ssl``."""

        def peer(address: tuple[str, int]) -> bytes:
            with connect(address) as connection:
                connection.sendall(b"GO")
                assert receive_exactly(connection, 2) == b"OK"
                hello = Hello()
                hello.finish(connection)
                return hello.ask(connection, b"inside")

        self.assertEqual(self.ask(peer), (b"inside", [b"inside"]))

    def test_a_pipelined_hello_is_accepted(self) -> None:
        """S4: wherever it is cut."""
        for cut in (2, 3, 4, 9, 10_000):

            def peer(address: tuple[str, int], cut: int = cut) -> bytes:
                with connect(address) as connection:
                    hello = Hello()
                    stream = b"GO" + hello.first()
                    connection.sendall(stream[:cut])
                    connection.sendall(stream[cut:])
                    assert receive_exactly(connection, 2) == b"OK"
                    hello.finish(connection)
                    return hello.ask(connection, b"inside")

            self.assertEqual(self.ask(peer), (b"inside", [b"inside"]), f"{cut=}")

    def test_plaintext_behind_the_request_aborts(self) -> None:
        """S1, S2, S5: it is neither delivered nor answered, wherever it is cut."""
        for rest in (b"\0\0\0\1x", b"\x16", b"\x16\x02\0", b"GO", b"\0"):
            for step in (1, 100):

                def peer(address: tuple[str, int], rest: bytes = rest, step: int = step) -> bytes:
                    stream = b"GO" + rest + b"tail"
                    with connect(address) as connection:
                        try:
                            for start in range(0, len(stream), step):
                                connection.sendall(stream[start : start + step])
                            connection.shutdown(socket.SHUT_WR)
                            return receive_all(connection)
                        except (
                            OSError
                        ):  # The connection is reset, and the peer is not even connected then.
                            return b""

                answer, delivered = self.ask(peer)
                self.assertEqual(delivered, [], f"{rest=}, {step=}")
                self.assertNotIn(b"tail", answer, f"{rest=}, {step=}: {answer!r}")


for case in (
    AlertTests,
    ConnectTests,
    VerificationTests,
    UpgradeTests,
    SecureTests,
    ServerTests,
    ServerUpgradeTests,
):
    globals().update(case.makeTestCaseClasses())
del (
    AlertTests,
    ConnectTests,
    VerificationTests,
    UpgradeTests,
    SecureTests,
    ServerTests,
    ServerUpgradeTests,
)
