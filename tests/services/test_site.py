"""Static files beside the WebSockets of ``twistd twsock-websocket --site``."""

from __future__ import annotations

import http.client
import os
import socket
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase, TestCase
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.services.processes import twistd
from twsock.protocols import WebSocketEcho, WebSocketFactory
from twsock.services.security import Security, find_development_certificate
from twsock.services.site import MAX_PAGE_CONNECTIONS, PATIENCE, FileSite
from twsock.services.websocket import Options, websocket_service
from twsock.stream.upgrade import UpgradePolicy

#: More bytes than the kernel takes for a peer that reads none.
LARGE = 32 * 1024 * 1024

#: The fields of a request for a WebSocket.
UPGRADE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)

LOCAL = "tcp:0:interface=127.0.0.1"


def get(path: str, *fields: str, method: str = "GET", host: str = "localhost") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *fields, "", ""]
    return "\r\n".join(lines).encode()


class Transport(StringTransport):
    """Connects a channel in memory; an abort ends it at once."""

    is_aborted = False
    protocol: Any
    producer: Any
    #: How many bytes the peer takes.
    room = 1 << 30

    def write(self, data: bytes) -> None:
        super().write(data)
        if len(self.value()) > self.room and self.producer is not None:
            self.producer.pauseProducing()

    def take(self, room: int) -> None:
        """Let the peer take more bytes."""
        self.room += room
        self.producer.resumeProducing()

    def abortConnection(self) -> None:
        self.is_aborted = True


class SiteBuilder(TestCase):
    """A site in memory."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()) / "site"
        (self.folder / "sub" / "bare").mkdir(parents=True)
        (self.folder / "index.html").write_text("start")
        (self.folder / "page.txt").write_text("0123456789")
        (self.folder / "sub" / "index.html").write_text("sub")
        (self.folder / ".hidden").write_text("secret")
        (self.folder.parent / "secret").write_text("secret")
        (self.folder / "link").symlink_to("../secret")
        (self.folder / "inner").symlink_to("page.txt")
        os.mkfifo(self.folder / "pipe")
        self.clock = Clock()
        self.factory = WebSocketFactory(self.clock, WebSocketEcho, path="/ws", max_connections=9)
        self.site = FileSite(self.clock, self.factory, self.folder, "/ws")

    def connect(self) -> tuple[Any, Transport]:
        address = IPv4Address("TCP", "127.0.0.1", 1)
        channel: Any = self.site.buildProtocol(address)
        transport = Transport(hostAddress=address, peerAddress=address)
        transport.protocol = channel
        channel.makeConnection(transport)
        return channel, transport

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Return the status and the body of the answer."""
        channel, transport = self.connect()
        channel.dataReceived(request)
        while channel.requests:  # The reactor runs the producer of a file.
            await deferLater(reactor, 0, lambda: None)
        self.head, _, body = transport.value().partition(b"\r\n\r\n")
        channel.connectionLost(Failure(ConnectionDone()))
        return int(self.head.split()[1]), body

    async def begin_large_response(self) -> tuple[Any, Transport]:
        """Ask for a file of 1 MiB, of which the peer takes the beginning."""
        (self.folder / "large").write_bytes(bytes(1024 * 1024))
        channel, transport = self.connect()
        transport.room = 100_000
        channel.dataReceived(get("/large"))
        await self.fill(transport)
        return channel, transport

    async def fill(self, transport: Transport) -> None:
        """Let the reactor run the producer of the file, until the peer takes no more."""
        while len(transport.value()) <= transport.room and not transport.disconnecting:
            await deferLater(reactor, 0, lambda: None)

    def lose(self, channel: Any) -> None:
        """Report the loss of a connection, as a transport does."""
        channel.stopProducing()
        channel.connectionLost(Failure(ConnectionDone()))


