"""Workers as real processes."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import struct
import threading
import time
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests import THOROUGH
from tests.services.processes import PATIENCE, Twistd, daemon, echo, twistd
from tests.services.test_metrics import fetch
from twsock.services.listening import ListeningService
from twsock.services.listening_sockets import ListeningSockets
from twsock.services.signals import process_signals
from twsock.services.start_error import StartError
from twsock.services.workers.service import WorkersService
from twsock.services.workers.start import WorkerProgram

_TCP = ("--endpoint", "tcp:0:interface=127.0.0.1")
_thorough = unittest.skipUnless(THOROUGH, "processes are started with TWSOCK_TESTS=thorough")
_PAGE = ("--metrics", "tcp:0:interface=127.0.0.1")


class Parent:
    """
    A parent whose workers serve.

    :ivar page: the URL of its page; empty without one.
    :ivar port: that of its first TCP endpoint; 0 if it has none.
    :ivar pids: the process ids of its workers, by their numbers.
    """

    def __init__(self, process: Twistd, count: int, arguments: tuple[str, ...]) -> None:
        self.process = process
        self.page = ""
        self.port = 0
        self.pids: dict[int, int] = {}
        if "--metrics" in arguments:
            port = process.wait_for(r"MetricsService.*listening on tcp:.*?(\d+) \(")
            self.page = f"http://127.0.0.1:{port}"
        if "--endpoint" in arguments:
            found = process.wait_for(r"WorkersService.*listening on (\S+) \(")
            self.port = int(re.sub(r".*\D", "", found) or 0)
        for _ in range(count):
            self.wait_for_worker()

    def wait_for_worker(self) -> int:
        """Wait for the next worker that serves; return its number."""
        line = self.process.wait_for(r"(worker \d+ serves: process \d+)")
        number, pid = map(int, re.findall(r"\d+", line))
        self.pids[number] = pid
        return number

    def numbers(self, name: str = "connections_total") -> dict[str, float]:
        """Return a counter of each worker."""
        _, _, text = fetch(f"{self.page}/metrics")
        found = re.findall(rf'^twsock_{name}{{.*worker="(\d+)".*}} (\S+)$', text, re.MULTILINE)
        sums: dict[str, float] = {}
        for worker, value in found:
            sums[worker] = sums.get(worker, 0) + float(value)
        return sums


@contextlib.contextmanager
def workers(*arguments: str, count: int = 2, service: str = "twsock-stream") -> Iterator[Parent]:
    """Run a parent until its workers serve."""
    with twistd(service, "--workers", str(count), *arguments) as process:
        parent = Parent(process, count, arguments)
        ends = [os.pidfd_open(pid) for pid in parent.pids.values()]
        try:
            yield parent
        finally:
            process.end()
            for end in ends:
                if not select.select([end], [], [], PATIENCE)[0]:
                    signal.pidfd_send_signal(end, signal.SIGKILL)
                os.close(end)


def connect(port: int) -> socket.socket:
    """Connect; the test closes the connection."""
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)


def exchange(connection: socket.socket, payload: bytes = b"hello") -> bytes:
    """Send a frame on a connection; return the answer, empty at its end."""
    connection.sendall(struct.pack(">I", len(payload)) + payload)
    answer = b""
    while len(answer) < 4 + len(payload) and (data := connection.recv(100)):
        answer += data
    return answer[4:]


def is_running(pid: int) -> bool:
    """Return whether a process has not ended; a zombie has."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        # It ends before the file is opened, or before it is read.
        return False


class Storm:
    """Threads that connect and exchange a frame again and again; counts what fails."""

    def __init__(self, port: int, threads: int = 2) -> None:
        self.served = 0
        self.failures: list[str] = []
        self._port = port
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def __enter__(self) -> Storm:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._is_over.is_set():
            try:
                if echo(self._port, b"storm") != b"storm":
                    self.failures.append("no whole answer")
            except (OSError, struct.error) as error:  # A frame that ends too soon.
                self.failures.append(repr(error))
            self.served += 1


