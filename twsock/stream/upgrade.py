"""
TLS in the middle of a connection of messages: protocol → **upgrade** → TLS engine → protocol.

One per connection whose protocol has an `UpgradeToSsl`. It looks at each boundary between messages,
where a handshake may begin, and takes the messages of before the handshake through its own hands::

    PLAIN ── 16 03 at a boundary ───────────────────────> HANDSHAKE ── accepted ──> SECURE
      └── the request: go-ahead ──> AWAITING ── 16 03 ──────┘  └── anything else: abort
                                        └── anything else: abort

With TLS from the first byte a connection begins as ``AWAITING``.

Nothing that came in plaintext is ever handled as if it had come encrypted, and nothing that is
written after the switch is ever sent before it. Wire format: docs/wire/upgrade.rst.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Final

from twisted.python.failure import Failure
from typing_extensions import override

from twsock.errors import LocalProtocolError, RemoteProtocolError, SocketError, SocketErrorStatus
from twsock.log import forget_frames
from twsock.stream._securing import Securing, Upgradable
from twsock.stream.connection import Connection
from twsock.tls.handshake import CLIENT_HELLO, DEFAULT_HANDSHAKE_TIMEOUT, Handshake
from twsock.tls.server import ServerTls, ServerVerification

__all__ = ["MAX_BEFORE_UPGRADE", "Upgrade", "UpgradePolicy", "UpgradeToSsl"]

#: Bytes of messages that are dropped before a required upgrade, empty ones counted as one; then the
#: connection is aborted.
MAX_BEFORE_UPGRADE: Final = 4096

#: The first bytes of a ClientHello as the count of a frame: 369,295,360 bytes and more.
_LEAST_COUNT: Final = int.from_bytes(CLIENT_HELLO, "big") << 16


class UpgradePolicy(enum.Enum):
    """
    Whether a connection may, or has to, be put into TLS.

    ``IMPLICIT`` is TLS from the first byte, as :rfc:`8314` calls it.
    """

    OFF = "off"
    ALLOWED = "allowed"
    REQUIRED = "required"
    IMPLICIT = "implicit"


@dataclass(frozen=True, slots=True)
class UpgradeToSsl:
    """
    How a server's connections become secure.

    :param tls: certificates, and whom to let in.
    :param policy: with ``REQUIRED``, messages before the upgrade are dropped unanswered, at most
        `MAX_BEFORE_UPGRADE` bytes of them. With ``IMPLICIT`` the application hears of a connection
        only when it is secure. With ``OFF`` and ``IMPLICIT`` the words below are data like any
        other.
    :param request: the message with which a client asks for TLS; a ClientHello at a boundary needs
        none.
    :param go_ahead: the message that answers it, the last one in plaintext.
    :param refusal: the message that answers it inside TLS.
    :param ignores_case: whether the request may be spelled ``StartTLS``, as in SMTP.
    :param handshake_timeout: seconds from the go-ahead, or from the ClientHello, to its end.
    :raises ValueError: when the timeout is not above 0, or a word is empty.
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
        """Say whether a client asks for TLS."""
        if self.ignores_case and len(message) == len(self.request):
            return message.upper() == self.request.upper()
        return message == self.request

    def check_limit(self, max_payload: int, is_counted: bool) -> None:
        """
        Refuse a limit with which a frame could look like a handshake.

        :param is_counted: whether messages have a count in front.
        :raises ValueError: then.
        """
        sniffs = self.policy in (UpgradePolicy.ALLOWED, UpgradePolicy.REQUIRED)
        if sniffs and is_counted and max_payload >= _LEAST_COUNT:
            raise ValueError(
                f"with an upgrade, max_payload is below {_LEAST_COUNT}, not {max_payload}"
            )


class _Phase(enum.Enum):
    PLAIN = enum.auto()
    AWAITING = enum.auto()
    HANDSHAKE = enum.auto()
    SECURE = enum.auto()


