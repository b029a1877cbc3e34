"""The command ``twsock restart``: an old process that the test plays, and real new processes."""

from __future__ import annotations

import contextlib
import io
import os
import select
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.cli.conversations import PATIENCE
from twsock.cli.arguments import RestartArguments
from twsock.cli.output import CommandError, Output
from twsock.cli.restart import environment_for, restart
from twsock.restart.records import (
    Moved,
    Restarted,
    RestartFailed,
    RestartPacket,
    RestartRefused,
    Watch,
    Watching,
    decode_restart,
    encode_restart,
)

#: Says that it runs, and waits; ends by SIGTERM.
WAITS = "echo $$ > started; exec sleep 1000"


class OldProcess:
    """
    A control socket that the test answers.

    :param play: called in a thread with the first connection.
    """

    def __init__(self, path: Path, play: Callable[[OldProcess], None]) -> None:
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(str(path))
        self.listener.listen()
        self._thread = threading.Thread(target=self._run, args=(play,), daemon=True)
        self._thread.start()

    def _run(self, play: Callable[[OldProcess], None]) -> None:
        with contextlib.suppress(OSError):
            self.connection = self.accept()
            with self.connection:
                play(self)

    def accept(self) -> socket.socket:
        connection, _ = self.listener.accept()
        connection.settimeout(PATIENCE)
        return connection

    def read(self) -> RestartPacket:
        return decode_restart(self.connection.recv(1_000))

    def send(self, *packets: RestartPacket) -> None:
        for packet in packets:
            self.connection.send(encode_restart(packet))

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)
        self.listener.close()


def answering(*packets: RestartPacket, started: bool = True) -> Callable[[OldProcess], None]:
    """Play an old process that answers the observer, then sends packets once a program runs."""

    def play(old: OldProcess) -> None:
        assert old.read() == Watch()
        old.send(Watching(99))
        if started:
            wait_for_file("started", old)
        old.send(*packets)
        old.connection.recv(1)

    return play


def wait_for_file(name: str, old: OldProcess) -> None:
    """Wait until a program has written a line to a file, or the command has ended."""
    path = Path(name)
    while not select.select([old.connection], [], [], 0.001)[0]:
        if path.exists() and path.read_text().endswith("\n"):
            return


