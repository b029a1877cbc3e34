"""The options of every service are checked before the process becomes a daemon."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.python.usage import Options, UsageError
from twisted.trial.unittest import SynchronousTestCase

from tests.services.process_options import process_options
from twsock.services.keeping_reactor import BindingReactor, KeepingReactor, plain_reactor
from twsock.services.listening_sockets import ListeningSockets
from twsock.services.process_options import ProcessOptions
from twsock.services.start_error import StartError
from twsock.services.twistd_options import process_owner


class OptionsTests(SynchronousTestCase):
    """Checks before the process becomes a daemon."""

    def test_a_missing_folder_is_named_with_its_option(self) -> None:
        """For each option of twistd that names a folder or a file."""
        folder = Path(self.mktemp())
        for name, value in (
            ("rundir", folder),
            ("chroot", folder),
            ("pidfile", folder / "twistd.pid"),
            ("logfile", folder / "twistd.log"),
        ):
            error = self.assertRaises(StartError, process_options, **{name: str(value)})
            self.assertEqual(
                str(error), f"twsock: --{name}: there is no folder {folder}", f"{name=}, {value=}"
            )

    def test_another_user_needs_root(self) -> None:
        """Twisted says so in its log only, while its parent process waits for ever."""
        self.patch(os, "geteuid", lambda: 65_533)
        self.patch(os, "getuid", lambda: 65_533)
        for given in ({"uid": 0}, {"gid": 65_534}):
            error = self.assertRaises(StartError, process_options, **given)
            self.assertIn("--uid and --gid need root", str(error), f"{given=}: {error}")
        process_options(uid=65_533, gid=os.getgid())

    def test_a_user_without_an_entry_has_no_group(self) -> None:
        """Twisted alone fails with a traceback in the log."""
        error = self.assertRaises(StartError, process_options, uid=2_000_000_000)
        self.assertIn("there is no user 2000000000", str(error))

    def test_under_twist_json_is_refused(self) -> None:
        """``twist`` has an option of that name itself; options of twistd are not looked for."""
        parsed = ProcessOptions()
        parsed.parent = Options()
        parsed.parent.subCommand = "twsock-stream"
        parsed.parseOptions([])
        self.assertIsNone(process_owner(parsed))
        error = self.assertRaises(UsageError, parsed.parseOptions, ["--log-format", "json"])
        self.assertIn("with twist, use twist --log-format", str(error))

    def test_json_with_another_log_is_refused(self) -> None:
        """Twisted would use the other log and write no JSON."""
        for given in ({"logger": "twisted.logger.jsonFileLogObserver"}, {"syslog": True}):
            error = self.assertRaises(UsageError, process_options, "--log-format", "json", **given)
            self.assertIn("--log-format json", str(error), f"{given=}: {error}")
            process_options("--log-format", "text", **given)
        self.assertRaises(UsageError, process_options, "--log-format", "xml")


class ReactorTests(SynchronousTestCase):
    """The reactor for the endpoints of a process."""

    def test_the_reactor_keeps_the_sockets_if_there_is_a_table(self) -> None:
        """A parent of workers binds for them, and serves its page itself."""
        from twisted.internet import reactor

        parsed = process_options()
        self.assertIs(parsed.reactor, reactor)
        parsed.sockets = ListeningSockets()
        self.assertIsInstance(parsed.reactor, KeepingReactor)
        self.assertIs(parsed.reactor, parsed.page_reactor)
        parsed.worker_sockets = [ListeningSockets()]
        self.assertIsInstance(parsed.reactor, BindingReactor)
        self.assertNotIsInstance(parsed.page_reactor, BindingReactor)
        self.assertIs(plain_reactor(parsed.reactor), reactor)
