"""``twsock restart`` with real services: as people run it, and as ``ExecReload=`` does."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import trustme
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.cli.conversations import command, environment
from tests.cli.test_restart import runs
from tests.machine import run_on_a_machine, why_no_machine
from tests.services.notify_socket import Message, NotifySocket
from tests.services.processes import PATIENCE, TWISTD, echo

LOCAL = ("-e", "tcp:0:interface=127.0.0.1")


def exchange(connection: socket.socket, payload: bytes = b"x") -> bytes:
    """Exchange one frame."""
    connection.sendall(struct.pack(">I", len(payload)) + payload)
    return connection.recv(4 + len(payload), socket.MSG_WAITALL)[4:]


class Installation:
    """
    A folder in which services run, one after the other; each has its log file there.

    :param arguments: those of ``twistd`` after its own options.
    :ivar first: the first process, which is ready.
    :ivar port: its TCP port.
    """

    def __init__(self, folder: str, manager: NotifySocket, arguments: Sequence[str]) -> None:
        self.folder = Path(folder)
        self.manager = manager
        self.arguments = [*arguments, "--control", "control"]
        self._count = 0
        self._processes: dict[int, int] = {}
        self._first = subprocess.Popen(
            self.service(),
            cwd=folder,
            env={**environment(), "XDG_STATE_HOME": folder, **manager.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.first = self.watch(manager.wait_for("READY").process)
        found = re.search(r"listening on tcp:.*?(\d+) \(", self.log(1))
        assert found is not None, self.log(1)
        self.port = int(found[1])

    def service(self, *options: str) -> list[str]:
        """Return the command line of the next process."""
        self._count += 1
        log = f"log.{self._count}"
        twistd = [sys.executable, "-c", TWISTD, "--pidfile=", "-n", "--logfile", log]
        return [*twistd, *self.arguments, *options]

    def watch(self, process: int) -> int:
        """Note a process, which is ended at the latest by `end`."""
        with contextlib.suppress(ProcessLookupError):
            self._processes[process] = os.pidfd_open(process)
        return process

    def log(self, number: int) -> str:
        """Return the log of a process, by its number from 1."""
        return (self.folder / f"log.{number}").read_text()

    def restart(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run ``twsock restart``; without words, for the next process of this service."""
        output = self.folder / "output"
        # A file: the new process keeps the output open.
        with output.open("w") as file:
            status = subprocess.run(
                command("restart", "--control", "control", "--", *(words or self.service())),
                cwd=self.folder,
                env={**environment(), "XDG_STATE_HOME": str(self.folder), **variables},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=PATIENCE,
                check=False,
            ).returncode
        shown = output.read_text()
        for new in re.findall(r"process (\d+) serves now", shown):
            self.watch(int(new))
        return subprocess.CompletedProcess(words, status, shown)

    def wait_for_end(self, process: int) -> None:
        """Wait until a process has ended."""
        ended, _, _ = select.select([self._processes[process]], [], [], PATIENCE)
        assert ended, f"process {process} runs"

    def end(self) -> None:
        """Kill what runs."""
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, signal.SIGKILL)
            os.close(process)
        self._first.kill()
        self._first.wait()


@contextlib.contextmanager
def installed(*arguments: str) -> Iterator[Installation]:
    """Run a service with ``--control``, and later ones, under a service manager."""
    with tempfile.TemporaryDirectory() as folder, NotifySocket() as manager:
        running = Installation(folder, manager, arguments)
        try:
            yield running
        finally:
            running.end()