def runs(process: int) -> bool:
    """Return whether a process runs; one that nobody has reaped yet does not."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0]
    except FileNotFoundError:
        return False
    return state != "Z"


class RestartTests(SynchronousTestCase):
    """The command in this process."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        before = Path.cwd()
        os.chdir(folder.name)
        self.addCleanup(os.chdir, before)

    @contextlib.contextmanager
    def old(self, play: Callable[[OldProcess], None]) -> Iterator[OldProcess]:
        old = OldProcess(Path("control"), play)
        try:
            yield old
        finally:
            old.close()

    def run_command(self, script: str, **settings: Any) -> str:
        """Restart with a shell script as the program; return the output."""
        return self.run_program("sh", "-c", script, **settings)

    def run_program(self, *command: str, timeout: float = PATIENCE, **settings: Any) -> str:
        output = io.BytesIO()
        arguments = RestartArguments(control="control", command=command, timeout=timeout)
        restart(arguments, Output(output), **settings)
        return output.getvalue().decode()

    def fails(self, script: str, **settings: Any) -> CommandError:
        """Run a restart that fails; the program has ended then."""
        failed: Any = self.assertRaises(CommandError, self.run_command, script, **settings)
        if Path("started").exists() and (process := Path("started").read_text().strip()):
            self.assertFalse(runs(int(process)), f"process {process} runs")
        error: CommandError = failed
        return error

    def test_a_restart_is_one_line_with_both_processes(self) -> None:
        """The new process goes on when the command has ended."""
        for draining, words in ((0, "0 connections"), (1, "1 connection"), (3, "3 connections")):
            Path("started").unlink(missing_ok=True)
            Path("control").unlink(missing_ok=True)
            with self.old(answering(Restarted(123), Moved(5, draining))):
                shown = self.run_command(WAITS)
            process = int(Path("started").read_text())
            self.assertTrue(runs(process))
            os.kill(process, signal.SIGTERM)
            expected = f"process 123 serves now, process 99 drains {words}\n"
            self.assertEqual(shown, expected, f"{draining=}")

    def test_an_old_process_without_numbers_is_a_success(self) -> None:
        """It has ended right after the restart."""

        def play(old: OldProcess) -> None:
            old.read()
            old.send(Watching(99))
            wait_for_file("started", old)
            old.send(Restarted(123))

        with self.old(play):
            shown = self.run_command("echo > started")
        self.assertEqual(shown, "process 123 serves now, process 99 drains its connections\n")

    def test_a_daemon_ends_early(self) -> None:
        """The command waits for the process that the daemon left."""
        with self.old(answering(Restarted(123), Moved(0, 0))):
            self.assertIn("process 123 serves now", self.run_command("echo $$ > started; exit 0"))

    def test_the_program_has_its_own_session_and_no_input(self) -> None:
        """Ctrl-C of the terminal does not reach it; no shell runs."""
        program = (
            "import os, sys; from pathlib import Path; "
            "told = os.getsid(0) == os.getpid(), sys.stdin.read(), *sys.argv[1:], "
            "'WATCHDOG_PID' in os.environ; "
            "Path('told').write_text(str(told)); Path('started').write_text('0\\n')"
        )
        self.patch(os, "environ", {**os.environ, "WATCHDOG_PID": "1"})
        with self.old(answering(Restarted(123), Moved(0, 0))):
            self.run_program(sys.executable, "-c", program, "$HOME")
        self.assertEqual(Path("told").read_text(), "(True, '', '$HOME', False)")

    def test_a_failure_of_the_restart_has_its_reason(self) -> None:
        """The new process is ended, and the old one goes on."""
        for packet in (RestartFailed("another user"), RestartRefused("another user")):
            Path("started").unlink(missing_ok=True)
            Path("control").unlink(missing_ok=True)
            with self.old(answering(packet)):
                error = self.fails(WAITS, end_timeout=0.1)
            line = "the restart failed: another user; process 99 goes on"
            self.assertEqual((error.line, error.exit_code), (line, 1), f"{packet=}")

    def test_a_program_that_ends_by_itself_may_say_why(self) -> None:
        """It is not ended before that, and its status is reported."""
        with self.old(answering(RestartFailed("it has ended"))):
            error = self.fails("echo $$ > started; sleep 0.1; echo why > said; exit 3")
        self.assertEqual(error.line, "sh ended with status 3 before it served; process 99 goes on")
        self.assertTrue(Path("said").exists())

    def test_an_unexpected_packet_is_a_failure(self) -> None:
        """Its sender is no old process of a restart."""
        with self.old(answering(Moved(1, 2))):
            self.assertIn("unexpected answer Moved", self.fails(WAITS).line)

    def test_a_program_that_fails_is_named_with_its_status(self) -> None:
        """Or with its signal; the reason is in its own output."""
        for script, how in (
            ("exit 3", "sh ended with status 3"),
            ("kill -KILL $$", "sh was ended by SIGKILL"),
        ):
            Path("control").unlink(missing_ok=True)
            with self.old(answering(started=False)):
                error = self.fails(script)
            line = f"{how} before it served; process 99 goes on"
            self.assertEqual((error.line, error.exit_code), (line, 1), f"{script=}")

    def test_the_status_is_known_even_if_this_command_ignores_the_end_of_children(self) -> None:
        """As a program does whose parent ignores SIGCHLD."""
        before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        self.addCleanup(signal.signal, signal.SIGCHLD, before)
        with self.old(answering(started=False)):
            self.assertIn("sh ended with status 3", self.fails("exit 3").line)
        self.assertIs(signal.getsignal(signal.SIGCHLD), signal.SIG_IGN)

    def test_a_program_that_cannot_be_started_is_one_line(self) -> None:
        """The reason is that of the system."""
        for name, reason in (("missing", "No such file or directory"), ("nul\0", "embedded null")):
            Path("control").unlink(missing_ok=True)
            with self.old(answering(started=False)):
                error = self.assertRaises(CommandError, self.run_program, name)
            self.assertIn(f"cannot start {name}: {reason}", str(error), f"{name=}")

    def test_a_late_program_is_ended(self) -> None:
        """By its id; with SIGKILL if it ignores SIGTERM."""
        for script in (WAITS, f"trap '' TERM; {WAITS}"):
            Path("started").unlink(missing_ok=True)
            Path("control").unlink(missing_ok=True)
            with self.old(answering()):
                error = self.fails(script, timeout=0.2, end_timeout=0.1)
            self.assertEqual(
                error.line, "sh does not serve within 0.2 s; process 99 goes on", f"{script=}"
            )

    def test_ctrl_c_ends_the_program(self) -> None:
        """The exit status is that of the signal; the handlers are restored."""
        before = signal.getsignal(signal.SIGINT)
        for name, status in (("INT", 130), ("TERM", 143)):
            Path("started").unlink(missing_ok=True)
            Path("control").unlink(missing_ok=True)
            with self.old(answering()):
                error = self.fails(
                    f"echo $$ > started; kill -{name} {os.getpid()}; exec sleep 1000"
                )
            line = f"SIG{name}: process 99 goes on"
            self.assertEqual((error.line, error.exit_code), (line, status), f"{name=}")
        self.assertIs(signal.getsignal(signal.SIGINT), before)

    def test_after_a_restart_the_program_has_another_parent(self) -> None:
        """As systemd wants to be the parent, before the old process names the new one."""
        parents = []

        def play(old: OldProcess) -> None:
            answering(Restarted(123), Moved(0, 0))(old)
            status = Path(f"/proc/{Path('started').read_text().strip()}/stat").read_text()
            parents.append(int(status.rpartition(") ")[2].split()[1]))

        with self.old(play):
            self.run_command(WAITS)
        os.kill(int(Path("started").read_text()), signal.SIGTERM)
        self.assertNotIn(os.getpid(), parents)
        commands = [Path(f"/proc/{each}/cmdline").read_bytes() for each in parents]
        self.assertEqual([each for each in commands if b"_parent.py" in each], [])
        self.assertEqual(len(commands), 1)

    def test_without_a_service_nothing_is_started(self) -> None:
        """One line says what to do."""
        without = "start the service without twsock restart: sh -c 'echo > started'"
        for make, reason in (
            (lambda: None, f"no service runs there; {without}"),
            (lambda: socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET), without),
            (lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), "wrong type"),
            (lambda: Path("control").write_text(""), "it is not a socket"),
        ):
            Path("control").unlink(missing_ok=True)
            made: Any = make()
            if isinstance(made, socket.socket):
                made.bind("control")
                if made.type is socket.SOCK_STREAM:
                    made.listen()
            error = self.fails("echo > started")
            if isinstance(made, socket.socket):
                made.close()
            self.assertTrue(error.line.startswith("cannot restart at control: "), error.line)
            self.assertIn(reason, error.line)
            self.assertFalse(Path("started").exists(), f"{reason=}")

    def test_a_path_that_is_too_long_is_one_line(self) -> None:
        """A UNIX socket has 107 bytes for it."""
        arguments = RestartArguments(control="x" * 200, command=["true"], timeout=1)
        error = self.assertRaises(CommandError, restart, arguments, Output(io.BytesIO()))
        self.assertIn("too long", str(error))

    def test_a_foreign_program_at_the_path_is_refused(self) -> None:
        """It answers something else, nothing, or ends the connection; nothing is started."""

        def foreign(old: OldProcess) -> None:
            old.connection.send(b"SSH-2.0")
            old.connection.recv(1_000)

        def silent(old: OldProcess) -> None:
            while old.connection.recv(1_000):
                pass

        for play, reason in (
            (foreign, "is it the control socket of another program?"),
            (silent, "the process does not answer within 0.2 s"),
            (lambda _: None, "the process ended the connection"),
            (lambda old: old.send(RestartRefused("not now")), "not now"),
            (lambda old: old.send(Restarted(1)), "the process"),
        ):
            Path("control").unlink(missing_ok=True)
            with self.old(play):
                error = self.fails("echo > started", timeout=0.2 if play is silent else PATIENCE)
            self.assertIn(reason, error.line)
            self.assertFalse(Path("started").exists(), f"{reason=}")

    def test_a_new_process_that_goes_on_alone_is_found(self) -> None:
        """The old one was killed after it had sent its sockets."""

        def play(old: OldProcess) -> None:
            old.read()
            old.send(Watching(99))
            wait_for_file("started", old)
            old.connection.close()
            with old.accept() as old.connection:
                old.read()
                old.send(Watching(123))

        with self.old(play):
            shown = self.run_command("echo 0 > started; exit 0")
        self.assertEqual(shown, "process 123 serves now, process 99 has ended\n")

    def test_an_old_process_that_ends_without_a_new_one_is_a_failure(self) -> None:
        """The program is not ended, since nothing else could serve."""

        def play(old: OldProcess) -> None:
            old.read()
            old.send(Watching(99))
            wait_for_file("started", old)
            Path("control").unlink()

        with self.old(play):
            error = self.assertRaises(CommandError, self.run_command, WAITS)
        self.assertEqual(str(error), "process 99 has ended, and no process has taken over")
        process = int(Path("started").read_text())
        self.assertTrue(runs(process))
        os.kill(process, signal.SIGTERM)

    def test_a_new_process_that_ends_at_once_is_a_failure(self) -> None:
        """It has taken over, and was killed; the old one serves again."""
        with self.old(answering(Restarted(123), RestartFailed("it has ended"))):
            error = self.assertRaises(CommandError, self.run_command, "echo > started")
        line = "the new process has served, but it has ended; process 99 goes on"
        self.assertEqual(str(error), line)


