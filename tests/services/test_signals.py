"""Signals of a service: SIGHUP reloads, a second SIGTERM ends the drain."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from tests.datagram.fake_ports import log_lines
from tests.services.processes import PATIENCE, twistd
from twsock.services.signals import hold_signals, process_signals

LOCAL = "tcp:0:interface=127.0.0.1"

#: An application with a service that never stops.
STUCK = """
from twisted.application.service import MultiService, Service
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.python.log import startLogging
from twsock.services import stream_service
import sys

class Stuck(Service):
    def stopService(self):
        return Deferred()

startLogging(sys.stdout)
services = MultiService()
stream_service(reactor, ["tcp:0:interface=127.0.0.1"]).setServiceParent(services)
Stuck().setServiceParent(services)
services.startService()
reactor.addSystemEventTrigger("before", "shutdown", services.stopService)
reactor.run()
"""


class Receiver:
    """A service that records its calls."""

    def __init__(self, told: list[str], name: str, has_files: bool = True) -> None:
        self.told, self.name, self.has_files = told, name, has_files

    def reload(self) -> bool:
        self.told.append(self.name)
        return self.has_files

    def hurry(self) -> None:
        self.told.append(f"hurry {self.name}")

    def kill(self) -> None:
        self.told.append(f"kill {self.name}")


class HangupTests(SynchronousTestCase):
    """SIGHUP of this process."""

    def setUp(self) -> None:
        self.hung_up: list[int] = []
        before = signal.signal(signal.SIGHUP, lambda number, _frame: self.hung_up.append(number))
        self.addCleanup(signal.signal, signal.SIGHUP, before)
        reactor: Any = MemoryReactorClock()
        reactor.callFromThread = lambda call: call()
        self.reactor = reactor

    def test_outside_the_main_thread_no_handler_is_set(self) -> None:
        """Python allows handlers in the main thread only; the service starts all the same."""
        raised: list[BaseException] = []

        def start() -> None:
            receiver = Receiver([], "threaded")
            try:
                process_signals.add(self.reactor, receiver)
                process_signals.discard(receiver)
            except BaseException as error:  # noqa: BLE001 - passed to the test, which fails
                raised.append(error)

        before = signal.getsignal(signal.SIGHUP)
        thread = threading.Thread(target=start)
        thread.start()
        thread.join()
        self.assertEqual(raised, [])
        self.assertIs(signal.getsignal(signal.SIGHUP), before)

    def test_sighup_reloads_each_service_of_the_process(self) -> None:
        """While it runs; after the last one, SIGHUP has its earlier handler."""
        told: list[str] = []
        first, second = Receiver(told, "first"), Receiver(told, "second")
        process_signals.add(self.reactor, first)
        process_signals.add(self.reactor, second)
        signal.raise_signal(signal.SIGHUP)
        process_signals.discard(first)
        signal.raise_signal(signal.SIGHUP)
        process_signals.discard(second)
        process_signals.discard(second)
        signal.raise_signal(signal.SIGHUP)
        self.assertEqual(told, ["first", "second", "second"])
        self.assertEqual(self.hung_up, [signal.SIGHUP] * 3)

    def test_sighup_without_anything_to_reload_is_one_line(self) -> None:
        """One line for all services of the process."""
        for name in ("first", "second"):
            receiver = Receiver([], name, has_files=False)
            process_signals.add(self.reactor, receiver)
            self.addCleanup(process_signals.discard, receiver)
        with log_lines() as lines:
            signal.raise_signal(signal.SIGHUP)
        self.assertEqual(lines, ["SIGHUP: no service here has certificates to read again"])

    def test_handlers_of_the_application_stay(self) -> None:
        """The service replaces the reactor's own handler of SIGTERM only."""
        before = signal.getsignal(signal.SIGTERM)
        receiver = Receiver([], "only")
        process_signals.add(self.reactor, receiver)
        self.addCleanup(process_signals.discard, receiver)
        self.reactor.run()
        self.assertIs(signal.getsignal(signal.SIGTERM), before)


