"""Services as processes: failed starts, daemons, and their logs."""

from __future__ import annotations

import json
import signal
import socket
import struct
import tempfile
from pathlib import Path
from typing import Any

from twisted.application.service import Application, IService
from twisted.logger import ILogObserver
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.datagram.fake_ports import log_lines
from tests.services.processes import PATIENCE, Daemon, daemon, twistd
from twsock.services.listening_sockets import ListeningSockets, SocketName
from twsock.services.process import ProcessService
from twsock.services.process_options import ProcessOptions
from twsock.services.start_error import StartError
from twsock.services.stream import Options as StreamOptions
from twsock.services.stream import makeService

LOCAL = "tcp:0:interface=127.0.0.1"


class KeptSocketTests(TestCase):
    """A process whose sockets move to another one."""

    def make(self, *words: str) -> tuple[ListeningSockets, Any]:
        """Make a process with a table."""
        parsed = StreamOptions()
        parsed.parent = ProcessOptions()
        parsed.parent.subCommand = "twsock-stream"
        parsed.parent.update({"nodaemon": True, "debug": False})
        parsed.sockets = ListeningSockets()
        parsed.parseOptions(list(words))
        self.addCleanup(parsed.sockets.close)
        return parsed.sockets, makeService(parsed)

    def test_a_failed_start_closes_every_socket(self) -> None:
        """Also those of endpoints that were opened before, with their paths."""
        with tempfile.TemporaryDirectory() as folder, socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            path = Path(folder) / "echo.sock"
            taken = f"tcp:{other.getsockname()[1]}:interface=127.0.0.1"
            sockets, process = self.make("-e", f"unix:{path}", "-e", taken, "--health", LOCAL)
            self.assertRaises(StartError, process.privilegedStartService)
            self.assertFalse(path.exists())
        self.assertEqual(sockets.held(), [])

    async def test_the_sockets_of_services_and_page_are_kept(self) -> None:
        """A plugin's socket that is not is logged."""
        sockets, process = self.make("-e", LOCAL, "--health", LOCAL)
        sockets.inherit([(SocketName("tcp", "127.0.0.1", 0, 7), socket.socket())])
        with log_lines() as lines:
            process.privilegedStartService()
            process.startService()
        self.assertEqual([each for each in lines if "itself" in each], [])
        self.assertEqual(
            [str(name) for name, _ in sockets.held()],
            ["tcp:127.0.0.1:0#7", "tcp:127.0.0.1:0", "tcp:127.0.0.1:0#1"],
        )
        await process.stopService()
        self.assertEqual(sockets.held(), [])


class ProcessServiceTests(SynchronousTestCase):
    """The outermost service."""

    def test_in_another_application_the_log_is_not_changed(self) -> None:
        """Without twistd's options the service chooses no log."""
        application = Application("mine")
        ProcessService(ProcessOptions()).setServiceParent(IService(application))
        self.assertIsNone(application.getComponent(ILogObserver, None))