class EnvironmentTests(SynchronousTestCase):
    """What the new process learns about the service manager."""

    def make_process(self, name: str, unit: str, **variables: str) -> None:
        folder = Path(self.proc, name)
        folder.mkdir(parents=True)
        pairs = (f"{key}={value}".encode() for key, value in variables.items())
        (folder / "environ").write_bytes(b"\0".join(pairs))
        (folder / "cgroup").write_text(f"1:cpu:/x.scope\n0::/system.slice/{unit}\n")

    def setUp(self) -> None:
        self.proc = self.mktemp()

    def environment(self, **variables: str) -> dict[str, str]:
        return environment_for(99, variables, Path(self.proc))

    def test_the_socket_of_the_old_process_is_passed(self) -> None:
        """With ``NotifyAccess=main``, systemd passes it to the main process only."""
        given = {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "5", "WATCHDOG_PID": "99"}
        self.make_process("99", "echo.service", SECRET="x", **given)
        self.make_process("self", "echo.service/.control")
        expected = {"A": "1", "NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "5"}
        self.assertEqual(self.environment(A="1"), expected)

    def test_the_own_socket_comes_first(self) -> None:
        """A watchdog for this command is one for the new process."""
        own = {"NOTIFY_SOCKET": "/run/own", "WATCHDOG_USEC": "7"}
        self.make_process("99", "echo.service", NOTIFY_SOCKET="/run/notify")
        self.assertEqual(self.environment(**own, WATCHDOG_PID="1"), own)

    def test_the_watchdog_of_the_old_process_is_passed_with_the_own_socket(self) -> None:
        """With ``NotifyAccess=all``, systemd passes the socket alone; not with another socket."""
        given = {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "5", "WATCHDOG_PID": "99"}
        self.make_process("99", "echo.service", **given)
        expected = {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "5"}
        self.assertEqual(self.environment(NOTIFY_SOCKET="/run/notify"), expected)
        other = {"NOTIFY_SOCKET": "/run/other"}
        self.assertEqual(self.environment(**other), other)

    def test_without_a_service_manager_nothing_is_added(self) -> None:
        """The old process has none, has ended, or belongs to another user."""
        self.assertEqual(self.environment(A="1"), {"A": "1"})
        self.make_process("99", "echo.service")
        self.make_process("self", "ssh.service")
        self.assertEqual(self.environment(A="1"), {"A": "1"})

    def test_a_process_outside_of_the_unit_is_refused(self) -> None:
        """Otherwise systemd keeps the old main process, and ends the service with it."""
        self.make_process("99", "echo.service", NOTIFY_SOCKET="/run/notify")
        self.make_process("self", "session-1.scope")
        error = self.assertRaises(CommandError, self.environment)
        self.assertIn("run systemctl reload echo.service", str(error))
