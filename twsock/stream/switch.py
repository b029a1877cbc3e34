"""
Carries out an upgrade on one connection: `twsock.stream.upgrade_core` → **switch** → TLS engine.

The base of three classes: the server's side of an upgrade, the client's side, and TLS of awaitable
sockets. It has their common steps: keep the output, run the handshake, verify the peer, continue
above the engine, abort. It holds the core, and the handshake while it runs.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any, Final

from twisted.python.failure import Failure

from twsock.errors import (
    BrokenError,
    ClosedError,
    RemoteProtocolError,
    SocketError,
    SocketErrorStatus,
)
from twsock.log import TextLogger
from twsock.stream.connection import Connection
from twsock.stream.upgrade_core import Action, Event, Side, State, UpgradeCore
from twsock.tls.handshake import Handshake, Verification

__all__ = [
    "MessageDecoder",
    "MessageOwner",
    "MessageSwitch",
    "StoringDecoder",
    "Switch",
    "SwitchOwner",
    "ended_when_secure",
]


class SwitchOwner(typing.Protocol):
    """The protocol or socket above a connection that becomes secure."""

    def take_buffered(self) -> bytes:
        """Remove and return all bytes that were received and not delivered."""

    def continue_above(self, engine: Any) -> None:
        """Continue above the engine; drop all state from before the handshake."""

    def forget_switch(self) -> None:
        """Drop the switch: the connection is secure, and no message concerns the switch."""


class Switch:
    """
    One upgrade of one connection.

    :param owner: the protocol or socket above the connection.
    :param timeout: seconds from the switch to the end of the handshake; above 0.
    :param is_secure: as for `UpgradeCore`.
    """

    __slots__ = ("_connection", "_core", "_handshake", "_owner")

    _log = TextLogger()

    def __init__(
        self,
        owner: SwitchOwner,
        connection: Connection,
        side: Side,
        timeout: float,
        *,
        is_secure: bool = False,
    ) -> None:
        self._owner = owner
        self._connection = connection
        self._core = UpgradeCore(side, timeout, is_secure=is_secure)
        # None while no handshake runs.
        self._handshake: Handshake | None = None

    @property
    def state(self) -> State:
        """How far the upgrade is."""
        return self._core.state

    @property
    def is_shaking_hands(self) -> bool:
        """Whether the handshake runs."""
        return self._core.state in (State.HANDSHAKE, State.JUDGED)

    def handle(self, event: Event, error: SocketError | None = None) -> None:
        """
        Handle one event: take its step, and carry out the actions.

        :param error: the reason, if the event fails the upgrade; None for that of `_error_of`.
        :raises LocalProtocolError: for a call of the application that has no row in this state.
        """
        actions = self._core.handle(event, self._connection.clock.seconds())
        self._carry_out(actions, event, error)

    def lost(self, error: SocketError | None) -> None:
        """
        Handle the loss of the connection, which the owner reports.

        :param error: None if the connection ended in order.
        """
        handshake = self._handshake
        # If the handshake is lost, `handshake_lost` handles the event after the owner has returned.
        if handshake is None or not handshake.is_lost:
            self.handle(Event.LOST, error)

    # Overridden by the subclasses.

    def _update(self) -> None:
        """Handle a state that may have changed."""

    def prepare(self) -> tuple[Any, Verification]:
        """Return the creator of OpenSSL's connection, and the verification of the peer."""
        raise NotImplementedError

    def accepted(self, engine: Any) -> None:
        """Report that the connection is secure; the owner continues above the engine already."""

    def failed(self, event: Event, error: SocketError) -> None:
        """Report the reason of a failure; the connection was aborted or lost before."""
        raise NotImplementedError

    def timeout_error(self) -> SocketError:
        """Return the error of the deadline."""
        return SocketError(
            "the handshake did not finish in time", status=SocketErrorStatus.CONNECTION_TIMED_OUT
        )

    def _error_of(self, event: Event) -> SocketError:
        """Return the error of an event that fails the upgrade and has no error of its own."""
        if event is Event.LOST:
            return BrokenError("the connection ended before the handshake")
        return RemoteProtocolError(f"not expected in this state of the upgrade: {event.value}")

    def _abort(self, error: SocketError) -> None:
        """Abort the connection."""
        self._connection.abort(error)

    def _send_request(self) -> None:
        """Send the request for TLS."""

    def _send_go_ahead(self) -> None:
        """Send the go-ahead."""

    def _send_refusal(self) -> None:
        """Answer a request inside TLS."""

    # Called by the handshake.

    def handshake_completed(self) -> None:
        """Verify the peer, unless this end was closed."""
        if self._connection.is_open:
            self.handle(Event.COMPLETED)

    def handshake_lost(self, refusal: SocketError | None, reason: Failure) -> None:
        """Report the loss to the connection and its owner, then to the caller of the upgrade."""
        error = refusal
        if error is None and not self._connection.is_open:
            error = ClosedError("this end was closed during the handshake")
        if error is None:
            error = BrokenError.from_exception(typing.cast(BaseException, reason.value))
        self._connection.note_error(error)
        self._connection.lost(reason)
        self.handle(Event.LOST, error)

    # The actions.

    def _carry_out(
        self, actions: tuple[Action, ...], event: Event, error: SocketError | None
    ) -> None:
        self._update()
        state = self._core.state
        for action in actions:
            # A transport in memory may report the next event within an action.
            if self._core.state is not state:
                return
            perform = _PERFORM.get(action)
            if perform is not None:
                perform(self)
            elif action is Action.ABORT:
                self._abort(error or self._error_of(event))
            elif action is Action.REPORT:
                self.failed(event, error or self._error_of(event))
        if state is State.FAILED:
            self._handshake = None  # It refers back to this object.

    def _arm_deadline(self) -> None:
        deadline = self._core.deadline
        assert deadline is not None
        connection = self._connection
        connection.start_deadline(deadline - connection.clock.seconds(), self._deadline_passed)

    def _deadline_passed(self) -> None:
        error = self.timeout_error()
        actions = self._core.advance(self._connection.clock.seconds())
        if actions:
            self._carry_out(actions, Event.DEADLINE, error)
        else:
            self._arm_deadline()  # The clock was set back.

    def _disarm_deadline(self) -> None:
        self._connection.stop_deadline()

    def _hold_output(self) -> None:
        connection = self._connection
        connection.send()  # In plaintext; everything that is written from now on waits.
        connection.hold()

    def _start_handshake(self) -> None:
        connection = self._connection
        if not connection.is_open:
            connection.abort()  # A send has failed; the loss, with its error, follows.
            return
        creator, verification = self.prepare()
        is_client = self._core.side is Side.CLIENT
        self._handshake = Handshake(self, creator, verification, connection.clock, is_client)
        self._handshake.begin(connection.hold(), self._take_leftover())

    def _take_leftover(self) -> bytes:
        """Return the bytes of the peer's handshake that were received already."""
        return self._owner.take_buffered()

    def _judge(self) -> None:
        assert self._handshake is not None
        refusal = self._handshake.judge()
        if refusal is None:
            self.handle(Event.ACCEPTED)
        else:
            self.handle(Event.REFUSED, refusal)

    def _continue(self) -> None:
        handshake, self._handshake = self._handshake, None
        assert handshake is not None
        self._connection.peer_certificate = handshake.peer_certificate
        engine = handshake.pass_to(self._owner)
        self._owner.continue_above(engine)
        self.accepted(engine)


