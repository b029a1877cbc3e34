"""
Endpoints that listen on UNIX sockets: path → **endpoint** → port.

The services use this for ``unix:`` endpoints. Twisted's own endpoint has three faults:

- its lock file blocks every further start when another process got the same process id, which is
  the rule in a container;
- it removes a socket that is listened on when the lock file is stale;
- its port fails to close when the folder forbids the removal, as it may after ``twistd --uid``.

Twisted's port has two more, with a socket that another process opened: it makes the path writable
for all users, and its shutdown(2) ends the socket for all processes that have it.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from twisted.internet import unix
from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.posixbase import PosixReactorBase
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import Interface, implementer

from twsock.stream.listening.unix_socket import (
    DEFAULT_SOCKET_MODE,
    OwnedPath,
    UnixSocketSettings,
    open_unix_socket,
)

__all__ = ["IReactorUnixSockets", "UnixEndpoint", "UnixPort"]


class IReactorUnixSockets(Interface):
    """
    A reactor that opens listening UNIX sockets itself, or has them from another process.

    Twisted's ``IReactorUNIX`` is not used: it has no parameter for the owner of a path, or for a
    socket that another process has opened.
    """

    def listen_on_path(
        path: Path,  # noqa: N805
        factory: IProtocolFactory,
        settings: UnixSocketSettings,
    ) -> IListeningPort:
        """
        Listen on a path.

        :raises CannotListenError: see `open_unix_socket`.
        """


@implementer(IStreamServerEndpoint)
class UnixEndpoint:
    """
    Listens on the path of a UNIX socket, and removes the path when the port is closed.

    :param reactor: runs the port, and opens the socket if it provides `IReactorUnixSockets`.
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
        self._settings = UnixSocketSettings(backlog, mode, owner)

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """
        Listen for connections.

        :returns: fires at once with the port. It fails with Twisted's ``CannotListenError`` when
            another process listens there, when the path is not a socket, or with the operating
            system's error.
        """
        return execute(self._listen, factory)

    def _listen(self, factory: IProtocolFactory) -> IListeningPort:
        if self._path.startswith("\0"):
            return self._listen_by_twisted(factory)
        path = Path(self._path)
        if IReactorUnixSockets.providedBy(self._reactor):
            listening: IListeningPort = self._reactor.listen_on_path(path, factory, self._settings)
            return listening
        if not isinstance(self._reactor, PosixReactorBase):
            return self._listen_by_twisted(factory)  # A reactor in memory.
        port = UnixPort(self._reactor, open_unix_socket(path, self._settings), factory)
        port.own(OwnedPath(path))
        port.startListening()
        return port

    def _listen_by_twisted(self, factory: IProtocolFactory) -> IListeningPort:
        # An abstract name (Linux, unix(7)) has no path.
        settings = self._settings
        listening: IListeningPort = self._reactor.listenUNIX(
            self._path, factory, settings.backlog, settings.mode, 0
        )
        return listening


class UnixPort(unix.Port):
    """
    A port of a listening UNIX socket; it closes even if it cannot remove its path.

    :param listening: not blocking; the port closes it, and never shuts it down: other processes may
        have it too.
    """

    _owned: OwnedPath | None = None

    def __init__(self, reactor: Any, listening: socket.socket, factory: Any) -> None:
        name = listening.getsockname()
        super().__init__(os.fsencode(name), factory, reactor=reactor)
        self._listening = listening

    def own(self, path: OwnedPath) -> None:
        """Remove this path when the port is closed."""
        self._owned = path

    def remove_path(self) -> None:
        """Remove the path now if this port owns it; for a process that ends at once."""
        owned, self._owned = self._owned, None
        if owned is not None:
            owned.remove()

    @override
    def startListening(self) -> None:
        # The method of Twisted would change the mode of the path, and the backlog.
        factory: Any = self.factory
        try:
            factory.doStart()
        except BaseException:
            self.remove_path()
            self._listening.close()
            raise
        self._shouldShutdown = False
        self.socket = self._listening
        self.fileno = self.socket.fileno  # type: ignore[method-assign]
        # Twisted adapts the number to the traffic; 100 is the first value of its own ports.
        self.numberAccepts = 100
        self.connected = True
        self.startReading()

    @override
    def connectionLost(self, reason: Failure) -> None:
        self.remove_path()
        # Skips Twisted's `unix.Port.connectionLost`, which would remove the path.
        super(unix.Port, self).connectionLost(reason)
