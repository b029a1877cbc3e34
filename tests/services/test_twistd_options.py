"""Options of ``twistd`` are checked before anything starts."""

from __future__ import annotations

import os
import pwd

from twisted.trial.unittest import SynchronousTestCase

from twsock.services.twistd_options import check_twistd

#: The largest numeric user; nobody has it.
NO_USER = 2**32 - 2


class CheckTests(SynchronousTestCase):
    """`check_twistd` with the options of ``twistd``."""

    def test_missing_folders_are_named(self) -> None:
        """With the option; folders below ``--chroot`` are not looked for here."""
        check_twistd({"logfile": "-", "rundir": ".", "pidfile": "twistd.pid"})
        for option, value in (
            ("logfile", "missing/log"),
            ("rundir", "missing"),
            ("pidfile", "missing/pid"),
            ("chroot", "missing"),
        ):
            with self.assertRaisesRegex(ValueError, f"--{option}: there is no folder missing"):
                check_twistd({option: value})
        check_twistd({"chroot": ".", "rundir": "missing"})

    def test_an_unknown_user_needs_a_group(self) -> None:
        """``twistd`` looks the group up."""
        with self.assertRaisesRegex(ValueError, f"no user {NO_USER}; set its group"):
            check_twistd({"uid": NO_USER})

    def test_only_root_may_switch_the_user(self) -> None:
        """The own user is no switch."""
        own = pwd.getpwuid(os.getuid())
        check_twistd({"uid": own.pw_uid, "gid": own.pw_gid})
        self.patch(os, "geteuid", lambda: 1)
        with self.assertRaisesRegex(ValueError, "need root, but this process runs as user 1"):
            check_twistd({"uid": NO_USER, "gid": 1})