class ConnectionTests(SynchronousTestCase):
    """Which worker serves a connection."""

    def test_each_of_two_workers_has_its_part_of_the_connections(self) -> None:
        """40 to 60 % of 500; the port that the system chose is one port."""
        with workers(*_TCP, *_PAGE) as parent, contextlib.ExitStack() as stack:
            for _ in range(500):
                self.assertEqual(exchange(stack.enter_context(connect(parent.port))), b"hello")
            numbers = parent.numbers()
            self.assertEqual(sum(numbers.values()), 500)
            for worker, count in numbers.items():
                self.assertTrue(200 <= count <= 300, (worker, numbers))
            self.assertEqual(sum(parent.numbers("open_connections").values()), 500)
            status, _, text = fetch(f"{parent.page}/health/ready")
            self.assertEqual((status, text), (200, "ready\n"))

    @_thorough
    def test_a_unix_socket_is_shared(self) -> None:
        """Its path belongs to the parent, which removes it at the end."""
        with workers("--endpoint", "unix:echo.sock") as parent:
            path = parent.process.folder / "echo.sock"
            for _ in range(20):
                with socket.socket(socket.AF_UNIX) as connection:
                    connection.connect(str(path))
                    self.assertEqual(exchange(connection), b"hello")
            os.kill(parent.pids[1], signal.SIGKILL)
            parent.wait_for_worker()
            self.assertTrue(path.exists())
            parent.process.terminate()
            # twistd ends by the signal that stopped it.
            self.assertEqual(parent.process.wait(), -signal.SIGTERM)
            self.assertFalse(path.exists())

    @_thorough
    def test_the_datagrams_of_a_flow_stay_with_one_worker(self) -> None:
        """Different flows go to different workers."""
        endpoint = ("--endpoint", "udp:0:interface=127.0.0.1")
        with workers(*endpoint, *_PAGE, service="twsock-datagram") as parent:
            for _ in range(2):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flow:
                    flow.settimeout(PATIENCE)
                    flow.connect(("127.0.0.1", parent.port))
                    before = parent.numbers("datagrams_received_total")
                    for _ in range(20):
                        flow.send(b"hello")
                        self.assertEqual(flow.recv(100), b"hello")
                    after = parent.numbers("datagrams_received_total")
                grown = sorted(after[each] - before[each] for each in after)
                self.assertEqual(grown, [0, 20])


