"""
TLS on a connection that stands: plain transport → TLS engine → **handshake** → connection.

Made for one handshake, by a socket or by a protocol that is upgraded. It stands between Twisted's
TLS engine and the connection: nothing passes until the handshake is done *and* the peer was
accepted. Then it leaves its place to the connection. What is written meanwhile waits there.

``transport.startTLS`` is not used: the engine is built here, above our own transport, so that the
end of the handshake is told under any wrapper, and no cached socket can leak plaintext.
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

__all__ = ["DEFAULT_HANDSHAKE_TIMEOUT", "Handshake", "Securable", "Verification"]

#: Seconds that a handshake may take, unless told otherwise.
DEFAULT_HANDSHAKE_TIMEOUT: Final = 10.0


class Securable(typing.Protocol):
    """A connection that can be put above a TLS engine."""

    @property
    def is_open(self) -> bool:
        """Whether it was neither closed nor lost."""

    def suspend(self) -> Any:
        """Let nothing pass; give the way out and in for an engine."""

    def resume(self, transport: Any) -> Any:
        """Go on above another transport; give the protocol that takes what comes from now on."""

    def note_error(self, error: SocketError) -> None:
        """Know why the connection is about to end."""

    def abort(self, error: SocketError) -> object:
        """End now."""

    def connectionLost(self, reason: Failure) -> None:
        """The connection is gone, and nothing took the place of the handshake."""


class Verification(typing.Protocol):
    """Who judges the peer during the handshake."""

    def conclude(self, connection: SSL.Connection) -> None:
        """Check a handshake that is done; called before `is_accepted` is read."""

    @property
    def is_accepted(self) -> bool:
        """Whether the peer was accepted; valid after `conclude`."""

    def ended(self, connection: SSL.Connection) -> None:
        """Note that the connection is lost; only called if its handshake was done."""

    def refusal(self) -> SocketError | None:
        """Say why the peer was refused; None while it was not."""


@implementer(IHandshakeListener)
class Handshake(Protocol):
    """
    One handshake, and the door behind it.

    :param connection: a connection without a pending operation.
    :param creator: makes the connection of OpenSSL.
    :param verification: asked at the end whether the peer is accepted.
    :param timeout: seconds until it has failed.
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
        Send or await the first message.

        :param leftover: of the peer's handshake, what had been received already.
        :returns: fires with OpenSSL's connection once the peer is accepted. It fails with the
            reason, and the connection is gone then; so it is when this is cancelled.
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
        """Let the connection go on above the engine."""
        if self._is_done or not self._connection.is_open:
            return
        engine: Any = self.transport
        self._verification.conclude(engine.getHandle())
        if not self._verification.is_accepted:
            # Whatever OpenSSL thinks: what was not judged is not let in.
            self._fail(self._verification.refusal() or _not_judged())
            return
        self._is_done = True
        self._deadline.cancel()
        engine.ended = self._verification.ended
        engine.wrappedProtocol = self._connection.resume(engine)
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

    # How it fails.

    def _time_out(self) -> None:
        self._fail(
            SocketError(
                "the handshake was not done in time",
                status=SocketErrorStatus.CONNECTION_TIMED_OUT,
            )
        )

    def _give_up(self, _done: Deferred[SSL.Connection]) -> None:
        self._is_done = True
        self._deadline.cancel()
        self._connection.abort(ClosedError("the handshake was called off"))

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
        "the peer showed no certificate", status=SocketErrorStatus.CERTIFICATE_IS_INVALID
    )
