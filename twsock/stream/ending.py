"""
The end of one connection: event → table → **ending transport** → transport of Twisted.

The base of `twsock.stream.connection.Connection`. It looks up each event that belongs to an end in
the table of `twsock.stream.closing`, and carries out the actions. It holds the state, the deadline
of the connection, the reason of the end, and the Deferreds that wait for the end.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from typing_extensions import override

from twsock._twisted import forget_buffers
from twsock.errors import BrokenError, ClosedError, OperationNotSupported, SocketError
from twsock.stream.closing import (
    AFTER_INPUT_STATES,
    GONE_STATES,
    OPEN_STATES,
    Action,
    Carrier,
    Event,
    State,
    follow,
)
from twsock.stream.descriptor import carries_tls, discard_input, queued_bytes
from twsock.stream.hangup import HangUpWatch, hung_up_error
from twsock.stream.transport import StreamTransport
from twsock.tls.engine import Engine
from twsock.waiters import NO_WAIT, Waiters

__all__ = ["DEFAULT_CLOSE_TIMEOUT", "ConnectionOwner", "EndingTransport"]

#: Default of ``close_timeout``: how long a close waits for the peer, in seconds.
DEFAULT_CLOSE_TIMEOUT: Final = 5.0


class ConnectionOwner(typing.Protocol):
    """
    Receives the events of a connection, and holds its bytes above the transport.

    :ivar close_timeout: seconds that a close waits until the kernel has the queued bytes and the
        peer has ended its output; 0 or more. See `EndingTransport.close`.
    """

    close_timeout: float

    @property
    def held_bytes(self) -> int:
        """Bytes that were received and not delivered, or written and not passed on."""

    def drop_input(self) -> None:
        """Release the received bytes: the connection holds more than any other, and is aborted."""

    def output_drained(self) -> None:
        """Continue: the kernel has the bytes that made the connection full."""

    def output_failed(self, error: BrokenError) -> None:
        """
        Abort, now or when the received bytes have been read: the kernel sends no more.

        Called within the call that got the error.
        """

    def input_ended(self) -> None:
        """Handle the end of the peer's output, which was in order."""

    def connection_ended(self, error: SocketError | None, reason: Failure) -> None:
        """
        Handle the loss of the connection, its last event.

        :param error: the reason; None if the connection ended in order.
        :param reason: what Twisted reported.
        """


class _Nobody:
    """Replaces the owner of a lost connection; does nothing."""

    close_timeout = DEFAULT_CLOSE_TIMEOUT
    held_bytes = 0

    def drop_input(self) -> None: ...
    def output_drained(self) -> None: ...
    def output_failed(self, error: BrokenError) -> None: ...
    def input_ended(self) -> None: ...
    def connection_ended(self, error: SocketError | None, reason: Failure) -> None: ...


_NOBODY: Final = _Nobody()


