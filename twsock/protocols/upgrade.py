"""
TLS in the middle of a connection of messages: protocol → **upgrade** → TLS engine → protocol.

One per connection whose protocol has an `UpgradeToSsl`. It looks at each boundary between messages,
where a handshake may begin, and takes the messages of before the handshake through its own hands::

    PLAIN ── 16 03 at a boundary ───────────────────────> HANDSHAKE ── accepted ──> SECURE
      └── the request: go-ahead ──> AWAITING ── 16 03 ──────┘  └── anything else: abort
                                        └── anything else: abort

Nothing that came in plaintext is ever handled as if it had come encrypted, and nothing that is
written after the switch is ever sent before it. Wire format: docs/wire/upgrade.rst.
"""

from __future__ import annotations

import enum
import typing
from dataclasses import dataclass
from typing import Any, Final

from twisted.logger import Logger
from twisted.python.failure import Failure

from twsock.errors import RemoteProtocolError, SocketError
from twsock.tls.certificates import Certificate
from twsock.tls.handshake import DEFAULT_HANDSHAKE_TIMEOUT, Handshake
from twsock.tls.server import ServerTls
from twsock.transport import StreamTransport

if typing.TYPE_CHECKING:
    from twsock.protocols.stream import StreamProtocol

__all__ = ["MAX_BEFORE_UPGRADE", "Upgrade", "UpgradePolicy", "UpgradeToSsl"]

#: Bytes of messages that are dropped before a required upgrade; then the connection is aborted.
MAX_BEFORE_UPGRADE: Final = 4096

#: How a handshake begins: the type of a record, and the first byte of its version (:rfc:`8446`,
#: section 5.1). As the count of a frame these are 369,295,360 bytes and more.
_HELLO: Final = b"\x16\x03"
_LEAST_COUNT: Final = 0x1603_0000


class UpgradePolicy(enum.Enum):
    """Whether a connection may, or has to, be put into TLS."""

    OFF = "off"
    ALLOWED = "allowed"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class UpgradeToSsl:
    """
    How a server's connections become secure.

    :param tls: certificates, and whom to let in.
    :param policy: with ``REQUIRED``, messages before the upgrade are dropped unanswered, at most
        `MAX_BEFORE_UPGRADE` bytes of them. With ``OFF`` the words below are data like any other.
    :param request: the message with which a client asks for TLS; a ClientHello at a boundary needs
        none.
    :param go_ahead: the message that answers it, the last one in plaintext.
    :param refusal: the message that answers it inside TLS.
    :param handshake_timeout: seconds from the go-ahead, or from the ClientHello, to its end.
    :raises ValueError: when the timeout is not above 0, or a word is empty.
    """

    tls: ServerTls
    policy: UpgradePolicy = UpgradePolicy.ALLOWED
    request: bytes = b"STARTTLS"
    go_ahead: bytes = b"OK"
    refusal: bytes = b"NO"
    handshake_timeout: float = DEFAULT_HANDSHAKE_TIMEOUT

    def __post_init__(self) -> None:
        if not self.handshake_timeout > 0:
            raise ValueError(
                f"handshake_timeout is above 0 seconds, not {self.handshake_timeout!r}"
            )
        if not (self.request and self.go_ahead and self.refusal):
            raise ValueError("request, go-ahead and refusal have at least one byte each")

    def check_limit(self, max_payload: int, is_counted: bool) -> None:
        """
        Refuse a limit with which a frame could look like a handshake.

        :param is_counted: whether messages have a count in front.
        :raises ValueError: then.
        """
        if self.policy is not UpgradePolicy.OFF and is_counted and max_payload >= _LEAST_COUNT:
            raise ValueError(
                f"with an upgrade, max_payload is below {_LEAST_COUNT}, not {max_payload}"
            )


class _Phase(enum.Enum):
    PLAIN = enum.auto()
    AWAITING = enum.auto()
    HANDSHAKE = enum.auto()
    SECURE = enum.auto()


