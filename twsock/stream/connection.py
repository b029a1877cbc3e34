"""
One stream connection, from open to lost: protocol or socket → **connection** → Twisted's transport.

The one owner of all facts about a connection. It holds the state of both directions, the deadline,
the security of the connection, and the certificate of the peer. It counts the bytes in memory. At
the loss it releases what belongs to the connection. Each
`twsock.protocols.StreamProtocol` has one, and each `twsock.StreamSocket` while it is connected. Its
base classes send (`twsock.stream.transport`) and end the connection (`twsock.stream.ending`).
"""

from __future__ import annotations

import socket
from functools import partial
from typing import Any, Final

from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from twsock._twisted import leave_socket
from twsock.errors import BrokenError, LocalProtocolError, SocketError, SocketErrorStatus
from twsock.handover.detached import DetachedConnection
from twsock.log import TextLogger
from twsock.stream.below_tls import TlsLowerTransport
from twsock.stream.closing import AFTER_INPUT_STATES, Carrier, Event, State, follow
from twsock.stream.descriptor import (
    carries_tls,
    describe_peer,
    hung_up,
    is_shaking_hands,
    is_writable,
    plain_socket,
    secured_by,
    unread_input,
)
from twsock.stream.ending import ConnectionOwner, EndingTransport
from twsock.stream.listening.buffer_limit import BufferLimit
from twsock.stream.transport import HIGH_WATER
from twsock.tls.certificates import Certificate
from twsock.tls.engine import adopt_engine
from twsock.tls.handshake import DEFAULT_HANDSHAKE_TIMEOUT
from twsock.wire.proxy_header import ProxyHeader

__all__ = ["FIRST_MESSAGE_TIME", "FULL_READ", "Connection", "ReportsEnds"]

#: A read of this many bytes filled Twisted's smallest receive buffer, so more was probably there.
FULL_READ: Final = 64 * 1024

#: Seconds that a server which ends waits for the first message after a handshake. With TLS 1.2 this
#: message arrives one round trip after the server has completed the handshake.
FIRST_MESSAGE_TIME: Final = 1.0

#: The most bytes of one receive. The size begins at Twisted's 64 KiB and doubles after each full
#: receive, up to this: frames of 64 KiB then cost a third of the time. Above 128 KiB glibc maps and
#: unmaps memory for each receive, which costs more than the larger receive saves.
_MAX_READ_SIZE: Final = 128_000


