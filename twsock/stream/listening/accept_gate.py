"""
Stops accepting at a limit, and resumes below it: kernel → **accept gate** → port of Twisted.

A `twsock.protocols.StreamServerFactory` or a `twsock.StreamSocketListener` puts a gate between a
port of Twisted and its listening socket. Connections that are not accepted wait in the kernel's
backlog, where they cost this process nothing. If they were accepted and closed at once, their peers
would lose the requests that they had sent.

The port accepts many connections in one turn of the reactor, and cannot be stopped in between. So
the socket itself has to report that no connection waits.

A port that stops accepts the connections that the kernel has queued, then closes its socket. These
connections are established for their peers, and closing the socket first would reset them.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from twsock.log import TextLogger

__all__ = ["AcceptGate", "hold_port", "release_port"]

#: Errors of a process or machine that has no descriptor or memory left for a connection.
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

#: Seconds without accepting after such an error. Trio's figure: short for a client that waits, long
#: for a loop that would otherwise spin.
_REST: Final = 0.1

#: The most connections that a port accepts while it stops: a full queue at Linux's default
#: ``net.core.somaxconn``. Any further connection has arrived meanwhile.
_MOST_QUEUED: Final = 4096

#: The most connections that are refused in a row before the reactor handles other events.
_MOST_TURNED_AWAY: Final = 64

#: The most reads of a stopping port that accept no connection. A peer that has already reset its
#: connection makes accept(2) fail once, and further connections may be queued after it.
_MOST_FRUITLESS: Final = 64


class AcceptGate:
    """
    Replaces the listening socket of a port, and accepts no connection while it is shut.

    :param port: a listening TCP or UNIX port of Twisted; the gate becomes its ``socket``.
    :param clock: measures the pause after the machine had no descriptor left.
    :param has_room: called before each accept. If it returns False, nothing is accepted.
    :param accepting_queue: called with True before a stopping port accepts the queue of the kernel,
        and with False afterwards.
    :param admits: called with the host of each accepted connection, or None for a UNIX socket. If
        it returns False, the connection is closed. It is not called if the peers are proxies.

    :ivar has_no_delay: whether accepted connections have ``TCP_NODELAY`` on without a call of their
        own: the gate has turned it on for the listening socket, and for those that waited before.
    """

    _log = TextLogger()

    def __init__(
        self,
        port: Any,
        clock: IReactorTime,
        has_room: Callable[[], bool],
        admits: Callable[[str | None], bool] | None = None,
        accepting_queue: Callable[[bool], None] | None = None,
    ) -> None:
        self._accepting_queue = accepting_queue
        self._admits = None if _speaks_for_others(port) else admits
        self._port = port
        self._clock = clock
        self._has_room = has_room
        self._socket: socket.socket = port.socket
        self._is_exhausted = False
        self._resting: IDelayedCall | None = None
        # Whether the gate has paused the port; only then it resumes the port.
        self._is_shut = False
        # Whether another process accepts from the same socket, and this one does not.
        self._is_held = False
        # Connections that the stopping port may still accept; None while it is not stopping.
        self._left: int | None = None
        self.has_no_delay = _turn_nagle_off(self._socket)
        # Whether the next connection may be older than the option.
        self._may_be_early = self.has_no_delay
        port.socket = self

    def __getattr__(self, name: str) -> Any:
        # The port calls other methods of its socket, too, such as `getsockname`.
        return getattr(self._socket, name)

    def accept(self) -> tuple[socket.socket, Any]:
        """
        Accept a connection as a socket does, or report that none waits.

        :raises BlockingIOError: when there is no room, no connection waits, or the machine has no
            descriptor or memory left; also after 64 connections in a row that were not admitted.
        """
        for _ in range(_MOST_TURNED_AWAY):
            connection, address = self._accept_one()
            if self._admits is None or self._admits(_host_of(address)):
                return connection, address
            connection.close()
        raise BlockingIOError(errno.EAGAIN, "refused 64 connections in a row")

    def _accept_one(self) -> tuple[socket.socket, Any]:
        if self._left == 0 or self._is_held:
            raise BlockingIOError(errno.EAGAIN, "the port accepts nothing now")
        if not self._has_room():
            self._pause()
            raise BlockingIOError(errno.EAGAIN, "the limit of connections is reached")
        try:
            accepted = self._socket.accept()
        except BlockingIOError:
            self._left = None if self._left is None else 0
            self._may_be_early = False
            raise
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
            self._rest(error)
            raise BlockingIOError(errno.EAGAIN, "out of resources") from error
        if self._may_be_early:
            accepted[0].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._is_exhausted = False
        if self._left is not None:
            self._left -= 1
        return accepted

    def reopen(self) -> None:
        """Accept again if there is room. It has no effect on a gate that is open or has closed."""
        if self._is_held or not self._is_shut or self._resting is not None:
            return
        if self._has_room():
            self._is_shut = False
            self._port.resumeProducing()

    def hold(self) -> None:
        """
        Accept nothing until `release`, as another process accepts from the same socket.

        A port that stops meanwhile leaves the queued connections to that process.
        """
        self._is_held = True
        self._port.pauseProducing()

    def release(self) -> None:
        """Accept again after `hold`, if there is room."""
        if self._is_held:
            self._is_held = False
            self._is_shut = True
            self.reopen()

    @property
    def is_closed(self) -> bool:
        """Whether the port has closed the socket."""
        return self._socket.fileno() < 0

    def shut(self) -> None:
        """Accept no further connection, even if there is room later."""
        self._has_room = _no_room
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None

    def shutdown(self, how: int) -> None:
        """Accept the queued connections, then shut the socket down; called by a stopping port."""
        self.accept_queued()
        self._socket.shutdown(how)

    def close(self) -> None:
        """Accept the queued connections, then close the socket; called by a stopping port."""
        self.accept_queued()
        self.shut()
        self._socket.close()

    def accept_queued(self) -> None:
        """
        Accept the connections that the kernel has queued, as far as there is room.

        Does nothing the second time, and while the port is not stopping. Also when the reactor
        itself stops, since it then closes every connection, and when another process accepts from
        the same socket.
        """
        if self._left is not None or self._is_held or not self._port.disconnecting:
            return
        if not getattr(self._socket, "accepts_at_end", True):
            return
        self._left = _MOST_QUEUED
        if self._accepting_queue is not None:
            self._accepting_queue(True)
        tries_left = _MOST_FRUITLESS
        while self._left and tries_left:
            before = self._left
            self._port.doRead()
            if self._left == before:
                tries_left -= 1
        if self._accepting_queue is not None:
            self._accepting_queue(False)

    def _pause(self) -> None:
        if self._left is not None:
            self._left = 0
        self._is_shut = True
        self._port.pauseProducing()

    def _rest(self, error: OSError) -> None:
        if not self._is_exhausted:
            self._is_exhausted = True
            self._log.warn(
                "{host} cannot accept: {error}; retrying every {rest} s",
                host=self._port.getHost(),
                error=error.strerror,
                rest=_REST,
            )
        self._pause()
        if self._resting is None:
            self._resting = self._clock.callLater(_REST, self._rested)

    def _rested(self) -> None:
        self._resting = None
        self.reopen()


def hold_port(port: Any) -> None:
    """Stop a port of any kind from accepting and reading, see `AcceptGate.hold`."""
    gate = getattr(port, "socket", None)
    getattr(gate, "hold", getattr(port, "pauseProducing", _nothing))()


def release_port(port: Any) -> None:
    """Let a port accept and read again after `hold_port`."""
    gate = getattr(port, "socket", None)
    getattr(gate, "release", getattr(port, "resumeProducing", _nothing))()


def _nothing() -> None:
    pass


def _turn_nagle_off(listening: socket.socket) -> bool:
    """Turn Nagle's algorithm off for connections to come; return whether they inherit that."""
    # Linux copies the option to accepted sockets. POSIX does not demand that.
    if sys.platform != "linux" or listening.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return True


def _host_of(address: object) -> str | None:
    # The address of a UNIX socket is a path, or empty.
    return str(address[0]) if isinstance(address, tuple) else None


def _speaks_for_others(port: Any) -> bool:
    """Return whether a factory of the port reads the peer's address from a header later."""
    factory = getattr(port, "factory", None)
    while factory is not None and not getattr(factory, "learns_addresses", False):
        factory = getattr(factory, "wrappedFactory", None)
    return factory is not None


def _no_room() -> bool:
    return False
