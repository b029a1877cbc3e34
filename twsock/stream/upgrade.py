"""
The server's side of an upgrade: protocol → **upgrade** → TLS engine → protocol.

A server protocol with an `UpgradeToSsl` has one `Upgrade` for each connection. At each boundary
between messages the client may send the request or its ClientHello. The upgrade reports what it
finds there to `twsock.stream.upgrade_core`, which decides the next step. It drops messages before
a required upgrade. Wire format: docs/wire/upgrade.rst.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Final

from typing_extensions import override

from twsock.errors import LocalProtocolError, RemoteProtocolError, SocketError, SocketErrorStatus
from twsock.stream.connection import Connection
from twsock.stream.switch import MessageOwner, MessageSwitch
from twsock.stream.upgrade_core import Event, Side, State, delivers_in
from twsock.tls.handshake import CLIENT_HELLO, DEFAULT_HANDSHAKE_TIMEOUT, Verification
from twsock.tls.server import ServerTls

__all__ = ["MAX_BEFORE_UPGRADE", "Upgrade", "UpgradePolicy", "UpgradeToSsl"]

#: How many bytes of messages are dropped before a required upgrade; an empty message counts as one
#: byte. More bytes abort the connection.
MAX_BEFORE_UPGRADE: Final = 4096

#: The first bytes of a ClientHello as the count of a frame: 369,295,360 bytes and more.
_LEAST_COUNT: Final = int.from_bytes(CLIENT_HELLO, "big") << 16


class UpgradePolicy(enum.Enum):
    """
    Whether a server upgrades its connections to TLS.

    ``OFF`` upgrades none. ``ALLOWED`` upgrades a connection when the client begins. ``REQUIRED``
    does the same, and drops all messages before the upgrade. ``IMPLICIT`` is TLS from the first
    byte (:rfc:`8314`).
    """

    OFF = "off"
    ALLOWED = "allowed"
    REQUIRED = "required"
    IMPLICIT = "implicit"


@dataclass(frozen=True, slots=True)
class UpgradeToSsl:
    """
    The settings with which a server upgrades its connections to TLS.

    :param tls: the certificates, and which clients are accepted.
    :param policy: with ``REQUIRED``, messages before the upgrade are dropped unanswered, at most
        `MAX_BEFORE_UPGRADE` bytes of them. With ``IMPLICIT`` the application learns of a connection
        only when it is secure. With ``OFF`` and ``IMPLICIT``, a message that equals ``request`` is
        data like any other.
    :param request: the message with which a client asks for TLS. A client that sends its
        ClientHello at a boundary needs none.
    :param go_ahead: the answer to the request, the last message in plaintext.
    :param refusal: the answer to a request inside TLS.
    :param ignores_case: whether the request may be spelled ``StartTLS``, as in SMTP.
    :param handshake_timeout: seconds from the go-ahead, from the ClientHello, or with ``IMPLICIT``
        from the connection, to the end of the handshake; above 0.
    :raises ValueError: when the timeout is not above 0, or one of the three messages is empty.
    """

    tls: ServerTls
    policy: UpgradePolicy = UpgradePolicy.ALLOWED
    request: bytes = b"STARTTLS"
    go_ahead: bytes = b"OK"
    refusal: bytes = b"NO"
    ignores_case: bool = False
    handshake_timeout: float = DEFAULT_HANDSHAKE_TIMEOUT

    def __post_init__(self) -> None:
        if not self.handshake_timeout > 0:
            raise ValueError(
                f"handshake_timeout is above 0 seconds, not {self.handshake_timeout!r}"
            )
        if not (self.request and self.go_ahead and self.refusal):
            raise ValueError("request, go-ahead and refusal have at least one byte each")

    def is_request(self, message: bytes) -> bool:
        """Return whether a message is the request for TLS."""
        if self.ignores_case and len(message) == len(self.request):
            return message.upper() == self.request.upper()
        return message == self.request

    def check_limit(self, max_payload: int, is_counted: bool) -> None:
        """
        Check that no message within a limit can begin as a ClientHello does.

        :param max_payload: the limit, in bytes.
        :param is_counted: whether messages have a count in front.
        :raises ValueError: if one can.
        """
        sniffs = self.policy in (UpgradePolicy.ALLOWED, UpgradePolicy.REQUIRED)
        if sniffs and is_counted and max_payload >= _LEAST_COUNT:
            raise ValueError(
                f"with an upgrade, max_payload is below {_LEAST_COUNT}, not {max_payload}"
            )


class Upgrade(MessageSwitch):
    """
    The server's side of the upgrade of one connection.

    Above a TLS endpoint the connection is secure already, and only requests are answered.
    """

    __slots__ = ("_begun", "_dropped", "_settings")

    def __init__(
        self, settings: UpgradeToSsl, protocol: MessageOwner, connection: Connection
    ) -> None:
        super().__init__(
            protocol,
            connection,
            Side.SERVER,
            settings.handshake_timeout,
            is_secure=settings.policy is not UpgradePolicy.OFF and connection.carries_tls,
        )
        self._settings = settings
        self._dropped = 0
        # When the handshake began, on the clock of the connection.
        self._begun = 0.0
        self._update()

    @property
    def is_implicit(self) -> bool:
        """Whether the application learns of the connection only when it becomes secure."""
        is_secure = self._core.state is State.SECURE
        return self._settings.policy is UpgradePolicy.IMPLICIT and not is_secure

    def begin(self) -> None:
        """Prepare for the first bytes of the client."""
        settings, decoder = self._settings, self._owner.decoder
        if self._core.state is State.SECURE:
            self._check_endpoint()
            self._watch_for_request()
        elif self.is_implicit:
            self.handle(Event.AWAIT_HELLO)
        elif settings.policy is not UpgradePolicy.OFF:
            decoder.stop_before(settings.request, CLIENT_HELLO)
            if settings.policy is UpgradePolicy.REQUIRED:
                decoder.max_payload = min(decoder.max_payload, MAX_BEFORE_UPGRADE)

    def _check_endpoint(self) -> None:
        """Abort a connection above a TLS endpoint if clients have to identify themselves."""
        if not self._settings.tls.identifies_clients:
            return
        error = LocalProtocolError(
            "a TLS endpoint does not verify client certificates: listen on a plain endpoint"
        )
        self._log.error("{peer} aborted: {error}", peer=self._owner.peer, error=error)
        self._connection.abort(error)

    @override
    def deliver(self) -> None:
        protocol = self._owner
        while not self._begins_handshake():
            message = protocol.pull_message()
            if message is None or not self._take(message):
                return
            if self.passes_messages:
                protocol.deliver_messages(self._connection)
                if not protocol.has_stopped(self._connection):
                    return

    @property
    @override
    def is_under_way(self) -> bool:
        if self.state is State.HELD:
            return not self.is_implicit  # With an explicit upgrade, a go-ahead was sent.
        return self.is_shaking_hands

    # Input.

    def _begins_handshake(self) -> bool:
        """Report what is at a boundary; return whether no message may be pulled there."""
        state = self._core.state
        if state is State.SECURE:
            return False
        head = self._owner.decoder.peek(len(CLIENT_HELLO))
        if head == CLIENT_HELLO:
            self.handle(Event.CLIENT_HELLO)
        elif CLIENT_HELLO.startswith(head):
            return True  # Undecided until more bytes arrive.
        elif state is State.PLAIN:
            return False
        else:
            self.handle(Event.PLAINTEXT, self._plaintext_error())
        return True

    def _take(self, message: bytes) -> bool:
        """Handle one message; return whether the next one may be pulled."""
        settings = self._settings
        if settings.is_request(message):
            self.handle(Event.REQUEST)
            return self._connection.is_open
        if settings.policy is UpgradePolicy.REQUIRED and self.state is State.PLAIN:
            return self._drop(message)
        return self._owner.handle_message(message, self._connection)

    def _drop(self, message: bytes) -> bool:
        """Drop one message before a required upgrade; return whether the next may be pulled."""
        self._dropped += max(1, len(message))
        if self._dropped <= MAX_BEFORE_UPGRADE:
            self.handle(Event.EARLY_MESSAGE)
            return True
        what = f"more than {MAX_BEFORE_UPGRADE} bytes before the required upgrade"
        self.handle(Event.TOO_MANY_BYTES, RemoteProtocolError(what))
        return False

    def _plaintext_error(self) -> SocketError:
        if self.is_shaking_hands:
            return _plaintext_in_handshake()
        if self.is_implicit:
            return RemoteProtocolError("plaintext instead of a handshake")
        return RemoteProtocolError("plaintext after the request for TLS")

    # Overrides of `Switch`.

    @override
    def _error_of(self, event: Event) -> SocketError:
        # The TLS engine receives during a handshake, so this ClientHello came outside it.
        is_misplaced = event is Event.CLIENT_HELLO
        return _plaintext_in_handshake() if is_misplaced else super()._error_of(event)

    @override
    def _update(self) -> None:
        state = self._core.state
        if not delivers_in(state):
            self.passes_messages = False
            return
        settings = self._settings
        is_dropped = settings.policy is UpgradePolicy.REQUIRED and state is State.PLAIN
        has_words = settings.policy in (UpgradePolicy.ALLOWED, UpgradePolicy.REQUIRED)
        self.passes_messages = not is_dropped and not (has_words and settings.ignores_case)

    @override
    def prepare(self) -> tuple[Any, Verification]:
        self._begun = self._connection.clock.seconds()
        return self._settings.tls.begin()

    @override
    def _send_go_ahead(self) -> None:
        self._send_below(self._settings.go_ahead)

    @override
    def _send_refusal(self) -> None:
        self._owner.send_message(self._settings.refusal)

    @override
    def accepted(self, engine: Any) -> None:
        self._owner.note_upgrade(self._connection.clock.seconds() - self._begun)
        if self._settings.policy is UpgradePolicy.IMPLICIT:
            self._owner.forget_switch()  # There is no request.
        else:
            self._watch_for_request()

    def _watch_for_request(self) -> None:
        if self._settings.policy is not UpgradePolicy.IMPLICIT:
            self._owner.decoder.stop_before(self._settings.request)

    @override
    def timeout_error(self) -> SocketError:
        if self.state is not State.HELD:
            return super().timeout_error()
        return SocketError(
            f"no handshake within {self._settings.handshake_timeout:g} s",
            status=SocketErrorStatus.CONNECTION_TIMED_OUT,
        )

    @override
    def failed(self, event: Event, error: SocketError) -> None:
        self._owner.note_violation()
        self._owner.note_upgrade(error)
        peer = self._owner.peer
        if isinstance(error, RemoteProtocolError):
            self._log.warn("{peer} aborted: {error}", peer=peer, error=error)
        else:
            self._log.warn("TLS handshake with {peer} failed: {error}", peer=peer, error=error)


def _plaintext_in_handshake() -> SocketError:
    return RemoteProtocolError("plaintext during the handshake")