class RestartTests(SynchronousTestCase):
    """One service and its successors."""

    def restart(self, service: Installation, old: int) -> tuple[int, list[Message]]:
        """Restart; return the new process and the messages up to its own."""
        result = service.restart()
        found = re.fullmatch(
            rf"process (\d+) serves now, process {old} drains 0 connections\n", result.stdout
        )
        assert found is not None, f"{result}"
        self.assertEqual(result.returncode, 0)
        new = int(found[1])
        messages = [service.manager.receive()]
        while messages[-1].process != new:
            messages.append(service.manager.receive())
        return new, messages

    def test_two_restarts_as_by_a_service_manager(self) -> None:
        """Each reports the new main process before that process reports itself."""
        with installed("twsock-stream", *LOCAL) as service:
            old = service.first
            with socket.create_connection(("127.0.0.1", service.port)) as connection:
                connection.settimeout(PATIENCE)
                self.assertEqual(exchange(connection), b"x")
                for _ in range(2):
                    new, messages = self.restart(service, old)
                    told = [
                        (each.process, name, value)
                        for each in messages
                        for name, value in each.fields.items()
                        if name in ("READY", "RELOADING", "MAINPID", "STOPPING")
                    ]
                    self.assertEqual(
                        told,
                        [
                            (old, "RELOADING", "1"),
                            (old, "MAINPID", str(new)),
                            (old, "READY", "1"),
                            (new, "READY", "1"),
                        ],
                    )
                    self.assertEqual(exchange(connection), b"x")
                    self.assertEqual(echo(service.port, b"new"), b"new")
                    service.wait_for_end(old)
                    old = new
                os.kill(old, signal.SIGTERM)
                stopping = service.manager.receive()
                self.assertEqual((stopping.process, stopping.fields["STOPPING"]), (old, "1"))
                service.wait_for_end(old)

    def test_after_a_failure_the_old_process_is_ready_again(self) -> None:
        """The new process cannot listen; its line is on the terminal."""
        with installed("twsock-stream", *LOCAL) as service:
            old = service.first
            result = service.restart(*service.service("-e", "unix:/missing/echo.sock"))
            self.assertEqual(result.returncode, 1, result.stdout)
            self.assertRegex(result.stdout, rf"(?m)^twsock: .*; process {old} goes on$")
            self.assertNotIn("Traceback", result.stdout)
            told = [service.manager.receive() for _ in range(2)]
            self.assertEqual([each.process for each in told], [old, old])
            self.assertEqual([next(iter(each.fields)) for each in told], ["RELOADING", "READY"])
            self.assertEqual(echo(service.port), b"Hello, World!")
            self.restart(service, old)

    def test_ctrl_c_in_a_terminal_leaves_the_old_process(self) -> None:
        """The new process has a session of its own, so the command ends it."""
        with installed("twsock-stream", *LOCAL) as service:
            script = "echo started $$; exec sleep 1000"
            words = ("sh", "-c", script, "--control", "control")
            process, terminal = pty.fork()
            if process == 0:
                os.chdir(service.folder)
                line = command("restart", "--control", "control", "--", *words)
                os.execve(line[0], line, environment())
            with os.fdopen(terminal, "r+b", buffering=0) as screen:
                shown = b""
                while b"started" not in shown or not shown.endswith(b"\n"):
                    shown += screen.read(1_000)
                started = int(shown.split()[-1])
                screen.write(b"\x03")
                with contextlib.suppress(OSError):
                    while data := screen.read(1_000):
                        shown += data
            _, status = os.waitpid(process, 0)
            self.assertEqual(os.waitstatus_to_exitcode(status), 130, shown)
            self.assertIn(b"twsock: SIGINT: process %d goes on" % service.first, shown)
            self.assertFalse(runs(started))
            self.assertEqual(echo(service.port), b"Hello, World!")


