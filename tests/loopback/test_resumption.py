"""
Clients resume sessions of connections that ended in order, with servers of twsock and of Python.
"""

from __future__ import annotations

import socket
import ssl
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory

from tests.loopback.contract import failure_of
from tests.loopback.reactors import on_every_reactor
from tests.loopback.test_tls import (
    CLIENT,
    ServerCase,
    make_context,
    plain_server,
    root,
    with_key,
)
from tests.stream.test_client_upgrade import Recorder
from tests.tls.peer import SERVER
from twsock import StreamSocket
from twsock.names import HostName
from twsock.protocols import ClientUpgrade
from twsock.tls import ClientOptions, choose_versions
from twsock.tls.levels import SocketProtectionLevel
from twsock.tls.server import ClientCertificatePolicy
from twsock.tls.validation import ChainValidationResult

Level = SocketProtectionLevel


class RecordingServer:
    """
    A server of Python's ``ssl``, for one connection after the other.

    :ivar resumed: for each connection, whether it resumed a session.
    """

    def __init__(self, version: ssl.TLSVersion, *, says_so: bool = True) -> None:
        self.resumed: list[bool] = []
        self._context = make_context()
        self._context.maximum_version = version
        self._says_so = says_so

    def serve(self, connection: socket.socket) -> None:
        with self._context.wrap_socket(connection, server_side=True) as secure:
            self.resumed.append(bool(secure.session_reused))
            secure.sendall(b"hello")
            while secure.recv(100):
                pass
            if self._says_so:
                secure.unwrap()


class SocketTests(ServerCase):
    """Sockets as clients."""

    async def greet(self, client: StreamSocket, port: int) -> None:
        """Connect, read the greeting, and end in order."""
        await client.connect("localhost", port, Level.TLS13)
        self.assertEqual(await client.input_stream.receive_exactly(5), b"hello")
        await client.close()
        await client.wait_closed()

    @on_every_reactor
    def test_the_second_connection_resumes_the_first_ones_session(self) -> None:
        """It has the certificate of the first."""

        async def work(reactor: Any) -> None:
            listener = await self.listen(reactor)
            shown = []
            for is_resumed in (False, True, True):
                client = await self.connect(reactor, listener)
                await self.assert_echoes(client)
                self.assertIs(
                    client.information.is_session_resumed,
                    is_resumed,
                    f"{is_resumed=}, {client.information.is_session_resumed=}",
                )
                shown.append(client.information.server_certificate)
                self.assertEqual(client.information.server_certificate_errors, (), f"{is_resumed=}")
                await client.close()
                await client.wait_closed()
            self.assertEqual(shown[0], with_key(SERVER))
            self.assertEqual(len(set(shown)), 1)
            await listener.close_all(5)

        self.conduct(work)

    def test_with_resumption_off_no_session_is_used_or_kept(self) -> None:
        """Later connections do not resume it either."""

        async def work(reactor: Any) -> None:
            listener = await self.listen(reactor)
            for is_on, is_resumed in ((False, False), (True, False), (False, False), (True, True)):
                client = await self.connect(reactor, listener, resumes_sessions=is_on)
                await self.assert_echoes(client)
                self.assertIs(
                    client.information.is_session_resumed,
                    is_resumed,
                    f"{is_on=}, {is_resumed=}, {client.information.is_session_resumed=}",
                )
                await client.close()
                await client.wait_closed()
            await listener.close_all(5)

        self.conduct(work)

    def test_a_server_of_python_recognises_its_sessions(self) -> None:
        """
        Both versions; in TLS 1.2 a ticket is used once, although the server would accept it again.
        """
        for version, expected in (
            (ssl.TLSVersion.TLSv1_3, [False, True, True]),
            (ssl.TLSVersion.TLSv1_2, [False, True, False]),
        ):
            noting = RecordingServer(version)

            async def work(reactor: Any, noting: RecordingServer = noting) -> None:
                with plain_server(noting.serve) as server:
                    for _ in range(3):
                        await self.greet(self.client(reactor), server.port)

            self.conduct(work)
            self.assertEqual(noting.resumed, expected, f"{version=}")

    def test_a_server_that_ends_without_close_notify_leaves_no_session(self) -> None:
        """The connection may have been cut off."""
        noting = RecordingServer(ssl.TLSVersion.TLSv1_3, says_so=False)

        async def work(reactor: Any) -> None:
            with plain_server(noting.serve) as server:
                for _ in range(2):
                    await self.greet(self.client(reactor), server.port)

        self.conduct(work)
        self.assertEqual(noting.resumed, [False, False])

    def test_an_aborted_connection_leaves_no_session(self) -> None:
        """Its end was not in order."""

        async def work(reactor: Any) -> None:
            listener = await self.listen(reactor)
            for attempt in range(2):
                client = await self.connect(reactor, listener)
                await self.assert_echoes(client)
                self.assertFalse(client.information.is_session_resumed, f"{attempt=}")
                await client.abort()
            await listener.close_all(5)

        self.conduct(work)

    def test_a_session_with_ignored_errors_is_not_used_by_a_strict_client(self) -> None:
        """It verifies the server itself, and refuses it."""

        async def work(reactor: Any) -> None:
            listener = await self.listen(reactor)
            for forgiven in ([ChainValidationResult.INVALID_NAME], []):
                client = self.client(reactor)
                client.control.ignorable_server_certificate_errors.extend(forgiven)
                await client.connect("127.0.0.1", listener.information.local_port)
                upgrading = client.upgrade_to_ssl(Level.TLS13, "other.example")
                if not forgiven:
                    await failure_of(upgrading)
                    continue
                await upgrading
                await self.assert_echoes(client)
                await client.close()
                await client.wait_closed()
            await listener.close_all(5)

        self.conduct(work)

    def test_with_a_required_client_certificate_no_session_is_resumed(self) -> None:
        """Servers of twsock send no ticket then."""
        required = ClientCertificatePolicy.REQUIRED

        async def work(reactor: Any) -> None:
            listener = await self.listen(
                reactor, client_certificate=required, client_authorities=[root()]
            )
            mine = with_key(CLIENT)
            for attempt in range(2):
                client = await self.connect(reactor, listener, client_certificate=mine)
                await self.assert_echoes(client)
                self.assertFalse(client.information.is_session_resumed, f"{attempt=}")
                await client.close()
                await client.wait_closed()
            await listener.close_all(5)

        self.conduct(work)


class ProtocolTests(ServerCase):
    """Protocols as clients."""

    @on_every_reactor
    def test_the_second_connection_resumes_the_first_ones_session(self) -> None:
        """It has the certificate of the first."""
        noting = RecordingServer(ssl.TLSVersion.TLSv1_3)

        async def work(reactor: Any) -> None:
            options = ClientOptions(choose_versions(Level.TLS13), HostName("localhost"), [root()])
            with plain_server(noting.serve) as server:
                endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", server.port)
                for attempt in range(2):
                    connecting: Deferred[Any] = endpoint.connect(Factory.forProtocol(Recorder))
                    protocol: Recorder = await connecting
                    await protocol.upgrade_to_ssl(ClientUpgrade(options))
                    self.assertTrue(protocol.is_secure, f"{attempt=}")
                    self.assertEqual(protocol.peer_certificate, with_key(SERVER), f"{attempt=}")
                    await protocol.close()

        self.conduct(work)
        self.assertEqual(noting.resumed, [False, True])


for case in (SocketTests, ProtocolTests):
    globals().update(case.makeTestCaseClasses())
del SocketTests, ProtocolTests
