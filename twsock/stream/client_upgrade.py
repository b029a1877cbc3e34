"""
The client's side of an upgrade: protocol → **upgrade** → TLS engine → protocol.

`twsock.protocols.StreamProtocol.upgrade_to_ssl` makes a `ClientUpgrading`. It sends the request and
reads the answer, or begins the handshake directly. It reports each event to
`twsock.stream.upgrade_core`, which decides the next step. Wire format: docs/wire/upgrade.rst.

A TLS server never sends first. So plaintext of the server that was not handled when the upgrade
begins aborts the connection. The application does not receive the answer to the request.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.defer import Deferred
from typing_extensions import override

from twsock.errors import ClosedError, RemoteProtocolError, SocketError, SocketErrorStatus
from twsock.operation import Operation
from twsock.stream.connection import Connection
from twsock.stream.switch import MessageOwner, MessageSwitch, ended_when_secure
from twsock.stream.upgrade_core import Event, Side, State
from twsock.tls.client import ClientOptions, make_client
from twsock.tls.handshake import DEFAULT_HANDSHAKE_TIMEOUT, Verification

__all__ = ["MAX_GO_AHEAD", "ClientUpgrade", "ClientUpgrading", "UpgradeStyle"]

#: The largest answer to the request that is read, in bytes.
MAX_GO_AHEAD: Final = 4096


class UpgradeStyle(enum.Enum):
    """Whether a client begins with its ClientHello, or with a request that the server answers."""

    DIRECT = "direct"
    COMMAND = "command"


@dataclass(frozen=True, slots=True)
class ClientUpgrade:
    """
    The settings with which a client upgrades a connection to TLS.

    :param options: the name that the certificate must have, and the other settings of the
        handshake.
    :param style: ``DIRECT`` on a connection without earlier messages is TLS from the first byte.
    :param request: the message that asks for TLS.
    :param go_ahead: the answer with which the server agrees.
    :param timeout: seconds from the request, or from the ClientHello, to the end of the handshake;
        above 0.
    :raises ValueError: when the timeout is not above 0, or one of the two messages is empty.
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


class ClientUpgrading(MessageSwitch):
    """
    The client's side of the upgrade of one connection.

    :raises SocketError: when the client's certificate cannot be used.
    """

    __slots__ = ("_done", "_made", "_settings")

    def __init__(
        self, settings: ClientUpgrade, protocol: MessageOwner, connection: Connection
    ) -> None:
        super().__init__(protocol, connection, Side.CLIENT, settings.timeout)
        self._settings = settings
        # The port, or the path of a UNIX socket.
        service = protocol.peer.rpartition(":")[2]
        self._made: tuple[Any, Verification] = make_client(settings.options, service)
        self._done: Deferred[None] = Operation(self._cancelled)

    def begin(self) -> Deferred[None]:
        """
        Send the request, or the ClientHello.

        :returns: fires when the server is accepted. If it fails, the connection was aborted or
            lost. Cancelling aborts the connection.
        """
        protocol = self._owner
        if protocol.take_buffered():
            error = RemoteProtocolError("the server sent plaintext before the handshake")
            self.handle(Event.PLAINTEXT, error)
        elif self._settings.style is UpgradeStyle.COMMAND:
            decoder = protocol.decoder
            decoder.max_payload = min(decoder.max_payload, MAX_GO_AHEAD)
            self.handle(Event.BEGIN_COMMAND)
        else:
            self.handle(Event.BEGIN_DIRECT)
        return self._done

    @override
    def deliver(self) -> None:
        protocol = self._owner
        if self.state is not State.REQUESTED:
            # During a handshake the engine receives, so these bytes are plaintext.
            if protocol.take_buffered():
                error = RemoteProtocolError("the server sent plaintext during the handshake")
                self.handle(Event.PLAINTEXT, error)
            return
        message = protocol.pull_message()
        if message is None:
            return
        # An attacker may have sent the answer, so the error does not quote it.
        if message != self._settings.go_ahead:
            error = RemoteProtocolError("the server did not grant the request for TLS")
            self.handle(Event.MESSAGE, error)
        elif protocol.take_buffered():
            error = RemoteProtocolError("the server sent plaintext after its go-ahead")
            self.handle(Event.PLAINTEXT, error)
        else:
            self.handle(Event.GO_AHEAD)

    @property
    @override
    def is_urgent(self) -> bool:
        return self.state is State.REQUESTED

    # Overrides of `Switch`.

    @override
    def _update(self) -> None:
        self.passes_messages = self.state is State.SECURE

    @override
    def prepare(self) -> tuple[Any, Verification]:
        return self._made

    @override
    def _send_request(self) -> None:
        self._send_below(self._settings.request)

    @override
    def accepted(self, engine: Any) -> None:
        if self._done.called:
            return  # The application has cancelled it in a hook.
        if engine.connected:
            self._done.callback(None)
        else:
            self._done.errback(ended_when_secure())

    @override
    def timeout_error(self) -> SocketError:
        if self.state is not State.REQUESTED:
            return super().timeout_error()
        return SocketError(
            f"the server did not grant TLS within {self._settings.timeout:g} s",
            status=SocketErrorStatus.CONNECTION_TIMED_OUT,
        )

    @override
    def failed(self, event: Event, error: SocketError) -> None:
        has_begun = self._handshake is not None
        if has_begun or event is not Event.LOST:
            self._log.warn(
                "TLS upgrade with {peer} failed: {error}", peer=self._owner.peer, error=error
            )
            if not has_begun or event is Event.PLAINTEXT:
                self._owner.note_violation()
        if not self._done.called:
            self._done.errback(error)

    def _cancelled(self, _done: Deferred[None]) -> None:
        has_begun = self._handshake is not None
        what = "the handshake was cancelled" if has_begun else "the upgrade was cancelled"
        self.handle(Event.CANCEL, ClosedError(what))