class SessionTests(SynchronousTestCase):
    """TLS sessions and a restart."""

    def test_a_session_of_the_old_process_gets_a_full_handshake(self) -> None:
        """The new process cannot read its ticket; the client connects all the same."""
        authority = trustme.CA()
        with tempfile.TemporaryDirectory() as folder:
            pem = Path(folder) / "server.pem"
            authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(pem)
            with installed("twsock-stream", *LOCAL, "--tls", "--certificate", str(pem)) as service:
                sessions = []
                for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                    context = self.trust(authority, version)
                    session, is_resumed = self.connect(context, service.port, None)
                    self.assertFalse(is_resumed, f"{version=}: no session")
                    session, is_resumed = self.connect(context, service.port, session)
                    self.assertTrue(is_resumed, f"{version=}: the same process")
                    sessions.append((version, context, session))
                result = service.restart()
                self.assertEqual(result.returncode, 0, result.stdout)
                for version, context, old in sessions:
                    session, is_resumed = self.connect(context, service.port, old)
                    self.assertFalse(is_resumed, f"{version=}: the new process")
                    _, is_resumed = self.connect(context, service.port, session)
                    self.assertTrue(is_resumed, f"{version=}: a session of the new process")

    def trust(self, authority: trustme.CA, version: ssl.TLSVersion) -> ssl.SSLContext:
        """Return the settings of a client that offers one version."""
        context = ssl.create_default_context()
        authority.configure_trust(context)
        context.minimum_version = context.maximum_version = version
        return context

    def connect(
        self, context: ssl.SSLContext, port: int, session: ssl.SSLSession | None
    ) -> tuple[ssl.SSLSession | None, bool | None]:
        """Echo on a new connection; return its session, and whether it resumed the given one."""
        with (
            socket.create_connection(("127.0.0.1", port), PATIENCE) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as secure,
        ):
            secure.sendall(b"\0\0\0\1x")
            answer = b""
            while len(answer) < 5:
                answer += secure.recv(5)
            return secure.session, secure.session_reused


#: A unit that restarts by ``twsock restart``, a connection that lives through two restarts, and the
#: state of the unit. The new process is the main one for systemd, so it has to serve the watchdog.
_SCRIPT = """
cat > /etc/systemd/system/echo.service <<'END'
[Service]
Type=notify
RuntimeDirectory=echo
Environment=SERVICE='/opt/twsock/bin/twistd --pidfile= -n twsock-stream \\
    --endpoint tcp:1337:interface=127.0.0.1 --control /run/echo/control'
ExecStart=/bin/sh -c 'exec $SERVICE'
ExecReload=/bin/sh -c 'exec /opt/twsock/bin/twsock restart --control /run/echo/control -- $SERVICE'
WatchdogSec=10
END
cat > connection.py <<'END'
import socket, subprocess, time
def echo():
    connection.sendall(b"\\0\\0\\0\\1x")
    assert connection.recv(5, socket.MSG_WAITALL) == b"\\0\\0\\0\\1x"
def main_process():
    command = ["systemctl", "show", "--property", "MainPID", "echo"]
    return subprocess.run(command, check=True, capture_output=True).stdout
connection = socket.create_connection(("127.0.0.1", 1337), 60)
seen = [main_process()]
for _ in range(2):
    echo()
    subprocess.run(["systemctl", "reload", "echo"], check=True)
    seen.append(main_process())
echo()
assert len(set(seen)) == 3, seen
# Longer than the watchdog waits.
time.sleep(11)
echo()
assert main_process() == seen[-1], seen
END
systemctl daemon-reload
systemctl start echo
/opt/twsock/bin/python3 connection.py
systemctl show --property StatusText echo
systemctl stop echo
systemctl show --property Result echo
journalctl --unit echo --no-pager
"""


class SystemdTests(SynchronousTestCase):
    """``ExecReload=`` on a machine with systemd."""

    def test_a_reload_replaces_the_main_process(self) -> None:
        """With a connection that stays, a watchdog, and a stop that waits for the drain."""
        if (reason := why_no_machine()) is not None:
            raise SkipTest(reason)
        output = run_on_a_machine(_SCRIPT)
        self.assertIn("\nStatusText=listening on tcp:127.0.0.1:1337\n", output)
        self.assertIn("\nResult=success\n", output)
        # The last two: systemd would not wait for the drain, nor hear of the ports.
        for line in ("SIGKILL", "Watchdog", "not our child", "reception only permitted"):
            self.assertNotIn(line, output)
