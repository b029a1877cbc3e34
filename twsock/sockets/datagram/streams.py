"""
The output streams of a datagram socket: destination → **stream**; writes of one turn → one send.

Each `twsock.DatagramSocket` has one `OutputStreams`. It holds weak references to the streams that
the application has, strong ones to those with queued datagrams and to those of ``send_to``, which
has one for each address family. Streams send at the end of the event in which the application
wrote, or in the reactor's next turn.
"""

from __future__ import annotations

import socket
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.interfaces import IDelayedCall

from twsock.datagram.port import DatagramPort
from twsock.errors import SocketError
from twsock.log import TextLogger
from twsock.sockets.datagram.output import DatagramOutputStream
from twsock.sockets.datagram.ports import DatagramPorts
from twsock.sockets.datagram.state import DatagramSocketState, socket_closed
from twsock.sockets.weakly import weak_callback, weak_factory

__all__ = ["OutputStreams"]


class OutputStreams:
    """
    Makes the output streams of one socket, and sends what they queued.

    :param reactor: calls at its next turn.
    :param state: makes the errors of writes; no turn is scheduled once it is closed.
    :param ports: the ports to send through.
    :ivar direct: the streams of ``DatagramSocket.send_to``; the key is whether it is for IPv6.
    """

    _log = TextLogger()

    __slots__ = (
        "__weakref__",
        "_is_held",
        "_pending",
        "_ports",
        "_reactor",
        "_state",
        "_streams",
        "_turn",
        "direct",
    )

    def __init__(self, reactor: Any, state: DatagramSocketState, ports: DatagramPorts) -> None:
        self._reactor = reactor
        self._state = state
        self._ports = ports
        self._streams: weakref.WeakSet[DatagramOutputStream] = weakref.WeakSet()
        self.direct: dict[bool, DatagramOutputStream] = {}
        # Streams with queued datagrams, the call that will send these, and whether `release` will.
        self._pending: list[DatagramOutputStream] = []
        self._turn: IDelayedCall | None = None
        self._is_held = False

    # Destinations.

    def make(self, refusal: Callable[[], SocketError]) -> DatagramOutputStream:
        """
        Make a stream without a destination.

        :param refusal: a method of the state; makes the errors of writes until it is opened.
        """
        stream = DatagramOutputStream(
            self._reactor,
            weak_factory(refusal, socket_closed),
            weak_callback(self._note_pending),
            weak_callback(self._note_unawaited),
        )
        self._streams.add(stream)
        return stream

    def make_for(
        self, addresses: Sequence[tuple[str, int]], local: tuple[str, int] | None = None
    ) -> DatagramOutputStream:
        """
        Make a stream to the first of these addresses whose family the socket is bound in.

        :param local: the address and port to send from; None for the kernel's choice.
        :raises SocketError: when no address can be used.
        """
        # If none is usable, the error of the first address says why.
        usable = [address for address in addresses if self._ports.find(address[0]) is not None]
        address = (usable or addresses)[0]
        self._ports.check_destination(address[0])
        port = self._ports.require(address[0])
        source = None if local is None else self._ports.find_source(local, address[0])
        found = port.find_address(address)
        assert found is not None  # Only a connected port needs no address.
        stream = self.make(self._state.not_bound)
        stream.opened(port, found, (source,) if source else self._ports.find_ways(found))
        return stream

    def open_direct(self, port: DatagramPort) -> DatagramOutputStream:
        """Make the stream of ``DatagramSocket.send_to`` for the address family of a port."""
        stream = self.direct[port.socket_family == socket.AF_INET6] = self.make(
            self._state.not_bound
        )
        stream.opened(port)
        return stream

    # Events of the socket.

    def connected(self, port: DatagramPort, output: DatagramOutputStream) -> None:
        """Open the stream to the connected peer, and end all others."""
        for stream in list(self._streams):
            if stream is not output:
                stream.next_turn()
                stream.lost(self._state.not_bound)
        output.opened(port)

    def lost(self, make_error: Callable[[], SocketError]) -> None:
        """Fail all pending writes and flushes; see ``DatagramOutputStream.lost``."""
        for stream in list(self._streams):
            stream.lost(make_error)

    def cancel_writes(self, make_error: Callable[[], SocketError]) -> None:
        """Withdraw and fail the writes that are not yet with the kernel; fail all flushes."""
        for stream in list(self._streams):
            stream.cancel_writes(make_error)

    @property
    def is_awaited(self) -> bool:
        """Whether a flush is pending, or code awaits a write that is not with the kernel."""
        return any(stream.is_awaited for stream in self._streams)

    def complete(self) -> None:
        """Complete all writes: another owner of the socket sends them."""
        for stream in list(self._streams):
            stream.complete()

    # Sending what the streams queued.

    def hold(self) -> bool:
        """Queue datagrams until `release`; return whether they were being queued before."""
        was_held, self._is_held = self._is_held, True
        return was_held

    def release(self) -> None:
        """Send the queued datagrams."""
        self._is_held = False
        if self._pending:
            self.send_pending()

    def send_pending(self) -> None:
        """Send the queued datagrams now, as far as the kernel has room."""
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        pending, self._pending = self._pending, []
        for stream in pending:
            stream.next_turn()

    def _note_pending(self, stream: DatagramOutputStream) -> None:
        self._pending.append(stream)
        if not self._is_held and self._turn is None and not self._state.is_closed:
            self._turn = self._reactor.callLater(0, self._next_turn)

    def _next_turn(self) -> None:
        self._turn = None
        self.send_pending()

    def _note_unawaited(self, error: SocketError) -> None:
        self._log.info("a datagram that nobody awaits was not sent: {error}", error=error)
