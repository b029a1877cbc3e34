"""The log of a process: its levels, formats and files."""

from __future__ import annotations

import io
import json
import signal
import sys
from pathlib import Path
from typing import Any

from twisted.application.service import Application
from twisted.logger import ILogObserver, LogLevel
from twisted.trial.unittest import SynchronousTestCase

from tests.services.process_options import process_options
from tests.services.processes import daemon, twistd
from twsock.services.process import ProcessService
from twsock.services.process_log import logs_to_file
from twsock.services.start_error import StartError

LOCAL = "tcp:0:interface=127.0.0.1"


class ObserverTests(SynchronousTestCase):
    """The log observer of the application."""

    def test_a_log_file_that_cannot_be_written_is_named_in_one_line(self) -> None:
        """The start fails."""
        path = self.mktemp()
        Path(path).mkdir()
        service = ProcessService(process_options("--log-format", "json", logfile=path))
        error = self.assertRaises(StartError, service.setServiceParent, Application("mine"))
        self.assertIn(path, str(error))

    def test_the_level_drops_lower_events(self) -> None:
        """In both formats."""
        for form in ("text", "json"):
            output = io.StringIO()
            self.patch(sys, "stdout", output)
            application: Any = Application("mine")
            words = ("--log-level", "warn", "--log-format", form)
            ProcessService(process_options(*words, logfile="-")).setServiceParent(application)
            observer = application.getComponent(ILogObserver)
            for level in (LogLevel.info, LogLevel.warn, LogLevel.error):
                observer({"log_level": level, "log_format": f"at {level.name}", "log_time": 0})
            lines = output.getvalue().splitlines()
            self.assertEqual(len(lines), 2, f"{form}: {lines}")
            self.assertIn("at warn", lines[0])


class JsonTests(SynchronousTestCase):
    """A process of ``twistd`` logs JSON."""

    def test_a_daemon_logs_json(self) -> None:
        """To the file of ``twistd --logfile``; every line is a JSON object."""
        words = ["--logfile", "json.log", "twsock-stream", "--log-format", "json"]
        with daemon(*words, "-e", "unix:echo.sock") as left:
            self.assertEqual(left.status, 0, left.output)
            left.exchange("echo.sock")
            left.end(signal.SIGTERM)
            lines = (left.folder / "json.log").read_text().splitlines()
            events = [json.loads(line) for line in lines]
            messages = [event["message"] for event in events]
            self.assertIn("listening on unix:echo.sock (unix:echo.sock)", messages)
            self.assertIn("Server Shut Down.", messages)
            (listening,) = [event for event in events if "description" in event["fields"]]
            self.assertEqual(listening["fields"]["address"], "unix:echo.sock")
            self.assertEqual(listening["level"], "info")

    def test_the_json_log_rotates_on_sigusr1(self) -> None:
        """As the text log does."""
        words = ["--logfile", "json.log", "twsock-stream", "--log-format", "json"]
        with daemon(*words, "-e", "unix:echo.sock") as left:
            left.exchange("echo.sock")
            left.end(signal.SIGUSR1, signal.SIGTERM)
            rotated = json.loads((left.folder / "json.log.1").read_text().splitlines()[0])
            self.assertIn("starting up", rotated["message"])

    def test_in_the_foreground_json_is_on_standard_output(self) -> None:
        """``twistd`` writes its log there if no file is given."""
        with twistd("twsock-stream", "-e", LOCAL, "--log-format", "json") as server:
            server.wait_for("listening on")
            server.terminate()
            server.wait()
            for line in server.log.splitlines():
                self.assertIn("message", json.loads(line), f"{line=}")


class OptionsTests(SynchronousTestCase):
    """Whether ``twistd`` logs to a file."""

    def test_standard_output(self) -> None:
        """Without a daemon and without a file, or as ``--logfile -`` says."""
        for given in ({"nodaemon": True}, {"debug": True, "logfile": "-"}, {"logfile": "-"}):
            self.assertFalse(logs_to_file(given), given)

    def test_a_file(self) -> None:
        """A daemon has one in any case."""
        for given in ({}, {"nodaemon": True, "logfile": "a.log"}):
            self.assertTrue(logs_to_file(given), given)

    def test_another_log(self) -> None:
        """It is that of the option."""
        for given in ({"syslog": True}, {"logger": "a.b", "logfile": "a.log"}):
            self.assertFalse(logs_to_file(given), given)