class Upgrade(Securing):
    """The way of one connection of a server into TLS."""

    def __init__(self, settings: UpgradeToSsl, protocol: Upgradable) -> None:
        super().__init__(protocol)
        self._settings = settings
        self._phase = _Phase.PLAIN
        self._dropped = 0
        self._verification: ServerVerification | None = None
        self.is_watching = settings.policy is not UpgradePolicy.OFF
        self.is_implicit = settings.policy is UpgradePolicy.IMPLICIT

    def begin(self, stream: Connection) -> None:
        """Await what a client has to do first."""
        policy = self._settings.policy
        if policy is UpgradePolicy.OFF:
            return
        if stream.carries_tls:
            self._take_endpoint_of_tls()
            return
        self._protocol.stop_before(self._settings.request, CLIENT_HELLO)
        if policy is UpgradePolicy.REQUIRED:
            self._protocol.limit_messages(MAX_BEFORE_UPGRADE)
        elif policy is UpgradePolicy.IMPLICIT:
            self._await_hello(stream)

    def _take_endpoint_of_tls(self) -> None:
        """Be secure already, as the endpoint has it: there is no TLS inside TLS."""
        if self._settings.tls.identifies_clients:
            error = LocalProtocolError(
                "a TLS endpoint does not verify client certificates: listen on a plain endpoint"
            )
            self._log.error("{peer} aborted: {error}", peer=self._protocol.peer, error=error)
            self.abort(error)
        self._phase = _Phase.SECURE
        if self.is_implicit:
            self.is_implicit = self.is_watching = False
        else:
            self._protocol.stop_before(self._settings.request)

    @override
    def deliver(self, stream: Connection) -> None:
        protocol = self._protocol
        while self._phase is not _Phase.HANDSHAKE:
            if self._passes_messages():
                protocol.deliver_messages(stream)
                if not protocol.has_stopped(stream):
                    return
            if self._phase is not _Phase.SECURE and self._begins_handshake(protocol):
                return
            message = protocol.pull_message()
            if message is None:
                return
            if not self._handle(message, stream):
                return

    @property
    @override
    def is_under_way(self) -> bool:
        if self._phase is _Phase.AWAITING:
            return not self.is_implicit  # With an explicit upgrade, a go-ahead was sent.
        return self._phase is _Phase.HANDSHAKE

    @override
    def start(self) -> None:
        """Begin the handshake with what has come of it; what is behind it is its own."""
        self.is_due = False
        protocol, settings = self._protocol, self._settings
        timeout = self._time_left(settings.handshake_timeout)
        creator, self._verification = settings.tls.begin()
        leftover = protocol.take_buffered()
        handshake = Handshake(
            self, creator, self._verification, protocol.clock, timeout, is_client=False
        )
        handshake.begin(leftover).addErrback(self._refused)

    # What a handshake asks of a connection.

    @override
    def resume(self, transport: Any) -> Upgradable:
        self._phase = _Phase.SECURE
        # With TLS from the first byte there are no words to look out for.
        self.is_watching = not self.is_implicit
        if self._verification is not None:
            self.peer_certificate = self._verification.certificate
        resumed = super().resume(transport)
        if self.is_watching:
            resumed.stop_before(self._settings.request)
        return resumed

    # How messages are taken.

    def _passes_messages(self) -> bool:
        """Tell whether all messages in front of a request or a handshake are the protocol's."""
        settings = self._settings
        if settings.ignores_case:
            return False
        if self._phase is _Phase.SECURE:
            return True
        return self._phase is _Phase.PLAIN and settings.policy is UpgradePolicy.ALLOWED

    def _begins_handshake(self, protocol: Upgradable) -> bool:
        """Check a boundary; return whether no message may be pulled there."""
        head = protocol.peek(len(CLIENT_HELLO))
        if head == CLIENT_HELLO:
            self._phase = _Phase.HANDSHAKE
            self.is_due = True
            return True
        if not head or head == CLIENT_HELLO[: len(head)]:
            return True  # It cannot be told yet.
        if self._phase is _Phase.AWAITING:
            raise RemoteProtocolError(
                "plaintext in place of a handshake"
                if self.is_implicit
                else "plaintext after the request for TLS"
            )
        return False

    def _handle(self, message: bytes, stream: Connection) -> bool:
        """Handle one message; tell whether the next one may be pulled."""
        protocol, settings = self._protocol, self._settings
        if settings.is_request(message):
            if self._phase is _Phase.SECURE:
                protocol.send_message(settings.refusal)
            else:
                protocol.send_message(settings.go_ahead)
                stream.send()
                self._await_hello(stream)
            return True
        if settings.policy is UpgradePolicy.REQUIRED and self._phase is not _Phase.SECURE:
            self._dropped += max(1, len(message))
            if self._dropped > MAX_BEFORE_UPGRADE:
                raise RemoteProtocolError(
                    f"more than {MAX_BEFORE_UPGRADE} bytes before the upgrade that is required"
                )
            return True
        return protocol.handle_message(message, stream)

    def _await_hello(self, stream: Connection) -> None:
        stream.hold()  # The last word in plaintext was said.
        self._phase = _Phase.AWAITING
        self._wait_at_most(self._settings.handshake_timeout)

    @override
    def _time_is_up(self) -> None:
        self._deadline = None
        error = SocketError(
            f"no handshake within {self._settings.handshake_timeout:g} s",
            status=SocketErrorStatus.CONNECTION_TIMED_OUT,
        )
        self._tell_of(error)
        self.abort(error)

    def _refused(self, failure: Failure) -> None:
        self._tell_of(failure.value)
        forget_frames(failure)

    def _tell_of(self, error: object) -> None:
        self._protocol.note_violation()
        self._log.warn(
            "TLS handshake with {peer} failed: {error}", peer=self._protocol.peer, error=error
        )
