"""``twistd twsock-stream`` serves, names wrong options in one line, and drains."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.application.service import IService, IServiceMaker
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import globalLogPublisher
from twisted.plugin import IPlugin, getPlugins
from twisted.python.failure import Failure
from twisted.python.usage import UsageError
from twisted.trial.unittest import SkipTest, SynchronousTestCase
from zope.interface.verify import verifyObject

import twsock.services.stream_options as stream_options
from tests.services.processes import PATIENCE, echo, twistd
from twsock.protocols import FrameEcho, FrameEchoFactory, LineEcho
from twsock.services.stream import (
    Options,
    StreamService,
    default_max_connections,
    stream_service,
)
from twsock.services.stream_options import MOST_CONNECTIONS, RESERVED_DESCRIPTORS
from twsock.stream.listening.proxy_endpoint import LOOPBACK

LOCAL = "tcp:0:interface=127.0.0.1"

HAPROXY = """
defaults
  mode tcp
  timeout connect 5s
  timeout client 5s
  timeout server 5s
listen echo
  bind {path}
  server echo 127.0.0.1:{port} {way}
"""


@contextlib.contextmanager
def running_haproxy(program: str, folder: str, port: int, way: str) -> Iterator[str]:
    """Run HAProxy in front of a port, until it listens at the given path."""
    path, settings, pid = f"{folder}/front", Path(folder, "settings"), Path(folder, "pid")
    settings.write_text(HAPROXY.format(path=path, port=port, way=way))
    # It listens once the process in the foreground has ended.
    subprocess.run([program, "-D", "-p", pid, "-f", settings], timeout=PATIENCE, check=True)
    try:
        yield path
    finally:
        os.kill(int(pid.read_text()), signal.SIGKILL)


class LateEndpoint:
    """An endpoint that listens when its Deferred fires."""

    def __init__(self, listening: Deferred[Any]) -> None:
        self._listening = listening

    def listen(self, factory: object) -> Deferred[Any]:
        return self._listening


class OptionsTests(SynchronousTestCase):
    """Options are checked before any port is opened."""

    def parse(self, *arguments: str) -> dict[str, Any]:
        """Parse a command line."""
        options = Options()
        options.parseOptions(list(arguments))
        return dict(options)

    def test_the_defaults_are_those_of_the_design(self) -> None:
        """Frames, the format's limit, 600 s idle, 10 s to drain."""
        options = self.parse()
        self.assertEqual(options["framing"], "uint32")
        self.assertIsNone(options["max-frame"])
        self.assertIsNone(options["max-connections"])
        self.assertEqual(options["idle-timeout"], 600.0)
        self.assertEqual(options["drain-timeout"], 10.0)

    def test_each_option_is_documented(self) -> None:
        """The page of the services has it, with its value."""
        page = (Path(__file__).parents[2] / "docs" / "services.rst").read_text()
        names = {name.rstrip("=") for name in Options().longOpt} - {"help", "version"}
        self.assertEqual([name for name in sorted(names) if f"``--{name}" not in page], [])

    def test_each_endpoint_option_adds_an_endpoint(self) -> None:
        """``--endpoint`` may be given several times."""
        options = self.parse("--endpoint", "tcp:1", "-e", "unix:echo.sock")
        self.assertEqual(options["endpoints"], ["tcp:1", "unix:echo.sock"])

    def test_an_idle_timeout_of_zero_is_none(self) -> None:
        """``--idle-timeout 0`` means for ever."""
        self.assertIsNone(self.parse("--idle-timeout", "0")["idle-timeout"])

    def test_a_wrong_value_is_refused_with_its_option(self) -> None:
        """The error names the option, the allowed values and the given value."""
        for option, value in [
            ("framing", "uint64"),
            ("max-frame", "-1"),
            ("max-frame", "4294967296"),
            ("max-frame", "1k"),
            ("max-connections", "0"),
            ("max-connections-per-address", "0"),
            ("max-buffered", "0"),
            ("max-buffered", "1M"),
            ("idle-timeout", "-1"),
            ("idle-timeout", "nan"),
            ("drain-timeout", "soon"),
            ("endpoint", "carrier-pigeon:1"),
            ("endpoint", "tcp:"),
            ("endpoint", "tcp:1:colour=red"),
        ]:
            error = self.assertRaises(UsageError, self.parse, f"--{option}", value)
            self.assertIn(f"--{option}", str(error), f"{option=}, {value=}: {error}")
            self.assertIn(value, str(error), f"{option=}, {value=}: {error}")

    def test_a_wrong_port_is_refused_in_one_line_with_its_status(self) -> None:
        """The line has no words of Python's own errors."""
        error = self.assertRaises(UsageError, self.parse, "--endpoint", "tcp:abc")
        self.assertEqual(
            str(error),
            "--endpoint: ClassTypeNotFound (9): cannot use the endpoint 'tcp:abc': a port is a "
            "number from 0 to 65535, not 'abc'; give one such as tcp:1337:interface=127.0.0.1 or "
            "unix:/run/echo.sock",
        )

    def test_trusted_proxies_are_given_as_networks(self) -> None:
        """Several times, or with commas; without an endpoint behind a proxy they are refused."""
        words = [
            "-e",
            "HAPROXY:tcp:1",
            "--proxy-from",
            "10.0.0.0/8,::1",
            "--proxy-from",
            "192.0.2.1",
        ]
        settings = self.parse(*words)["endpoint-settings"]
        self.assertEqual(
            [str(network) for network in settings.proxy_from],
            ["10.0.0.0/8", "::1/128", "192.0.2.1/32"],
        )
        settings = self.parse("-e", "haproxy:tcp:1")["endpoint-settings"]
        self.assertEqual(settings.proxy_from, LOOPBACK)
        for wrong in (["--proxy-from", "10.0.0.1/8", *words[:2]], words[2:]):
            error = self.assertRaises(UsageError, self.parse, *wrong)
            self.assertIn("--proxy-from", str(error), f"{wrong=}: {error}")

    def test_by_default_owner_and_group_may_connect_to_unix_sockets(self) -> None:
        """An option sets other permissions."""
        for words, mode in (([], 0o660), (["--socket-mode", "600"], 0o600)):
            self.assertEqual(self.parse(*words)["endpoint-settings"].socket_mode, mode, f"{words=}")
        self.assertRaises(UsageError, self.parse, "--socket-mode", "rw")

    def test_a_tls_endpoint_with_tls_options_is_refused(self) -> None:
        """There is no TLS inside TLS, whose clients would not be verified."""
        for option in (["--tls"], ["--upgrade", "required"]):
            for endpoint in ("ssl:1", "TLS:1", "haproxy:ssl:1"):
                self.patch(os, "environ", {**os.environ, "XDG_STATE_HOME": self.mktemp()})
                self.patch(stream_options, "parse_server_endpoint", lambda *_: None)
                error = self.assertRaises(UsageError, self.parse, "--endpoint", endpoint, *option)
                self.assertIn("already uses TLS", str(error), f"{option=}, {endpoint=}: {error}")