def ended_when_secure() -> SocketError:
    """Return the error of a connection in memory that is lost when held bytes are sent."""
    return BrokenError("the connection ended when it became secure")


class MessageDecoder(typing.Protocol):
    """
    The part of a connection's decoder that an upgrade uses.

    :ivar max_payload: the largest message, in bytes.
    """

    max_payload: int

    def peek(self, count: int) -> bytes:
        """Return the next bytes, at most ``count``, without pulling them."""

    def stop_before(self, word: bytes, beginning: bytes = ...) -> None:
        """Make `MessageOwner.deliver_messages` stop before a message, or before a beginning."""


class StoringDecoder(MessageDecoder, typing.Protocol):
    """
    The part of a wire format's decoder that `twsock.stream.protocol.StreamProtocol` uses.

    :ivar delivered: the number of messages pulled so far.
    :ivar stored: bytes that were fed and not pulled.
    """

    delivered: int
    stored: bytes | bytearray

    @property
    def buffered(self) -> int:
        """How many bytes were fed and not pulled."""

    def feed(self, data: bytes) -> None:
        """Store received bytes."""

    def stops_here(self) -> bool:
        """Return whether the next message is one of `stop_before`."""


class MessageOwner(SwitchOwner, typing.Protocol):
    """The protocol above a connection of messages."""

    @property
    def peer(self) -> str:
        """The peer's address, for the log."""

    @property
    def decoder(self) -> MessageDecoder:
        """The decoder of received bytes; a new one when the connection becomes secure."""

    def pull_message(self) -> bytes | None:
        """Pull one message; return None when more bytes are needed."""

    def deliver_messages(self, stream: Connection) -> None:
        """Pull and handle messages until there is none, a handler runs, or the output is full."""

    def has_stopped(self, stream: Connection) -> bool:
        """Return whether a request or ClientHello is next, and may be handled now."""

    def handle_message(self, message: bytes, stream: Connection) -> bool:
        """Handle one message; return whether the next one may be handled."""

    def send_message(self, message: bytes) -> None:
        """Send one message."""

    def encode_message(self, message: bytes) -> bytes:
        """Return one message as it is sent."""

    def note_violation(self) -> None:
        """Count a peer that broke a rule."""

    def note_upgrade(self, result: SocketError | float) -> None:
        """Count an upgrade that is done, with the seconds of its handshake, or its error."""


