"""How a worker is started."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twsock.services.listening_sockets import SocketName
from twsock.services.workers.process import FIRST_SOCKET, WorkerProcess
from twsock.services.workers.start import (
    WorkerProgram,
    WorkerStart,
    describe_error,
    take_worker_start,
)

_NAMES = (SocketName("tcp", "127.0.0.1", 1337), SocketName("unix", "/run/echo.sock"))


class TwistdOptions(dict[str, Any]):
    """The options of ``twistd``."""

    subCommand = "twsock-stream"  # noqa: N815


class Spawner:
    """Records what is started."""

    def spawnProcess(self, _protocol: Any, *arguments: Any, **details: Any) -> None:  # noqa: N802
        self.arguments = arguments
        self.details = details
        self.blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])


class StartTests(SynchronousTestCase):
    """What a worker learns from its environment."""

    def test_a_start_arrives(self) -> None:
        """As one variable, which is removed."""
        start = WorkerStart(2, _NAMES)
        environment = {"TWSOCK_WORKER": str(start), "HOME": "/"}
        self.assertEqual(take_worker_start(environment), start)
        self.assertEqual(environment, {"HOME": "/"})
        self.assertIsNone(take_worker_start(environment))

    @given(
        st.text(max_size=30)
        | st.fixed_dictionaries(
            {"worker": st.integers() | st.text() | st.booleans(), "sockets": st.lists(st.text())}
        ).map(json.dumps)
    )
    def test_any_other_value_is_refused(self, text: str) -> None:
        """No other error escapes; what is accepted is written in the same way."""
        try:
            start = WorkerStart.parse(text)
        except ValueError as error:
            self.assertIn("TWSOCK_WORKER is for worker processes", str(error))
        else:
            self.assertEqual(WorkerStart.parse(str(start)), start)

    def test_a_descriptor_that_is_no_socket_is_an_error(self) -> None:
        """Somebody has set the variable by hand."""
        for text in ("0", "null", '{"worker":0,"sockets":[]}', '{"worker":true,"sockets":[]}'):
            self.assertRaises(ValueError, WorkerStart.parse, text)
        error = self.assertRaises(ValueError, WorkerStart(1, _NAMES).open_sockets, 1_000_000)
        self.assertIn("descriptor 1000000 is not a socket for tcp:127.0.0.1:1337: ", str(error))

    def test_sockets_are_found_by_their_descriptors(self) -> None:
        """They are not passed on to child processes."""
        with socket.socket() as opened:
            opened.set_inheritable(True)
            descriptor = os.dup(opened.fileno())
            ((name, found),) = WorkerStart(1, _NAMES[:1]).open_sockets(descriptor)
            with found:
                self.assertEqual((name, found.fileno()), (_NAMES[0], descriptor))
                self.assertFalse(found.get_inheritable())


class ProgramTests(SynchronousTestCase):
    """The process of a worker."""

    def test_a_worker_runs_the_command_of_its_parent(self) -> None:
        """In the foreground, with its log on standard output, and as the same user."""
        twistd = TwistdOptions(reactor="poll", rundir="run", uid=5, pidfile="x", logfile="y")
        program = WorkerProgram.of(twistd, ["--framing", "line"])
        self.assertEqual(program.folder, str(Path.cwd()))
        self.assertEqual(
            program.arguments[program.arguments.index("-c") + 2 :],
            (
                *("--nodaemon", "--pidfile=", "--logfile=-", "--reactor=poll", "--rundir=run"),
                *("twsock-stream", "--framing", "line"),
            ),
        )

    def arguments(self, *options: str) -> list[str]:
        """Return those of a worker whose parent was started with options of Python."""
        text = (
            f"import sys; sys.path[:0] = ['/first', *{sys.path!r}]\n"
            "from twsock.services.workers.start import WorkerProgram\n"
            "class Options(dict): subCommand = 'x'\n"
            "print(*WorkerProgram.of(Options(), []).arguments, sep='\\n')"
        )
        command = [sys.executable, *options, "-c", text]
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split(
            "\n"
        )

    def test_a_worker_imports_from_where_its_parent_does(self) -> None:
        """Python would import from the working directory first."""
        arguments = self.arguments()
        program = arguments[arguments.index("-c") + 1]
        self.assertTrue(program.startswith("import sys; sys.path[0] = '/first'; sys.argv"), program)

    def test_a_worker_has_the_options_of_python_of_its_parent(self) -> None:
        """With ``-I``, Python does not import from the working directory."""
        arguments = self.arguments("-I", "-b", "-X", "dev")
        options = arguments[: arguments.index("-c")]
        self.assertTrue({"-I", "-b", "-X", "dev"} <= set(options), options)
        self.assertTrue(arguments[len(options) + 1].startswith("import sys; sys.argv"), arguments)

    def test_a_worker_has_its_pipes_and_its_sockets_only(self) -> None:
        """Their names are in the same order."""
        sockets: list[Any] = [(name, Descriptor(100 + n)) for n, name in enumerate(_NAMES)]
        spawner, clock = Spawner(), Clock()
        worker = WorkerProcess(clock, None, 2)  # type: ignore[arg-type]
        WorkerProgram(("-c", "pass"), "/").start(spawner, worker, sockets)
        descriptors = spawner.details["childFDs"]
        self.assertEqual(sorted(descriptors), [0, 1, 2, 3, 4, FIRST_SOCKET, FIRST_SOCKET + 1])
        self.assertEqual([descriptors[each] for each in (1, 2, 3, 4, 5, 6)], [*"rrwr", 100, 101])
        start = WorkerStart(2, _NAMES)
        self.assertEqual(spawner.details["env"]["TWSOCK_WORKER"], str(start))

    def test_a_worker_begins_with_blocked_signals(self) -> None:
        """SIGINT of a terminal would end it in the middle of an import; the parent goes on."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        spawner, worker = Spawner(), WorkerProcess(Clock(), None, 2)  # type: ignore[arg-type]
        WorkerProgram(("-c", "pass"), "/").start(spawner, worker, [])
        self.assertEqual(
            spawner.blocked - before, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP} - before
        )
        self.assertEqual(signal.pthread_sigmask(signal.SIG_BLOCK, []), before)

    def test_a_working_directory_that_is_gone_is_named(self) -> None:
        """It was removed, or the user of ``--uid`` may not enter it."""
        spawner, worker = Spawner(), WorkerProcess(Clock(), None, 2)  # type: ignore[arg-type]
        program = WorkerProgram(("-c", "pass"), "/nowhere")
        error = self.assertRaises(OSError, program.start, spawner, worker, [])
        self.assertEqual(describe_error(error), "/nowhere: No such file or directory")

    def test_a_program_that_cannot_run_is_named(self) -> None:
        """The user of ``--uid`` has to be able to run it."""
        text = describe_error(PermissionError(errno.EACCES, "Permission denied"))
        self.assertIn(f"{sys.executable}: Permission denied (user {os.geteuid()} has to", text)
        text = describe_error(OSError(errno.EMFILE, "Too many open files"))
        self.assertIn("Too many open files (raise ulimit -n", text)
        text = describe_error(OSError(errno.EAGAIN, "Resource temporarily unavailable"))
        self.assertEqual(text, f"{sys.executable}: Resource temporarily unavailable")


class Descriptor:
    """A socket that is only named."""

    def __init__(self, number: int) -> None:
        self._number = number

    def fileno(self) -> int:
        return self._number