class ServiceTests(SynchronousTestCase):
    """The service that `stream_service` makes from options."""

    def test_the_result_provides_a_service(self) -> None:
        """It provides `IService`, which twistd runs."""
        service = stream_service(MemoryReactorClock(), [LOCAL])
        self.assertTrue(verifyObject(IService, service))

    def test_the_plugins_name_existing_objects(self) -> None:
        """For ``twsock-stream`` and ``twsock``."""
        self.patch(os, "environ", {**os.environ, "XDG_STATE_HOME": self.mktemp()})
        makers: dict[str, Any] = {maker.tapname: maker for maker in getPlugins(IServiceMaker)}
        for name in ("twsock-stream", "twsock"):
            self.assertTrue(verifyObject(IServiceMaker, makers[name]), f"{name=}")
            self.assertTrue(verifyObject(IPlugin, makers[name]), f"{name=}")
            self.assertTrue(
                IService.providedBy(makers[name].makeService(makers[name].options())), f"{name=}"
            )

    def test_limits_of_the_options_reach_the_connections(self) -> None:
        """For frames and for lines."""
        for framing, protocol in (("uint32", FrameEcho), ("line", LineEcho)):
            service = stream_service(
                MemoryReactorClock(),
                [LOCAL],
                framing=framing,
                max_frame=7,
                max_connections=3,
                max_connections_per_address=2,
                max_buffered=1000,
                idle_timeout=5.0,
            )
            built = service.factory.buildProtocol(None)
            assert isinstance(built, protocol)
            self.assertEqual(built.max_payload, 7, f"{framing=}")
            self.assertEqual(service.factory.group.max_connections, 3, f"{framing=}")
            address_limit = service.factory.group.address_limit
            assert address_limit is not None
            self.assertEqual(address_limit.max_connections, 2, f"{framing=}")
            limit = service.factory.group.buffer_limit
            assert limit is not None
            self.assertEqual(limit.max_buffered, 1000, f"{framing=}")
            self.assertEqual(service.factory.group.idle_timeout, 5.0, f"{framing=}")

    def test_an_endpoint_that_fails_late_is_logged(self) -> None:
        """A failure while the process runs is one critical event."""
        late: Deferred[Any] = Deferred()
        endpoint: Any = LateEndpoint(late)
        factory = FrameEchoFactory(MemoryReactorClock())
        service = StreamService(MemoryReactorClock(), factory, [("late:1", endpoint)])
        events: list[Any] = []
        publisher: Any = globalLogPublisher
        publisher.addObserver(events.append)
        self.addCleanup(publisher.removeObserver, events.append)
        service.startService()
        self.addCleanup(service.stopService)
        late.errback(OSError(errno.EADDRINUSE, "Address already in use"))
        (problem,) = [event["problem"] for event in events if "problem" in event]
        self.assertIn("cannot listen on late:1: AddressAlreadyInUse (10)", problem)

    def test_a_restart_drains_connections_after_their_first_message(self) -> None:
        """A connection that was just accepted is answered; the factory may accept again later."""
        clock = MemoryReactorClock()
        factory = FrameEchoFactory(clock)
        service = StreamService(clock, factory, [])
        transports = [StringTransport(), StringTransport()]
        fresh, used = (factory.buildProtocol(None) for _ in transports)
        assert fresh is not None
        assert used is not None
        for protocol, transport in zip((fresh, used), transports, strict=True):
            protocol.makeConnection(transport)
        used.dataReceived(b"\0\0\0\1x")
        draining = Deferred.fromCoroutine(service.drain_rest())
        self.assertEqual([each.disconnecting for each in transports], [False, True])
        fresh.dataReceived(b"\0\0\0\1y")
        self.assertEqual(transports[0].value(), b"\0\0\0\1y")
        clock.advance(1)
        self.assertEqual([each.disconnecting for each in transports], [True, True])
        for protocol in (fresh, used):
            self.assertNoResult(draining)
            protocol.connectionLost(Failure(ConnectionDone()))
        self.successResultOf(draining)
        self.assertIsNotNone(factory.buildProtocol(None))

    def test_a_restart_aborts_connections_at_the_deadline(self) -> None:
        """With their number in the log; a cancelled drain aborts none."""
        for is_cancelled in (False, True):
            clock = MemoryReactorClock()
            factory = FrameEchoFactory(clock)
            service = StreamService(clock, factory, [], drain_timeout=3)
            transport = StringTransport()
            protocol = factory.buildProtocol(None)
            assert protocol is not None
            protocol.makeConnection(transport)
            draining = Deferred.fromCoroutine(service.drain_rest())
            if is_cancelled:
                draining.cancel()
                self.failureResultOf(draining, CancelledError)
            clock.advance(3)
            self.assertEqual(transport.disconnected, not is_cancelled)
            protocol.connectionLost(Failure(ConnectionDone()))
            if not is_cancelled:
                self.successResultOf(draining)

    def test_a_wrong_endpoint_is_a_value_error(self) -> None:
        """A program that embeds the service gets the error at once."""
        self.assertRaises(ValueError, stream_service, MemoryReactorClock(), ["nowhere:1"])