class MessageSwitch(Switch):
    """
    One upgrade of a connection of messages.

    :ivar passes_messages: whether the protocol handles all messages up to the next request or
        ClientHello by itself.
    """

    __slots__ = ("passes_messages",)

    _owner: MessageOwner

    def __init__(
        self,
        protocol: MessageOwner,
        connection: Connection,
        side: Side,
        timeout: float,
        *,
        is_secure: bool = False,
    ) -> None:
        super().__init__(protocol, connection, side, timeout, is_secure=is_secure)
        self.passes_messages = False

    def deliver(self) -> None:
        """Handle received bytes, until more are needed, a handler runs, or TLS begins."""
        raise NotImplementedError

    def _send_below(self, word: bytes) -> None:
        """
        Send the last message in plaintext.

        All other output is held by now. So no hook of the application, and no event of a transport
        in memory, can send bytes in plaintext behind this message.
        """
        if self._connection.is_open:
            self._connection.hold().write(self._owner.encode_message(word))

    @property
    def is_under_way(self) -> bool:
        """Whether a handshake runs, or a go-ahead was sent."""
        return False

    @property
    def is_urgent(self) -> bool:
        """Whether messages are handled while a handler runs, which may wait for the upgrade."""
        return False


#: Actions that need no event. The caller carries out DELIVER and DROP, since it has the message.
_PERFORM: Final[dict[Action, Callable[[Switch], None]]] = {
    Action.SEND_REQUEST: lambda switch: switch._send_request(),
    Action.SEND_GO_AHEAD: lambda switch: switch._send_go_ahead(),
    Action.SEND_REFUSAL: lambda switch: switch._send_refusal(),
    Action.HOLD_OUTPUT: lambda switch: switch._hold_output(),
    Action.ARM_DEADLINE: Switch._arm_deadline,
    Action.DISARM_DEADLINE: Switch._disarm_deadline,
    Action.START_HANDSHAKE: Switch._start_handshake,
    Action.JUDGE: Switch._judge,
    Action.CONTINUE: Switch._continue,
}
