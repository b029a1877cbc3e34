"""
Takes over listening sockets, and leaves them to others: socket of Python → **listener** → back.

The base of `twsock.sockets.stream.listening.SocketListener`. It holds nothing.
"""

from __future__ import annotations

import socket
from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.python.failure import Failure
from typing_extensions import Self

from twsock.errors import ClosedError, LocalProtocolError
from twsock.handover.detached import DetachedListener
from twsock.sockets.stream.control import StreamSocketListenerControl
from twsock.sockets.stream.ports import BACKLOG
from twsock.stream.listening.accept_gate import AcceptGate
from twsock.stream.listening.adopted_port import (
    check_listening,
    copy_listening,
    leave_ports,
    listen_on,
)

__all__ = ["TransferableListener"]


class TransferableListener:
    """The calls of a listener that move listening sockets into it, or out of it."""

    # Of `SocketListener`.
    control: StreamSocketListenerControl
    _reactor: Any
    _is_closed: bool
    _ports: list[IListeningPort]
    _gates: list[AcceptGate]
    _taker: Deferred[Any] | None

    def __init__(self, reactor: Any, **parameters: Any) -> None:
        raise NotImplementedError

    def _bind(self, work: Coroutine[Deferred[Any], Any, list[IListeningPort]]) -> Deferred[None]:
        raise NotImplementedError

    def _make_factory(self) -> IProtocolFactory:
        raise NotImplementedError

    # Called by applications.

    @classmethod
    def from_socket(
        cls, reactor: Any, listening: DetachedListener | socket.socket, **parameters: Any
    ) -> Self:
        """
        Make a listener on listening sockets, such as those of `detach`.

        It has no handlers, so `accept` returns its connections; `bind_socket` is for a listener
        that has handlers.

        :param listening: a value of ``detach``, or a listening socket of Python, TCP or UNIX. Its
            sockets are closed: the reactor uses copies of them. The path of a UNIX socket is not
            removed when the listener is closed.
        :param parameters: those of the class, such as ``max_connections``.
        :raises ValueError: when a socket does not listen, or a parameter is out of bounds.
        :raises SocketError: when no descriptor is free. The sockets are then only made
            non-blocking.
        """
        made = cls(reactor, **parameters)
        failures: list[Failure] = []
        made.bind_socket(listening).addErrback(failures.append)
        if failures:
            failures[0].raiseException()
        return made

    def bind_socket(self, listening: DetachedListener | socket.socket) -> Deferred[None]:
        """
        Accept the connections of sockets that listen already, such as those of `detach`.

        Not in WinRT.

        :param listening: as in `from_socket`.
        :returns: has already fired. It fails with `LocalProtocolError` when the listener is bound,
            with `ClosedError` when it was closed, with the status of the system's error when no
            descriptor is free. The sockets are then only made non-blocking.
        :raises ValueError: at once, when a socket does not listen.
        """
        if isinstance(listening, socket.socket):
            listening = DetachedListener((listening,))
        for one in listening.sockets:
            check_listening(one)
        return self._bind(self._listen_on(listening))

    def detach(self) -> DetachedListener:
        """
        Take the listening sockets out of the reactor; the kernel queues further connections.

        No connection is refused or reset, and no option changes. Then this listener is closed, but
        its accepted connections stay: handlers go on, and `accept` returns those that are waiting,
        or whose handshake is under way, before it fails with `ClosedError`. TLS and PROXY headers
        are not part of the sockets: the next owner needs its own certificate. Not in WinRT, whose
        broker takes the listener.

        :returns: the sockets, which the caller owns now, for `from_socket` or `bind_socket`. The
            path of a UNIX socket stays; the last owner removes it.
        :raises LocalProtocolError: when the listener is not bound; while an ``accept`` is pending
            (call ``cancel_io`` before); when a port is not a socket of the reactor. Nothing has
            changed then.
        :raises ClosedError: when the listener was closed.
        :raises SocketError: when no descriptor is free. Nothing has changed then.
        """
        if self._is_closed:
            raise ClosedError("cannot detach: the listener was closed")
        if not self._ports:
            raise LocalProtocolError("cannot detach: the listener is not bound")
        if self._taker is not None:
            raise LocalProtocolError("cannot detach: an accept is pending: cancel_io() first")
        copies = copy_listening(self._ports)
        self._is_closed = True
        self._gates.clear()
        ports, self._ports = self._ports, []
        leave_ports(ports)
        return DetachedListener(copies)

    async def _listen_on(self, detached: DetachedListener) -> list[IListeningPort]:
        factory = self._make_factory()
        ports: list[IListeningPort] = []
        try:
            for one in detached.sockets:
                ports.append(listen_on(self._reactor, one, factory, BACKLOG))
                self.control.apply(ports[-1])
        except BaseException:
            leave_ports(ports)
            raise
        detached.close()
        return ports