class StopTests(SynchronousTestCase):
    """SIGTERM and SIGINT of a process."""

    def run_forked(self, work: Callable[[], object]) -> int:
        """Do something in a child process; return its wait status."""
        child = os.fork()
        if child == 0:
            try:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                work()
            finally:
                os._exit(3)
        return os.waitpid(child, 0)[1]

    def test_a_worker_ignores_both(self) -> None:
        """Its parent stops it, and a terminal sends them to both."""

        def work() -> None:
            process_signals.follow_parent()
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.raise_signal(number)
            os._exit(0)

        self.assertEqual(self.run_forked(work), 0)

    def test_a_worker_ignores_both_while_its_reactor_runs(self) -> None:
        """The reactor sets handlers of its own at its start."""

        def work() -> None:
            process_signals.follow_parent()
            reactor = self.running_reactor([])
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.raise_signal(number)
            os._exit(len(reactor.stopped))

        self.assertEqual(self.run_forked(work), 0)

    def test_a_worker_drops_signals_from_before_its_reactor_ran(self) -> None:
        """Its parent has blocked them; afterwards, they are not blocked for its own children."""

        def work() -> None:
            told: list[str] = []
            with hold_signals():
                process_signals.follow_parent()
                for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                    signal.raise_signal(number)
                reactor = self.running_reactor(told)
                blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
            # A signal that was blocked is handled now: SIGHUP.
            os._exit(0 if (reactor.stopped, told, blocked) == ([], ["parent"], set()) else 4)

        self.assertEqual(self.run_forked(work), 0)

    def test_a_third_signal_kills_what_services_have_started(self) -> None:
        """The second one hurries, and the process ends by the third one."""
        told: list[str] = []

        def work() -> None:
            reactor = self.running_reactor(told)
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
            if (reactor.stopped, told) != ([signal.SIGTERM], ["hurry parent"]):
                os._exit(4)
            exits: Any = lambda _: os._exit(5)  # noqa: E731
            self.patch(Receiver, "kill", exits)
            signal.raise_signal(signal.SIGTERM)

        self.assertEqual(os.waitstatus_to_exitcode(self.run_forked(work)), 5)

    def running_reactor(self, told: list[str]) -> Any:
        """Return a reactor with handlers, after a service was added to it."""
        reactor = StoppingReactor()
        process_signals.add(reactor, Receiver(told, "parent"))
        signal.signal(signal.SIGTERM, reactor.handle)
        reactor.run()
        return reactor


class StoppingReactor(MemoryReactorClock):
    """A reactor with a handler of SIGTERM."""

    def __init__(self) -> None:
        super().__init__()
        self.stopped: list[int] = []
        self.callFromThread: Any = lambda call, *arguments: call(*arguments)

    def handle(self, number: int, _frame: object) -> None:
        self.stopped.append(number)


class TwistdTests(SynchronousTestCase):
    """Signals of real processes."""

    def test_every_service_survives_sighup(self) -> None:
        """It continues to serve, and ends in order on SIGTERM."""
        for arguments in (
            ["twsock-stream", "-e", LOCAL],
            ["twsock-datagram", "-e", "udp:0:interface=127.0.0.1"],
            ["twsock-multicast", "-e", "multicast:224.3.0.5:0:interface=lo"],
        ):
            with twistd(*arguments) as server:
                server.wait_for("listening on")
                server.process.send_signal(signal.SIGHUP)
                server.wait_for("SIGHUP: no service here has certificates")
                server.terminate()
                self.assertEqual(server.wait(), -signal.SIGTERM, f"{arguments=}")
                self.assertIn("stopped: ", server.log, f"{arguments=}: {server.log}")

    def end_twice(self, first: int, second: int) -> None:
        """Send a signal, and another while a peer in the middle of a frame delays the drain."""
        arguments = ["--endpoint", LOCAL, "--drain-timeout", "1000"]
        with twistd("twsock-stream", *arguments) as server:
            (port,) = server.wait_for_ports()
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
                connection.sendall(b"\x00\x00\x00\x01x\x00\x00")
                connection.recv(5)
                server.process.send_signal(first)
                server.wait_for("stopping: 1 connections")
                server.process.send_signal(second)
                self.assertRaises(ConnectionResetError, connection.recv, 1)
            self.assertEqual(server.wait(), -first)
            self.assertIn(" 1 aborted", server.log)
            self.assertNotIn("Traceback", server.log)

    def test_a_second_sigterm_ends_the_drain(self) -> None:
        """
        Connections that are left are aborted, and the process ends by the signal, without a
        traceback.
        """
        self.end_twice(signal.SIGTERM, signal.SIGTERM)

    def test_a_second_interrupt_ends_the_drain(self) -> None:
        """Ctrl-C twice."""
        self.end_twice(signal.SIGINT, signal.SIGINT)

    def test_two_signals_at_once_end_without_a_drain(self) -> None:
        """The second may arrive before the reactor has handled the first."""
        arguments = ["--endpoint", LOCAL, "--drain-timeout", "1000"]
        with twistd("twsock-stream", *arguments) as server:
            (port,) = server.wait_for_ports()
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
                connection.sendall(b"\x00\x00\x00\x01x\x00\x00")
                connection.recv(5)
                for number in (signal.SIGSTOP, signal.SIGINT, signal.SIGTERM, signal.SIGCONT):
                    server.process.send_signal(number)
                self.assertRaises(ConnectionResetError, connection.recv, 1)
            self.assertLess(server.wait(), 0)
            self.assertNotIn("Traceback", server.log)

    def test_a_third_signal_ends_a_process_that_hangs(self) -> None:
        """Also if another service of the application never stops."""
        with subprocess.Popen(
            [sys.executable, "-c", STUCK],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            # If the signals do nothing, this is a failure; the test run does not hang.
            patience = threading.Timer(PATIENCE, process.kill)
            patience.start()
            self.addCleanup(patience.cancel)
            assert process.stdout is not None
            for line in ("listening on", "Received SIGTERM", "ending at once"):
                while line not in (found := process.stdout.readline()):
                    self.assertTrue(found, f"it ended without {line!r}")
                process.terminate()
            self.assertNotIn("Traceback", process.stdout.read())
            self.assertEqual(process.wait(PATIENCE), -signal.SIGTERM)
