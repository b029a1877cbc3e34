"""
Takes over UDP sockets, and leaves them to others: socket of Python → **datagram socket** → back.

The base of `twsock.DatagramSocket`. It holds nothing.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.defer import Deferred
from typing_extensions import Self

from twsock.errors import ClosedError, LocalProtocolError
from twsock.handover.datagram_state import UnreadDatagram
from twsock.handover.detached import DetachedDatagramPort, DetachedDatagramSocket
from twsock.sockets.datagram.delivery import MessageDelivery
from twsock.sockets.datagram.message import DatagramSocketMessageReceivedEventArgs, SenderAddress
from twsock.sockets.datagram.output import DatagramOutputStream
from twsock.sockets.datagram.ports import DatagramPorts
from twsock.sockets.datagram.state import DatagramSocketState, Phase
from twsock.sockets.datagram.streams import OutputStreams

__all__ = ["TransferableDatagramSocket"]


class TransferableDatagramSocket:
    """The calls of a datagram socket that move UDP sockets into it, or out of it."""

    __slots__ = ()

    # Of `DatagramSocket`.
    output_stream: DatagramOutputStream
    _delivery: MessageDelivery
    _ports: DatagramPorts
    _state: DatagramSocketState
    _streams: OutputStreams

    def __init__(self, reactor: Any) -> None:
        raise NotImplementedError

    def close(self) -> Deferred[None]:
        """Close the socket."""
        raise NotImplementedError

    # Called by applications.

    @classmethod
    def from_socket(
        cls, reactor: Any, bound: DetachedDatagramSocket | DetachedDatagramPort | socket.socket
    ) -> Self:
        """
        Take over bound UDP sockets, such as those of `detach`.

        The new socket has no handlers; `bind_socket` is for a socket that has some.

        :param bound: a value of ``detach``, or a UDP socket of Python with default options. Its
            sockets are closed: the reactor uses copies of them.
        :raises ValueError: when a socket is not a bound UDP socket, or an option does not exist.
        :raises SocketError: when no descriptor is free. The sockets are then only made
            non-blocking.
        """
        made = cls(reactor)
        made._continue(bound)
        return made

    def bind_socket(
        self, bound: DetachedDatagramSocket | DetachedDatagramPort | socket.socket
    ) -> Deferred[None]:
        """
        Bind to UDP sockets that are bound already, such as those of `detach`. Not in WinRT.

        Options and peer are those of the sockets: ``control`` shows them, and the socket is
        connected if they are. Unread datagrams are received first, and unsent ones are sent first.

        :param bound: as in `from_socket`.
        :returns: has already fired. It fails as `from_socket` does, and with `LocalProtocolError`
            when this socket is bound or connected.
        """

        async def work() -> None:
            self._continue(bound)

        return self._state.open(work())

    def detach(self) -> DetachedDatagramSocket:
        """
        Take the sockets out of the reactor, with all datagrams that are not in the kernel.

        The kernel goes on receiving, as many datagrams as the receive buffer takes. No option
        changes, and the sockets stay in their groups. Then this object is closed as after
        ``close``. A write that waits for the kernel and that no code awaits moves too: its Deferred
        fires. Reports of refusals that were not received are dropped. Not in WinRT, whose broker
        takes the socket.

        :returns: the sockets, which the caller owns now, for `from_socket` or `bind_socket`.
        :raises LocalProtocolError: when the socket is not bound; while a receive, a flush, an
            awaited write or a lookup is pending (call ``cancel_io`` before, or await it); while a
            handler runs, also if it makes this call; while datagrams are being sent, also if a
            callback of one makes this call; when a socket is not one of the kernel. Nothing has
            changed then.
        :raises ClosedError: when the socket was closed.
        :raises SocketError: when no descriptor is free. Nothing has changed then.
        """
        if self._state.is_closed:
            raise ClosedError("cannot detach: the socket was closed")
        if not self._state.is_open:
            raise LocalProtocolError("cannot detach: the socket is not bound")
        if self._state.is_busy or self._delivery.queue.is_pending or self._streams.is_awaited:
            raise LocalProtocolError("cannot detach: an operation is pending: cancel_io() first")
        if self._delivery.is_running:
            raise LocalProtocolError("cannot detach: a handler runs")
        copies = self._ports.copy_sockets()
        self._streams.send_pending()
        detached = self._ports.detach(copies, _unread_of(self._delivery.queue.take_all()))
        self._streams.complete()
        self.close()
        return detached

    def _continue(
        self, bound: DetachedDatagramSocket | DetachedDatagramPort | socket.socket
    ) -> None:
        if isinstance(bound, socket.socket):
            bound = DetachedDatagramPort(bound)
        if isinstance(bound, DetachedDatagramPort):
            bound = DetachedDatagramSocket((bound,))
        ports = self._ports.take(bound)
        is_connected = self._ports.peer is not None
        self._state.phase = Phase.CONNECTED if is_connected else Phase.BOUND
        if is_connected:
            self._streams.connected(ports[0], self.output_stream)
        for port, one in zip(ports, bound.ports, strict=True):
            port.catch_up(one.state)


def _unread_of(
    messages: list[DatagramSocketMessageReceivedEventArgs],
) -> tuple[UnreadDatagram, ...]:
    """Return the datagrams of messages; a report of a refusal has none."""
    found = []
    for message in messages:
        address = message.address
        is_whole = message.error is None
        if isinstance(address, SenderAddress) and (is_whole or message.is_truncated):
            run = address.run
            found.append(
                UnreadDatagram(
                    message.beginning,
                    run.source,
                    run.destination,
                    run.interface,
                    run.local,
                    not is_whole,
                )
            )
    return tuple(found)