class TwistdTests(SynchronousTestCase):
    """Real processes."""

    def test_the_service_echoes_until_sigterm(self) -> None:
        """A plain socket is served; on SIGTERM the process ends as twistd does."""
        with twistd("twsock-stream", "--endpoint", LOCAL) as server:
            (port,) = server.wait_for_ports()
            self.assertEqual(echo(port), b"Hello, World!")
            server.terminate()
            self.assertEqual(server.wait(), -signal.SIGTERM)
            line = "stopped: 1 accepted, 1 messages received, 17 bytes received, 17 bytes sent"
            self.assertIn(f"{line}, 1 messages sent, 0 aborted at the deadline", server.log)
            self.assertNotIn("Hello", server.log)
            self.assertNotIn("Traceback", server.log)

    def test_an_interrupt_drains_without_a_traceback(self) -> None:
        """Ctrl-C drains as SIGTERM does."""
        with twistd("twsock-stream", "--endpoint", LOCAL) as server:
            server.wait_for_ports()
            server.process.send_signal(signal.SIGINT)
            self.assertEqual(server.wait(), -signal.SIGINT)
            self.assertNotIn("Traceback", server.log)

    def test_the_lean_reactor_serves(self) -> None:
        """``--reactor=twsock`` runs the same service."""
        with twistd("--reactor=twsock", "twsock-stream", "--endpoint", LOCAL) as server:
            (port,) = server.wait_for_ports()
            self.assertEqual(echo(port), b"Hello, World!")
            self.assertIn("LeanEpollReactor", server.log)

    def test_several_endpoints_are_served_and_logged(self) -> None:
        """Each is named with the address that the system chose; one is a UNIX socket."""
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "echo.sock")
            arguments = ["-e", LOCAL, "-e", LOCAL, "-e", f"unix:{path}", "--framing", "line"]
            with twistd("twsock-stream", *arguments) as server:
                first, second = server.wait_for_ports(2)
                server.wait_for("listening on unix:.*echo.sock")
                self.assertNotEqual(first, second)
                with socket.socket(socket.AF_UNIX) as connection:
                    connection.connect(path)
                    connection.sendall(b"over UNIX\n")
                    self.assertEqual(connection.makefile("rb").readline(), b"over UNIX\r\n")

    def test_the_path_of_a_killed_server_is_replaced(self) -> None:
        """Not while a server listens there."""
        with tempfile.TemporaryDirectory() as folder:
            arguments = ["twsock-stream", "-e", f"unix:{folder}/echo.sock"]
            with twistd(*arguments) as server:
                server.wait_for("listening on unix:")
                with twistd(*arguments) as second:
                    self.assertEqual(second.wait(), 1)
                    self.assertIn("AddressAlreadyInUse (10)", second.log)
                server.process.kill()
                server.wait()
            with twistd(*arguments) as server:
                server.wait_for("listening on unix:")

    def test_a_path_that_may_not_be_removed_is_logged(self) -> None:
        """The process runs as another user; the next start replaces the path."""
        if os.geteuid() != 0:
            raise SkipTest("only root can become another user")
        for mode, count in ((0o755, 1), (0o1777, 0)):
            with tempfile.TemporaryDirectory() as folder:
                Path(folder).chmod(mode)
                path = Path(folder) / "echo.sock"
                arguments = ["--uid", "65534", "--gid", "65534", "twsock-stream"]
                with twistd(*arguments, "-e", f"unix:{path}") as server:
                    server.wait_for("listening on unix:")
                    self.assertEqual(path.stat().st_uid, 65_534, f"{mode=:o}")
                    server.terminate()
                    self.assertEqual(server.wait(), -signal.SIGTERM, f"{mode=:o}")
                    self.assertEqual(
                        server.log.count("the next start replaces"), count, f"{mode=:o}"
                    )
                    self.assertNotIn("Traceback", server.log, f"{mode=:o}: {server.log}")
                    self.assertEqual(path.exists(), bool(count), f"{mode=:o}")

    def test_received_requests_are_answered_before_the_end(self) -> None:
        """Requests that arrived before SIGTERM are answered; then the peer reads FIN."""
        with twistd("twsock-stream", "--endpoint", LOCAL) as server:
            (port,) = server.wait_for_ports()
            frame = b"\x00\x00\x00\x01x"
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
                connection.sendall(frame)
                self.assertEqual(connection.recv(5), frame)
                server.process.send_signal(signal.SIGSTOP)
                connection.sendall(frame * 100)
                server.terminate()
                server.process.send_signal(signal.SIGCONT)
                self.assertEqual(connection.makefile("rb").read(), frame * 100)
            self.assertEqual(server.wait(), -signal.SIGTERM)
            self.assertIn(" 0 aborted", server.log)

    def test_a_connection_that_does_not_end_is_aborted_at_the_deadline(self) -> None:
        """A peer in the middle of a frame has the drain timeout and no more."""
        arguments = ["--endpoint", LOCAL, "--drain-timeout", "0.2"]
        with twistd("twsock-stream", *arguments) as server:
            (port,) = server.wait_for_ports()
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
                connection.sendall(b"\x00\x00\x00\x01x\x00\x00")
                connection.recv(5)
                server.terminate()
                self.assertRaises(ConnectionResetError, connection.recv, 1)
            server.wait()
            self.assertIn(" 1 aborted at the deadline", server.log)

    def test_a_port_in_use_is_reported_in_one_line(self) -> None:
        """The line names it and the reason; exit status not zero, no traceback."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            endpoint = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            with twistd("twsock-stream", "--endpoint", endpoint) as server:
                self.assertEqual(server.wait(), 1)
                self.assertNotIn("Traceback", server.log)
                self.assertEqual(server.log.count("cannot listen on"), 1)
                self.assertIn(f"twsock: cannot listen on {endpoint}", server.log)
                self.assertIn("AddressAlreadyInUse (10)", server.log)

    def test_a_wrong_option_is_reported_after_the_usage(self) -> None:
        """The last line names it; exit status not zero, no traceback."""
        with twistd("twsock-stream", "--max-frame", "huge") as server:
            self.assertNotEqual(server.wait(), 0)
            self.assertNotIn("Traceback", server.log)
            self.assertIn("--max-frame", server.log.splitlines()[-1])

    def test_out_of_descriptors_peers_wait_and_are_served_later(self) -> None:
        """Peers above the limit of open files wait; one event reports it."""
        # More than the limit of files allows, which is the default.
        arguments = ["--endpoint", LOCAL, "--max-connections", "100"]
        with twistd("twsock-stream", *arguments, max_files=32) as server:
            (port,) = server.wait_for_ports()
            address = "127.0.0.1", port
            peers = [socket.create_connection(address, timeout=PATIENCE) for _ in range(40)]
            server.wait_for("cannot accept: Too many open files")
            for peer in peers[:20]:
                peer.close()
            peers[-1].sendall(b"\x00\x00\x00\x01x")
            self.assertEqual(peers[-1].recv(5), b"\x00\x00\x00\x01x")
            for peer in peers:
                peer.close()
            server.terminate()
            server.wait()
            self.assertEqual(server.log.count("cannot accept"), 1)

    def test_behind_a_proxy_the_log_names_the_client(self) -> None:
        """With the reason of an abort; a health check of the proxy is served."""
        endpoint = f"haproxy:{LOCAL}"
        with twistd("twsock-stream", "-e", endpoint, "--max-frame", "5") as server:
            (port,) = server.wait_for_ports()
            for header, frame, answer in (
                (b"PROXY UNKNOWN\r\n", b"\0\0\0\1x", b"\0\0\0\1x"),
                (b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 2000\r\n", b"\0\0\0\6", b""),
                (b"", b"\0\0\0\1x", b""),
            ):
                with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
                    for start in range(0, len(header), 5):
                        connection.sendall(header[start : start + 5])
                    connection.sendall(frame)
                    with contextlib.suppress(ConnectionResetError):
                        self.assertEqual(connection.recv(5), answer, f"{header=}")
            server.wait_for("192.0.2.1:1000 aborted")
            server.wait_for("127.0.0.1 port .* dropped: it does not begin with a PROXY header")

    def test_a_header_from_an_unnamed_proxy_is_refused(self) -> None:
        """The connection is reset and logged."""
        arguments = ["-e", f"haproxy:{LOCAL}", "--proxy-from", "192.0.2.0/24"]
        with twistd("twsock-stream", *arguments) as server:
            (port,) = server.wait_for_ports()
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
                self.assertRaises(ConnectionResetError, connection.recv, 1)
            server.wait_for("dropped: PROXY headers are accepted only from 192.0.2.0/24")

    def test_haproxy_connects_with_both_versions(self) -> None:
        """Its own health checks are served too."""
        haproxy = shutil.which("haproxy")
        if haproxy is None:
            raise SkipTest("haproxy is not installed")
        with twistd("twsock-stream", "-e", f"haproxy:{LOCAL}") as server:
            (port,) = server.wait_for_ports()
            for way in ("send-proxy", "send-proxy-v2", "send-proxy-v2 check check-send-proxy"):
                with (
                    tempfile.TemporaryDirectory() as folder,
                    running_haproxy(haproxy, folder, port, way) as path,
                    socket.socket(socket.AF_UNIX) as connection,
                ):
                    connection.settimeout(60)
                    connection.connect(path)
                    connection.sendall(b"\0\0\0\1x")
                    self.assertEqual(connection.recv(5), b"\0\0\0\1x", f"{way=}")
            server.terminate()
            server.wait()
            self.assertNotIn("dropped", server.log)
            self.assertNotIn("Traceback", server.log)

    def test_socat_exchanges_lines(self) -> None:
        """It gets its line back."""
        socat = shutil.which("socat")
        if socat is None:
            raise SkipTest("socat is not installed")
        arguments = ["--endpoint", LOCAL, "--framing", "line"]
        with twistd("twsock-stream", *arguments) as server:
            (port,) = server.wait_for_ports()
            answer = subprocess.run(
                [socat, "-t5", "-", f"TCP:127.0.0.1:{port},crnl"],
                input=b"Hello, World!\n",
                stdout=subprocess.PIPE,
                timeout=20,
                check=True,
            )
            self.assertEqual(answer.stdout, b"Hello, World!\n")


class ConnectionLimitTests(SynchronousTestCase):
    """The default limit of connections follows from the limit of open files."""

    def limit_descriptors(self, count: int) -> None:
        """Change this process's limit of open files, as far as it may."""
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, limits[1]))

    def test_some_descriptors_are_reserved(self) -> None:
        """For logs, ports and certificates."""
        self.limit_descriptors(1000)
        self.assertEqual(default_max_connections(), 1000 - RESERVED_DESCRIPTORS)

    def test_of_few_descriptors_most_are_for_connections(self) -> None:
        """The limit is never zero."""
        self.limit_descriptors(80)
        self.assertEqual(default_max_connections(), 70)

    def test_the_default_limit_has_a_maximum(self) -> None:
        """However many descriptors there are."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard != resource.RLIM_INFINITY and hard < MOST_CONNECTIONS + RESERVED_DESCRIPTORS:
            self.skipTest(f"this process may have {hard} descriptors at most")
        self.limit_descriptors(MOST_CONNECTIONS + RESERVED_DESCRIPTORS + 1)
        self.assertEqual(default_max_connections(), MOST_CONNECTIONS)

    def test_an_option_replaces_the_default_limit(self) -> None:
        """Also if it is above the number of descriptors."""
        self.limit_descriptors(1000)
        for asked, expected in ((None, 1000 - RESERVED_DESCRIPTORS), (7, 7), (5000, 5000)):
            service = stream_service(
                MemoryReactorClock(), ["tcp:1:interface=127.0.0.1"], max_connections=asked
            )
            self.assertEqual(service.factory.group.max_connections, expected, f"{asked=}")
