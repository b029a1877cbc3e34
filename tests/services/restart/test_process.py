"""The pid file and the path of a process with ``--control``."""

from __future__ import annotations

import io
import os
import re
import socket
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

from twisted.logger import capturedLogs, formatEvent
from twisted.python.usage import UsageError
from twisted.scripts._twistd_unix import ServerOptions
from twisted.trial.unittest import SynchronousTestCase

from twsock.services.datagram import Options, makeService
from twsock.services.restart.new_process import TakeError, find_old_process
from twsock.services.restart.process import PidFile


class PathTests(SynchronousTestCase):
    """The option ``--control``."""

    def check(self, *words: str) -> Options:
        """Parse the options of a service."""
        options = Options()
        options.parseOptions(words)
        return options

    def test_a_path_has_bounds(self) -> None:
        """Those of the kernel, for the absolute path."""
        self.check("--control", "/" + "x" * 106)
        with self.assertRaisesRegex(
            UsageError, "--control takes a path of 1 to 107 bytes, not 108"
        ):
            self.check("--control", "/" + "x" * 107)

    def test_a_path_is_not_empty_and_has_no_nul(self) -> None:
        """The line has the path as it was given."""
        for path in ("", "a\0b"):
            line = f"--control takes the path of a socket, not {path!r}"
            with self.assertRaisesRegex(UsageError, re.escape(line)):
                self.check("--control", path)

    def test_a_relative_path_is_meant_in_the_folder_of_twistd(self) -> None:
        """Where the service runs, and not where the command is given."""
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as serving:
            serving.bind(f"{folder}/control")
            for words, expected in (((), "twistd.pid"), (("--rundir", folder), "")):
                given = ServerOptions()
                given.parseOptions([*words, "twsock-datagram", "--control", "control"])
                self.assertEqual(Path(given["pidfile"]).name, expected, words)
        given = ServerOptions()
        with self.assertRaisesRegex(UsageError, "a path of 1 to 107 bytes, not 115"):
            given.parseOptions(
                ["--rundir", "/" + "x" * 106, "twsock-datagram", "--control", "control"]
            )

    def test_a_folder_without_permission_is_reported_at_the_start(self) -> None:
        """In one line, as a folder that is missing."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "closed", "control")
            path.parent.mkdir(mode=0)
            if os.geteuid() == 0:
                # Root may search every folder.
                os.seteuid(65_534)
            try:
                self.check("--control", str(path))
                with self.assertRaisesRegex(TakeError, "Permission denied"):
                    find_old_process(str(path))
            finally:
                if os.getuid() == 0:
                    os.seteuid(0)

    def test_sockets_are_kept_for_the_next_process(self) -> None:
        """And only then."""
        self.assertIsNotNone(self.check("--control", "path").sockets)
        self.assertIsNone(self.check().sockets)

    def test_a_check_names_the_path(self) -> None:
        """And nothing is opened."""
        options = self.check("--check", "--control", "path", "-e", "udp:0:interface=127.0.0.1")
        output = io.StringIO()
        with redirect_stdout(output), self.assertRaises(SystemExit) as raised:
            makeService(options)
        self.assertEqual(raised.exception.code, 0)
        self.assertIn("twsock: would let a new process take over at path\n", output.getvalue())
        self.assertFalse(Path("path").exists())

    def test_workers_exclude_it(self) -> None:
        """Their sockets would not move."""
        with self.assertRaisesRegex(UsageError, "--workers excludes --control"):
            self.check("--workers", "2", "--control", "path")


class PidFileTests(SynchronousTestCase):
    """A pid file belongs to the process that serves."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "twistd.pid"
        self.given = {"pidfile": str(self.path)}
        self.file = PidFile(self.given)

    def test_it_is_set_aside_and_written(self) -> None:
        """The options of twistd have none meanwhile, and removes it at the end again."""
        self.file.set_aside()
        self.file.set_aside()
        self.assertEqual(self.given["pidfile"], "")
        self.file.write()
        self.assertEqual(self.path.read_text(), str(os.getpid()))
        self.assertEqual(self.given["pidfile"], str(self.path))

    def test_a_relative_path_stays_where_it_was_meant(self) -> None:
        """Twistd may change to another folder before the file is written."""
        before = Path.cwd()
        self.addCleanup(os.chdir, before)
        os.chdir(self.path.parent)
        file = PidFile({"pidfile": "twistd.pid"})
        file.set_aside()
        os.chdir(before)
        file.write()
        self.assertEqual(self.path.read_text(), str(os.getpid()))

    def test_it_is_not_written_without_need(self) -> None:
        """That is, if twistd has written it, or there is none."""
        self.file.write()
        self.assertFalse(self.path.exists())
        for given in (None, {"pidfile": ""}):
            file = PidFile(given)
            file.set_aside()
            file.write()

    def test_a_file_that_cannot_be_written_is_logged(self) -> None:
        """The process serves without it."""
        self.file.set_aside()
        self.path.mkdir()
        with capturedLogs() as logs:
            self.file.write()
        (line,) = [formatEvent(event) for event in logs]
        self.assertIn("cannot write the pid file", str(line))
        self.assertEqual(self.given["pidfile"], "")
