"""
Separates a protocol from its socket, and back: protocol → **detaching** → socket and its bytes.

The base of `twsock.stream.protocol.StreamProtocol`, which decides when a hand-over is possible.
`twsock.stream.resuming` uses it for protocols that move with their state. Holds the record of a
connection that was moved until it continues.
"""

from __future__ import annotations

import socket
from typing import Any

from typing_extensions import Self

from twsock.errors import ClosedError, LocalProtocolError
from twsock.handover.detached import DetachedConnection
from twsock.stream.adopting import adopt_socket
from twsock.stream.connection import Connection
from twsock.stream.connection_protocol import ConnectionProtocol
from twsock.stream.counters import Counters
from twsock.stream.moving_record import MovingRecord
from twsock.wire.byte_queue import as_bytes

__all__ = ["DetachableProtocol", "name_of"]


class DetachableProtocol(ConnectionProtocol):
    """A connection whose socket can move to another protocol, also of another process."""

    # Whether reading has paused until the peer receives the answers.
    _is_stalled = False
    _received = _messages = 0

    # Implemented by `StreamProtocol`.

    def _hold_back(self, stream: Connection, room: int, is_answer: bool = False) -> bool:
        """Handle a send of which bytes are left."""
        raise NotImplementedError

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
            is not a socket of the reactor, or has a producer. Nothing has changed then.
        :raises ClosedError: when this end was closed, or the connection was lost.
        :raises SocketError: when no descriptor is free. Nothing has changed then.
        """
        return self.leave()

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
        :raises ValueError: when it is not a stream socket.
        :raises SocketError: when it is not connected. It is then unchanged, except for being
            non-blocking.
        """
        protocol = cls()
        protocol.continue_output(as_bytes(unsent))
        adopt_socket(reactor, connection, lambda: protocol)
        if unread:
            protocol.dataReceived(as_bytes(unread))
        return protocol

    # Called by `twsock.stream.resuming`.

    @property
    def port_counters(self) -> Counters:
        """The counters of the port that has accepted the connection."""
        return self._connected_stream().counters

    def check_detachable(self, *, with_header: bool = False) -> None:
        """
        Check that `leave` is possible now.

        :param with_header: see `Connection.check_detachable`.
        :raises LocalProtocolError: as `detach`.
        :raises ClosedError: as `detach`.
        """
        stream = self._connected_stream()
        if stream.is_gone:
            raise ClosedError("cannot detach: the connection is closed")
        reason = self._reason_to_stay()
        if reason:
            raise LocalProtocolError(f"cannot detach: {reason}")
        stream.check_detachable(with_header=with_header)

    def leave(self, *, with_header: bool = False) -> DetachedConnection:
        """
        Do the same as `detach`.

        :param with_header: see `Connection.check_detachable`.
        """
        self.check_detachable(with_header=with_header)
        stream = self._connected_stream()
        copy = stream.copy_socket(with_header=with_header)
        if self.group is not None and self.group.connection_log is not None:
            self.group.connection_log.forget(self)  # The connection does not end here.
        return stream.detach(copy, self.take_buffered())

    def describe_move(self, state: bytes) -> MovingRecord:
        """
        Return what moves with the connection besides its bytes.

        :param state: what the protocol exported.
        """
        stream, group = self._connected_stream(), self.group
        log = None if group is None else group.connection_log
        return MovingRecord(
            name_of(type(self)),
            "" if group is None else group.endpoint_of(stream.counters),
            state,
            stream.proxy_header,
            self._is_stalled,
            None if log is None else log.age_of(self),
            0.0 if group is None else group.idle_time(self),
            self._messages,
            self._received,
            stream.sent,
        )

    def continue_from(self, record: MovingRecord | None, unsent: bytes) -> None:
        """Continue a connection that was moved; called before this protocol is connected."""
        self._moved = record
        self.continue_output(unsent)

    def continue_input(self, unread: bytes) -> None:
        """Handle the bytes that were received and not handled; called after it is connected."""
        record, self._moved = self._moved, None
        stream = self._connected_stream()
        if not stream.is_open:
            return
        if record is not None:
            self._continue_counts(record, len(unread))
        if not stream.is_flushed:
            stream.note_buffered()
        if stream.is_full:
            self._hold_back(stream, 0, is_answer=record is not None and record.is_stalled)
        if unread:
            self.dataReceived(unread)

    def _continue_counts(self, record: MovingRecord, unread: int) -> None:
        # The earlier owner has counted the unread bytes, and they are about to be counted again.
        stream = self._connected_stream()
        stream.counters.bytes_received -= unread
        self._received = record.received - unread
        self._messages = record.messages
        stream.sent += record.sent


def name_of(protocol: type[object]) -> str:
    """Return the name of a class of protocols, which is the same in each process."""
    return f"{protocol.__module__}.{protocol.__qualname__}"
