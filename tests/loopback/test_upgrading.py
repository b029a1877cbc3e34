"""
Clients upgrade as documented, and hostile servers deceive none; the server is Python's ``ssl``.

The numbers with a C are attacks on a client, those with an E claims on the upgrade; both are listed
in ``docs/attacks.rst``. Each runs with a socket, and with a protocol if that differs.
"""

from __future__ import annotations

import itertools
import socket
import ssl
import warnings
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.protocol import Factory
from twisted.internet.ssl import Certificate as TwistedCertificate
from twisted.internet.ssl import optionsForClientTLS

from tests.loopback.contract import failure_of
from tests.loopback.reactors import on_every_reactor, receive_exactly
from tests.loopback.test_certificates import (
    AUTHORITY,
    CLIENT,
    ROWS,
    STRANGER,
    CertificateCase,
    Row,
    Witness,
    with_key,
)
from tests.loopback.test_tls import plain_server
from tests.stream.test_client_upgrade import Recorder
from twsock import (
    BrokenError,
    ClosedError,
    LocalProtocolError,
    OperationNotSupported,
    RemoteProtocolError,
    SocketError,
    SocketErrorStatus,
    StreamSocket,
    StreamSocketListener,
)
from twsock.names import HostName
from twsock.protocols import ClientUpgrade, UpgradeStyle
from twsock.tls import CertificateError, ClientOptions, choose_versions
from twsock.tls.levels import SocketProtectionLevel
from twsock.wire import encode_frame

Level = SocketProtectionLevel
Status = SocketErrorStatus

SERVER = AUTHORITY.issue("localhost", "127.0.0.1")
IMPOSTOR = STRANGER.issue("localhost", "127.0.0.1")

REQUEST, GO_AHEAD = encode_frame(b"STARTTLS"), encode_frame(b"OK")
OPTIONS = ClientOptions(
    choose_versions(Level.SSL),
    HostName("localhost"),
    trust_roots=[AUTHORITY.certificate],
    certificate=with_key(CLIENT),
)
DIRECT = ClientUpgrade(OPTIONS)
COMMAND = ClientUpgrade(OPTIONS, UpgradeStyle.COMMAND)

#: Levels without TLS.
NO_LEVELS: Final = (
    Level.PLAIN_SOCKET,
    Level.UNSPECIFIED,
    Level.BLUETOOTH_ENCRYPTION_ALLOW_NULL_AUTHENTICATION,
    Level.BLUETOOTH_ENCRYPTION_WITH_AUTHENTICATION,
)
#: Levels that no current OpenSSL offers.
OLD_LEVELS: Final = (
    Level.SSL_ALLOW_NULL_ENCRYPTION,
    Level.SSL3_ALLOW_WEAK_ENCRYPTION,
    Level.TLS10,
    Level.TLS11,
)

#: Bytes that an attacker puts behind a go-ahead: parts of messages, a whole one, and TLS records
#: that could begin or end a handshake.
BEHIND: Final = (
    b"\0",
    b"\0\0\0\1x",
    b"\x16\x03\x03\0\x10",
    b"\x15\x03\x03\0\2\2\x28",
    b"\x14\x03\x03\0\1\1",
    b"\x17\x03\x03\0\4evil",
)

#: Endless input: the server sends one of these again and again.
ENDLESS: Final = (
    b"\x16\x03\x03\x40\0" + b"\2\xff\xff\xff" + bytes(0x3FFC),  # a message of 16 MiB
    b"\x15\x03\x03\0\2\1\x5a",  # warnings
    b"\x16\x03\x03\0\0",  # empty records
    b"\x14\x03\x03\0\1\1",  # changes of the cipher
    b"\x17\x03\x03\0\1x",  # data, before there is a key
)

#: An alert that ends a TLS connection; here none has begun.
CLOSE_NOTIFY: Final = b"\x15\x03\x03\0\2\1\0"

Prelude = Callable[[socket.socket], None]


