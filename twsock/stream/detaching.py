"""
Takes a protocol off its socket and puts one on: protocol → **detaching** → socket and its bytes.

The base of `twsock.stream.protocol.StreamProtocol`, which says when a hand-over is possible. It
holds nothing.
"""

from __future__ import annotations

import socket
from typing import Any

from typing_extensions import Self

from twsock.errors import ClosedError, LocalProtocolError
from twsock.handover.detached import DetachedConnection
from twsock.stream.adopting import adopt_socket
from twsock.stream.connection_protocol import ConnectionProtocol
from twsock.wire.byte_queue import as_bytes

__all__ = ["DetachableProtocol"]


class DetachableProtocol(ConnectionProtocol):
    """A connection whose socket can move to another protocol, also of another process."""

    # Implemented by `StreamProtocol`.

    def _reason_to_stay(self) -> str:
        """Return why the protocol cannot be detached now; empty if it can."""
        raise NotImplementedError

    def take_buffered(self) -> bytes:
        """Remove and return all bytes that were received and not pulled."""
        raise NotImplementedError

    # Called by applications.

    def detach(self) -> DetachedConnection:
        """
        Take the socket out of the reactor, with all bytes that are not in the kernel.

        The peer notices nothing: no FIN and no reset is sent, and no socket option changes. Then
        this protocol is closed as after `close`, and ``connection_lost(None)`` is called within
        this call. A message of which only a part has arrived is in ``unread``.

        :returns: the socket, which the caller owns now, and the bytes for `from_socket`.
        :raises LocalProtocolError: when a handler runs, also if it makes this call; during an
            upgrade and under TLS; on a WebSocket; when one direction has ended; when the transport
            is no socket of the reactor, or has a producer. Nothing has changed then.
        :raises ClosedError: when this end was closed, or the connection was lost.
        :raises SocketError: when no descriptor is free. Nothing has changed then.
        """
        stream = self._connected_stream()
        if stream.is_gone:
            raise ClosedError("cannot detach: the connection is closed")
        reason = self._reason_to_stay()
        if reason:
            raise LocalProtocolError(f"cannot detach: {reason}")
        copy = stream.copy_socket()
        return stream.detach(copy, self.take_buffered())

    def continue_output(self, unsent: bytes) -> None:
        """Send bytes of the connection's earlier owner first; called before it is connected."""
        self._unsent_before = unsent

    @classmethod
    def from_socket(
        cls, reactor: Any, connection: socket.socket, *, unread: bytes = b"", unsent: bytes = b""
    ) -> Self:
        """
        Make a protocol for a connected socket, such as one of `detach`.

        The protocol has no factory, and so none of the limits of one. ``connection_made`` is called
        within this call.

        :param connection: TCP or UNIX. The reactor uses a copy, and this object is closed.
        :param unread: handled before the bytes that the kernel holds.
        :param unsent: sent before anything that the protocol writes.
        :raises ValueError: when it is no stream socket.
        :raises SocketError: when it is not connected. It is then unchanged, except for being
            non-blocking.
        """
        protocol = cls()
        protocol.continue_output(as_bytes(unsent))
        adopt_socket(reactor, connection, lambda: protocol)
        if unread:
            protocol.dataReceived(as_bytes(unread))
        return protocol
