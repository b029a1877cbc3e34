"""
Endpoints that listen on UNIX sockets: path → **endpoint** → port.

The services use this for ``unix:`` endpoints. Twisted's own endpoint has three faults:

- its lock file blocks every further start when another process got the same process id, which is
  the rule in a container;
- it removes a socket that is listened on when the lock file is stale;
- its port fails to close when the folder forbids the removal, as it may after ``twistd --uid``.

An existing path is replaced only if it is a socket and no process listens there; a connection
attempt decides that. Another start could take the path in the microseconds between this check and
the removal. There is no lock against that, since any user who may read the folder could hold it.
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

from twsock.log import TextLogger

__all__ = ["DEFAULT_SOCKET_MODE", "UnixEndpoint", "UnixPort"]

#: Owner and group may connect.
DEFAULT_SOCKET_MODE: Final = 0o660

#: ``sun_path`` has 108 bytes (unix(7)); the last one is the terminating NUL.
_LONGEST_PATH: Final = 107

_Identity = tuple[int, int, int]


@implementer(IStreamServerEndpoint)
class UnixEndpoint:
    """
    Listens on the path of a UNIX socket, and removes the path when the port is closed.

    :param path: at most 107 bytes. A socket on which no process listens is replaced.
    :param backlog: connections that the kernel queues until they are accepted.
    :param mode: permissions of the path; users with the right to write may connect.
    :param owner: numeric user and group of the path, -1 to leave one unchanged; None leaves both.
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
        Listen for connections.

        :returns: fires at once with the port. It fails with Twisted's ``CannotListenError`` when
            another process listens there, when the path is no socket, or with the operating
            system's error.
        """
        return execute(self._listen, factory)

    def _listen(self, factory: IProtocolFactory) -> IListeningPort:
        if not isinstance(self._reactor, PosixReactorBase) or self._path.startswith("\0"):
            # A reactor in memory, or an abstract name (Linux, unix(7)): there is no path.
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
    A port of a UNIX socket that closes even if it cannot remove its path.

    A port that was made from an inherited descriptor does not remove the path.
    """

    _log_removal = TextLogger()
    _owned: tuple[Path, _Identity] | None = None
    _made: socket.socket | None = None

    def own(self, path: Path) -> None:
        """Remove this path when the port is closed, unless another file has replaced it."""
        self._owned = path, _identity(path.lstat())

    def remove_path(self) -> None:
        """Remove the path now if this port owns it; for a process that ends at once."""
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
            # Twisted leaves the socket open and the factory started.
            if self._made is not None:
                self._made.close()
            factory: Any = self.factory
            factory.doStop()
            raise

    @override
    def connectionLost(self, reason: Failure) -> None:
        self.remove_path()
        # Skips Twisted's `unix.Port.connectionLost`, which would remove the path.
        super(unix.Port, self).connectionLost(reason)

    def _remove(self, path: Path, identity: _Identity) -> None:
        try:
            if _identity(path.lstat()) == identity:
                path.unlink()
        except FileNotFoundError:
            pass
        except OSError as error:
            self._log_removal.warn(
                "cannot remove {path}, the next start replaces it: {error}",
                path=str(path),
                error=error.strerror,
            )


def _remove_stale(path: Path) -> None:
    """
    Remove a socket on which no process listens.

    :raises CannotListenError: when a process listens there, or the path is no socket.
    """
    try:
        before = path.lstat()
    except OSError:
        # The path does not exist; any other problem is reported by bind(2).
        return
    if not stat.S_ISSOCK(before.st_mode):
        raise _in_use(path, "the file there is not a socket")
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
        # Only ECONNREFUSED shows that no process listens. With a full queue, a socket of another
        # type or a missing right, a process listens or may listen.
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
    # An inode number is reused soon after a file is removed, so the time of modification is part of
    # the identity. The time of the last status change would differ after chown(2).
    return found.st_dev, found.st_ino, found.st_mtime_ns
