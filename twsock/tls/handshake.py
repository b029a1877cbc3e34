"""
A TLS handshake on an open connection: plain transport → TLS engine → **handshake** → connection.

A socket or an upgraded protocol makes one for each handshake. It is the protocol above Twisted's
TLS engine until the handshake is done *and* the peer was accepted; until then the connection
receives nothing. Then the connection takes its place. Bytes written meanwhile wait in the
connection.

``transport.startTLS`` is not used. The engine is built here, above our own transport, so that the
end of the handshake is reported under any wrapper, and no cached socket can leak plaintext.
"""

from __future__ import annotations

import typing
from typing import Any, Final

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHandshakeListener, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from twsock.errors import BrokenError, ClosedError, SocketError, SocketErrorStatus
from twsock.tls.engine import make_engine

__all__ = ["CLIENT_HELLO", "DEFAULT_HANDSHAKE_TIMEOUT", "Handshake", "Securable", "Verification"]

#: How a client begins a handshake: the type of a record, and the first byte of its version
#: (:rfc:`8446` section 5.1).
CLIENT_HELLO: Final = b"\x16\x03"

#: Default limit on the duration of a handshake, in seconds.
DEFAULT_HANDSHAKE_TIMEOUT: Final = 10.0


class Securable(typing.Protocol):
    """A connection that can be put on top of a TLS engine."""

    @property
    def is_open(self) -> bool:
        """Whether it was neither closed nor lost."""

    def suspend(self) -> Any:
        """Stop sending and receiving; return the transport below the engine, and its receiver."""

    def resume(self, transport: Any) -> Any:
        """Continue on another transport; return the protocol that receives from now on."""

    def note_error(self, error: SocketError) -> None:
        """Store the reason for the coming end of the connection."""

    def abort(self, error: SocketError) -> object:
        """Abort the connection."""

    def connectionLost(self, reason: Failure) -> None:
        """Handle the loss of the connection during the handshake."""


class Verification(typing.Protocol):
    """The verification of the peer during a handshake."""

    def conclude(self, connection: SSL.Connection) -> None:
        """Check a handshake that is done; called before `is_accepted` is read."""

    @property
    def is_accepted(self) -> bool:
        """Whether the peer was accepted; valid after `conclude`."""

    def ended(self, connection: SSL.Connection) -> None:
        """Handle the loss of the connection; only called if its handshake was done."""

    def refusal(self) -> SocketError | None:
        """Return why the peer was refused; None if it was not."""


@implementer(IHandshakeListener)
class Handshake(Protocol):
    """
    Runs one handshake, then passes the transport to the connection.

    :param connection: a connection without a pending operation.
    :param creator: makes the OpenSSL connection.
    :param verification: decides at the end whether the peer is accepted.
    :param timeout: seconds after which the handshake fails.
    """

    _deadline: Any = None

    def __init__(
        self,
        connection: Securable,
        creator: Any,
        verification: Verification,
        clock: IReactorTime,
        timeout: float,
        is_client: bool = True,
    ) -> None:
        self._connection = connection
        self._creator = creator
        self._verification = verification
        self._clock = clock
        self._timeout = timeout
        self._is_client = is_client
        self._is_done = False
        self._done: Deferred[SSL.Connection] = Deferred(self._give_up)

    def begin(self, leftover: bytes = b"") -> Deferred[SSL.Connection]:
        """
        Start the handshake.

        :param leftover: bytes of the peer's handshake that were received already.
        :returns: fires with the OpenSSL connection once the peer is accepted; fails with the reason
            otherwise. The connection is aborted on a failure, and when this is cancelled.
        """
        plain = self._connection.suspend()
        engine = make_engine(self._creator, self._is_client, self, self._clock)
        self._deadline = self._clock.callLater(self._timeout, self._time_out)
        plain.protocol = engine
        plain.resumeProducing()
        engine.makeConnection(plain)
        if leftover and not self._is_done:
            engine.dataReceived(leftover)
        return self._done

    # Called by Twisted.

    def handshakeCompleted(self) -> None:
        """Put the connection on top of the engine, if the peer is accepted."""
        if self._is_done or not self._connection.is_open:
            return
        engine: Any = self.transport
        self._verification.conclude(engine.getHandle())
        if not self._verification.is_accepted:
            # Whatever OpenSSL reports: a peer that was not verified is refused.
            self._fail(self._verification.refusal() or _not_judged())
            return
        self._is_done = True
        self._deadline.cancel()
        engine.ended = self._verification.ended
        engine.wrappedProtocol = self._connection.resume(engine)
        if not self._done.called:  # The application may have cancelled it when it was told.
            self._done.callback(engine.getHandle())

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._is_done:
            self._connection.connectionLost(reason)
            return
        error = self._verification.refusal()
        if error is None and not self._connection.is_open:
            error = ClosedError("the socket was closed during the handshake")
        if error is None:
            error = BrokenError.from_exception(typing.cast(BaseException, reason.value))
        self._connection.note_error(error)
        self._connection.connectionLost(reason)
        self._end(error)

    # Failures.

    def _time_out(self) -> None:
        self._fail(
            SocketError(
                "the handshake did not finish in time",
                status=SocketErrorStatus.CONNECTION_TIMED_OUT,
            )
        )

    def _give_up(self, _done: Deferred[SSL.Connection]) -> None:
        self._is_done = True
        if self._deadline.active():
            self._deadline.cancel()
        self._connection.abort(ClosedError("the handshake was cancelled"))

    def _fail(self, error: SocketError) -> None:
        self._connection.abort(error)
        self._end(error)

    def _end(self, error: SocketError) -> None:
        if not self._is_done:
            self._is_done = True
            if self._deadline.active():
                self._deadline.cancel()
            self._done.errback(error)


def _not_judged() -> SocketError:
    return SocketError(
        "the peer sent no certificate", status=SocketErrorStatus.CERTIFICATE_IS_INVALID
    )