class EndingTransport(StreamTransport):
    """
    Ends one connection as `twsock.stream.closing` says.

    :param owner: receives the events of the connection.
    """

    __slots__ = (
        "_deadline",
        "_ending",
        "_error",
        "_finishing",
        "_hang_up_watch",
        "_owner",
        "_send_error",
        "_state",
        "is_reading",
    )

    def __init__(
        self,
        owner: ConnectionOwner,
        transport: Any,
        clock: IReactorTime,
        high_water: int,
    ) -> None:
        if not owner.close_timeout >= 0:
            raise ValueError(f"close_timeout is 0 seconds or more, not {owner.close_timeout!r}")
        self._owner = owner
        self._state = State.OPEN
        #: Whether the transport is read from.
        self.is_reading = True
        self._error: SocketError | None = None
        # The error of a send by the TLS engine itself; it is ignored if the input ends in order.
        self._send_error: BrokenError | None = None
        self._deadline: IDelayedCall | None = None
        # The waits for FIN and for the loss; each is made at its first wait.
        self._finishing: Waiters | None = None
        self._ending: Waiters | None = None
        # Made at the end of the input, if this end still writes.
        self._hang_up_watch: HangUpWatch | None = None
        super().__init__(transport, clock, high_water)

    @property
    def state(self) -> State:
        """How far the connection has ended."""
        return self._state

    @property
    def is_gone(self) -> bool:
        """Whether the connection is lost, or was aborted or detached and is about to be."""
        return self._state in GONE_STATES

    @property
    def has_peer_ended(self) -> bool:
        """Whether the peer has ended its output, or the connection is gone."""
        return self._state in AFTER_INPUT_STATES

    @property
    def can_end_output(self) -> bool:
        """Whether FIN or close_notify can be sent while input is still read."""
        if isinstance(self._transport, Engine):
            return True
        if self._descriptor is not None:
            return self.is_plain
        return hasattr(self._transport, "loseWriteConnection")

    # The deadline.

    def start_deadline(self, seconds: float, passed: Callable[[], None]) -> None:
        """
        Call a function after some seconds. This replaces an earlier deadline of the connection.

        The loss of the connection stops the deadline.
        """
        self.stop_deadline()
        self._deadline = self.clock.callLater(seconds, self._pass_deadline, passed)

    def stop_deadline(self) -> None:
        """Stop the deadline, if there is one."""
        deadline, self._deadline = self._deadline, None
        if deadline is not None:
            deadline.cancel()

    def _pass_deadline(self, passed: Callable[[], None]) -> None:
        self._deadline = None
        passed()

    # Calls of the owner that end the connection.

    def close(self) -> Deferred[None]:
        """
        End the connection in order: send all written bytes, send FIN, and wait for the peer's FIN.

        Bytes that the peer still sends are read and dropped: a reset would destroy sent bytes.
        Under TLS, close_notify is sent before FIN. During an upgrade the connection is aborted
        instead, as bytes that wait for the handshake cannot be sent.

        The wait ends after the owner's ``close_timeout``. The kernel still sends the bytes that it
        has taken; a peer that sends more may get a reset. If bytes are still queued here, the
        connection is aborted, since an end in order would hide the loss.

        :returns: fires when the connection is lost; at once when it is already. Cancelling stops
            the wait and not the close.
        """
        if self.is_held:
            self._follow(Event.CLOSE_HELD)
            return self.when_lost()
        if self.is_open:
            self.send()  # A failed send ends the connection by itself.
        self._follow(Event.CLOSE)
        self._watch_held_bytes()
        is_waiting = self._watch is not None or self._settling is not None
        if not is_waiting or self._descriptor is None:
            self._follow(Event.FLUSHED)
        return self.when_lost()

    def end_output(self) -> None:
        """
        Send FIN, and continue to read. Under TLS, send close_notify instead of FIN.

        The caller has flushed the output: all written bytes are with the kernel. A peer with TLS
        1.2 may stop sending when it receives close_notify.

        :raises OperationNotSupported: when the transport, or a TLS engine of Twisted, cannot end
            one direction alone.
        :raises LocalProtocolError: when a send has failed, or the connection was aborted or lost.
        """
        if not self.can_end_output:
            raise OperationNotSupported("this transport cannot close its output alone")
        self._follow(Event.END_OUTPUT)

    def abort(self, error: SocketError | None = None) -> Deferred[None]:
        """
        End the connection now: drop the queued bytes, and send a reset if there is a socket.

        :param error: the reason; None if the application asked for it.
        :returns: fires when the connection is lost; at once when it is already. Cancelling stops
            the wait and not the abort.
        """
        if error is not None and self._state is not State.LOST:
            self.note_error(error)
        self._follow(Event.ABORT)
        return self.when_lost()

    def note_error(self, error: SocketError) -> None:
        """Record the reason of the coming end, unless one is recorded."""
        if self._error is None:
            # A copy: the caller may raise this error, which then holds the frames of its traceback.
            self._error = error.copy()

    def when_lost(self) -> Deferred[None]:
        """
        Wait until the connection is lost, for any reason.

        :returns: fires when the connection is lost; at once when it is already. Cancelling stops
            the wait.
        """
        if self._state is State.LOST:
            return succeed(None)
        if self._ending is None:
            self._ending = Waiters()
        return self._ending.wait()

    def when_fin_sent(self) -> Deferred[None]:
        """
        Wait until the kernel has all bytes and FIN, or the connection is lost.

        :returns: fires in both cases; at once when one has occurred already. Cancelling stops the
            wait.
        """
        if self._state is State.LOST:
            return succeed(None)
        if self._finishing is None:
            self._finishing = Waiters()
        return self._finishing.wait()

    # Events that Twisted reports to the owner.

    def peer_ended(self) -> None:
        """Handle the peer's FIN or close_notify."""
        self.is_reading = False
        self._follow(Event.PEER_ENDED)

    def fin_sent(self) -> None:
        """Fire the waits for FIN: the kernel has it."""
        self._follow(Event.FIN_SENT)

    def lost(self, reason: Failure) -> None:
        """
        Handle the loss of the connection: release everything, report it, fire the waits.

        A second call does nothing.
        """
        if self._state is State.LOST:
            return
        if isinstance(reason.value, ConnectionDone):
            self._follow(Event.DONE)
        else:
            descriptor = self._descriptor
            is_unsent = self._pending or (descriptor is not None and queued_bytes(descriptor))
            self._follow(Event.RESET_UNSENT if is_unsent else Event.RESET, reason.value)
        if self._deadline is not None:
            self.stop_deadline()
        self._stop_watching()
        owner, self._owner = self._owner, _NOBODY
        self._release()
        try:
            # A copy, since an error that is raised holds the frames of its traceback.
            owner.connection_ended(None if self._error is None else self._error.copy(), reason)
        finally:  # The canceller of a handler's Deferred may raise an error.
            for waiters in (self._finishing, self._ending):
                if waiters is not None:
                    waiters.fire()

    def _release(self) -> None:
        """Drop written bytes, and the references to the socket."""
        if self._descriptor is not None:
            forget_buffers(self._descriptor)
        if self._hang_up_watch is not None:
            self._hang_up_watch.stop()
            self._hang_up_watch = None
        self._socket = None
        self._descriptor = None
        self._pending = None

    # Events of the output.

    @override
    def _drained(self) -> None:
        if not self.is_open:
            self._follow(Event.FLUSHED)
        self._owner.output_drained()

    @override
    def _send_failed(self, error: OSError) -> None:
        self._follow(Event.SEND_FAILED, error)

    @override
    def _reason_not_to_write(self) -> SocketError:
        if isinstance(self._error, BrokenError):
            return BrokenError.from_exception(self._error)
        return ClosedError("cannot write: this end of the connection is closed")

    # Steps of the table.

    def _follow(self, event: Event, error: BaseException | None = None) -> None:
        """
        Take the step for an event.

        :param error: of a failed send, or of the loss.
        """
        # As `is_plain` and `is_half_closing_engine`, without a call.
        transport = self._transport
        if self._socket is not None and not transport.TLS:
            carrier = Carrier.TCP
        else:
            carrier = Carrier.TLS if isinstance(transport, Engine) else self._other_carrier
        state, actions = follow(self._state, event, carrier)
        self._state = state
        if self.is_open and state not in OPEN_STATES:
            self.is_open = False
            self.room = 0
        for action in actions:
            _PERFORM[action](self, error)

    @property
    def _other_carrier(self) -> Carrier:
        if self._descriptor is None or carries_tls(self._transport):
            return Carrier.WHOLE
        return Carrier.TCP

    def _start_close_deadline(self, _error: object) -> None:
        self.start_deadline(self._owner.close_timeout, self._close_deadline_passed)

    def _close_deadline_passed(self) -> None:
        descriptor = self._descriptor
        is_unsent = descriptor is None or queued_bytes(descriptor)
        self._follow(Event.DEADLINE_UNSENT if is_unsent else Event.DEADLINE)

    def _read_on(self, _error: object) -> None:
        self.is_reading = True
        self._transport.resumeProducing()  # Also if the application paused it.

    def _send_fin(self, _error: object) -> None:
        # On the descriptor, below wrappers that do not change bytes, such as one for PROXY headers.
        bottom: Any = self._transport if self._descriptor is None else self._descriptor
        bottom.loseWriteConnection()

    def _send_close_notify(self, _error: object) -> None:
        self._transport.loseWriteConnection()

    def _send_both(self, error: BaseException | None) -> None:
        if self._descriptor is None:
            self._close_transport(error)
        else:
            self._transport.finish()

    def _close_transport(self, _error: object) -> None:
        if self._descriptor is None:
            self._stop_watching()  # A TLS engine waits for its producer before it ends.
        self._transport.loseConnection()

    def _close_socket(self, _error: object) -> None:
        # ``loseConnection`` would end in the next turn, and make four more system calls.
        descriptor: Any = self._descriptor
        descriptor.connectionLost(connectionDone)

    def _cut(self, _error: object) -> None:
        # The kernel has all bytes, and continues to send them to a slow peer.
        descriptor: Any = self._descriptor
        discard_input(descriptor)
        # ``loseConnection`` would wait until the socket is writable, which may never happen.
        descriptor.connectionLost(Failure(ConnectionDone()))

    def _reset(self, _error: object) -> None:
        self._pending = None
        self._stop_watching()
        transport = self._transport
        getattr(transport, "abortConnection", transport.loseConnection)()

    def _watch_for_reset(self, _error: object) -> None:
        descriptor = self._descriptor
        # The owner may have closed the connection when it received the end of the input.
        if descriptor is not None and self.is_open:
            self._hang_up_watch = HangUpWatch(self.clock, descriptor, self._hung_up)

    def _hung_up(self) -> None:
        self._follow(Event.HUNG_UP)

    def _report_input_end(self, _error: object) -> None:
        self._owner.input_ended()

    def _report_fin(self, _error: object) -> None:
        finishing, self._finishing = self._finishing, NO_WAIT
        if finishing is not None:
            finishing.fire()

    def _report_broken(self, error: BaseException | None) -> None:
        # The kernel reports an error once. The transport may later report an end in order, so this
        # error is the reason. It is kept without its frames, which hold the bytes of the write.
        self._error = broken = _broken(error)
        self._pending = None
        self._stop_watching()
        self._owner.output_failed(broken.copy())

    def _keep_send_error(self, error: BaseException | None) -> None:
        self._send_error = _broken(error)

    def _blame_reset(self, _error: object) -> None:
        self.note_error(hung_up_error())

    def _blame_deadline(self, _error: object) -> None:
        self.note_error(ClosedError(f"the peer did not end within {self._owner.close_timeout:g} s"))

    def _end_in_order(self, _error: object) -> None:
        """Keep the error that is recorded, if there is one."""

    def _end_as_sent(self, _error: object) -> None:
        if self._error is None:
            self._error = self._send_error

    def _end_with_error(self, error: BaseException | None) -> None:
        if self._error is None:
            self._error = self._send_error or _broken(error)

    def _end_by_abort(self, _error: object) -> None:
        self.note_error(ClosedError("the connection was aborted by this end"))


