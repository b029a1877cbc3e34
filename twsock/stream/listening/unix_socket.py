"""
Listening UNIX sockets and their paths: path → **socket** → `twsock.stream.listening.unix_endpoint`.

An existing path is replaced only if it is a socket and no process listens there; a connection
attempt decides that. Another start could take the path in the microseconds between this check and
the removal. There is no lock against that, since any user who may read the folder could hold it.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from twisted.internet.error import CannotListenError

from twsock.log import TextLogger

__all__ = [
    "DEFAULT_SOCKET_MODE",
    "OwnedPath",
    "UnixSocketSettings",
    "check_unix_path",
    "open_unix_socket",
]

#: Owner and group may connect.
DEFAULT_SOCKET_MODE: Final = 0o660

#: ``sun_path`` has 108 bytes (unix(7)); the last one is the terminating NUL.
_LONGEST_PATH: Final = 107

_Identity = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class UnixSocketSettings:
    """
    The settings of a listening UNIX socket; all of them can be changed while it listens.

    :ivar backlog: connections that the kernel queues until they are accepted.
    :ivar mode: permissions of the path; users with the right to write may connect.
    :ivar owner: numeric user and group of the path, -1 to leave one unchanged; None leaves both.
    """

    backlog: int
    mode: int = DEFAULT_SOCKET_MODE
    owner: tuple[int, int] | None = None

    def apply(self, listening: socket.socket, path: Path) -> None:
        """
        Set everything on a bound socket; it listens from now on.

        A setting that is right already is not set again: a process that is no longer root may not
        change the owner of a path.

        :raises OSError: when the system refuses a setting.
        """
        found = path.stat()
        if stat.S_IMODE(found.st_mode) != self.mode:
            path.chmod(self.mode)
        if self.owner is not None:
            user, group = self.owner
            if user not in (-1, found.st_uid) or group not in (-1, found.st_gid):
                os.chown(path, user, group)
        listening.listen(self.backlog)


class OwnedPath:
    """
    The path of a bound UNIX socket, to be removed when its last owner ends.

    :ivar path: absolute, as a daemon may change its folder before it removes the path.
    :ivar is_owned: whether `remove` removes the path; False once another process owns it.
    :raises OSError: when the path does not exist.
    """

    _log = TextLogger()

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.is_owned = True
        self._identity = _identity(path.lstat())

    @property
    def is_in_place(self) -> bool:
        """Whether the path still is that of the socket; True if this user may not see it."""
        try:
            return _identity(self.path.lstat()) == self._identity
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True

    def remove(self) -> None:
        """Remove the path, unless another process owns it or another file has replaced it."""
        was_owned, self.is_owned = self.is_owned, False
        if not was_owned:
            return
        try:
            if self.is_in_place:
                self.path.unlink()
        except FileNotFoundError:
            pass
        except OSError as error:
            self._log.warn(
                "cannot remove {path}, the next start replaces it: {error}",
                path=str(self.path),
                error=error.strerror,
            )


def open_unix_socket(path: Path, settings: UnixSocketSettings) -> socket.socket:
    """
    Open a UNIX socket, bind it to a path and listen.

    :param path: at most 107 bytes. A socket on which no process listens is replaced.
    :raises CannotListenError: when another process listens there, when the path is not a socket, or
        with the operating system's error. Nothing is left then.
    """
    check_unix_path(path)
    _remove_stale(path)
    made = _bind(path)
    owned = OwnedPath(path)
    try:
        made.setblocking(False)
        settings.apply(made, path)
    except OSError as error:
        owned.remove()
        made.close()
        raise CannotListenError(None, str(path), error) from error
    return made


def check_unix_path(path: Path) -> None:
    """
    Check that a path can be that of a UNIX socket: not too long, and no other kind of file.

    :raises CannotListenError: when it cannot.
    """
    if len(os.fsencode(path)) > _LONGEST_PATH:
        reason = f"the path of a UNIX socket is at most {_LONGEST_PATH} bytes long"
        raise CannotListenError(None, str(path), OSError(errno.ENAMETOOLONG, reason))
    _find_socket(path)


def _find_socket(path: Path) -> os.stat_result | None:
    """
    Return the status of a socket; None if there is none.

    :raises CannotListenError: when the path is not a socket.
    """
    try:
        found = path.lstat()
    except OSError:
        # The path does not exist; any other problem is reported by bind(2).
        return None
    if not stat.S_ISSOCK(found.st_mode):
        raise _in_use(path, "the file there is not a socket")
    return found


def _bind(path: Path) -> socket.socket:
    made = None
    try:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.bind(os.fsencode(path))
    except OSError as error:
        if made is not None:
            made.close()
        raise CannotListenError(None, str(path), error) from error
    return made


def _remove_stale(path: Path) -> None:
    """
    Remove a socket on which no process listens.

    :raises CannotListenError: when a process listens there, or the path is not a socket.
    """
    before = _find_socket(path)
    if before is None:
        return
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
