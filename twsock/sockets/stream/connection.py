"""
The protocol of a stream socket: transport → **socket protocol** → input stream, output stream.

Each connected `twsock.StreamSocket` has one `SocketProtocol`. Twisted reports the events of a
transport to it. It passes the events of a `twsock.stream.connection.Connection` to the two streams
and to the socket. It holds no bytes.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from typing_extensions import override

from twsock.errors import BrokenError, ClosedError, LocalProtocolError, SocketError
from twsock.handover.detached import DetachedConnection
from twsock.sockets.stream.input import InputStream
from twsock.sockets.stream.output import OutputStream
from twsock.sockets.waiting import output_closed
from twsock.stream.connection import FULL_READ, Connection, ReportsEnds
from twsock.stream.ending import DEFAULT_CLOSE_TIMEOUT
from twsock.stream.listening.buffer_limit import BufferLimit
from twsock.stream.switch import Switch

__all__ = ["SocketProtocol"]


class SocketProtocol(ReportsEnds):
    """
    The protocol under a socket's two streams.

    :param clock: measures ``close_timeout``.
    :param connected: called once the connection is open.
    :param lost: called once when the connection is lost, with the error; None if it ended in order.
    :param close_timeout: how long a close waits for the peer, in seconds; 0 or more.
    :param buffer_limit: shared by all connections of a listener; None for no limit.
    :param is_plain: whether the streams open when the transport is connected; if not, only
        `continue_above` opens them.
    """

    _switch: Switch | None = None
    # Whether the application has closed or aborted the connection; queued writes may still be sent.
    _is_closing = False

    def __init__(
        self,
        clock: IReactorTime,
        input_stream: InputStream,
        output_stream: OutputStream,
        connected: Callable[[SocketProtocol], None],
        lost: Callable[[SocketError | None], None],
        close_timeout: float = DEFAULT_CLOSE_TIMEOUT,
        is_plain: bool = True,
        buffer_limit: BufferLimit | None = None,
    ) -> None:
        self._clock = clock
        self._input = input_stream
        self._output = output_stream
        self._connected = connected
        self._lost = lost
        self.close_timeout = close_timeout
        self._is_plain = is_plain
        self._buffer_limit = buffer_limit

    @property
    def is_open(self) -> bool:
        """Whether this end was neither closed nor lost."""
        return self._stream is not None and not self._is_closing

    @property
    def is_secure(self) -> bool:
        """Whether the connection is encrypted, and its peer was accepted."""
        return self._stream is not None and self._stream.is_secure

    @property
    def carries_tls(self) -> bool:
        """Whether the connection is above a TLS engine, or a handshake was started."""
        if self._switch is not None:
            return True  # A transport in memory may call back before the engine has it.
        return self._stream is not None and self._stream.carries_tls

    def close(self) -> Deferred[None]:
        """
        Send the queued writes, then close; see `twsock.stream.connection.Connection.close`.

        :returns: fires when the kernel has FIN, or the connection is lost. Cancelling stops the
            wait and not the close.
        """
        stream = self._stream
        if stream is None:
            self._input.close()  # Received bytes are not read any more.
            return succeed(None)
        if not self._is_closing:
            self._is_closing = True
            if self._output.is_transferring:
                self._close_after_transfers(stream)
            else:
                self._close_stream(stream)
        return stream.when_fin_sent()

    def detach(self) -> DetachedConnection:
        """
        Leave the connection to another owner; see ``StreamSocket.detach``.

        :raises SocketError: when that is not possible.
        """
        stream, received, output = self._stream, self._input, self._output
        if stream is None or self._switch is not None:
            raise LocalProtocolError("cannot detach: a handshake runs")
        if received.is_pending or output.is_awaited:
            raise LocalProtocolError("cannot detach: an operation is pending: cancel_io() first")
        if not (received.is_open and output.is_open):
            raise LocalProtocolError("cannot detach: one direction was closed")
        copy = stream.copy_socket()
        self._is_closing = True
        output.refuse(output_closed)
        return stream.detach(copy, received.take_buffered(), output.take_unsent())

    def _close_stream(self, stream: Connection) -> None:
        self._output.refuse(output_closed)
        self._output.send_waiting()
        stream.close()
        if stream.is_flushed:
            self._output.output_drained()
        self._input.close()

    def _close_after_transfers(self, stream: Connection) -> None:
        """Let transfers be sent to their ends, within the time of a close; drop what arrives."""
        stream.start_deadline(self.close_timeout, self._transfers_timed_out)
        self._output.finish().addCallback(lambda _: stream.close())
        self._input.close()

    def _transfers_timed_out(self) -> None:
        self.abort(ClosedError(f"the peer did not take all bytes within {self.close_timeout:g} s"))

    def end_if_silent(self) -> None:
        """Close the connection if it waits for a handshake that the peer has not started."""
        stream = self._stream
        if stream is not None and stream.is_silent:
            self._is_closing = True
            stream.close_drained()

    def forget_socket(self) -> None:
        """Do not report the loss: the connect failed, and the socket may be connected again."""
        self._lost = _do_nothing

    # Called by the upgrade.

    @property
    def stream(self) -> Connection:
        """The connection below the two streams; there is one between open and lost."""
        assert self._stream is not None
        return self._stream

    def begin_upgrade(self, switch: Switch) -> None:
        """Report the loss of the connection to this upgrade, too."""
        self._switch = switch

    def forget_switch(self) -> None:
        """Drop the upgrade, which is done: an idle connection needs no memory for it."""
        self._switch = None

    def suspend(self) -> None:
        """Queue writes until `continue_above`."""
        self._output.suspend()

    def take_buffered(self) -> bytes:
        """Remove and return all bytes that were received and not read."""
        return self._input.take_buffered()

    def continue_above(self, engine: Any) -> None:
        """Continue above a TLS engine whose handshake is done."""
        self.transport = engine
        stream = self.stream
        stream.rebind(engine)
        self._input.opened(stream)
        self._react(lambda: self._output.opened(stream))

    def when_lost(self) -> Deferred[None]:
        """Wait until the connection is lost; see `Connection.when_lost`."""
        return succeed(None) if self._stream is None else self._stream.when_lost()

    def abort(self, error: SocketError | None = None) -> Deferred[None]:
        """Abort the connection now; see `Connection.abort`."""
        stream = self._stream
        if stream is None:
            self._input.close()
            return succeed(None)
        self._is_closing = True
        self._output.refuse(output_closed)
        aborting = stream.abort(error)
        self._input.close()
        return aborting

    # Called by Twisted.

    @override
    def connectionMade(self) -> None:
        stream = self._stream = Connection(
            self,
            self.transport,
            self._clock,
            buffer_limit=self._buffer_limit,
        )
        if self._is_plain:
            self._input.opened(stream)
            self._output.opened(stream)
        if self._buffer_limit is not None:
            self._output.on_kept = stream.note_buffered
        self._react(lambda: self._connected(self))

    @override
    def dataReceived(self, data: bytes) -> None:
        stream, output = self._stream, self._output
        assert stream is not None
        size = len(data)
        stream.counters.bytes_received += size
        if size >= FULL_READ and not self._input.reads_continuously:
            stream.note_read(size)
        output.is_held = True
        left = self._input.feed(data)
        output.release()
        if left or stream.noted:
            stream.note_buffered()

    # Called by the connection.

    @property
    def held_bytes(self) -> int:
        """Bytes that were received and not read, or written and not passed to the connection."""
        return self._input.buffered + self._output.unsent

    def drop_input(self) -> None:
        """Drop the received bytes: this connection holds the most, and is aborted."""
        self._input.drop_received()

    def output_drained(self) -> None:
        """Complete the writes that had begun."""
        self._output.output_drained()

    def output_failed(self, error: BrokenError) -> None:
        """Fail all pending writes; received bytes can still be read."""
        self._output.lost(error)

    def connection_ended(self, error: SocketError | None, reason: Failure) -> None:
        """End both streams, and report the loss."""
        self._stream = None
        self._output.on_kept = None
        switch, self._switch = self._switch, None
        if switch is not None:
            switch.lost(error)
        loss = error
        if loss is None and self._output.is_open and not reason.check(ConnectionDone):
            # The peer had ended its output (with TLS), and then the connection broke: bytes that
            # this end still writes would be lost.
            loss = BrokenError.from_exception(typing.cast(BaseException, reason.value))
        report_loss, self._lost = self._lost, _do_nothing
        self._connected = _do_nothing  # Both callbacks refer to the socket.
        report_loss(loss)  # First: callbacks of pending calls may read the socket's properties.
        if self._is_closing:
            self._input.close()  # A transport in memory calls from within `close`.
            if error is None:
                self._output.output_drained()
        elif error is None:
            self._input.ended()
        else:
            self._input.failed(error)
        self._output.lost(loss or ClosedError("the connection has ended"))

    def input_ended(self) -> None:
        """Complete a pending read with the bytes that have arrived."""
        self._react(self._input.ended)

    def _react(self, event: Callable[[], object]) -> None:
        """Report an event; send in one piece all bytes that the application writes meanwhile."""
        self._output.is_held = True
        event()
        self._output.release()


def _do_nothing(_argument: object) -> None:
    """Replaces a callback of the socket after the connection is lost."""