class EndTests(SynchronousTestCase):
    """Workers and parents that end."""

    def assert_all_end(self, parent: Parent) -> None:
        """Check that no worker is left when the parent has ended."""
        for number, pid in parent.pids.items():
            self.assertFalse(is_running(pid), number)

    def test_a_killed_worker_loses_its_own_connections_only(self) -> None:
        """Its successor serves those that waited; no counter falls."""
        with workers(*_TCP, *_PAGE) as parent, contextlib.ExitStack() as stack:
            old = [stack.enter_context(connect(parent.port)) for _ in range(40)]
            for connection in old:
                exchange(connection)
            before = parent.numbers()
            os.kill(parent.pids[1], signal.SIGKILL)
            parent.process.wait_for("worker 1 was killed by SIGKILL; the next one starts in 1 s")
            queued = [stack.enter_context(connect(parent.port)) for _ in range(40)]
            alive = 0
            for connection in old:
                with contextlib.suppress(ConnectionError):
                    alive += exchange(connection) == b"hello"
            self.assertEqual(alive, before["2"])
            self.assertEqual(fetch(f"{parent.page}/health/ready")[0], 503)
            self.assertEqual([exchange(each) for each in queued], [b"hello"] * 40)
            after = parent.numbers()
            self.assertGreaterEqual(after["1"], before["1"])
            self.assertEqual(after["1"] - before["1"] + after["2"] - before["2"], 40)

    @_thorough
    def test_sigterm_drains_all_workers(self) -> None:
        """Connections that waited are served, and none is reset."""
        with workers(*_TCP) as parent, contextlib.ExitStack() as stack:
            connections = [stack.enter_context(connect(parent.port)) for _ in range(20)]
            for connection in connections:
                connection.sendall(struct.pack(">I", 5) + b"hello")
            parent.process.terminate()
            for connection in connections:
                self.assertEqual(connection.recv(100), b"\0\0\0\5hello")
                self.assertEqual(connection.recv(100), b"")
            self.assertEqual(parent.process.wait(), -signal.SIGTERM)
            self.assert_all_end(parent)

    def test_control_c_drains_and_a_second_one_hurries(self) -> None:
        """A terminal sends SIGINT to the parent and to each worker."""
        with workers(*_TCP, "--drain-timeout", "60") as parent:
            # The drain waits for the end of this peer.
            with connect(parent.port) as connection:
                exchange(connection)
                everyone = [parent.process.process.pid, *parent.pids.values()]
                for pid in everyone:
                    os.kill(pid, signal.SIGINT)
                parent.process.wait_for("worker .: stopping: 1 connections")
                self.assertEqual(connection.recv(100), b"")
                for pid in everyone:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGINT)
                self.assertEqual(parent.process.wait(), -signal.SIGINT)
            self.assertNotIn("Traceback", parent.process.log)
            self.assertEqual(parent.process.log.count("SIGINT again: ending at once"), 1)
            self.assert_all_end(parent)

    @_thorough
    def test_control_c_at_the_start_is_no_error(self) -> None:
        """The workers are still loading Python then."""
        with twistd("twsock-stream", "--workers", "2", *_TCP) as process:
            process.wait_for("starting 2 workers")
            parent = process.process.pid
            children = Path(f"/proc/{parent}/task/{parent}/children")
            while len(children.read_text().split()) < 2:
                time.sleep(0.01)
            for pid in [*map(int, children.read_text().split()), parent]:
                os.kill(pid, signal.SIGINT)
            self.assertEqual(process.wait(), -signal.SIGINT)
        self.assertNotRegex(process.log, "Traceback|KeyboardInterrupt|cannot|#error|#warn")

    def test_workers_of_a_killed_parent_drain_and_end(self) -> None:
        """Connections that were accepted, or wait, are served to their end."""
        with workers(*_TCP) as parent, contextlib.ExitStack() as stack:
            ends = [os.pidfd_open(pid) for pid in parent.pids.values()]
            connections = [stack.enter_context(connect(parent.port)) for _ in range(20)]
            for connection in connections:
                connection.sendall(struct.pack(">I", 5) + b"hello")
            parent.process.process.kill()
            for connection in connections:
                self.assertEqual(connection.recv(100), b"\0\0\0\5hello")
                self.assertEqual(connection.recv(100), b"")
                connection.close()
            for end in ends:
                self.assertTrue(select.select([end], [], [], PATIENCE)[0], "a worker is left")
                os.close(end)
            self.assertRaises(ConnectionRefusedError, connect, parent.port)

    @_thorough
    def test_a_parent_that_is_killed_at_the_start_leaves_no_worker(self) -> None:
        """Its workers find the end of their pipes when they are ready, or before."""
        with twistd("twsock-stream", "--workers", "2", *_TCP) as process:
            parent = process.process.pid
            children = Path(f"/proc/{parent}/task/{parent}/children")
            while len(children.read_text().split()) < 2:
                time.sleep(0.01)
            ends = [os.pidfd_open(int(pid)) for pid in children.read_text().split()]
            process.process.kill()
            for end in ends:
                self.assertTrue(select.select([end], [], [], PATIENCE)[0], "a worker is left")
                os.close(end)

    @_thorough
    def test_a_hung_worker_is_killed_by_a_third_signal(self) -> None:
        """It cannot read the command of the parent."""
        with workers(*_TCP) as parent:
            end = os.pidfd_open(parent.pids[1])
            os.kill(parent.pids[1], signal.SIGSTOP)
            for line in ("stopping 2 workers", "SIGTERM again: ending at once"):
                parent.process.terminate()
                parent.process.wait_for(line)
            parent.process.terminate()
            self.assertEqual(parent.process.wait(), -signal.SIGTERM)
            self.assertTrue(select.select([end], [], [], PATIENCE)[0], "a worker is left")
            os.close(end)


class ReplacementTests(SynchronousTestCase):
    """SIGHUP."""

    def test_workers_are_replaced_without_a_failed_connection(self) -> None:
        """One by one, under a storm of connections; a connection from before drains."""
        with workers(*_TCP) as parent, connect(parent.port) as connection:
            exchange(connection)
            old = dict(parent.pids)
            with Storm(parent.port) as storm:
                parent.process.process.send_signal(signal.SIGHUP)
                numbers = [parent.wait_for_worker(), parent.wait_for_worker()]
                self.assertEqual(connection.recv(100), b"")
                for pid in old.values():
                    while is_running(pid):
                        time.sleep(0.01)
            self.assertEqual(storm.failures, [])
            self.assertGreater(storm.served, 50)
            self.assertEqual(numbers, [1, 2])
            self.assertFalse(set(old.values()) & set(parent.pids.values()))

    @_thorough
    def test_a_worker_that_cannot_start_leaves_the_old_one(self) -> None:
        """One line says why; the next SIGHUP tries again."""
        with twistd("twsock-stream", *_TCP, "--tls", "--workers", "1") as process:
            parent = Parent(process, 1, _TCP)
            (folder,) = process.folder.glob("**/server.pem")
            hidden = folder.rename(folder.with_suffix(".old"))
            folder.write_text("no certificate")
            process.process.send_signal(signal.SIGHUP)
            line = process.wait_for("(worker 1 cannot start: .*)")
            self.assertIn("; no further worker is replaced, and the running workers go on", line)
            self.assertTrue(is_running(parent.pids[1]))
            hidden.rename(folder)
            process.process.send_signal(signal.SIGHUP)
            self.assertEqual(parent.wait_for_worker(), 1)