class Connection(EndingTransport):
    """
    One stream connection, until its loss.

    :param owner: receives the events of the connection. ``output_failed`` is called within the call
        that sends; a transport in memory may report any event within a call.
    :param transport: any connected stream transport of Twisted.
    :param clock: measures the deadlines.
    :param high_water: ``is_full`` becomes true when this many written bytes are not yet with the
        kernel.
    :param buffer_limit: counts the bytes that the connection holds; None for no limit.
    """

    _log = TextLogger()

    __slots__ = ("_limit", "noted", "peer_certificate")

    def __init__(
        self,
        owner: ConnectionOwner,
        transport: Any,
        clock: IReactorTime,
        *,
        high_water: int = HIGH_WATER,
        buffer_limit: BufferLimit | None = None,
    ) -> None:
        is_adopted = adopt_engine(transport)
        super().__init__(owner, transport, clock, high_water)
        self._limit = buffer_limit
        #: The size that was last reported to the limit, in bytes.
        self.noted = 0
        #: The verified certificate of the peer; None without one.
        self.peer_certificate: Certificate | None = None
        if is_adopted:
            self._limit_handshake()

    # Facts.

    @property
    def is_secure(self) -> bool:
        """Whether the connection is encrypted, and its peer was accepted."""
        return secured_by(self._transport) is not None

    @property
    def tls_version(self) -> str:
        """The version of TLS, such as ``TLSv1.3``; empty if the connection is not secure."""
        secured = secured_by(self._transport)
        return "" if secured is None else str(secured.get_protocol_version_name())

    @property
    def carries_tls(self) -> bool:
        """Whether the connection is above a TLS engine."""
        # As `is_plain`, without a call.
        is_plain = self._socket is not None and not self._transport.TLS
        return not is_plain and carries_tls(self._transport)

    @property
    def is_shaking_hands(self) -> bool:
        """Whether a handshake runs, or the kernel has its first bytes."""
        if not self.carries_tls or self.is_secure:
            return False
        return self.has_unread_input or is_shaking_hands(self._transport)

    @property
    def has_unread_input(self) -> bool:
        """Whether bytes wait in the kernel that the reactor has not read."""
        return self._descriptor is not None and unread_input(self._descriptor)

    @property
    def has_hung_up(self) -> bool:
        """Whether the connection has failed or ended; a paused connection gets no event for it."""
        return self._descriptor is not None and hung_up(self._descriptor)

    @property
    def port(self) -> object | None:
        """Twisted's port that accepted the connection; None for any other connection."""
        return getattr(self._descriptor, "server", None)

    # Bytes in memory.

    @property
    def unsent(self) -> int:
        """
        How many bytes were written and are not yet with the kernel; 0 once they were dropped.

        Under TLS this includes bytes that wait before encryption and bytes that wait after it. On a
        transport without a file descriptor, only bytes written while its buffer was full count.
        """
        if self.is_gone:
            return 0  # The unsent bytes were dropped.
        return (self._high_water - self.room if self.is_open else 0) + self.queued

    @property
    def buffered(self) -> int:
        """Bytes that were received and not delivered, or written and not yet with the kernel."""
        return self._owner.held_bytes + self.unsent

    def note_buffered(self) -> None:
        """Report to the limit of all connections how many bytes this one holds."""
        if self._limit is not None and not self.is_gone:
            self.noted = self.buffered
            self._limit.note(self, self.noted)

    def abort_as_largest(self, buffered: int, total: int, limit: int) -> None:
        """Abort this connection, which holds more bytes than any other; log the reason."""
        if self.is_gone:
            return
        self._log.warn(
            "{peer} aborted as the largest: {buffered} of {total} buffered bytes, limit is {limit}",
            peer=describe_peer(self._transport),
            buffered=buffered,
            total=total,
            limit=limit,
        )
        self._owner.drop_input()
        self.abort(
            BrokenError(
                f"{buffered} of {total} bytes buffered for all connections, limit is {limit}"
            )
        )

    # Input.

    def pause_reading(self) -> None:
        """Stop reading: the kernel stops the peer when its receive buffer is full."""
        if self.is_reading:
            self.is_reading = False
            self._transport.pauseProducing()

    def resume_reading(self) -> None:
        """Continue to read, unless the peer has ended its output."""
        if not self.is_reading and self._state not in AFTER_INPUT_STATES:
            self.is_reading = True
            self._transport.resumeProducing()

    def note_read(self, size: int) -> None:
        """Double the size of the next receive, if this one was full."""
        descriptor = self._descriptor
        if descriptor is not None and size >= descriptor.bufferSize < _MAX_READ_SIZE:
            descriptor.bufferSize = min(2 * descriptor.bufferSize, _MAX_READ_SIZE)

    def reset_read_size(self) -> None:
        """Let each receive be of 64 KiB again: larger ones do not make a relay cheaper."""
        if self._descriptor is not None:
            vars(self._descriptor).pop("bufferSize", None)

    @property
    def plain_descriptor(self) -> FileDescriptor | None:
        """Twisted's descriptor, if the bytes received are the bytes on the wire."""
        return self._descriptor if self.is_plain else None

    # The deadline of a handshake on a TLS endpoint of Twisted, which has none of its own.

    def _limit_handshake(self) -> None:
        self.start_deadline(DEFAULT_HANDSHAKE_TIMEOUT, self._handshake_timed_out)
        self._transport.completed = partial(self._handshake_completed, self._deadline)

    def _handshake_completed(self, deadline: object) -> None:
        if self._deadline is deadline:  # A close may have replaced the deadline.
            self.stop_deadline()

    def _handshake_timed_out(self) -> None:
        error = SocketError(
            f"no TLS handshake within {DEFAULT_HANDSHAKE_TIMEOUT:g} s",
            status=SocketErrorStatus.CONNECTION_TIMED_OUT,
        )
        self._log.warn("{peer} aborted: {error}", peer=describe_peer(self._transport), error=error)
        self.abort(error)

    # The upgrade.

    def hold(self) -> TlsLowerTransport:
        """
        Keep all writes until the handshake is done, also those to the transport itself.

        :returns: the transport below the TLS engine. The engine writes to it, and
            the upgrade sends its last message in plaintext through it; no other code may.
        """
        below = self._lower
        # Not held: another engine has finished its handshake, such as that for a proxy.
        if below is None or not self.is_held:
            descriptor: Any = self._descriptor
            lower = TlsLowerTransport(self._transport, self._socket, descriptor, self)
            lower.below = below
            self._lower = lower
            self.is_held = True
            if descriptor is not None and descriptor.producer not in (None, self._watch):
                lower.take_producer()
            return lower
        return below

    def take(self, data: bytes) -> None:
        """Keep bytes that were written to the transport itself while it is held."""
        if self.is_open:
            self.write(bytes(data))

    def output_broke(self, error: OSError) -> None:
        """Handle a send of the TLS engine that failed for good."""
        if self.is_held:
            # An alert that the peer sent says more than the error of this send.
            self._keep_send_error(error)
        else:
            self._send_failed(error)

    def rebind(self, engine: Any) -> None:
        """Continue above a TLS engine whose handshake is done; send the bytes that waited."""
        self._stop_watching()
        lower = self._lower
        self.is_held = False
        self.is_reading = True
        self._attach(engine)
        if lower is not None:
            lower.lead_to(engine, self)
        self.send()
        if lower is not None:
            lower.resume_producer()

    @property
    def is_silent(self) -> bool:
        """Whether the peer has not begun the handshake, and no bytes wait for its end."""
        lower = self._lower
        if lower is None or not self.is_held or self._pending or self._state is not State.OPEN:
            return False
        return not self.has_unread_input and not is_shaking_hands(lower.protocol)

    def close_drained(self) -> Deferred[None]:
        """
        Close as ``close`` does; if the peer has not begun its handshake, close in order at once.

        No bytes wait for that handshake, so nothing is lost.

        :returns: as ``close``.
        """
        if not self.is_silent:
            return self.close()
        self._follow(Event.CLOSE_SILENT)
        return self.when_lost()

    # The hand-over.

    @property
    def proxy_header(self) -> ProxyHeader | None:
        """The PROXY header in front of the bytes of a `twsock.stream.ProxyEndpoint`; or None."""
        header: ProxyHeader | None = getattr(self._transport, "proxy_header", None)
        return header

    def check_detachable(self, *, with_header: bool = False) -> socket.socket:
        """
        Return the socket, if `detach` is possible now.

        :param with_header: whether the next owner gets `proxy_header`, too. Otherwise a connection
            that has one cannot be detached: its addresses would be lost.
        :raises LocalProtocolError: when the connection cannot be detached.
        """
        transport = self._transport
        if self.is_held or self.carries_tls:
            raise LocalProtocolError("cannot detach: the connection carries TLS")
        below = self._socket
        if below is None and with_header and self.proxy_header is not None:
            below = plain_socket(transport.transport)
        if below is None:
            raise LocalProtocolError("cannot detach: the transport is not a plain socket")
        if transport.disconnecting or transport._aborting:
            raise LocalProtocolError("cannot detach: the transport was closed")
        if transport.producer not in (None, self._watch):
            raise LocalProtocolError("cannot detach: the transport has a producer")
        follow(self._state, Event.DETACH, Carrier.TCP)
        return below

    def copy_socket(self, *, with_header: bool = False) -> socket.socket:
        """
        Return a copy of the socket for `detach`; the connection does not change.

        :param with_header: see `check_detachable`.
        :raises LocalProtocolError: when the connection cannot be detached.
        :raises SocketError: when no descriptor is free.
        """
        below = self.check_detachable(with_header=with_header)
        try:
            return below.dup()
        except OSError as error:
            raise SocketError.from_exception(error) from error

    def detach(self, copy: socket.socket, unread: bytes, unsent: bytes = b"") -> DetachedConnection:
        """
        Leave the connection to another owner, with all bytes that are not in the kernel.

        The loss is reported within this call.

        :param copy: of `copy_socket`, in the same event.
        :param unread: bytes that the owner of this object received and did not use.
        :param unsent: bytes that the owner of this object has not written yet.
        """
        self._follow(Event.DETACH)
        written, self._pending = self._pending or (), None
        queued = leave_socket(self._descriptor)
        return DetachedConnection(copy, unread, b"".join((queued, *written, unsent)))

    # The end.

    def close_answered(self) -> None:
        """
        Close within the event of the peer's end: at once if a socket has sent all bytes.

        Call this within that event only: the owner may receive the loss within this call, under TLS
        at the end of the event. If bytes are unsent, or the kernel has no room (the peer may not
        read), this is the same as `close`, with its deadline.
        """
        if self._state is State.ANSWERING and self.is_flushed and self._may_close_at_once:
            self._follow(Event.CLOSE_ANSWERED)
        else:
            self.close()

    @property
    def _may_close_at_once(self) -> bool:
        """Whether a transport without queued bytes closes in this turn of the reactor."""
        descriptor: Any = self._descriptor
        transport = self._transport
        # Twisted waits for the producer of an application.
        if self._socket is not None and not transport.TLS:
            return descriptor.producer is None and is_writable(descriptor)
        # The transport below the engine checks for room itself, after close_notify.
        if self._lower is None or descriptor is None:
            return False
        return self._engine_sent_all(descriptor) and transport._producer is None

    def close_waits(self) -> None:
        """Start the deadline of a close, unless it runs: the kernel has no room."""
        if self._state is State.ENDED and self._deadline is None:
            self._start_close_deadline(None)

    @override
    def _release(self) -> None:
        if self._lower is not None:
            self._lower.release()
            self._lower = None
        super()._release()
        if self.noted and self._limit is not None:
            self._limit.note(self, 0)


@implementer(IHalfCloseableProtocol)
class ReportsEnds(Protocol):
    """
    Reports the end of each direction, and the loss, to its stream connection.

    The base of the protocols of awaitable sockets. Nothing is reported before there is a
    connection, and after the protocol has dropped it.
    """

    _stream: Connection | None = None

    # Called by Twisted.

    def readConnectionLost(self) -> None:
        """Report the end of the peer's output; this end's output stays open."""
        if self._stream is not None:
            self._stream.peer_ended()

    def writeConnectionLost(self) -> None:
        """Report that the kernel has FIN."""
        if self._stream is not None:
            self._stream.fin_sent()

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._stream is not None:
            self._stream.lost(reason)
