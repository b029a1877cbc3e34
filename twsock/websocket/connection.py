"""
One WebSocket, from the handshake to its loss: owner → **WebSocket** → stream connection.

The owner of a `WebSocket` pulls the messages, and sends its own through the
`twsock.stream.connection.Connection`. On a server the owner is a
`twsock.websocket.protocol.WebSocketProtocol`. The `WebSocket` handles everything but messages. It
answers pings, and sends pings. It looks up each event of the handshake and of the end in the table
of `twsock.websocket.closing`, and starts the one deadline of the close.

A `WebSocket` holds the pings that wait for their pongs, and at most one pong that waits for room in
the output. It ends with the loss of the connection, and then drops its owner.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred

from twsock.errors import (
    BrokenError,
    ClosedError,
    LocalProtocolError,
    SocketError,
    SocketErrorStatus,
)
from twsock.operation import Operation, fail
from twsock.stream.connection import Connection
from twsock.websocket.close_frame import CloseCode, decode_close, encode_close, named_code
from twsock.websocket.closing import Action, Event, Role, State, follow
from twsock.websocket.frames import Opcode
from twsock.websocket.keepalive import Due, KeepAlive
from twsock.websocket.messages import MessageEncoder
from twsock.websocket.ping_schedule import PingSchedule

__all__ = ["WebSocket", "WebSocketOwner"]

#: The size of the payload of a ping whose sender waits for the pong, in bytes.
_PING_SIZE: Final = 4


class WebSocketOwner(typing.Protocol):
    """
    Receives the events of a WebSocket, and writes its control frames.

    :ivar close_timeout: seconds that the connection below waits for the peer's end. The WebSocket
        sets it to the rest of its own deadline before it ends the connection.
    """

    close_timeout: float

    def send_control(self, frame: bytes) -> None:
        """Send a frame: with the other answers while messages are handled, otherwise at once."""

    def drop_messages(self) -> None:
        """Read and drop messages until the peer's close frame; this end has sent its own."""

    def socket_closed(self, code: int, reason: str) -> None:
        """
        Handle the end, which is the last event; called only if the handshake was accepted.

        :param code: the code of the first close frame, of either end; 1006 if there was none.
        :param reason: the text of the same close frame.
        """


class _Nobody:
    """Replaces the owner of a WebSocket that was lost."""

    close_timeout = 0.0

    def send_control(self, frame: bytes) -> None:
        """Send nothing: the connection is gone."""

    def drop_messages(self) -> None:
        """Do nothing."""

    def socket_closed(self, code: int, reason: str) -> None:
        """Do nothing."""


_NOBODY: Final = _Nobody()