class DaemonTests(SynchronousTestCase):
    """Real daemons."""

    def assert_one_line(self, left: Daemon, line: str) -> None:
        """Require a failed start with one line of output."""
        self.assertEqual(left.status, 1, left.output)
        self.assertFalse(left.pid_file.exists())
        for text in (left.output, left.log):
            self.assertNotIn("Traceback", text, f"{text is left.log=}")
        self.assertEqual([words for words in left.output.splitlines() if words == line], [line])
        self.assertEqual(left.log.count(line), 1)

    def test_a_daemon_ends_by_sigterm_and_leaves_no_file(self) -> None:
        """It drains first, and removes its pid file."""
        with daemon("twsock-stream", "-e", "unix:echo.sock") as left:
            self.assertEqual((left.status, left.output), (0, ""))
            # twistd gives a daemon a umask of 0077.
            self.assertEqual((left.folder / "echo.sock").stat().st_mode & 0o777, 0o660)
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(PATIENCE)
                connection.connect(str(left.folder / "echo.sock"))
                connection.sendall(struct.pack(">I", 1) + b"x")
                self.assertEqual(connection.recv(5), b"\0\0\0\1x")
                left.end(signal.SIGHUP, signal.SIGTERM)
            self.assertIn("stopped: 1 accepted", left.log)
            self.assertIn("SIGHUP", left.log)
            self.assertEqual(
                sorted(path.name for path in left.folder.iterdir()), ["output", "twistd.log"]
            )

    def test_a_daemon_closes_its_terminal(self) -> None:
        """
        A program that waits for the end of the daemon's output does not wait for the daemon's end.
        """
        with daemon("twsock-stream", "-e", "unix:echo.sock") as left:
            pid = int(left.pid_file.read_text())
            files = [file.readlink() for file in Path(f"/proc/{pid}/fd").iterdir()]
            self.assertNotIn(left.folder / "output", files)

    def test_a_stream_port_in_use_ends_the_start(self) -> None:
        """Status 1, one line, no pid file; no process hangs."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            endpoint = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            with daemon("twsock-stream", "-e", LOCAL, "-e", endpoint) as left:
                self.assert_one_line(
                    left,
                    f"twsock: cannot listen on {endpoint}: AddressAlreadyInUse (10): "
                    "Address already in use",
                )

    def test_a_missing_certificate_ends_the_start(self) -> None:
        """It is missed before there is a daemon."""
        words = ["--tls", "--certificate", "/nowhere/server.pem"]
        with daemon("twsock-stream", "-e", LOCAL, *words) as left:
            self.assertEqual((left.status, left.pid_file.exists()), (1, False))
            (line,) = left.output.splitlines()
            self.assertIn("/nowhere/server.pem", line)

    def test_a_missing_folder_of_certificates_ends_the_start(self) -> None:
        """Twisted's endpoint would listen, and refuse every client."""
        with daemon("twsock-stream", "-e", "tls:/nowhere:0:interface=127.0.0.1") as left:
            self.assertEqual((left.status, left.pid_file.exists()), (1, False))
            last = left.output.splitlines()[-1]
            self.assertIn("there is no folder of certificates: /nowhere", last)

    def test_a_missing_folder_of_a_unix_socket_ends_the_start(self) -> None:
        """Ports that were opened before leave nothing."""
        with daemon("twsock-stream", "-e", "unix:first", "-e", "unix:missing/echo.sock") as left:
            self.assert_one_line(
                left,
                "twsock: cannot listen on unix:missing/echo.sock: CannotAssignRequestedAddress "
                "(11): No such file or directory: its folder does not exist",
            )
            self.assertFalse((left.folder / "first").exists())

    def test_a_datagram_port_in_use_ends_the_start(self) -> None:
        """Status 1, one line, no pid file."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            with daemon("twsock-datagram", "-e", f"udp:{port}:interface=127.0.0.1") as left:
                self.assert_one_line(
                    left,
                    f"twsock: cannot listen on udp:{port}:interface=127.0.0.1: "
                    f"AddressAlreadyInUse (10): cannot bind UDP port {port} of 127.0.0.1: "
                    "Address already in use",
                )

    def test_a_missing_interface_ends_the_start(self) -> None:
        """The service is that of a group."""
        with daemon("twsock-multicast", "-e", "multicast:224.3.0.5:0:interface=nowhere0") as left:
            self.assertEqual(left.status, 1)
            (line,) = [words for words in left.output.splitlines() if words.startswith("twsock:")]
            self.assertIn("UnreachableHost (14)", line)
            self.assert_one_line(left, line)

    def test_a_missing_working_directory_ends_the_start_before_the_log(self) -> None:
        """The only line is on the terminal."""
        with daemon("--rundir", "/nowhere", "twsock-stream", "-e", LOCAL) as left:
            self.assertEqual(left.status, 1)
            self.assertEqual(left.output, "twsock: --rundir: there is no folder /nowhere\n")

    def test_in_the_foreground_a_failed_start_leaves_no_pid_file(self) -> None:
        """A pid file would stop the next start."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            endpoint = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            with twistd("--pidfile=left.pid", "twsock-stream", "-e", endpoint) as server:
                self.assertEqual(server.wait(), 1)
                self.assertEqual(list(server.folder.iterdir()), [])

    def test_in_the_foreground_a_failed_start_is_on_the_terminal(self) -> None:
        """Also if the log is a file, which has the line as well."""
        for words in (
            ("--logfile=a.log", "--pidfile=left.pid"),
            ("--logger=twisted.logger.STDLibLogObserver",),
        ):
            with twistd(*words, "twsock-stream", "-e", "unix:/missing/x") as server:
                self.assertEqual(server.wait(), 1)
                (line,) = [each for each in server.log.splitlines() if "twsock: " in each]
                self.assertTrue(line.startswith("twsock: cannot listen on unix:/missing/x"), line)
                self.assertNotIn("Traceback", server.log)
                left = sorted(path.name for path in server.folder.iterdir())
                self.assertEqual(left, ["a.log"] if "--logfile=a.log" in words else [])
                for name in left:
                    self.assertIn(line, (server.folder / name).read_text())

    def test_a_failed_start_is_a_line_of_json_in_the_log(self) -> None:
        """The terminal has the plain line."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            endpoint = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            with daemon("twsock-stream", "-e", endpoint, "--log-format", "json") as left:
                last = json.loads(left.log.splitlines()[-1])
                self.assertIn(last["message"], left.output.splitlines())
                self.assertEqual(last["level"], "critical")
                self.assertIn("cannot listen on", last["message"])


class CheckTests(SynchronousTestCase):
    """``--check`` starts nothing; what the process prints, and its status."""

    def check(self, *arguments: str) -> tuple[int, list[str]]:
        """Run a service with ``--check``; return its status and its lines."""
        with twistd(*arguments, "--check") as running:
            return running.wait(), running.log.splitlines()

    def test_valid_options_are_described(self) -> None:
        """Although the port is in use."""
        with socket.create_server(("127.0.0.1", 0)) as other:
            endpoint = f"tcp:{other.getsockname()[1]}:interface=127.0.0.1"
            status, lines = self.check(
                "twsock-stream", "--endpoint", endpoint, "--health", "tcp:9100"
            )
        self.assertEqual(status, 0, lines)
        self.assertEqual(
            lines,
            [
                f"twsock: would listen on {endpoint}",
                "twsock: would serve health checks on tcp:9100",
                "twsock: the options are valid; nothing was started",
            ],
        )

    def test_a_mistake_is_one_line(self) -> None:
        """Without the usage that twistd prints otherwise."""
        for arguments, words in (
            (("twsock-stream", "--endpoint", "tcp:x"), "--endpoint: "),
            (("twsock-stream", "--certificate", "missing.pem", "--tls"), "missing.pem"),
            (("twsock-datagram", "--rate-limit", "0"), "--rate-limit takes"),
            (("twsock-multicast", "--endpoint", "tcp:1"), "--endpoint: "),
            (("twsock-websocket", "--subprotocol", "a b"), "--subprotocol: "),
        ):
            status, lines = self.check(*arguments)
            self.assertEqual((status, len(lines)), (1, 1), lines)
            self.assertIn(words, lines[0], arguments)