class FolderTests(SiteBuilder):
    """Only files within the folder are served."""

    async def test_files_and_indexes_are_served(self) -> None:
        """A folder is served by its index, and redirects to its path with a slash."""
        for path, expected in (
            ("/", (200, b"start")),
            ("/page.txt?query", (200, b"0123456789")),
            ("/inner", (200, b"0123456789")),
            ("/sub/", (200, b"sub")),
            ("/sub", (301, b"301 Moved Permanently\n")),
        ):
            self.assertEqual(await self.ask(get(path)), expected, f"{path=}")
        self.assertIn(b"Location: /sub/", self.head)

    async def test_browsers_do_not_guess_the_type(self) -> None:
        """A text that looks like a page is none."""
        for path in ("/page.txt", "/none"):
            await self.ask(get(path))
            self.assertIn(b"x-content-type-options: nosniff", self.head.lower(), path)

    async def test_nothing_else_is_served(self) -> None:
        """No listing, no hidden file, no pipe, and nothing outside of the folder."""
        for path in (
            "/sub/bare/",
            "/sub/bare",
            "/.hidden",
            "/link",
            "/pipe",
            "/../secret",
            "/%2e%2e/secret",
            "/..%2fsecret",
            "/sub%2findex.html",
            "/sub/%2E%2E/%2e%2e/secret",
            "//page.txt",
            "/page.txt/",
            "/page.txt%00",
            "/%ff",
            "/" + "x" * 5000,
            "/none",
            "/ws",
        ):
            self.assertEqual(await self.ask(get(path)), (404, b"404 Not Found\n"), f"{path=}")

    async def test_only_get_and_head_are_allowed(self) -> None:
        """The answer to another method names them."""
        self.assertEqual(await self.ask(get("/page.txt", method="HEAD")), (200, b""))
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            status, _ = await self.ask(get("/page.txt", "Content-Length: 0", method=method))
            self.assertEqual(status, 405, method)
            self.assertIn(b"Allow: GET, HEAD", self.head)

    async def test_one_range_is_honoured(self) -> None:
        """Several ranges, and malformed ones, have the whole file as their answer."""
        self.assertEqual(await self.ask(get("/page.txt", "Range: bytes=2-3")), (206, b"23"))
        for value in ("bytes=0-,0-", "bytes=-99", "bytes=\xff", "lines=1-2"):
            answer = await self.ask(get("/page.txt", f"Range: {value}"))
            self.assertEqual(answer, (200, b"0123456789"), value)

    async def test_rebound_name_is_refused(self) -> None:
        """The rules for Host on a loopback address hold for pages as well."""
        status, body = await self.ask(get("/page.txt", host="attacker.example"))
        self.assertEqual(status, 421)
        self.assertNotIn(b"0123", body)
        status, _ = await self.ask(b"GET /page.txt HTTP/1.1\r\n\r\n")
        self.assertEqual(status, 400)