class Upgrade:
    """
    The way of one connection into TLS.

    :ivar client_certificate: with which the client identified itself, verified.
    """

    _log = Logger()

    def __init__(self, settings: UpgradeToSsl, protocol: StreamProtocol) -> None:
        self.client_certificate: Certificate | None = None
        self._settings = settings
        self._protocol = protocol
        self._phase = _Phase.PLAIN
        self._dropped = 0
        self._deadline: Any = None

    @property
    def is_secure(self) -> bool:
        """Whether what comes and goes is encrypted, and the peer accepted."""
        return self._phase is _Phase.SECURE

    @property
    def is_watching(self) -> bool:
        """Whether messages have to be taken through `deliver`."""
        return self._settings.policy is not UpgradePolicy.OFF

    @property
    def is_due(self) -> bool:
        """Whether the handshake begins now."""
        return self._phase is _Phase.HANDSHAKE

    def deliver(self, stream: StreamTransport) -> None:
        """
        Pull and handle messages, as long as there are any and no handshake begins.

        :raises RemoteProtocolError: for plaintext that has no place here.
        """
        protocol = self._protocol
        while self._phase is not _Phase.HANDSHAKE:
            if self._phase is not _Phase.SECURE and self._begins_handshake(protocol):
                return
            message = protocol.pull_message()
            if message is None:
                return
            if not self._handle(message, stream):
                return

    def start(self) -> None:
        """Begin the handshake with what has come of it; what is behind it is its own."""
        protocol, settings = self._protocol, self._settings
        self._stop_waiting()
        creator, verification = settings.tls.begin()
        leftover = protocol.take_rest()
        handshake = Handshake(
            self,
            creator,
            verification,
            protocol.clock,
            settings.handshake_timeout,
            is_client=False,
        )

        def note(_connection: object) -> None:
            self.client_certificate = verification.certificate

        handshake.begin(leftover).addCallbacks(note, self._refused)

    def lost(self) -> None:
        """The connection is gone."""
        self._stop_waiting()

    # What a handshake asks of a connection.

    @property
    def is_open(self) -> bool:
        """Whether it was neither closed nor lost."""
        return self._protocol.is_open

    def suspend(self) -> Any:
        """Let nothing pass; give the transport."""
        return self._protocol.suspend()

    def resume(self, transport: Any) -> None:
        """Go on above the engine, with nothing of what came before."""
        self._phase = _Phase.SECURE
        self._protocol.resume(transport)

    def note_error(self, error: SocketError) -> None:
        """Know why the connection is about to end."""
        self._protocol.note_error(error)

    def abort(self, error: SocketError) -> object:
        """End now."""
        self._protocol.note_error(error)
        return self._protocol.abort()

    def dataReceived(self, data: bytes) -> None:
        """Take what came encrypted."""
        self._protocol.dataReceived(data)

    def connectionLost(self, reason: Failure) -> None:
        """The connection is gone."""
        self._protocol.connectionLost(reason)

    # How messages of before the handshake are taken.

    def _begins_handshake(self, protocol: StreamProtocol) -> bool:
        """Look at a boundary; tell whether no message is to be pulled there."""
        head = protocol.peek(len(_HELLO))
        if head == _HELLO:
            self._phase = _Phase.HANDSHAKE
            return True
        if not head or head == _HELLO[: len(head)]:
            return True  # It cannot be told yet.
        if self._phase is _Phase.AWAITING:
            raise RemoteProtocolError("plaintext behind the request for TLS")
        return False

    def _handle(self, message: bytes, stream: StreamTransport) -> bool:
        """Handle one message; tell whether the next one may be pulled."""
        protocol, settings = self._protocol, self._settings
        if message == settings.request:
            if self._phase is _Phase.SECURE:
                protocol.send_message(settings.refusal)
            else:
                protocol.send_message(settings.go_ahead)
                stream.send()
                stream.hold()  # The last word in plaintext was said.
                self._phase = _Phase.AWAITING
                self._deadline = protocol.clock.callLater(settings.handshake_timeout, self._give_up)
            return True
        if settings.policy is UpgradePolicy.REQUIRED and self._phase is not _Phase.SECURE:
            self._dropped += len(message)
            if self._dropped > MAX_BEFORE_UPGRADE:
                raise RemoteProtocolError(
                    f"more than {MAX_BEFORE_UPGRADE} bytes before the upgrade that is required"
                )
            return True
        return protocol.handle_message(message, stream)

    def _give_up(self) -> None:
        self._deadline = None
        protocol = self._protocol
        self._log.warn(
            "{peer} asked for TLS and sent nothing more within {timeout:g} s: aborted",
            peer=protocol.peer,
            timeout=self._settings.handshake_timeout,
        )
        protocol.abort()

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refused(self, failure: Failure) -> None:
        self._log.warn(
            "{peer} not let into TLS: {error}", peer=self._protocol.peer, error=failure.value
        )
