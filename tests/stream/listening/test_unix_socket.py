"""Listening UNIX sockets are opened, changed while they listen, and their paths removed."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from pathlib import Path

from twisted.internet.error import CannotListenError
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from twsock.stream.listening.unix_socket import OwnedPath, UnixSocketSettings, open_unix_socket


class UnixSocketTests(SynchronousTestCase):
    """A path in a folder of its own."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "echo.sock"

    def open(self, settings: UnixSocketSettings | None = None) -> socket.socket:
        """Open the socket until the end of the test."""
        opened = open_unix_socket(self.path, settings or UnixSocketSettings(16))
        self.addCleanup(opened.close)
        return opened

    def test_an_opened_socket_listens_without_blocking(self) -> None:
        """With the permissions of the settings."""
        opened = self.open(UnixSocketSettings(16, 0o640))
        self.assertEqual(opened.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN), 1)
        self.assertFalse(opened.getblocking())
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o640)

    def test_settings_change_while_it_listens(self) -> None:
        """Mode and owner of the path."""
        opened = self.open()
        UnixSocketSettings(16, 0o600).apply(opened, self.path)
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        if os.geteuid() != 0:
            raise SkipTest("only root can change the owner")
        UnixSocketSettings(16, 0o600, (65_534, -1)).apply(opened, self.path)
        found = self.path.stat()
        self.assertEqual((found.st_uid, found.st_gid), (65_534, 0))

    def test_the_same_settings_need_no_right(self) -> None:
        """A process that is no longer root may set them again."""
        if os.geteuid() != 0:
            raise SkipTest("only root can become another user")
        settings = UnixSocketSettings(16, 0o606, (65_533, 65_533))
        self.path.parent.chmod(0o755)
        opened = self.open(settings)
        os.seteuid(65_534)
        self.addCleanup(os.seteuid, 0)
        settings.apply(opened, self.path)
        self.assertRaises(PermissionError, UnixSocketSettings(16, 0o600).apply, opened, self.path)

    def test_a_refused_setting_leaves_no_path(self) -> None:
        """The system refuses the owner."""
        if os.geteuid() != 0:
            raise SkipTest("only root can become another user")
        self.path.parent.chmod(0o777)
        os.seteuid(65_534)
        self.addCleanup(os.seteuid, 0)
        self.assertRaises(CannotListenError, self.open, UnixSocketSettings(16, 0o600, (1, 1)))
        self.assertFalse(self.path.exists())

    def test_a_path_is_removed_once_and_only_if_owned(self) -> None:
        """Another process may own it by then."""
        self.open()
        given, owned = OwnedPath(self.path), OwnedPath(self.path)
        given.is_owned = False
        given.remove()
        self.assertTrue(self.path.exists())
        owned.remove()
        self.assertFalse(self.path.exists())
        self.path.touch()
        owned.remove()
        self.assertTrue(self.path.exists())

    def test_another_file_at_the_path_is_noticed(self) -> None:
        """It was removed, or replaced."""
        self.open()
        owned = OwnedPath(self.path)
        self.assertTrue(owned.is_in_place)
        self.path.unlink()
        self.assertFalse(owned.is_in_place)
        self.path.touch()
        self.assertFalse(owned.is_in_place)
