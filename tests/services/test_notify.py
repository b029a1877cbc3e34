"""Messages to the service manager: from a notifier, and from real processes of ``twistd``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.datagram.fake_ports import log_lines
from tests.services.notify_socket import Message, NotifySocket
from tests.services.processes import daemon, twistd
from twsock.services.notify import Notifier

LOCAL = "tcp:0:interface=127.0.0.1"


def assignments(messages: list[Message]) -> list[list[str]]:
    """Return what the messages assign, without texts and times."""
    variable = ("STATUS", "MONOTONIC_USEC")
    return [
        [f"{name}={value}" for name, value in each.fields.items() if name not in variable]
        for each in messages
    ]


@contextmanager
def child() -> Iterator[int]:
    """Run a process whose parent is this one, for as long as the block; yields its process id."""
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        yield process.pid


class NotifierTests(SynchronousTestCase):
    """A notifier and the socket of a service manager."""

    def setUp(self) -> None:
        self.manager = NotifySocket()
        self.addCleanup(self.manager.__exit__, None, None, None)
        self.clock = Clock()

    def make_notifier(self, **variables: str) -> Notifier:
        notifier = Notifier()
        notifier.take_environment({**self.manager.environment, **variables})
        self.addCleanup(notifier.notify_stopping, 0)
        return notifier

    def start(self, **variables: str) -> Notifier:
        """Make a notifier that has reported the start."""
        notifier = self.make_notifier(**variables)
        notifier.start(self.clock, lambda: "listening on tcp:1337")
        self.started = self.manager.receive()
        return notifier

    def sent(self) -> list[list[str]]:
        return assignments(self.manager.take_all())

    def test_the_start_is_reported_with_a_status(self) -> None:
        """In one message."""
        self.start()
        expected = {"READY": "1", "STATUS": "listening on tcp:1337"}
        self.assertEqual(self.started.fields, expected)

    def test_an_abstract_name_begins_with_an_at_sign(self) -> None:
        """Such as those of systemd in a container."""
        with NotifySocket(is_abstract=True) as manager:
            notifier = Notifier()
            notifier.take_environment(manager.environment)
            notifier.notify_ready()
            self.assertEqual(manager.receive().fields["READY"], "1")

    def test_the_variables_are_removed(self) -> None:
        """Other programs that the service starts would report in its place."""
        environment = {**self.manager.environment, "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}
        Notifier().take_environment(environment)
        self.assertEqual(environment, {})

    def test_without_a_service_manager_nothing_is_sent(self) -> None:
        """And nothing is logged."""
        notifier = Notifier()
        notifier.take_environment({"WATCHDOG_USEC": "2000000"})
        with log_lines() as lines:
            notifier.start(self.clock, str)
            notifier.notify_reloading()
            notifier.notify_main_process(1)
            notifier.notify_stopping(1)
        self.assertEqual((lines, self.clock.getDelayedCalls()), ([], []))

    def test_a_name_that_is_neither_a_path_nor_abstract_is_refused(self) -> None:
        """One line; the service runs without reports."""
        for name in ("vsock:2:1234", "@", "/", "notify"):
            notifier = Notifier()
            with log_lines() as lines:
                notifier.take_environment({"NOTIFY_SOCKET": name})
                notifier.notify_ready()
            self.assertEqual(len(lines), 1, f"{name=}: {lines}")
            self.assertIn(f"NOTIFY_SOCKET is {name!r}", lines[0])

    def test_a_failure_to_send_is_one_line(self) -> None:
        """Also if further messages fail; a failure after a success is logged again."""
        notifier = self.start()
        self.manager.__exit__(None, None, None)
        with log_lines() as lines:
            notifier.notify_reloading()
            notifier.notify_ready()
        reason = "No such file or directory"
        self.assertEqual(
            lines, [f"cannot notify the service manager at {self.manager.name}: {reason}"]
        )

    def test_a_full_queue_does_not_block_the_service_for_ever(self) -> None:
        """A message waits a short time; one for the watchdog does not wait."""
        notifier = Notifier(patience=0.01)
        notifier.take_environment({**self.manager.environment, "WATCHDOG_USEC": "2000000"})
        notifier.start(self.clock, str)
        full = f"cannot notify the service manager at {self.manager.name}: its queue is full"
        with log_lines() as lines:
            while not lines:
                notifier.notify_ready()
            self.manager.receive()
            notifier.notify_ready()
            self.clock.advance(1)
        self.assertEqual(lines, [full, full])
        notifier.notify_stopping(0)

    def test_a_reload_has_the_time_of_its_beginning(self) -> None:
        """With ``Type=notify-reload``, systemd drops a report of an earlier reload."""
        notifier = self.start()
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000
        notifier.notify_reloading()
        notifier.notify_ready()
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000
        reloading, ready = self.manager.take_all()
        self.assertEqual(reloading.fields["RELOADING"], "1")
        self.assertTrue(before <= int(reloading.fields["MONOTONIC_USEC"]) <= after)
        self.assertEqual(ready.fields["READY"], "1")

    def test_before_the_start_and_after_the_stop_a_reload_is_not_reported(self) -> None:
        """READY=1 would say that all services listen."""
        notifier = self.make_notifier()
        notifier.notify_reloading()
        notifier.notify_stopping(0)
        notifier.notify_reloading()
        notifier.notify_ready()
        notifier.notify_stopping(0)
        self.assertEqual(self.sent(), [["STOPPING=1", "EXTEND_TIMEOUT_USEC=5000000"]])

    def test_the_stop_asks_for_the_time_of_the_drain(self) -> None:
        """Otherwise systemd kills a longer drain. Any number of seconds fits."""
        for seconds, expected in ((12.5, 17_500_000), (1e300, 2**63)):
            notifier = self.start()
            notifier.notify_stopping(seconds)
            (message,) = self.manager.take_all()
            self.assertEqual(message.fields["EXTEND_TIMEOUT_USEC"], str(expected), f"{seconds=}")
            self.assertIn(f"{seconds:g} s", message.fields["STATUS"])

    def test_a_replaced_process_reports_the_new_one_and_then_nothing(self) -> None:
        """Its stop is not the stop of the service."""
        notifier = self.start()
        notifier.notify_reloading()
        notifier.notify_main_process(4711)
        notifier.notify_reloading()
        notifier.notify_main_process(4712)
        notifier.notify_stopping(1)
        self.assertEqual(self.sent(), [["RELOADING=1"], ["MAINPID=4711", "READY=1"]])

    def test_a_new_process_is_reported_when_the_service_manager_is_its_parent(self) -> None:
        """Not before: systemd would not wait for its drain at a stop."""
        notifier = self.start()
        with child() as process:
            reported = notifier.notify_adopted_process(self.clock, process)
            notifier.notify_stopping(1)
            self.clock.advance(0.02)
            self.assertEqual(self.sent(), [])
            self.assertNoResult(reported)
        self.clock.advance(0.02)
        self.assertEqual(self.sent(), [[f"MAINPID={process}", "READY=1"]])
        self.successResultOf(reported)

    def test_a_new_process_with_the_same_parent_is_reported_at_once(self) -> None:
        """As this one has itself."""
        notifier = self.start()
        self.successResultOf(notifier.notify_adopted_process(self.clock, os.getpid()))
        self.assertEqual(self.sent(), [[f"MAINPID={os.getpid()}", "READY=1"]])

    def test_a_new_process_with_another_parent_is_reported_after_five_seconds(self) -> None:
        """It was started by hand, and serves."""
        notifier = self.start()
        with child() as process:
            reported = notifier.notify_adopted_process(self.clock, process)
            self.clock.pump([0.02] * 249)
            self.assertEqual(self.sent(), [])
            self.clock.pump([0.02] * 2)
            self.assertEqual(self.sent(), [[f"MAINPID={process}", "READY=1"]])
        self.successResultOf(reported)

    def test_a_new_process_that_is_replaced_or_killed_is_not_reported(self) -> None:
        """The old process serves again, or another one has taken over."""
        notifier = self.start()
        with child() as process:
            first = notifier.notify_adopted_process(self.clock, process)
            notifier.notify_ready()
            second = notifier.notify_adopted_process(self.clock, 2**22 + 1)
        self.clock.advance(0.02)
        for each in (first, second):
            self.successResultOf(each)
        expected = [[f"MAINPID={os.getpid()}", "READY=1"], [f"MAINPID={2**22 + 1}", "READY=1"]]
        self.assertEqual(self.sent(), expected)

    def test_a_process_that_serves_again_is_the_main_one(self) -> None:
        """The process that had taken over was killed."""
        notifier = self.start()
        notifier.notify_main_process(4711)
        notifier.notify_ready()
        notifier.notify_stopping(0)
        expected = [
            ["MAINPID=4711", "READY=1"],
            [f"MAINPID={os.getpid()}", "READY=1"],
            ["STOPPING=1", "EXTEND_TIMEOUT_USEC=5000000"],
        ]
        self.assertEqual(self.sent(), expected)

    def test_a_long_status_fits_into_a_message(self) -> None:
        """The limit of systemd is 4,096 bytes. A line end would end the status."""
        notifier = self.make_notifier()
        notifier.start(self.clock, lambda: "two\nlines " + "🙂" * 5_000)
        message = self.manager.receive()
        self.assertTrue(message.fields["STATUS"].startswith("two lines 🙂"))
        self.assertLess(len(message.fields["STATUS"].encode()), 4_000)

    def test_the_watchdog_gets_a_message_at_half_of_its_interval(self) -> None:
        """From the start to the stop; none while another process is the main one."""
        notifier = self.start(WATCHDOG_USEC="2000000", WATCHDOG_PID=str(os.getpid()))
        self.assertEqual(self.sent(), [["WATCHDOG=1"]])
        self.clock.pump([1, 1])
        self.assertEqual(self.sent(), [["WATCHDOG=1"]] * 2)
        notifier.notify_main_process(4711)
        self.manager.take_all()
        self.clock.advance(1)
        self.assertEqual(self.sent(), [])
        notifier.notify_ready()
        self.clock.advance(1)
        self.assertEqual(self.sent()[1:], [["WATCHDOG=1"]])
        notifier.notify_stopping(0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_watchdog_of_another_process_gets_no_message(self) -> None:
        """Nor does one without a number, which is logged."""
        self.start(WATCHDOG_USEC="2000000", WATCHDOG_PID="1")
        for text in ("0", "-5", "soon"):
            with log_lines() as lines:
                self.start(WATCHDOG_USEC=text)
            self.assertEqual(lines, [f"no watchdog: WATCHDOG_USEC is {text!r}, not a number"])
        self.assertEqual((self.sent(), self.clock.getDelayedCalls()), ([], []))


class ProcessTests(SynchronousTestCase):
    """Real processes of ``twistd``."""

    def run_service(self, manager: NotifySocket, *arguments: str, **variables: str) -> Any:
        return twistd(*arguments, environment={**manager.environment, **variables})

    def test_start_reload_and_stop_are_reported(self) -> None:
        """In this order; the status names the ports."""
        with (
            NotifySocket() as manager,
            self.run_service(
                manager, "twsock-stream", "-e", LOCAL, "--drain-timeout", "200"
            ) as server,
        ):
            ready = manager.receive()
            self.assertIn("listening on tcp:127.0.0.1:", ready.fields["STATUS"])
            self.assertEqual(ready.process, server.process.pid)
            server.process.send_signal(signal.SIGHUP)
            reload = [manager.receive(), manager.receive()]
            server.terminate()
            self.assertEqual(server.wait(), -signal.SIGTERM, server.log)
            self.assertEqual(
                assignments([ready, *reload, *manager.take_all()]),
                [
                    ["READY=1"],
                    ["RELOADING=1"],
                    ["READY=1"],
                    ["STOPPING=1", "EXTEND_TIMEOUT_USEC=205000000"],
                ],
            )

    def test_a_service_that_cannot_start_is_never_ready(self) -> None:
        """Nothing is sent."""
        with (
            NotifySocket() as manager,
            self.run_service(manager, "twsock-stream", "-e", "unix:/missing/echo.sock") as server,
        ):
            self.assertEqual(server.wait(), 1)
            self.assertEqual(manager.take_all(), [])

    def test_a_daemon_reports_its_own_process_id(self) -> None:
        """The service manager knows only the process that it started, which has ended."""
        with (
            NotifySocket() as manager,
            daemon("twsock-stream", "-e", LOCAL, environment=manager.environment) as left,
        ):
            ready = manager.receive()
            process = int(left.pid_file.read_text())
            self.assertEqual((ready.process, ready.fields["MAINPID"]), (process, str(process)))
            left.end(signal.SIGTERM)
            self.assertEqual(manager.receive().fields["STOPPING"], "1")

    def test_the_reactor_answers_the_watchdog(self) -> None:
        """For every kind of service, while it runs."""
        with (
            NotifySocket() as manager,
            self.run_service(
                manager,
                *("twsock-datagram", "-e", "udp:0:interface=127.0.0.1"),
                WATCHDOG_USEC="20000",
            ) as server,
        ):
            manager.wait_for("READY")
            for _ in range(3):
                manager.wait_for("WATCHDOG")
            server.terminate()
            self.assertEqual(server.wait(), -signal.SIGTERM, server.log)
            self.assertEqual(manager.take_all()[-1].fields["STOPPING"], "1")
