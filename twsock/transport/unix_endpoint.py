"""
UNIX sockets to listen on: path → **endpoint** → port.

Used by the services for ``unix:`` endpoints, in place of Twisted's endpoint, whose lock file blocks
a start for good where the number of its process has been given to another one (in a container it
always is), which removes a socket that somebody listens on where the lock is stale, and whose port
fails to close where the folder forbids the removal, as it does after ``twistd --uid``.

A path is taken over only if it is a socket and nobody listens there, which a connection tells.
Between that look and the removal lie some microseconds, in which another start can take the path;
there is no lock for those, since anybody who may read the folder could hold it for ever.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path
from typing import Any, Final

from twisted.internet import unix
from twisted.internet.defer import Deferred, execute
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.posixbase import PosixReactorBase
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from twsock.transport.log import TextLogger

__all__ = ["DEFAULT_SOCKET_MODE", "UnixEndpoint", "UnixPort"]

#: Owner and group may connect.
DEFAULT_SOCKET_MODE: Final = 0o660

#: 108 bytes in unix(7), the last of which ends the path.
_LONGEST_PATH: Final = 107

_Identity = tuple[int, int, int]


@implementer(IStreamServerEndpoint)
class UnixEndpoint:
    """
    Listens on the path of a UNIX socket, and removes it when the port is closed.

    :param path: must fit into 107 bytes. A path at which nobody listens is replaced.
    :param backlog: connections that the kernel keeps until they are accepted.
    :param mode: permissions of the path; who may write may connect.
    :param owner: user and group of the path, by number; None leaves it with this process.
    """

    def __init__(
        self,
        reactor: Any,
        path: str,
        *,
        backlog: int,
        mode: int = DEFAULT_SOCKET_MODE,
        owner: tuple[int, int] | None = None,
    ) -> None:
        self._reactor = reactor
        self._path = path
        self._backlog = backlog
        self._mode = mode
        self._owner = owner

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """
        Listen.

        :returns: fires at once; it fails with Twisted's ``CannotListenError`` where somebody
            listens there, where the path is no socket, or as the operating system says.
        """
        return execute(self._listen, factory)

    def _listen(self, factory: IProtocolFactory) -> IListeningPort:
        if not isinstance(self._reactor, PosixReactorBase) or self._path.startswith("\0"):
            # A reactor in memory, or a name without a file (Linux): there is no path.
            listening: IListeningPort = self._reactor.listenUNIX(
                self._path, factory, self._backlog, self._mode, 0
            )
            return listening
        # Absolute, as a daemon may change its folder before it removes the path.
        path = Path(self._path).absolute()
        name = os.fsencode(self._path)
        if len(name) > _LONGEST_PATH:
            reason = f"the path of a UNIX socket is at most {_LONGEST_PATH} bytes long"
            raise CannotListenError(None, self._path, OSError(errno.ENAMETOOLONG, reason))
        _remove_stale(path)
        port = UnixPort(name, factory, self._backlog, self._mode, self._reactor)
        port.startListening()
        port.own(path)
        self._change_owner(path, port)
        return port

    def _change_owner(self, path: Path, port: UnixPort) -> None:
        if self._owner is None:
            return
        try:
            os.chown(path, *self._owner)
        except OSError as error:
            port.stopListening()
            raise CannotListenError(None, self._path, error) from error


class UnixPort(unix.Port):
    """
    A port of a UNIX socket that removes the path if it is its own, and closes in any case.

    One that was made from an inherited descriptor leaves the path to whoever made it.
    """

    _log_removal = TextLogger()
    _owned: tuple[Path, _Identity] | None = None
    _made: socket.socket | None = None

    def own(self, path: Path) -> None:
        """Remove the path when the port is closed, unless something else is there by then."""
        self._owned = path, _identity(path.lstat())

    def remove_path(self) -> None:
        """Remove the path now, where it is this port's: for a process that ends at once."""
        owned, self._owned = self._owned, None
        if owned is not None:
            self._remove(*owned)

    @override
    def createInternetSocket(self) -> socket.socket:
        self._made = super().createInternetSocket()
        return self._made

    @override
    def startListening(self) -> None:
        try:
            super().startListening()
        except BaseException:
            # Twisted leaves the socket open, and the factory as if it were listened for.
            if self._made is not None:
                self._made.close()
            factory: Any = self.factory
            factory.doStop()
            raise

    @override
    def connectionLost(self, reason: Failure) -> None:
        self.remove_path()
        # What Twisted's port of UNIX sockets does here is to remove the path.
        super(unix.Port, self).connectionLost(reason)

    def _remove(self, path: Path, identity: _Identity) -> None:
        try:
            if _identity(path.lstat()) == identity:
                path.unlink()
        except FileNotFoundError:
            pass
        except OSError as error:
            self._log_removal.warn(
                "{path} stays, and the next start replaces it: {error}",
                path=str(path),
                error=error.strerror,
            )


def _remove_stale(path: Path) -> None:
    """
    Remove a socket at which nobody listens.

    :raises CannotListenError: when there is something else.
    """
    try:
        before = path.lstat()
    except OSError:
        # Nothing is there; or something is in the way, which binding reports.
        return
    if not stat.S_ISSOCK(before.st_mode):
        raise _in_use(path, "there is a file that is no socket")
    if _is_listened_on(path):
        raise _in_use(path, os.strerror(errno.EADDRINUSE))
    try:
        # Another start may have taken it just now.
        if _identity(path.lstat()) == _identity(before):
            path.unlink()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise CannotListenError(None, str(path), error) from error


def _is_listened_on(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        # Only a refusal says that nobody is there: a full queue, a socket of another type and
        # a missing right say that somebody is, or may be.
        try:
            probe.connect(os.fsencode(path))
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
        return True


def _in_use(path: Path, reason: str) -> CannotListenError:
    return CannotListenError(None, str(path), OSError(errno.EADDRINUSE, reason))


def _identity(found: os.stat_result) -> _Identity:
    # The number of a file is given again soon after its removal, so the time belongs to it. That
    # of the last change would differ after the change of the owner.
    return found.st_dev, found.st_ino, found.st_mtime_ns
