"""
The client's side of an upgrade: protocol → request, go-ahead → **handshake** → protocol.

Begun by `twsock.protocols.StreamProtocol.upgrade_to_ssl`::

    ── direct ─────────────────────────────────────> HANDSHAKE ── accepted ──> SECURE
    ── command: request ──> ASKED ── the go-ahead ──────┘  └── refused: abort
                              └── anything else, anything behind it: abort

A server of TLS never speaks first, so whatever it sent in plaintext and nobody has handled yet ends
the connection, and nothing that a server says before the handshake is shown to anybody.
"""

from __future__ import annotations

import enum
import typing
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from typing_extensions import override

from twsock.errors import (
    BrokenError,
    ClosedError,
    RemoteProtocolError,
    SocketError,
    SocketErrorStatus,
)
from twsock.operation import Operation
from twsock.stream._securing import Securing, Upgradable
from twsock.stream.connection import Connection
from twsock.tls.client import ClientOptions, ClientVerification, make_client
from twsock.tls.handshake import DEFAULT_HANDSHAKE_TIMEOUT, Handshake

__all__ = ["MAX_GO_AHEAD", "ClientUpgrade", "ClientUpgrading", "UpgradeStyle"]

#: Largest message that is read in place of a go-ahead, in bytes.
MAX_GO_AHEAD: Final = 4096


class UpgradeStyle(enum.Enum):
    """How a client begins: with its ClientHello at once, or with a request that is answered."""

    DIRECT = "direct"
    COMMAND = "command"


@dataclass(frozen=True, slots=True)
class ClientUpgrade:
    """
    How a client's connection becomes secure.

    :param options: whom the certificate has to be for, and all else that is asked of a handshake.
    :param style: with ``DIRECT`` on a connection that has carried nothing, this is TLS from the
        first byte.
    :param request: the message that asks for TLS.
    :param go_ahead: the message that grants it.
    :param timeout: seconds for all of it, the go-ahead included.
    :raises ValueError: when the timeout is not above 0, or a word is empty.
    """

    options: ClientOptions
    style: UpgradeStyle = UpgradeStyle.DIRECT
    request: bytes = b"STARTTLS"
    go_ahead: bytes = b"OK"
    timeout: float = DEFAULT_HANDSHAKE_TIMEOUT

    def __post_init__(self) -> None:
        if not self.timeout > 0:
            raise ValueError(f"timeout is above 0 seconds, not {self.timeout!r}")
        if not (self.request and self.go_ahead):
            raise ValueError("request and go-ahead have at least one byte each")


class ClientUpgrading(Securing):
    """
    The way of one connection of a client into TLS.

    :raises SocketError: when the client's certificate cannot be used.
    """

    is_urgent = True

    def __init__(self, settings: ClientUpgrade, protocol: Upgradable) -> None:
        super().__init__(protocol)
        self._settings = settings
        self._creator: Any
        self._verification: ClientVerification
        # The port, or the path of a UNIX socket.
        service = protocol.peer.rpartition(":")[2]
        self._creator, self._verification = make_client(settings.options, service)
        self._handshake: Deferred[Any] | None = None
        self._is_called_off = False
        self._done: Deferred[None] = Operation(self._called_off)

    def begin(self, stream: Connection) -> Deferred[None]:
        """
        Ask, or say hello.

        :returns: fires when the server is accepted; otherwise the connection is gone.
        """
        protocol = self._protocol
        if protocol.has_unhandled_input:
            self._fail(RemoteProtocolError("the server sent plaintext before the handshake"))
            return self._done
        self._wait_at_most(self._settings.timeout)
        if self._settings.style is UpgradeStyle.COMMAND:
            protocol.limit_messages(MAX_GO_AHEAD)
            protocol.send_message(self._settings.request)
            stream.send()
            stream.hold()  # What is written from here on is for the other side of the handshake.
        else:
            stream.send()
            self.start()
        return self._done

    @override
    def deliver(self, stream: Connection) -> None:
        protocol = self._protocol
        message = protocol.pull_message()
        if message is None:
            return
        # What a server says here may be anybody's words: they are not even quoted.
        if message != self._settings.go_ahead:
            self._fail(RemoteProtocolError("the server did not grant the request for TLS"))
        elif protocol.has_unhandled_input:
            self._fail(RemoteProtocolError("the server sent plaintext after its go-ahead"))
        else:
            self.is_due = True

    @override
    def start(self) -> None:
        self.is_due = self.is_urgent = False
        protocol = self._protocol
        timeout = self._time_left(self._settings.timeout)
        handshake = Handshake(self, self._creator, self._verification, protocol.clock, timeout)
        self._handshake = handshake.begin()
        self._handshake.addCallbacks(self._accepted, self._refused)

    @override
    def lost(self, error: SocketError | None) -> None:
        super().lost(error)
        # Twisted's Deferred fails by itself when it was called off.
        if self._handshake is None and not self._is_called_off:
            self._end(error or BrokenError("the connection ended before the handshake"))

    # What a handshake asks of a connection.

    @override
    def resume(self, transport: Any) -> Upgradable:
        self.is_watching = False
        self.peer_certificate = self._verification.certificate
        return super().resume(transport)

    # How it ends.

    def _accepted(self, _connection: object) -> None:
        self._done.callback(None)

    def _refused(self, failure: Failure) -> None:
        error = typing.cast(BaseException, failure.value)
        self._tell_of(error)
        self._end(error)

    def _called_off(self, _done: Deferred[None]) -> None:
        self._stop_waiting()
        if self._handshake is not None:
            self._handshake.cancel()
        else:
            self._is_called_off = True
            self.abort(ClosedError("the upgrade was cancelled"))

    @override
    def _time_is_up(self) -> None:
        self._deadline = None
        self._fail(
            SocketError(
                f"the server did not grant TLS within {self._settings.timeout:g} s",
                status=SocketErrorStatus.CONNECTION_TIMED_OUT,
            )
        )

    def _fail(self, error: SocketError) -> None:
        self._tell_of(error)
        self._stop_waiting()
        self._protocol.note_violation()
        self.abort(error)
        self._end(error)

    def _end(self, error: BaseException) -> None:
        if not self._done.called:
            self._done.errback(error)

    def _tell_of(self, error: object) -> None:
        self._log.warn(
            "TLS upgrade with {peer} failed: {error}", peer=self._protocol.peer, error=error
        )
