"""Paths of UNIX sockets are created, replaced if no process listens there, and removed."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactor
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from tests.datagram.fake_ports import log_lines
from twsock.errors import SocketErrorStatus
from twsock.ip.address_errors import listening_error
from twsock.stream.listening.unix_endpoint import UnixEndpoint


@contextlib.contextmanager
def user(uid: int) -> Iterator[None]:
    """Act as another user inside the block, as after ``twistd --uid``."""
    if os.geteuid() != 0:
        raise SkipTest("only root can become another user")
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


def open_files() -> list[str]:
    """Return the open descriptors of this process; none if the system has no list of them."""
    folder = Path("/proc/self/fd")
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


class UnixEndpointTests(TestCase):
    """A path in a folder of its own."""

    def setUp(self) -> None:
        # Not trial's folder: the path of a socket has at most 107 bytes.
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.path = self.folder / "echo.sock"
        self.factory = Factory.forProtocol(Protocol)

    async def listen(self, **settings: Any) -> Any:
        """Listen until the end of the test."""
        endpoint = UnixEndpoint(reactor, str(self.path), backlog=1024, **settings)
        self.assertTrue(verifyObject(IStreamServerEndpoint, endpoint))
        port = await endpoint.listen(self.factory)
        self.addCleanup(lambda: maybeDeferred(port.stopListening))
        return port

    async def fail_to_listen(self) -> Any:
        """Try to listen, and return the error."""
        with self.assertRaises(CannotListenError) as caught:
            await self.listen()
        return listening_error(caught.exception)

    def leave_stale(self, kind: int = socket.SOCK_STREAM) -> os.stat_result:
        """Bind the path and close the socket, as a killed process does."""
        with socket.socket(socket.AF_UNIX, kind) as stale:
            stale.bind(str(self.path))
        return self.path.stat()

    async def test_by_default_owner_and_group_may_connect(self) -> None:
        """A mode may say otherwise; the umask has no effect."""
        for settings, mode in (({}, 0o660), ({"mode": 0o606}, 0o606)):
            port = await self.listen(**settings)
            self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), mode, f"{settings=}, {mode=}")
            await port.stopListening()

    async def test_the_socket_is_the_only_file(self) -> None:
        """There is no lock file, which a killed process would leave."""
        await self.listen()
        self.assertEqual(list(self.folder.iterdir()), [self.path])

    async def test_a_closed_port_removes_its_path(self) -> None:
        """Also if the process has changed its working directory."""
        before = Path.cwd()
        self.addCleanup(os.chdir, before)
        os.chdir(self.folder)
        self.path = Path("echo.sock")
        port = await self.listen()
        os.chdir(before)
        await port.stopListening()
        self.assertEqual(list(self.folder.iterdir()), [])

    async def test_a_path_without_a_listener_is_replaced(self) -> None:
        """A stale stream or datagram socket is removed first."""
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            self.leave_stale(kind)
            port = await self.listen()
            with socket.socket(socket.AF_UNIX) as peer:
                peer.connect(str(self.path))
            await port.stopListening()

    async def test_a_path_with_a_listener_is_not_replaced(self) -> None:
        """Also if its queue is full, or the socket has another type."""
        for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM):
            with socket.socket(socket.AF_UNIX, kind) as other:
                other.bind(str(self.path))
                peers = contextlib.ExitStack()
                if kind != socket.SOCK_DGRAM:
                    other.listen(0)
                    peer = peers.enter_context(socket.socket(socket.AF_UNIX, kind))
                    peer.connect(str(self.path))
                before = self.path.stat()
                with peers:
                    refused = await self.fail_to_listen()
                self.assertIs(
                    refused.status,
                    SocketErrorStatus.ADDRESS_ALREADY_IN_USE,
                    f"{kind=}, {refused.status=}",
                )
                self.assertEqual(self.path.stat(), before, f"{kind=}")
            self.path.unlink()

    async def test_a_path_that_is_no_socket_is_not_replaced(self) -> None:
        """A file, a folder, or a link to a socket stays."""
        real = self.folder / "real.sock"
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(real))
        for make in (self.path.touch, self.path.mkdir, lambda: self.path.symlink_to(real)):
            make()
            refused = await self.fail_to_listen()
            self.assertIs(
                refused.status,
                SocketErrorStatus.ADDRESS_ALREADY_IN_USE,
                f"{make=}, {refused.status=}",
            )
            self.assertIn("is not a socket", str(refused), f"{make=}: {refused}")
            self.assertTrue(real.exists(), f"{make=}")
            self.path.rmdir() if self.path.is_dir() else self.path.unlink()

    async def test_a_path_that_another_server_replaced_is_not_removed(self) -> None:
        """The closed port leaves the socket of the other server."""
        port = await self.listen()
        self.path.unlink()
        other = self.leave_stale()
        await port.stopListening()
        self.assertEqual(self.path.stat().st_ino, other.st_ino)

    async def test_a_path_that_is_gone_raises_no_error(self) -> None:
        """The port closes as usual."""
        port = await self.listen()
        self.path.unlink()
        await port.stopListening()

    async def test_a_folder_that_forbids_the_removal_is_logged(self) -> None:
        """The port closes, and the next start replaces the path."""
        port = await self.listen()
        with log_lines() as lines, user(65_534):
            await port.stopListening()
        (line,) = [words for words in lines if "cannot remove" in words]
        self.assertIn(f"cannot remove {self.path}, the next start replaces it: Permission", line)
        self.assertTrue(self.path.exists())
        await self.listen()

    async def test_another_owner_may_remove_the_path(self) -> None:
        """Also in a folder like /tmp, where users may remove only their own files."""
        self.folder.chmod(0o1777)
        if os.geteuid() != 0:
            raise SkipTest("only root can make files for another user")
        port = await self.listen(owner=(65_534, 65_534))
        self.assertEqual((self.path.stat().st_uid, self.path.stat().st_gid), (65_534, 65_534))
        with user(65_534):
            await port.stopListening()
        self.assertEqual(list(self.folder.iterdir()), [])

    async def test_a_path_that_is_too_long_is_refused(self) -> None:
        """The error gives the kernel's limit."""
        self.path = self.folder / ("x" * 108)
        refused = await self.fail_to_listen()
        self.assertIn("at most 107 bytes", str(refused))
        self.assertIs(refused.status, SocketErrorStatus.CANNOT_ASSIGN_REQUESTED_ADDRESS)

    async def test_a_missing_folder_is_named_in_the_error(self) -> None:
        """No file is created in its place."""
        self.path = self.folder / "missing" / "echo.sock"
        refused = await self.fail_to_listen()
        self.assertEqual(str(refused), f"{os.strerror(errno.ENOENT)}: its folder does not exist")

    async def test_a_refused_path_leaves_nothing_open(self) -> None:
        """No socket is open, and the factory was not started."""
        # With the first port of a process, Twisted opens a descriptor that it keeps in reserve.
        await (await self.listen()).stopListening()
        self.path = self.folder / "missing" / "echo.sock"
        before = open_files()
        await self.fail_to_listen()
        self.assertEqual(open_files(), before)
        self.assertEqual(self.factory.numPorts, 0)

    async def test_the_path_can_be_removed_before_the_port_closes(self) -> None:
        """A process that ends at once does so."""
        port = await self.listen()
        port.remove_path()
        port.remove_path()
        self.assertEqual(list(self.folder.iterdir()), [])
        await port.stopListening()


class MemoryTests(SynchronousTestCase):
    """A reactor without UNIX sockets of its own."""

    def test_listening_asks_the_reactor_without_a_lock_file(self) -> None:
        """The reactor gets the path and the settings."""
        memory = MemoryReactor()
        endpoint = UnixEndpoint(memory, "/x", backlog=7, mode=0o600)
        self.successResultOf(endpoint.listen(Factory()))
        ((path, _, backlog, mode, wants_lock),) = memory.unixServers
        self.assertEqual((path, backlog, mode, wants_lock), ("/x", 7, 0o600, 0))
