"""
Takes over transports and sockets, and lets go of them: socket of Python → **stream socket** → back.

The base of `twsock.StreamSocket`. It holds nothing.
"""

from __future__ import annotations

import socket
from typing import Any

from typing_extensions import Self

from twsock.errors import ClosedError, LocalProtocolError
from twsock.handover.detached import DetachedConnection
from twsock.sockets.stream.connecting import adopt_transport
from twsock.sockets.stream.connection import SocketProtocol
from twsock.sockets.stream.output import OutputStream
from twsock.sockets.stream.state import StreamSocketState
from twsock.stream.adopting import adopt_socket
from twsock.wire.byte_queue import as_bytes

__all__ = ["TransferableSocket"]


class TransferableSocket:
    """The calls of a stream socket that move a connection into it, or out of it."""

    __slots__ = ()

    # Of `StreamSocket`.
    output_stream: OutputStream
    _connection: SocketProtocol | None
    _state: StreamSocketState

    def __init__(self, reactor: Any) -> None:
        raise NotImplementedError

    def build_protocol(self) -> SocketProtocol:
        """Return a protocol that connects this socket when it gets a transport."""
        raise NotImplementedError

    # Called by applications.

    @classmethod
    def from_transport(cls, reactor: Any, transport: Any, unread: bytes = b"") -> Self:
        """
        Take over a connected transport of Twisted; its protocol receives no further events.

        :param transport: any stream transport.
        :param unread: bytes that its protocol received and did not use; they are read first.
        :raises ClosedError: when the transport is no longer connected.
        """
        stream_socket = cls(reactor)
        adopt_transport(transport, stream_socket.build_protocol(), unread)
        return stream_socket

    @classmethod
    def from_socket(
        cls, reactor: Any, connection: socket.socket, *, unread: bytes = b"", unsent: bytes = b""
    ) -> Self:
        """
        Take over a connected socket of Python, such as one of `detach`.

        :param connection: TCP or UNIX. It is detached: the reactor uses it from now on, under
            another descriptor.
        :param unread: bytes that were received and not read; they are read first.
        :param unsent: bytes that were written and not sent; they are sent first.
        :raises ValueError: when it is not a stream socket.
        :raises SocketError: when it is not connected. It is then unchanged, except for being
            non-blocking.
        """
        stream_socket = cls(reactor)
        protocol = stream_socket.build_protocol()
        adopt_socket(reactor, connection, lambda: protocol)
        if unsent:
            stream_socket.output_stream.send_all(as_bytes(unsent))
        if unread:
            protocol.dataReceived(as_bytes(unread))
        return stream_socket

    def detach(self) -> DetachedConnection:
        """
        Take the socket out of the reactor, with all bytes that are not in the kernel.

        The peer notices nothing: no FIN and no reset is sent, and no socket option changes. Then
        this object is closed as after ``close``, and ``wait_closed`` fires. Not in WinRT, whose
        broker takes the socket.

        :returns: the socket, which the caller owns now, and the bytes for `from_socket`.
        :raises LocalProtocolError: when the socket is not connected; under TLS, and during a
            handshake; while a read, write or flush is pending (call ``cancel_io`` before, or await
            it); when one direction has ended or was closed; when the transport is not a socket of
            the reactor, or has a producer. Nothing has changed then.
        :raises ClosedError: when this end was closed, or the connection was lost.
        :raises SocketError: when no descriptor is free. Nothing has changed then.
        """
        if self._state.is_ended:
            raise ClosedError("cannot detach: the socket was closed")
        if self._connection is None:
            raise LocalProtocolError("cannot detach: the socket is not connected")
        return self._connection.detach()