def answer(request: int, *pieces: bytes) -> Prelude:
    """Read a request of ``count`` bytes, then send each piece by itself."""

    def prelude(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        receive_exactly(connection, request)
        for piece in filter(None, pieces):
            connection.sendall(piece)

    return prelude


def interrupt(request: int, go_ahead: bytes, data: bytes) -> Prelude:
    """Answer a request; wait for the ClientHello, and send bytes that are no handshake."""

    def prelude(connection: socket.socket) -> None:
        answer(request, go_ahead)(connection)
        connection.recv(1, socket.MSG_PEEK)
        connection.sendall(data)

    return prelude


def cuts(data: bytes) -> Iterator[tuple[bytes, ...]]:
    """Return the data whole, cut in two at every place, and in single bytes."""
    for place in range(len(data)):
        yield data[:place], data[place:]
    yield tuple(data[place : place + 1] for place in range(len(data)))


def repeat(data: bytes) -> Prelude:
    """Read a ClientHello, then send the same bytes for ever."""

    def serve(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        while True:
            connection.sendall(data * 16)

    return serve


def server_hello(version: int, random: bytes = bytes(32), suite: int = 0xC02B) -> bytes:
    """Make a ServerHello of TLS 1.2 or before (:rfc:`5246`, section 7.4.1.3)."""
    body = version.to_bytes(2, "big") + random + b"\0" + suite.to_bytes(2, "big") + b"\0"
    message = b"\2" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x03" + len(message).to_bytes(2, "big") + message


class UpgradeCase(CertificateCase):
    """What all tests of upgrades share."""

    async def ask(
        self,
        reactor: Any,
        witness: Witness,
        then: Callable[[StreamSocket], Awaitable[None]],
        level: SocketProtectionLevel = Level.TLS13,
    ) -> None:
        """Upgrade as a program with a socket does: ``GO``, answered with ``OK``."""
        with plain_server(witness.serve) as server:
            client = self.client(reactor)
            try:
                await client.connect("127.0.0.1", server.port)
                await client.output_stream.write(b"GO")
                self.assertEqual(await client.input_stream.receive_exactly(2), b"OK")
                await then(client)
            finally:
                await client.abort()

    async def deceive(
        self, reactor: Any, prelude: Prelude, level: SocketProtectionLevel = Level.TLS13
    ) -> SocketError:
        """
        Let a server do something hostile, and continue with a correct handshake.

        :returns: the error of the upgrade, which has to fail.
        """
        witness = Witness(SERVER, prelude, greeting=b"trust me")
        errors = []

        async def upgrade(client: StreamSocket) -> None:
            upgrading = client.upgrade_to_ssl(level, "localhost")
            writing = client.output_stream.write(b"password")
            errors.append(await failure_of(upgrading))
            self.assertFalse(client.is_open)
            await failure_of(writing)
            await failure_of(client.input_stream.receive_some())

        await self.ask(reactor, witness, upgrade)
        self.assertEqual(witness.inside, b"")
        self.assertNotIn(b"password", witness.wire)
        return errors[0]

    async def speak(self, reactor: Any, port: int) -> Recorder:
        """Connect a protocol of frames."""
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        connecting: Deferred[Any] = endpoint.connect(Factory.forProtocol(Recorder))
        protocol: Recorder = await connecting
        return protocol

    async def deceive_protocol(
        self, reactor: Any, prelude: Prelude, settings: ClientUpgrade = COMMAND
    ) -> SocketError:
        """Do the same to a protocol."""
        witness = Witness(SERVER, prelude, greeting=encode_frame(b"trust me"))
        with plain_server(witness.serve) as server:
            protocol = await self.speak(reactor, server.port)
            try:
                upgrading = protocol.upgrade_to_ssl(settings)
                protocol.send_frame(b"password")
                error = await failure_of(upgrading)
                self.assertFalse(protocol.is_open)
                self.assertEqual(protocol.received, [])
                self.assertEqual(protocol.secured, [])
            finally:
                await protocol.abort()
        self.assertEqual(witness.inside, b"")
        self.assertNotIn(b"password", witness.wire)
        return error


class SocketDeceptionTests(UpgradeCase):
    """Sockets, and hostile bytes before the handshake."""

    @on_every_reactor
    def test_plaintext_behind_the_go_ahead_fails_the_upgrade(self) -> None:
        """C1, C2, C3, E9: at every cut; the server continues with a correct handshake."""

        async def work(reactor: Any) -> None:
            for behind in BEHIND:
                for pieces in cuts(b"OK" + behind):
                    await self.deceive(reactor, answer(2, *pieces))

        self.conduct(work)

    def test_an_unread_byte_before_the_upgrade_fails_it(self) -> None:
        """C2: an application that reads one byte too few gets an error that says so."""

        async def work(reactor: Any) -> None:
            error = await self.deceive(reactor, answer(2, b"OKOK"))
            self.assertIsInstance(error, (RemoteProtocolError, BrokenError))

        self.conduct(work)

    def test_a_go_ahead_before_the_request_fails_the_upgrade(self) -> None:
        """C7: the real one arrives after the call, and is no handshake."""

        def hurry(connection: socket.socket) -> None:
            connection.sendall(b"OK")
            receive_exactly(connection, 2)
            connection.sendall(b"OK")

        async def work(reactor: Any) -> None:
            await self.deceive(reactor, hurry)

        self.conduct(work)

    def test_only_data_inside_tls_is_delivered(self) -> None:
        """C2: also data in one segment with the end of the handshake."""

        async def read(client: StreamSocket) -> None:
            await client.upgrade_to_ssl(self.level, "localhost")
            self.assertEqual(await client.input_stream.receive_exactly(7), b"welcome")
            await client.output_stream.write(b"thanks")
            self.assertEqual(await client.input_stream.receive_exactly(6), b"thanks")

        async def work(reactor: Any) -> None:
            for self.level, pieces in itertools.product((Level.TLS12, Level.TLS13), cuts(b"OK")):
                witness = Witness(SERVER, answer(2, *pieces), greeting=b"welcome")
                await self.ask(reactor, witness, read)
                self.assertEqual(witness.inside, b"thanks", f"{self.level=}, {pieces=}")

        self.conduct(work)

    @on_every_reactor
    def test_an_end_in_place_of_a_handshake_fails_the_upgrade_at_once(self) -> None:
        """C4, E20: with its reason, and not at the deadline."""

        def end(connection: socket.socket) -> None:
            answer(2, b"OK")(connection)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 16):
                pass

        async def work(reactor: Any) -> None:
            self.assertIsInstance(await self.deceive(reactor, end), BrokenError)

        self.conduct(work)

    def test_an_alert_in_place_of_a_handshake_fails_the_upgrade(self) -> None:
        """C3: without a traceback in the log."""

        async def work(reactor: Any) -> None:
            await self.deceive(reactor, interrupt(2, b"OK", CLOSE_NOTIFY))

        self.conduct(work)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_an_endless_answer_fails_the_upgrade_before_the_deadline(self) -> None:
        """C13: the upgrade fails as soon as the answer can't be a handshake."""

        async def work(reactor: Any) -> None:
            for data in ENDLESS:
                with plain_server(repeat(data)) as server:
                    client = self.client(reactor)
                    await client.connect("127.0.0.1", server.port)
                    error = await failure_of(client.upgrade_to_ssl(Level.TLS13, "localhost"))
                    self.assertIsNot(
                        error.status, Status.CONNECTION_TIMED_OUT, f"{data=}, {error.status=}"
                    )
                    self.assertFalse(client.is_open, f"{data=}")
                    await client.abort()

        self.conduct(work)


class ProtocolDeceptionTests(UpgradeCase):
    """Protocols of frames, direct and by command, and hostile bytes before the handshake."""

    @on_every_reactor
    def test_plaintext_behind_the_go_ahead_fails_the_upgrade(self) -> None:
        """C1, C2, C3: at every cut; the server continues with a correct handshake."""

        async def work(reactor: Any) -> None:
            for behind in BEHIND:
                for pieces in cuts(GO_AHEAD + behind):
                    await self.deceive_protocol(reactor, answer(len(REQUEST), *pieces))

        self.conduct(work)

    def test_plaintext_in_place_of_a_handshake_fails_a_direct_upgrade(self) -> None:
        """C1, C3: a direct upgrade expects no plaintext at all."""

        async def work(reactor: Any) -> None:
            for data in (*BEHIND, GO_AHEAD):
                for pieces in cuts(data):
                    await self.deceive_protocol(reactor, answer(0, *pieces), DIRECT)

        self.conduct(work)

    def test_an_alert_in_place_of_a_handshake_fails_the_upgrade(self) -> None:
        """C3: without a traceback in the log."""

        async def work(reactor: Any) -> None:
            await self.deceive_protocol(reactor, interrupt(0, b"", CLOSE_NOTIFY), DIRECT)

        self.conduct(work)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_writes_to_the_transport_are_sent_inside_tls(self) -> None:
        """C17: an application that knows Twisted writes to its transport."""

        async def work(reactor: Any) -> None:
            for settings, prelude in (
                (DIRECT, answer(0)),
                (COMMAND, answer(len(REQUEST), GO_AHEAD)),
            ):
                witness = Witness(SERVER, prelude)
                with plain_server(witness.serve) as server:
                    protocol = await self.speak(reactor, server.port)
                    try:
                        upgrading = protocol.upgrade_to_ssl(settings)
                        protocol.transport.write(encode_frame(b"password"))
                        await upgrading
                        await until(reactor, protocol, 1)
                    finally:
                        await protocol.abort()
                self.assertEqual(
                    witness.inside, encode_frame(b"password"), f"{settings is COMMAND=}"
                )
                self.assertNotIn(
                    b"password", witness.wire, f"{settings is COMMAND=}: {witness.wire!r}"
                )

        self.conduct(work)

    def test_an_answer_that_is_no_go_ahead_fails_the_upgrade(self) -> None:
        """C4, C5, C6, C8: a refusal, a hidden go-ahead, "secure already", a redirection."""
        asked: list[socket.socket] = []

        async def work(reactor: Any) -> None:
            with plain_server(asked.append) as elsewhere:
                redirect = f"REDIRECT 127.0.0.1:{elsewhere.port}".encode()
                words = (b"NO", b"", b"PREAUTH", b"CAPABILITIES none", b"OK\0", redirect)
                for word in words:
                    pieces = encode_frame(word), GO_AHEAD
                    error = await self.deceive_protocol(reactor, answer(len(REQUEST), *pieces))
                    self.assertIsInstance(error, RemoteProtocolError, f"{word=}")
                    self.assertNotIn(word.decode() or "<>", str(error), f"{word=}: {error}")

        self.conduct(work)
        self.assertEqual(asked, [])

    def test_words_before_the_request_are_messages(self) -> None:
        """C5, C6, C7, C8: they are handled in plaintext, and the request is sent all the same."""
        greetings = [b"PREAUTH", b"OK", b"REDIRECT elsewhere", b"CAPABILITIES none"]

        def greet(connection: socket.socket) -> None:
            connection.sendall(b"".join(map(encode_frame, greetings)))
            answer(len(REQUEST), GO_AHEAD)(connection)

        async def work(reactor: Any) -> None:
            witness = Witness(SERVER, greet)
            with plain_server(witness.serve) as server:
                protocol = await self.speak(reactor, server.port)
                await until(reactor, protocol, len(greetings))
                self.assertFalse(protocol.is_secure)
                await protocol.upgrade_to_ssl(COMMAND)
                protocol.send_frame(b"password")
                await until(reactor, protocol, len(greetings) + 1)
                await protocol.close()
            self.assertEqual(protocol.received, [*greetings, b"password"])
            self.assertEqual(witness.inside, encode_frame(b"password"))
            self.assertNotIn(b"password", witness.wire)

        self.conduct(work)

    @on_every_reactor
    def test_frames_written_during_the_upgrade_are_sent_inside_tls(self) -> None:
        """C17: direct, and by command."""

        async def work(reactor: Any) -> None:
            for settings, prelude in (
                (DIRECT, answer(0)),
                (COMMAND, answer(len(REQUEST), GO_AHEAD)),
            ):
                witness = Witness(SERVER, prelude)
                with plain_server(witness.serve) as server:
                    protocol = await self.speak(reactor, server.port)
                    upgrading = protocol.upgrade_to_ssl(settings)
                    protocol.send_frame(b"password")
                    await upgrading
                    await until(reactor, protocol, 1)
                    await protocol.close()
                self.assertEqual(
                    witness.inside, encode_frame(b"password"), f"{settings is COMMAND=}"
                )
                self.assertNotIn(
                    b"password", witness.wire, f"{settings is COMMAND=}: {witness.wire!r}"
                )
                self.assertEqual(witness.wire[:2], b"\x16\x03", f"{settings is COMMAND=}")

        self.conduct(work)

    def test_an_unverified_server_receives_no_data(self) -> None:
        """C10, C16: neither frames nor a client certificate; direct, and by command."""

        async def work(reactor: Any) -> None:
            for settings, prelude in (
                (DIRECT, answer(0)),
                (COMMAND, answer(len(REQUEST), GO_AHEAD)),
            ):
                witness = Witness(IMPOSTOR, prelude, greeting=encode_frame(b"trust me"))
                with plain_server(witness.serve) as server:
                    protocol = await self.speak(reactor, server.port)
                    upgrading = protocol.upgrade_to_ssl(settings)
                    protocol.send_frame(b"password")
                    error = await failure_of(upgrading)
                    self.assertIsInstance(error, CertificateError, f"{settings is COMMAND=}")
                    self.assertIs(
                        error.status,
                        Status.CERTIFICATE_UNTRUSTED_ROOT,
                        f"{settings is COMMAND=}, {error.status=}",
                    )
                    self.assertEqual(
                        (protocol.received, protocol.secured), ([], []), f"{settings is COMMAND=}"
                    )
                    await protocol.abort()
                self.assertEqual(
                    (witness.inside, witness.shown), (b"", []), f"{settings is COMMAND=}"
                )
                self.assertNotIn(
                    b"password", witness.wire, f"{settings is COMMAND=}: {witness.wire!r}"
                )

        self.conduct(work)

    def test_a_wrong_certificate_fails_the_upgrade_with_its_reason(self) -> None:
        """C10: the socket tests have each kind of wrong certificate."""

        async def refuse(reactor: Any, case: Row, style: UpgradeStyle, prelude: Prelude) -> None:
            witness = Witness(case.issued, prelude, greeting=encode_frame(b"trust me"))
            options = replace(OPTIONS, host_name=HostName(case.host))
            with plain_server(witness.serve) as server:
                protocol = await self.speak(reactor, server.port)
                try:
                    upgrading = protocol.upgrade_to_ssl(ClientUpgrade(options, style))
                    protocol.send_frame(b"password")
                    error = await failure_of(upgrading)
                finally:
                    await protocol.abort()
            assert isinstance(error, CertificateError)
            told = error.status, set(error.errors), error.severity, error.certificate
            expected = case.status, set(case.errors), case.severity, with_key(case.issued)
            self.assertEqual(told, expected, case.what)
            self.assertEqual((protocol.received, protocol.peer_certificate), ([], None), case.what)
            self.assertEqual((witness.inside, witness.shown), (b"", []), case.what)
            self.assertNotIn(b"password", witness.wire, case.what)

        async def work(reactor: Any) -> None:
            for case in ROWS:
                await refuse(reactor, case, UpgradeStyle.DIRECT, answer(0))
                await refuse(reactor, case, UpgradeStyle.COMMAND, answer(len(REQUEST), GO_AHEAD))

        self.conduct(work)

    def test_an_endless_answer_fails_the_upgrade(self) -> None:
        """C13, C18: a too long message, and records that are no handshake."""

        def announce_much(connection: socket.socket) -> None:
            receive_exactly(connection, len(REQUEST))
            connection.sendall((0x7FFFFFFF).to_bytes(4, "big"))
            while True:
                connection.sendall(bytes(65536))

        async def work(reactor: Any) -> None:
            for settings, serve in (
                (COMMAND, announce_much),
                *((DIRECT, repeat(data)) for data in ENDLESS),
            ):
                with plain_server(serve) as server:
                    protocol = await self.speak(reactor, server.port)
                    error = await failure_of(protocol.upgrade_to_ssl(settings))
                    self.assertIsNot(
                        error.status,
                        Status.CONNECTION_TIMED_OUT,
                        f"{settings is COMMAND=}, {error.status=}",
                    )
                    await protocol.abort()

        self.conduct(work)


class DowngradeTests(UpgradeCase):
    """C12: a server, or an attacker in its place, can't weaken a connection."""

    async def fail_with(self, reactor: Any, serve: Prelude) -> SocketError:
        with plain_server(serve) as server:
            client = self.client(reactor)
            connecting = client.connect("127.0.0.1", server.port, Level.SSL)
            error = await failure_of(connecting)
            await client.close()
        self.assertEqual(client.information.negotiated_version, "")
        return error

    @on_every_reactor
    def test_old_versions_are_refused(self) -> None:
        """Of a server that has no other, and of one that pretends so."""

        def only_old(context: ssl.SSLContext) -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                context.minimum_version = ssl.TLSVersion.TLSv1
                context.maximum_version = ssl.TLSVersion.TLSv1_1
            context.set_ciphers("DEFAULT:@SECLEVEL=0")

        async def work(reactor: Any) -> None:
            await self.fail_with(reactor, Witness(SERVER, setup=only_old).serve)
            for version in (0x0200, 0x0300, 0x0301, 0x0302, 0x0305):
                await self.fail_with(reactor, pretend(server_hello(version)))

        self.conduct(work)

    def test_a_downgrade_of_both_ends_is_noticed(self) -> None:
        """The client checks the random bytes of a TLS 1.3 server (:rfc:`8446`, section 4.1.3)."""
        for mark in (b"DOWNGRD\1", b"DOWNGRD\0"):
            forged = server_hello(0x0303, bytes(24) + mark)

            async def work(reactor: Any, forged: bytes = forged) -> None:
                error = await self.fail_with(reactor, pretend(forged))
                self.assertIn("inappropriate fallback", str(error))

            self.conduct(work)

    def test_weak_cipher_suites_are_refused(self) -> None:
        """Without encryption, or without a certificate."""

        async def work(reactor: Any) -> None:
            for suites in ("ECDHE-ECDSA-NULL-SHA", "AECDH-AES128-SHA", "AECDH-NULL-SHA"):

                def weaken(context: ssl.SSLContext, suites: str = suites) -> None:
                    context.maximum_version = ssl.TLSVersion.TLSv1_2
                    context.set_ciphers(f"{suites}:@SECLEVEL=0")

                await self.fail_with(reactor, Witness(SERVER, setup=weaken).serve)
            for suite in (0x0000, 0x0005, 0x000A, 0xC006, 0xC018):
                await self.fail_with(reactor, pretend(server_hello(0x0303, suite=suite)))

        self.conduct(work)

    def test_an_alpn_protocol_that_was_not_offered_is_refused(self) -> None:
        """Without a choice of the server the handshake succeeds, and the protocol is empty."""

        def choose(connection: socket.socket) -> None:
            context = make_openssl_context()
            context.set_alpn_select_callback(lambda _connection, _offered: b"other")
            secure = SSL.Connection(context, connection)
            secure.set_accept_state()
            try:
                secure.do_handshake()
            except SSL.Error:
                pass

        async def work(reactor: Any) -> None:
            for serve, is_refused in (
                (choose, True),
                (Witness(SERVER, setup=lambda tls: tls.set_alpn_protocols(["other"])).serve, False),
            ):
                with plain_server(serve) as server:
                    client = self.client(reactor)
                    client.control.application_protocols = [b"ours"]
                    connecting = client.connect("127.0.0.1", server.port, Level.TLS13)
                    if is_refused:
                        await failure_of(connecting)
                    else:
                        await connecting
                    self.assertEqual(client.information.alpn_protocol, "", f"{is_refused=}")
                    await client.close()
                    await client.wait_closed()

        self.conduct(work)


class AskedAgainTests(UpgradeCase):
    """C16: second requests for a certificate, and second handshakes with another one."""

    async def converse(self, reactor: Any, serve: Prelude, level: SocketProtectionLevel) -> bool:
        """Exchange a few bytes; return whether the connection survived."""
        with plain_server(serve) as server:
            client = self.client(reactor)
            await client.connect("127.0.0.1", server.port, level)
            try:
                for _ in range(10):
                    await client.output_stream.write(b"x")
                    if await client.input_stream.receive_some() != b"x":
                        return False
            except SocketError:
                return False
            finally:
                await client.abort()
        return True

    def test_a_request_for_a_certificate_after_the_handshake_is_refused(self) -> None:
        """TLS 1.3: the client did not offer it (:rfc:`8446`, section 4.2.6)."""
        shown: list[object] = []

        def ask_later(connection: socket.socket) -> None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            SERVER.configure_cert(context)
            with context.wrap_socket(connection, server_side=True) as secure:
                context.verify_mode = ssl.CERT_REQUIRED
                try:
                    secure.verify_client_post_handshake()
                except ssl.SSLError as error:
                    shown.append(error.reason)
                while data := secure.recv(100):
                    secure.sendall(data)

        async def work(reactor: Any) -> None:
            self.assertTrue(await self.converse(reactor, ask_later, Level.TLS13))

        self.conduct(work)
        self.assertEqual(shown, ["EXTENSION_NOT_RECEIVED"])

    def renegotiate(self, issued: Any) -> tuple[bool, list[str]]:
        """Let a TLS 1.2 server begin a second handshake, and show this certificate in it."""
        seen: list[str] = []

        def note(_connection: object, shown: Any, _code: int, depth: int, _ok: int) -> bool:
            if not depth:
                seen.append(shown.to_cryptography().subject.rfc4514_string())
            return True

        def serve(connection: socket.socket) -> None:
            connection.setblocking(True)
            secure = SSL.Connection(make_openssl_context(), connection)
            secure.set_accept_state()
            try:
                secure.do_handshake()
                secure.set_context(make_openssl_context(issued))
                secure.set_verify(SSL.VERIFY_PEER, note)
                secure.renegotiate()
                secure.do_handshake()
                while data := secure.recv(100):
                    secure.send(data)
            except SSL.Error:
                pass

        stood: list[bool] = []

        async def work(reactor: Any) -> None:
            stood.append(await self.converse(reactor, serve, Level.TLS12))

        self.conduct(work)
        return stood[0], seen

    @on_every_reactor
    def test_a_second_handshake_with_the_same_certificate_is_refused(self) -> None:
        """TLS 1.2: the client sends no certificate."""
        self.assertEqual(self.renegotiate(SERVER), (False, []))

    def test_a_second_handshake_with_another_certificate_is_refused(self) -> None:
        """TLS 1.2: the client sends no certificate."""
        self.assertEqual(self.renegotiate(IMPOSTOR), (False, []))
        self.assertEqual(self.renegotiate(AUTHORITY.issue("other.example")), (False, []))


class WhenTests(UpgradeCase):
    """E1 to E9: circumstances in which an upgrade is refused; the connection is not disturbed."""

    async def refuse_and_go_on(
        self, client: StreamSocket, kind: type[SocketError], hresult: int = 0x8000000E
    ) -> None:
        error = await failure_of(client.upgrade_to_ssl(Level.TLS13, "localhost"))
        self.assertIsInstance(error, kind)
        self.assertEqual(error.hresult, hresult)
        if client.is_open:
            await client.output_stream.write(b"x")
            self.assertEqual(await client.input_stream.receive_exactly(1), b"x")

    def test_an_upgrade_before_the_connection_and_after_its_end_is_refused(self) -> None:
        """E3: ``E_ILLEGAL_METHOD_CALL`` and ``RO_E_CLOSED``."""

        async def work(reactor: Any) -> None:
            client = self.client(reactor)
            await self.refuse_and_go_on(client, LocalProtocolError)
            await client.close()
            await self.refuse_and_go_on(client, ClosedError, 0x80000013)

        self.conduct(work)

    def test_a_socket_that_connected_with_a_level_cannot_upgrade(self) -> None:
        """E1, E4: it is secure already."""

        async def work(reactor: Any) -> None:
            for level in (Level.TLS12, Level.SSL):
                with plain_server(Witness(SERVER).serve) as server:
                    client = self.client(reactor)
                    await client.connect("127.0.0.1", server.port, level)
                    await self.refuse_and_go_on(client, LocalProtocolError)
                    await client.close()
                    await client.wait_closed()

        self.conduct(work)

    def test_a_connection_of_a_tls_endpoint_cannot_upgrade(self) -> None:
        """E1, E4: sockets and protocols are secure already, or will be after the handshake."""

        async def work(reactor: Any) -> None:
            authority = AUTHORITY.certificate.get_certificate_blob()
            options = optionsForClientTLS("localhost", TwistedCertificate.load(authority))
            with plain_server(Witness(SERVER).serve) as server:
                plain = TCP4ClientEndpoint(reactor, "127.0.0.1", server.port)
                endpoint = wrapClientTLS(options, plain)
                client = self.client(reactor)
                try:
                    await client.connect_endpoint(endpoint)
                    await self.refuse_and_go_on(client, LocalProtocolError)
                finally:
                    await client.abort()
                connecting: Deferred[Any] = endpoint.connect(Factory.forProtocol(Recorder))
                protocol: Recorder = await connecting
                try:
                    error = await failure_of(protocol.upgrade_to_ssl(DIRECT))
                    self.assertIsInstance(error, LocalProtocolError)
                finally:
                    await protocol.abort()

        self.conduct(work)

    def test_an_accepted_socket_cannot_upgrade_as_a_client(self) -> None:
        """
        E2: in the client's role the upgrade is refused.

        Unlike in WinRT, it can be upgraded with a certificate, as the server.
        """

        async def work(reactor: Any) -> None:
            accepted: Deferred[StreamSocket] = Deferred()
            listener = StreamSocketListener(reactor)
            listener.connection_received.add(lambda _, args: accepted.callback(args.socket))
            await listener.bind_endpoint("127.0.0.1", "")
            client = self.client(reactor)
            await client.connect("127.0.0.1", listener.information.local_port)
            server = await accepted
            error = await failure_of(server.upgrade_to_ssl(Level.TLS13, "localhost"))
            self.assertIsInstance(error, LocalProtocolError)
            self.assertTrue(server.is_open)
            there = server.upgrade_to_ssl(Level.TLS13, certificate=with_key(SERVER))
            await client.upgrade_to_ssl(Level.TLS13, "localhost")
            await there
            client.output_stream.write(b"inside")
            self.assertEqual(await server.input_stream.receive_exactly(6), b"inside")
            client.close()
            await server.close()
            await client.wait_closed()
            await listener.close_all(5)

        self.conduct(work)

    def test_wrong_levels_and_names_are_refused(self) -> None:
        """E7: levels without TLS, and malformed names, with or without a connection."""

        async def work(reactor: Any) -> None:
            client = self.client(reactor)
            for level in NO_LEVELS:
                self.assertRaises(ValueError, client.upgrade_to_ssl, level, "localhost")
            for name in (None, "", "not a name", "a..b", "localhost:443", "host\0.example"):
                self.assertRaises(ValueError, client.upgrade_to_ssl, Level.TLS12, name)

        self.conduct(work)

    def test_a_bluetooth_address_is_refused(self) -> None:
        """E7: no certificate can be for one."""

        async def work(reactor: Any) -> None:
            with plain_server(Witness(SERVER).serve) as server:
                client = self.client(reactor)
                await client.connect("127.0.0.1", server.port)
                try:
                    await client.upgrade_to_ssl(Level.TLS12, "01:23:45:67:89:AB")
                except ValueError as error:
                    self.assertIn("Bluetooth", str(error))
                finally:
                    await client.abort()

        self.conduct(work)

    def test_another_name_than_the_hosts_is_verified(self) -> None:
        """E6: and sent to the server."""

        async def work(reactor: Any) -> None:
            witness = Witness(AUTHORITY.issue("service.example"))
            with plain_server(witness.serve) as server:
                client = self.client(reactor)
                await client.connect("127.0.0.1", server.port)
                await client.upgrade_to_ssl(Level.TLS13, HostName("service.example"))
                await client.close()
                await client.wait_closed()
            self.assertEqual(witness.names, ["service.example"])

        self.conduct(work)

    @on_every_reactor
    def test_every_byte_behind_the_request_is_in_a_tls_record(self) -> None:
        """E5: the bytes before it are in plaintext."""

        async def work(reactor: Any) -> None:
            witness = Witness(SERVER, answer(5, b"OK"))

            async def upgrade(client: StreamSocket) -> None:
                await client.upgrade_to_ssl(Level.TLS12, "localhost")
                await client.output_stream.write(b"inside")
                self.assertEqual(await client.input_stream.receive_exactly(6), b"inside")

            with plain_server(witness.serve) as server:
                client = self.client(reactor)
                await client.connect("127.0.0.1", server.port)
                await client.output_stream.write(b"plain")
                self.assertEqual(await client.input_stream.receive_exactly(2), b"OK")
                await upgrade(client)
                await client.close()
                await client.wait_closed()
            self.assertEqual(set(record_types(witness.wire)), {20, 21, 22, 23})
            self.assertEqual(witness.inside, b"inside")

        self.conduct(work)


class LevelTests(UpgradeCase):
    """E10 to E16: options and levels."""

    def test_options_can_be_set_until_the_handshake(self) -> None:
        """E10: a certificate that is set later is refused."""

        async def work(reactor: Any) -> None:
            witness = Witness(SERVER)
            with plain_server(witness.serve) as server:
                client = self.client(reactor)
                control = client.control
                control.client_certificate = None
                await client.connect("127.0.0.1", server.port)
                control.client_certificate = with_key(CLIENT)
                upgrading = client.upgrade_to_ssl(Level.TLS13, "localhost")
                with self.assertRaises(LocalProtocolError):
                    control.client_certificate = None
                with self.assertRaises(LocalProtocolError):
                    control.min_protection_level = Level.TLS12
                await upgrading
                await client.output_stream.write(b"x")
                self.assertEqual(await client.input_stream.receive_exactly(1), b"x")
                await client.close()
                await client.wait_closed()
            self.assertEqual(witness.shown, [with_key(CLIENT).get_certificate_blob()])

        self.conduct(work)

    def test_an_error_listed_during_the_handshake_is_not_ignored(self) -> None:
        """E10, E18: the list is read when the handshake begins."""

        async def work(reactor: Any) -> None:
            with plain_server(Witness(IMPOSTOR).serve) as server:
                client = self.client(reactor)
                await client.connect("127.0.0.1", server.port)
                upgrading = client.upgrade_to_ssl(Level.TLS13, "localhost")
                client.control.ignorable_server_certificate_errors.extend(range(14))  # type: ignore[arg-type]
                self.assertIsInstance(await failure_of(upgrading), CertificateError)
                await client.wait_closed()

        self.conduct(work)

    def test_a_lower_version_of_the_server_is_reported(self) -> None:
        """E11, E13, E14, E15: both the requested level and the negotiated version."""

        def only_tls12(context: ssl.SSLContext) -> None:
            context.maximum_version = ssl.TLSVersion.TLSv1_2

        async def work(reactor: Any) -> None:
            for level in (Level.SSL, Level.TLS13):
                with plain_server(Witness(SERVER, setup=only_tls12).serve) as server:
                    client = self.client(reactor)
                    await client.connect("127.0.0.1", server.port)
                    await client.upgrade_to_ssl(level, "localhost")
                    self.assertIs(
                        client.information.protection_level,
                        level,
                        f"{level=}, {client.information.protection_level=}",
                    )
                    self.assertEqual(client.information.negotiated_version, "TLSv1.2", f"{level=}")
                    await client.close()
                    await client.wait_closed()

        self.conduct(work)

    @on_every_reactor
    def test_a_version_below_the_floor_fails_the_upgrade(self) -> None:
        """E12: as a server without TLS does, and the connection is lost."""

        def only_tls12(context: ssl.SSLContext) -> None:
            context.maximum_version = ssl.TLSVersion.TLSv1_2

        async def work(reactor: Any) -> None:
            with plain_server(Witness(SERVER, setup=only_tls12).serve) as server:
                client = self.client(reactor)
                client.control.min_protection_level = Level.TLS13
                await client.connect("127.0.0.1", server.port)
                upgrading = client.upgrade_to_ssl(Level.SSL, "localhost")
                self.assertIsInstance(await failure_of(upgrading), BrokenError)
                self.assertFalse(client.is_open)
                await client.wait_closed()

        self.conduct(work)

    def test_a_level_that_openssl_lacks_is_refused(self) -> None:
        """E16, E11: the plain connection is not disturbed."""

        async def work(reactor: Any) -> None:
            for level in OLD_LEVELS:
                with plain_server(echo_plain) as server:
                    client = self.client(reactor)
                    await client.connect("127.0.0.1", server.port)
                    error = await failure_of(client.upgrade_to_ssl(level, "localhost"))
                    self.assertIsInstance(error, OperationNotSupported, f"{level=}")
                    await client.output_stream.write(b"x")
                    self.assertEqual(
                        await client.input_stream.receive_exactly(1), b"x", f"{level=}"
                    )
                    await client.close()
                    await client.wait_closed()

        self.conduct(work)

    def test_a_plain_connection_after_a_failed_one_is_plain(self) -> None:
        """E14: it has its own level, and no certificate."""

        async def work(reactor: Any) -> None:
            client = self.client(reactor)
            with plain_server(Witness(IMPOSTOR).serve) as server:
                await failure_of(client.connect("127.0.0.1", server.port, Level.TLS12))
            with plain_server(echo_plain) as server:
                await client.connect("127.0.0.1", server.port)
                await client.abort()
            self.assertIs(client.information.protection_level, Level.PLAIN_SOCKET)
            self.assertIsNone(client.information.server_certificate)

        self.conduct(work)


class FailureTests(UpgradeCase):
    """E19, E20, E22: failed upgrades."""

    def test_after_a_failed_upgrade_only_its_facts_can_be_read(self) -> None:
        """E19, E20: reads, writes, upgrades and connects fail; the reason can be read."""

        async def work(reactor: Any) -> None:
            with plain_server(Witness(IMPOSTOR).serve) as server:
                client = self.client(reactor)
                await client.connect("127.0.0.1", server.port)
                error = await failure_of(client.upgrade_to_ssl(Level.TLS13, "localhost"))
                self.assertIs(error.status, Status.CERTIFICATE_UNTRUSTED_ROOT)
                for name, operation in (
                    ("read", client.input_stream.receive_some()),
                    ("write", client.output_stream.write(b"password")),
                    ("flush", client.output_stream.flush()),
                    ("upgrade", client.upgrade_to_ssl(Level.TLS13, "localhost")),
                    ("connect", client.connect("127.0.0.1", server.port)),
                ):
                    self.assertIsInstance(
                        await failure_of(operation), (ClosedError, BrokenError), f"{name=}"
                    )
                await client.wait_closed()
            information = client.information
            self.assertEqual(information.server_certificate, with_key(IMPOSTOR))
            self.assertEqual(information.negotiated_version, "")

        self.conduct(work)

    @on_every_reactor
    def test_cancelling_ends_the_connection(self) -> None:
        """E22, C15: a connect with a level, and an upgrade, while the server is silent."""
        begun: list[bytes] = []
        ended: list[bool] = []

        def wait_for_the_end(connection: socket.socket) -> None:
            try:
                begun.append(connection.recv(2))
                while connection.recv(1 << 16):
                    pass
            except ConnectionResetError:
                pass
            ended.append(True)

        async def work(reactor: Any) -> None:
            with plain_server(wait_for_the_end) as server:
                client = self.client(reactor)
                connecting = client.connect("127.0.0.1", server.port, Level.TLS12)
                await until_so_many(reactor, begun, 1)
                connecting.cancel()
                with self.assertRaises(CancelledError):
                    await connecting
                await client.connect("127.0.0.1", server.port)
                await until_so_many(reactor, ended, 1)
                upgrading = client.upgrade_to_ssl(Level.TLS12, "localhost")
                await until_so_many(reactor, begun, 2)
                upgrading.cancel()
                with self.assertRaises(CancelledError):
                    await upgrading
                self.assertFalse(client.is_open)
                await until_so_many(reactor, ended, 2)
                await client.wait_closed()

        self.conduct(work)
        self.assertEqual(begun, [b"\x16\x03"] * 2)


async def turn(reactor: Any) -> None:
    """Let the reactor run one turn."""
    again: Deferred[None] = Deferred()
    reactor.callLater(0, again.callback, None)
    await again


async def until(reactor: Any, protocol: Recorder, count: int) -> None:
    """Wait for this many messages, or the end."""
    while len(protocol.received) < count and protocol.is_open:
        await turn(reactor)


async def until_so_many(reactor: Any, notes: Sequence[object], count: int) -> None:
    """Wait until a server in a thread has recorded this many."""
    while len(notes) < count:
        await turn(reactor)


def echo_plain(connection: socket.socket) -> None:
    while data := connection.recv(1 << 16):
        connection.sendall(data)


def pretend(hello: bytes) -> Prelude:
    """Answer a ClientHello with these bytes, and wait."""

    def serve(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(hello)
        while connection.recv(1 << 16):
            pass

    return serve


def make_openssl_context(issued: Any = SERVER) -> SSL.Context:
    """Make the context of a server that can do what Python's ``ssl`` can't."""
    shown = with_key(issued)
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    certificate, key = shown.to_cryptography()
    context.use_certificate(certificate)
    context.use_privatekey(key)
    # A second handshake is a full one, in which certificates are shown.
    context.set_session_id(b"twsock tests")
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(SSL.OP_NO_TICKET)
    return context


def record_types(wire: bytes) -> Iterable[int]:
    """Split a stream into TLS records, and return their types; fail if it is none."""
    while wire:
        if wire[1] != 3 or len(wire) < 5:
            raise AssertionError(f"no record of TLS: {wire[:20]!r}")
        yield wire[0]
        wire = wire[5 + int.from_bytes(wire[3:5], "big") :]


CASES = (
    SocketDeceptionTests,
    ProtocolDeceptionTests,
    DowngradeTests,
    AskedAgainTests,
    WhenTests,
    LevelTests,
    FailureTests,
)
for case in CASES:
    globals().update(case.makeTestCaseClasses())