class LimitTests(SiteBuilder):
    """Connections of HTTP are bounded in number and in time."""

    def test_connections_count_for_the_limit(self) -> None:
        """Each counts twice, as it may hold a file; further ones are aborted."""
        opened = [self.connect() for _ in range(6)]
        self.assertEqual([t.is_aborted for _, t in opened], [False] * 5 + [True])

    def test_web_sockets_count_once(self) -> None:
        """They have left the site, and leave less room for pages."""
        for _ in range(3):
            channel, transport = self.connect()
            channel.dataReceived(get("/ws", *UPGRADE))
            self.assertIn(b" 101 ", transport.value())
        self.assertEqual((len(self.site.channels), len(self.factory.group)), (0, 3))
        opened = [self.connect() for _ in range(4)]
        self.assertEqual([t.is_aborted for _, t in opened], [False] * 3 + [True])

    def test_pages_have_a_limit_of_their_own(self) -> None:
        """Without a limit of the factory as well."""
        self.factory.group.max_connections = None
        opened = [self.connect()[1] for _ in range(MAX_PAGE_CONNECTIONS + 1)]
        self.assertEqual(sum(each.is_aborted for each in opened), 1)

    def test_slow_request_is_aborted(self) -> None:
        """Bytes without an end of the request are no progress."""
        channel, transport = self.connect()
        channel.dataReceived(b"GET / HTTP/1.1\r\n")
        for _ in range(PATIENCE):
            channel.dataReceived(b"a: b\r\n")
            self.clock.advance(1)
        self.assertTrue(transport.is_aborted)

    def test_answered_requests_extend_the_time(self) -> None:
        """An idle connection ends later."""
        channel, transport = self.connect()
        self.clock.advance(PATIENCE - 1)
        channel.dataReceived(get("/none"))
        self.clock.advance(1)
        self.assertFalse(transport.is_aborted)
        self.clock.advance(PATIENCE)
        self.assertTrue(transport.is_aborted)

    async def test_peer_that_reads_no_more_is_aborted(self) -> None:
        """The rest of the file is not in memory meanwhile."""
        channel, transport = await self.begin_large_response()
        self.clock.advance(PATIENCE)
        self.assertFalse(transport.is_aborted)
        self.clock.advance(PATIENCE)
        self.assertTrue(transport.is_aborted)
        self.assertLess(len(transport.value()), 200_000)
        self.lose(channel)

    async def test_peer_that_reads_slowly_stays(self) -> None:
        """Each part that it takes is progress."""
        channel, transport = await self.begin_large_response()
        for _ in range(5):
            self.clock.advance(PATIENCE)
            self.assertFalse(transport.is_aborted)
            transport.take(100_000)
            await self.fill(transport)
        self.lose(channel)

    def test_web_sockets_are_refused_while_the_site_drains(self) -> None:
        """With 503; a page is served, and then its connection ends."""
        self.site.drain(5)
        for path, fields, status in (("/ws", UPGRADE, b" 503 "), ("/none", (), b" 404 ")):
            channel, transport = self.connect()
            channel.dataReceived(get(path, *fields))
            head = transport.value().partition(b"\r\n\r\n")[0]
            self.assertIn(status, head.partition(b"\r\n")[0])
            self.assertIn(b"connection: close", head.lower())
            self.assertTrue(transport.disconnecting, path)
            self.assertEqual(len(self.factory.group), 0)

    async def test_drain_waits_for_responses(self) -> None:
        """Idle connections end at once, the others behind their response."""
        _, idle = self.connect()
        channel, transport = await self.begin_large_response()
        draining = self.site.drain(5)
        self.assertTrue(idle.disconnecting)
        idle.protocol.connectionLost(Failure(ConnectionDone()))
        self.clock.advance(4)
        self.assertFalse(transport.disconnecting or transport.is_aborted)
        transport.take(2_000_000)
        await self.fill(transport)
        self.assertGreater(len(transport.value()), 1024 * 1024)
        self.assertNoResult(draining)
        self.lose(channel)
        self.successResultOf(draining)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_drain_has_a_timeout(self) -> None:
        """A peer that reads no more cannot stop it."""
        channel, transport = await self.begin_large_response()
        draining = self.site.drain(5)
        self.clock.advance(5)
        self.assertTrue(transport.is_aborted)
        self.assertNoResult(draining)
        self.lose(channel)
        self.successResultOf(draining)

    def test_drain_without_connections_ends_at_once(self) -> None:
        """It leaves no timer."""
        self.successResultOf(self.site.drain(5))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_an_end_leaves_no_timer(self) -> None:
        """A lost connection is forgotten."""
        channel, _ = self.connect()
        channel.connectionLost(Failure(ConnectionDone()))
        self.assertEqual((self.clock.getDelayedCalls(), self.site.channels), ([], set()))


class ServiceTests(SiteBuilder):
    """`SiteService`, which stops both."""

    async def test_a_queued_request_is_answered_at_the_stop(self) -> None:
        """The port accepts its connection when it closes."""
        service = websocket_service(reactor, [LOCAL], site=self.folder)
        service.startService()
        port: Any = service.ports[0]
        with socket.create_connection(("127.0.0.1", port.getHost().port), timeout=10) as client:
            client.sendall(get("/none"))
            await service.stopService()
            self.assertIn(b" 404 ", client.recv(4096))

    async def test_second_signal_ends_the_wait_for_responses(self) -> None:
        """The first one gives them the time of the drain."""
        memory: Any = MemoryReactorClock()
        service = websocket_service(memory, [LOCAL], site=self.folder, drain_timeout=30)
        service.startService()
        self.site = memory.tcpServers[0][1]
        _, transport = await self.begin_large_response()
        stopping = service.stopService()
        memory.advance(29)
        self.assertFalse(transport.is_aborted)
        service.hurry()
        self.assertTrue(transport.is_aborted)
        self.lose(transport.protocol)
        self.successResultOf(stopping)

    def test_connections_that_come_during_the_stop_have_a_second(self) -> None:
        """The port accepts the queue of the kernel when it closes."""
        memory: Any = MemoryReactorClock()
        service = websocket_service(memory, [LOCAL], site=self.folder)
        service.startService()
        self.site = memory.tcpServers[0][1]
        channel, transport = self.connect()
        channel.dataReceived(get("/ws", *UPGRADE))
        stopping = service.stopService()
        asking, answered = self.connect()
        silent, late = self.connect()
        transport.protocol.connectionLost(Failure(ConnectionDone()))
        memory.advance(0.9)
        asking.dataReceived(get("/none"))
        self.assertIn(b" 404 ", answered.value())
        self.assertTrue(answered.disconnecting)
        asking.connectionLost(Failure(ConnectionDone()))
        self.assertFalse(late.disconnecting or late.is_aborted)
        self.assertNoResult(stopping)
        memory.advance(0.1)
        self.assertTrue(late.disconnecting)
        silent.connectionLost(Failure(ConnectionDone()))
        self.successResultOf(stopping)

    def test_service_can_start_again(self) -> None:
        """Its site accepts WebSockets as before."""
        memory: Any = MemoryReactorClock()
        service = websocket_service(memory, [LOCAL], site=self.folder)
        for _ in range(2):
            service.startService()
            self.site = memory.tcpServers[-1][1]
            channel, transport = self.connect()
            channel.dataReceived(get("/ws", *UPGRADE))
            self.assertIn(b" 101 ", transport.value())
            transport.protocol.connectionLost(Failure(ConnectionDone()))
            self.successResultOf(service.stopService())


