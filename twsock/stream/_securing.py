"""
What every upgrade of a connection has in common: TLS engine ⇄ **this** ⇄ protocol.

`twsock.tls.handshake` asks it to step aside and to go on; a `twsock.protocols.StreamProtocol` asks
it what is to be done with what arrives.
"""

from __future__ import annotations

import typing
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from twsock.errors import SocketError
from twsock.log import TextLogger
from twsock.stream.connection import Connection
from twsock.tls.certificates import Certificate

__all__ = ["Securing", "Upgradable"]


class Upgradable(typing.Protocol):
    """What an upgrade asks of its connection; each is described in `StreamProtocol`."""

    @property
    def clock(self) -> IReactorTime: ...

    @property
    def peer(self) -> str: ...

    @property
    def is_open(self) -> bool: ...

    @property
    def has_unhandled_input(self) -> bool: ...

    def stop_before(self, word: bytes, beginning: bytes = ...) -> None: ...
    def has_stopped(self, stream: Connection) -> bool: ...
    def peek(self, count: int) -> bytes: ...
    def pull_message(self) -> bytes | None: ...
    def take_buffered(self) -> bytes: ...
    def limit_messages(self, size: int) -> None: ...
    def deliver_messages(self, stream: Connection) -> None: ...
    def handle_message(self, message: bytes, stream: Connection) -> bool: ...
    def send_message(self, message: bytes) -> None: ...
    def suspend(self) -> Any: ...
    def resume(self, transport: Any) -> None: ...
    def note_violation(self) -> None: ...
    def note_error(self, error: SocketError) -> None: ...
    def abort(self) -> Deferred[None]: ...
    def connectionLost(self, reason: Failure) -> None: ...


class Securing:
    """
    The way of one connection into TLS.

    :ivar peer_certificate: with which the peer identified itself, accepted; None before that.
    """

    _log = TextLogger()

    #: Whether messages are taken through `deliver` now.
    is_watching = True
    #: Whether messages are taken even while a handler runs, which may be waiting for this.
    is_urgent = False
    #: Whether the handshake is to begin as soon as `deliver` is left.
    is_due = False
    #: Whether the application is told of the connection only when it is secure.
    is_implicit = False

    def __init__(self, protocol: Upgradable) -> None:
        self.peer_certificate: Certificate | None = None
        self._protocol = protocol
        self._deadline: Any = None

    def deliver(self, stream: Connection) -> None:
        """
        Pull and handle messages, as long as there are any and no handshake begins.

        :raises RemoteProtocolError: for plaintext that has no place here.
        """
        raise NotImplementedError

    def start(self) -> None:
        """Begin the handshake."""
        raise NotImplementedError

    def lost(self, error: SocketError | None) -> None:
        """The connection is gone; without an error, in order."""
        self._stop_waiting()

    @property
    def is_under_way(self) -> bool:
        """Whether the peer has begun, or was asked to begin, a handshake that is not done."""
        return False

    # What a handshake asks of a connection.

    @property
    def is_open(self) -> bool:
        """Whether it was neither closed nor lost."""
        return self._protocol.is_open

    def suspend(self) -> Any:
        """Let nothing pass; give the transport."""
        return self._protocol.suspend()

    def resume(self, transport: Any) -> Upgradable:
        """Go on above the engine, with nothing of what came before."""
        self._protocol.resume(transport)
        return self._protocol

    def note_error(self, error: SocketError) -> None:
        """Know why the connection is about to end."""
        self._protocol.note_error(error)

    def abort(self, error: SocketError) -> object:
        """End now."""
        self._protocol.note_error(error)
        return self._protocol.abort()

    def connectionLost(self, reason: Failure) -> None:
        """The connection is gone."""
        self._protocol.connectionLost(reason)

    # The deadline.

    def _wait_at_most(self, seconds: float) -> None:
        self._deadline = self._protocol.clock.callLater(seconds, self._time_is_up)

    def _time_left(self, otherwise: float) -> float:
        """End the wait; give the seconds that were left of it, or a number where none was begun."""
        deadline = self._deadline
        if deadline is None:
            return otherwise
        left: float = deadline.getTime() - self._protocol.clock.seconds()
        self._stop_waiting()
        return max(0.0, left)  # A process that was busy comes late.

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _time_is_up(self) -> None:
        raise NotImplementedError