class EndpointTests(SynchronousTestCase):
    """Endpoints whose sockets workers cannot have."""

    def problem(self, endpoint: Any) -> str:
        """Return why a service with such an endpoint does not start."""
        reactor = MemoryReactorClock()
        inner = ListeningService(reactor, [("plugin:1", endpoint)])
        program = WorkerProgram((), "/")
        service = WorkersService(reactor, inner, [ListeningSockets()], program)
        self.addCleanup(process_signals.discard, service)
        return str(self.assertRaises(StartError, service.privilegedStartService))

    def test_an_endpoint_that_opens_its_own_socket_is_refused(self) -> None:
        """A worker would open another one."""

        class Own:
            def listen(self, factory: Any) -> Deferred[Any]:
                return succeed(OwnPort())

        class OwnPort:
            def getHost(self) -> IPv4Address:
                return IPv4Address("TCP", "127.0.0.1", 1)

            def stopListening(self) -> None:
                pass

        line = self.problem(Own())
        self.assertEqual(
            line, "twsock: --workers: plugin:1 opens a socket that workers cannot have"
        )

    def test_an_endpoint_that_listens_later_is_refused(self) -> None:
        """The parent has nothing to give to its workers."""

        class Late:
            def listen(self, factory: Any) -> Deferred[Any]:
                return Deferred()

        self.assertIn("an endpoint does not listen at once", self.problem(Late()))


class StartTests(SynchronousTestCase):
    """What is refused, and what a start leaves."""

    def refusal(self, *arguments: str, service: str = "twsock-stream") -> str:
        """Return the output of a start that fails."""
        with twistd(service, "--workers", "2", *arguments) as process:
            self.assertEqual(process.wait(), 1, process.log)
            return process.log

    def test_a_port_in_use_is_one_line(self) -> None:
        """Also if it could be shared: another service with workers has it."""
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            output = self.refusal("--endpoint", f"tcp:{port}:interface=127.0.0.1")
        self.assertIn(f"twsock: cannot listen on tcp:{port}:interface=127.0.0.1: ", output)
        self.assertNotIn("serves", output)

    @_thorough
    def test_a_udp_port_in_use_is_one_line(self) -> None:
        """Also if it could be shared."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            other.bind(("127.0.0.1", 0))
            endpoint = f"udp:{other.getsockname()[1]}:interface=127.0.0.1"
            output = self.refusal("--endpoint", endpoint, service="twsock-datagram")
        self.assertIn(f"twsock: cannot listen on {endpoint}: ", output)

    @_thorough
    def test_workers_change_their_group_and_user_as_the_parent_does(self) -> None:
        """The parent opens a low port before."""
        if os.getuid():
            raise SkipTest("only root may change its group")
        nobody = "65534"
        with twistd("--gid", nobody, "twsock-stream", *_TCP, "--workers", "1") as process:
            parent = Parent(process, 1, _TCP)
            status = Path(f"/proc/{parent.pids[1]}/status").read_text()
            self.assertRegex(status, rf"Gid:\t{nobody}\t{nobody}\t")
            self.assertEqual(echo(parent.port, b"hello"), b"hello")
            found = list(Path(f"/proc/{parent.pids[1]}/fd").iterdir())
            # Its pipes, its socket with the duplicate of the table, and those of its reactor.
            self.assertLess(len(found), 16)

    @_thorough
    def test_a_daemon_logs_for_its_workers(self) -> None:
        """In JSON, with the number of the worker; SIGTERM ends all of it."""
        arguments = ("--workers", "2", "--log-format", "json")
        with daemon("twsock-stream", "--endpoint", "unix:echo.sock", *arguments) as started:
            self.assertEqual((started.status, started.output), (0, ""))
            started.exchange("echo.sock")
            started.end(signal.SIGTERM)
            self.assertIn('"worker": 1', started.log)
            self.assertNotIn("Traceback", started.log)
            pids = re.findall(r"serves: process (\d+)", started.log)
            self.assertFalse([pid for pid in pids if is_running(int(pid))])