class OptionTests(SynchronousTestCase):
    """``--site`` is checked before any port is opened."""

    def refuse(self, *arguments: str) -> str:
        return str(self.assertRaises(UsageError, Options().parseOptions, list(arguments)))

    def test_folder_has_to_be_readable(self) -> None:
        """A missing folder, a file, and a folder without permission."""
        missing = self.mktemp()
        self.assertIn("No such file or directory", self.refuse("--site", missing))
        Path(missing).write_text("")
        self.assertIn("Not a directory", self.refuse("--site", missing))
        self.assertIn("is empty", self.refuse("--site", ""))
        self.patch(os, "access", lambda *_: False)
        self.assertIn("may not open files", self.refuse("--site", "."))

    def test_tls_is_that_of_the_endpoints(self) -> None:
        """The line names the alternative."""
        self.patch(os, "environ", {**os.environ, "XDG_STATE_HOME": self.mktemp()})
        self.assertIn("ssl: endpoint", self.refuse("--site", ".", "--tls"))
        security = Security([find_development_certificate()], UpgradePolicy.IMPLICIT)
        with self.assertRaisesRegex(ValueError, "endpoints"):
            websocket_service(Clock(), [LOCAL], site=Path(), security=security)


class TwistdTests(SynchronousTestCase):
    """Real processes."""

    def test_missing_folder_is_one_line_with_status_1(self) -> None:
        """``--check`` reports it."""
        with twistd("twsock-websocket", "--site", "nowhere", "--check") as server:
            self.assertEqual(server.wait(), 1)
        reason = "--site: cannot read the folder 'nowhere': No such file or directory"
        self.assertEqual(server.log, f"twsock: {reason}\n")

    def test_files_and_web_sockets_share_a_port(self) -> None:
        """
        On SIGTERM WebSockets receive the code 1001, an idle page connection ends, and a download
        goes on.
        """
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        (folder / "index.html").write_bytes(b"start" * 100_000)
        (folder / "large").touch()
        os.truncate(folder / "large", LARGE)
        with twistd("twsock-websocket", "--endpoint", LOCAL, "--site", str(folder)) as server:
            (port,) = server.wait_for_ports()
            page, download = (
                http.client.HTTPConnection("127.0.0.1", port, timeout=30) for _ in range(2)
            )
            download.request("GET", "/large")
            large = download.getresponse()
            page.request("GET", "/")
            self.assertEqual(page.getresponse().read(), b"start" * 100_000)
            with connect(f"ws://127.0.0.1:{port}/ws") as client:
                client.send("Hello")
                self.assertEqual(client.recv(30), "Hello")
                server.terminate()
                with self.assertRaises(ConnectionClosed) as caught:
                    client.recv(30)
                assert caught.exception.rcvd is not None
                self.assertEqual(caught.exception.rcvd.code, 1001)
            assert page.sock is not None
            self.assertEqual(page.sock.recv(1), b"")
            page.close()
            self.assertEqual(len(large.read()), LARGE)
            download.close()
            server.wait()
            self.assertNotIn("Traceback", server.log)
