"""Paths of UNIX sockets are made, replaced where nobody listens, and removed."""

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
    """Be another user for a while, as after ``twistd --uid``."""
    if os.geteuid() != 0:
        raise SkipTest("only root can become another user")
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


def open_files() -> list[str]:
    """List the descriptors of this process, where Linux tells."""
    folder = Path("/proc/self/fd")
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


class UnixEndpointTests(TestCase):
    """A path in a folder of its own."""

    def setUp(self) -> None:
        # Not that of trial: the path of a socket is at most 107 bytes long.
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.path = self.folder / "echo.sock"
        self.factory = Factory.forProtocol(Protocol)

    async def listen(self, **settings: Any) -> Any:
        """Listen, until the end of the test."""
        endpoint = UnixEndpoint(reactor, str(self.path), backlog=1024, **settings)
        self.assertTrue(verifyObject(IStreamServerEndpoint, endpoint))
        port = await endpoint.listen(self.factory)
        self.addCleanup(lambda: maybeDeferred(port.stopListening))
        return port

    async def refusal(self) -> Any:
        """Fail to listen."""
        with self.assertRaises(CannotListenError) as caught:
            await self.listen()
        return listening_error(caught.exception)

    def leave_stale(self, kind: int = socket.SOCK_STREAM) -> os.stat_result:
        """Bind the path and go, as a process does that is killed."""
        with socket.socket(socket.AF_UNIX, kind) as stale:
            stale.bind(str(self.path))
        return self.path.stat()

    async def test_owner_and_group_may_connect(self) -> None:
        """Others may not, unless a mode says so; whatever the umask."""
        for settings, mode in (({}, 0o660), ({"mode": 0o606}, 0o606)):
            port = await self.listen(**settings)
            self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), mode, f"{settings=}, {mode=}")
            await port.stopListening()

    async def test_there_is_no_other_file(self) -> None:
        """No lock, which would stay with a process that is killed."""
        await self.listen()
        self.assertEqual(list(self.folder.iterdir()), [self.path])

    async def test_a_closed_port_leaves_nothing(self) -> None:
        """Also where the process has changed its folder."""
        before = Path.cwd()
        self.addCleanup(os.chdir, before)
        os.chdir(self.folder)
        self.path = Path("echo.sock")
        port = await self.listen()
        os.chdir(before)
        await port.stopListening()
        self.assertEqual(list(self.folder.iterdir()), [])

    async def test_where_nobody_listens_the_path_is_replaced(self) -> None:
        """A stream socket, or one of datagrams."""
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            self.leave_stale(kind)
            port = await self.listen()
            with socket.socket(socket.AF_UNIX) as peer:
                peer.connect(str(self.path))
            await port.stopListening()

    async def test_where_somebody_listens_it_is_not(self) -> None:
        """Not even where no further peer can connect, or a socket is of another type."""
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
                    refused = await self.refusal()
                self.assertIs(
                    refused.status,
                    SocketErrorStatus.ADDRESS_ALREADY_IN_USE,
                    f"{kind=}, {refused.status=}",
                )
                self.assertEqual(self.path.stat(), before, f"{kind=}")
            self.path.unlink()

    async def test_what_is_no_socket_stays(self) -> None:
        """A file, a folder, a link to a socket."""
        real = self.folder / "real.sock"
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(real))
        for make in (self.path.touch, self.path.mkdir, lambda: self.path.symlink_to(real)):
            make()
            refused = await self.refusal()
            self.assertIs(
                refused.status,
                SocketErrorStatus.ADDRESS_ALREADY_IN_USE,
                f"{make=}, {refused.status=}",
            )
            self.assertIn("no socket", str(refused), f"{make=}: {refused}")
            self.assertTrue(real.exists(), f"{make=}")
            self.path.rmdir() if self.path.is_dir() else self.path.unlink()

    async def test_what_came_in_its_place_stays(self) -> None:
        """Another server may have taken the path over."""
        port = await self.listen()
        self.path.unlink()
        other = self.leave_stale()
        await port.stopListening()
        self.assertEqual(self.path.stat().st_ino, other.st_ino)

    async def test_a_path_that_is_gone_is_no_error(self) -> None:
        """Somebody has tidied up."""
        port = await self.listen()
        self.path.unlink()
        await port.stopListening()

    async def test_where_the_folder_forbids_the_removal_a_line_says_so(self) -> None:
        """The port closes all the same, and the next start replaces the path."""
        port = await self.listen()
        with log_lines() as lines, user(65_534):
            await port.stopListening()
        (line,) = [words for words in lines if "stays" in words]
        self.assertIn(f"{self.path} stays, and the next start replaces it: Permission", line)
        self.assertTrue(self.path.exists())
        await self.listen()

    async def test_another_owner_can_remove_it(self) -> None:
        """Even from a folder like /tmp, where everybody removes their own only."""
        self.folder.chmod(0o1777)
        if os.geteuid() != 0:
            raise SkipTest("only root can make files for another user")
        port = await self.listen(owner=(65_534, 65_534))
        self.assertEqual((self.path.stat().st_uid, self.path.stat().st_gid), (65_534, 65_534))
        with user(65_534):
            await port.stopListening()
        self.assertEqual(list(self.folder.iterdir()), [])

    async def test_a_path_that_is_too_long_is_named(self) -> None:
        """The kernel's own limit, with its number."""
        self.path = self.folder / ("x" * 108)
        refused = await self.refusal()
        self.assertIn("at most 107 bytes", str(refused))
        self.assertIs(refused.status, SocketErrorStatus.CANNOT_ASSIGN_REQUESTED_ADDRESS)

    async def test_a_missing_folder_is_named(self) -> None:
        """No file is made in its place."""
        self.path = self.folder / "missing" / "echo.sock"
        refused = await self.refusal()
        self.assertEqual(str(refused), f"{os.strerror(errno.ENOENT)}: its folder does not exist")

    async def test_a_refusal_leaves_nothing_open(self) -> None:
        """No socket, no factory that seems to be listened for."""
        self.path = self.folder / "missing" / "echo.sock"
        before = open_files()
        await self.refusal()
        self.assertEqual(open_files(), before)
        self.assertEqual(self.factory.numPorts, 0)

    async def test_a_path_can_be_removed_before_the_port_is_closed(self) -> None:
        """For a process that ends at once."""
        port = await self.listen()
        port.remove_path()
        port.remove_path()
        self.assertEqual(list(self.folder.iterdir()), [])
        await port.stopListening()


class MemoryTests(SynchronousTestCase):
    """A reactor without a kernel."""

    def test_it_is_asked(self) -> None:
        """With what was asked for, and without a lock file."""
        memory = MemoryReactor()
        endpoint = UnixEndpoint(memory, "/x", backlog=7, mode=0o600)
        self.successResultOf(endpoint.listen(Factory()))
        ((path, _, backlog, mode, wants_lock),) = memory.unixServers
        self.assertEqual((path, backlog, mode, wants_lock), ("/x", 7, 0o600, 0))