class WebSocket:
    """
    The control frames, the end, and the times of one WebSocket.

    :param owner: receives the events.
    :param stream: the connection below.
    :param close_timeout: seconds from the first close frame, of either end, to the end of the
        connection; 0 or more.

    :ivar is_open: whether messages can be sent and are handled.
    :ivar has_received: whether a byte has arrived; the owner sets it with each read.
    :ivar code: the code of the first close frame; 1006 while there is none.
    :ivar reason: the text of the first close frame.
    """

    __slots__ = (
        "_close_at",
        "_close_timeout",
        "_encoder",
        "_keepalive",
        "_owner",
        "_payload",
        "_ping_number",
        "_pings",
        "_pong",
        "_role",
        "_round",
        "_schedule",
        "_state",
        "_stream",
        "_unsent",
        "code",
        "has_received",
        "is_open",
        "reason",
    )

    def __init__(
        self, owner: WebSocketOwner, stream: Connection, role: Role, close_timeout: float
    ) -> None:
        self._owner = owner
        self._stream = stream
        self._role = role
        self._close_timeout = close_timeout
        self._state = State.OPENING
        self.is_open = False
        self.has_received = False
        self.code: int = CloseCode.ABNORMAL_CLOSURE
        self.reason = ""
        self._encoder: MessageEncoder | None = None
        self._keepalive: KeepAlive | None = None
        self._schedule: PingSchedule | None = None
        # The round of the schedule that this WebSocket waits for.
        self._round = 0
        # How many bytes were unsent at the last `wake`.
        self._unsent = 0
        # The payload of the close frame to be sent.
        self._payload = b""
        # The time of the deadline of the close.
        self._close_at = 0.0
        # The application's pings and the times at which they were sent, oldest first; or None.
        self._pings: dict[bytes, tuple[Deferred[float], float]] | None = None
        self._ping_number = 0
        # The payload of the newest ping whose pong waits for room; or None.
        self._pong: bytes | None = None

    @property
    def state(self) -> State:
        """How far the WebSocket has ended."""
        return self._state

    @property
    def is_opening(self) -> bool:
        """Whether the handshake is not done."""
        return self._state is State.OPENING

    @property
    def is_closing(self) -> bool:
        """Whether this end has sent its close frame, and waits for that of the peer."""
        return self._state is State.CLOSING

    # The beginning.

    def start_handshake(self, timeout: float) -> None:
        """Abort the connection if the handshake is not done within ``timeout`` seconds."""
        self._stream.start_deadline(timeout, self._deadline_passed)

    def accept(
        self,
        encoder: MessageEncoder,
        ping_interval: float | None,
        ping_timeout: float | None,
        schedule: PingSchedule | None = None,
    ) -> None:
        """
        Open: the handshake is done.

        :param ping_interval: seconds between two pings; None for no pings.
        :param ping_timeout: seconds after a ping within which a byte of the peer has to arrive;
            None for no limit.
        :param schedule: wakes this WebSocket for its pings; None to make one for it alone.
        """
        self._encoder = encoder
        self._follow(Event.ACCEPTED)
        if ping_interval is not None and self.is_open:
            clock = self._stream.clock
            self._schedule = schedule or PingSchedule(clock, ping_interval)
            self._keepalive = KeepAlive(ping_interval, ping_timeout, clock.seconds())
            self._round = self._schedule.add(self, self._keepalive.next_deadline)

    def refuse(self) -> None:
        """End the connection: the handshake has failed, and the response was written."""
        self._follow(Event.REFUSED)

    # The end.

    def close(self, code: int, reason: str) -> None:
        """
        Send the close frame, and end within the deadline; a second call changes nothing.

        :raises ValueError: when the code or the reason cannot be sent.
        """
        payload = encode_close(code, reason)
        if self.is_open:
            self._note_close(code, reason, payload)
        self._follow(Event.CLOSE)

    def abort(self, error: SocketError | None = None) -> None:
        """
        Reset the connection.

        :param error: the reason; None if the application asked for it.
        """
        if error is not None:
            self._stream.note_error(error)
        self._follow(Event.ABORT)

    def violated(self, code: int, reason: str) -> None:
        """Send a close frame that names the broken rule, and end the connection."""
        if self.is_open:
            self._note_close(code, reason, encode_close(code, reason))
        self._follow(Event.VIOLATION)

    def failed(self) -> None:
        """Send a close frame with the code 1011, and end the connection: a handler failed."""
        if self.is_open:
            self._note_close(
                CloseCode.INTERNAL_ERROR, "", encode_close(CloseCode.INTERNAL_ERROR, "")
            )
        self._follow(Event.FAILURE)

    def peer_ended(self) -> None:
        """End the connection: the peer has ended its output."""
        self._follow(Event.PEER_ENDED)

    def lost(self) -> None:
        """Release everything, report the end, and fail the pings; a second call does nothing."""
        # The pings fail in the new state: a callback may close, which must start no deadline.
        self._follow(Event.LOST)
        self._owner = _NOBODY  # The owner refers to this object, and the cycle would stay.

    # Frames.

    def control_received(self, opcode: Opcode, payload: bytes) -> None:
        """
        Handle a control frame.

        :raises WebSocketViolation: when the payload of a close frame breaks a rule.
        """
        if opcode is Opcode.PING:
            self._answer_ping(payload)
        elif opcode is Opcode.PONG:
            if self._pings is not None:
                self._pong_received(self._pings, payload)
        else:
            code, reason = decode_close(payload)
            if self.is_open:
                self._note_close(code, reason, payload)
            self._follow(Event.CLOSE_RECEIVED)

    def ping(self) -> Deferred[float]:
        """
        Send a ping.

        :returns: fires with the seconds until the pong arrived. It fails with `LocalProtocolError`
            before the handshake is done, with `ClosedError` when the WebSocket is not open, or
            closes before the pong, and with `BrokenError` when the connection is lost without a
            close frame. Cancelling stops the wait.
        """
        if self.is_opening:
            return fail(LocalProtocolError("cannot ping: the handshake is not done"))
        if not self.is_open:
            return fail(ClosedError("cannot ping: the WebSocket is closed"))
        if self._pings is None:
            self._pings = {}
        self._ping_number = (self._ping_number + 1) % (1 << 8 * _PING_SIZE)
        payload = self._ping_number.to_bytes(_PING_SIZE, "big")
        waiting: Deferred[float] = Operation(lambda _: self._forget_ping(payload))
        self._pings[payload] = waiting, self._stream.clock.seconds()
        self._send(Opcode.PING, payload)
        return waiting

    def drained(self) -> None:
        """Send the pong that waited for room; called when the kernel has all bytes."""
        payload, self._pong = self._pong, None
        if payload is not None and self.is_open:
            self._send(Opcode.PONG, payload)

    def _answer_ping(self, payload: bytes) -> None:
        """
        Answer a ping. While bytes are queued, only the newest ping is kept, and answered later.

        :rfc:`6455`, section 5.5.3, allows that. So a peer that sends pings and reads nothing fills
        no memory.
        """
        if not self.is_open:
            return
        if self._stream.queued:
            self._pong = payload
        else:
            self._send(Opcode.PONG, payload)

    def _pong_received(
        self, pings: dict[bytes, tuple[Deferred[float], float]], payload: bytes
    ) -> None:
        """Fire the wait for a pong, and the waits for earlier pongs, which a peer may leave out."""
        if payload not in pings:
            return
        now = self._stream.clock.seconds()
        fired = []
        for sent in tuple(pings):
            waiting, sent_at = pings.pop(sent)
            fired.append((waiting, now - sent_at))
            if sent == payload:
                break
        for waiting, seconds in fired:
            if not waiting.called:  # A callback may cancel another wait.
                waiting.callback(seconds)

    def _forget_ping(self, payload: bytes) -> None:
        if self._pings is not None:
            self._pings.pop(payload, None)

    def _send(self, opcode: Opcode, payload: bytes) -> None:
        assert self._encoder is not None
        self._owner.send_control(self._encoder.encode(opcode, payload))

    # The pings at intervals.

    def wake(self) -> None:
        """Do what is due by now, and wait for what is due next; called by the schedule."""
        keepalive = self._keepalive
        if keepalive is None or self._schedule is None:
            return
        stream = self._stream
        keepalive.has_received, self.has_received = self.has_received, False
        due = keepalive.advance(stream.clock.seconds(), ignores_silence=self._ignores_silence())
        if due is Due.END:
            stream.counters.unanswered_pings += 1
            stream.note_error(
                BrokenError(
                    "the peer showed no sign of life after a ping",
                    status=SocketErrorStatus.CONNECTION_TIMED_OUT,
                )
            )
            self._follow(Event.SILENCE)
            return
        self._round = self._schedule.add(self, keepalive.next_deadline)
        if due is Due.PING and not stream.is_full:
            self._send(Opcode.PING, b"")

    def _ignores_silence(self) -> bool:
        """Return whether the peer may be alive in spite of its silence; see `KeepAlive.advance`."""
        stream = self._stream
        before, self._unsent = self._unsent, stream.unsent
        if stream.has_peer_ended:
            return False  # A handler still runs. The peer can send no pong, so the silence counts.
        if not stream.is_reading:
            return not stream.has_hung_up
        # If fewer bytes are unsent, the peer reads, and has not reached the ping after them.
        return stream.has_unread_input or self._unsent < before

    def _stop_pings(self) -> None:
        """Stop the pings at intervals, and fail those of the application."""
        self._keepalive = None
        self._pong = None
        schedule, self._schedule = self._schedule, None
        if schedule is not None:
            schedule.remove(self, self._round)
        pings, self._pings = self._pings, None
        for waiting, _ in (pings or {}).values():
            if not waiting.called:  # A callback may cancel another wait.
                waiting.errback(self._reason_without_pong())

    def _reason_without_pong(self) -> SocketError:
        if self.code == CloseCode.ABNORMAL_CLOSURE:
            return BrokenError("the connection ended before the pong")
        return ClosedError(f"the WebSocket closed before the pong: code {self.code:d}")

    # Steps of the table.

    def _note_close(self, code: int, reason: str, payload: bytes) -> None:
        """Record the first close frame, which says why the WebSocket ends."""
        self.code = named_code(code)
        self.reason = reason
        self._payload = payload

    def _follow(self, event: Event) -> None:
        """Take the step for an event."""
        state, actions = follow(self._state, event, self._role)
        self._state = state
        was_open, self.is_open = self.is_open, state is State.OPEN
        for action in actions:
            # On a transport in memory this may cause further events, after which each action that
            # is left does nothing.
            _PERFORM[action](self)
        if was_open and not self.is_open:
            self._stop_pings()

    def _send_close(self) -> None:
        assert self._encoder is not None
        if self._stream.is_open:  # If a send has failed, the peer may still be read.
            self._stream.write(self._encoder.encode(Opcode.CLOSE, self._payload))
            self._stream.send()

    def _start_deadline(self) -> None:
        self._close_at = self._stream.clock.seconds() + self._close_timeout
        self._stream.start_deadline(self._close_timeout, self._deadline_passed)

    def _stop_deadline(self) -> None:
        self._stream.stop_deadline()

    def _deadline_passed(self) -> None:
        if self._state is State.OPENING:
            self._stream.note_error(
                SocketError(
                    "no WebSocket handshake in time", status=SocketErrorStatus.CONNECTION_TIMED_OUT
                )
            )
        self._follow(Event.DEADLINE)

    def _drop_input(self) -> None:
        self._owner.drop_messages()

    def _end(self) -> None:
        # ``close`` starts the deadline of the connection below, with the rest of this deadline.
        self._owner.close_timeout = max(0.0, self._close_at - self._stream.clock.seconds())
        self._stream.close()

    def _reset(self) -> None:
        self._stream.abort()

    def _report_closed(self) -> None:
        self._stream.counters.count_close(self.code)
        self._owner.socket_closed(self.code, self.reason)


_PERFORM: Final[dict[Action, Callable[[WebSocket], None]]] = {
    Action.SEND_CLOSE: WebSocket._send_close,
    Action.ECHO_CLOSE: WebSocket._send_close,
    Action.START_DEADLINE: WebSocket._start_deadline,
    Action.STOP_DEADLINE: WebSocket._stop_deadline,
    Action.DROP_INPUT: WebSocket._drop_input,
    Action.END: WebSocket._end,
    Action.RESET: WebSocket._reset,
    Action.REPORT_CLOSED: WebSocket._report_closed,
}