def _broken(error: BaseException | None) -> BrokenError:
    assert error is not None
    return BrokenError.from_exception(error.with_traceback(None))


_PERFORM: Final[dict[Action, Callable[[EndingTransport, BaseException | None], None]]] = {
    Action.START_DEADLINE: EndingTransport._start_close_deadline,
    Action.READ_ON: EndingTransport._read_on,
    Action.SEND_FIN: EndingTransport._send_fin,
    Action.SEND_CLOSE_NOTIFY: EndingTransport._send_close_notify,
    Action.SEND_BOTH: EndingTransport._send_both,
    Action.CLOSE_TRANSPORT: EndingTransport._close_transport,
    Action.CLOSE_SOCKET: EndingTransport._close_socket,
    Action.CUT: EndingTransport._cut,
    Action.RESET: EndingTransport._reset,
    Action.WATCH_FOR_RESET: EndingTransport._watch_for_reset,
    Action.REPORT_INPUT_END: EndingTransport._report_input_end,
    Action.REPORT_FIN: EndingTransport._report_fin,
    Action.REPORT_BROKEN: EndingTransport._report_broken,
    Action.KEEP_SEND_ERROR: EndingTransport._keep_send_error,
    Action.BLAME_RESET: EndingTransport._blame_reset,
    Action.BLAME_DEADLINE: EndingTransport._blame_deadline,
    Action.END_IN_ORDER: EndingTransport._end_in_order,
    Action.END_AS_SENT: EndingTransport._end_as_sent,
    Action.END_WITH_ERROR: EndingTransport._end_with_error,
    Action.END_BY_ABORT: EndingTransport._end_by_abort,
    Action.END_DETACHED: EndingTransport._end_in_order,
}
