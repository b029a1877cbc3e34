"""
A TLS handshake on an open connection: plain transport → TLS engine → **handshake** → connection.

`twsock.stream.switch` makes one `Handshake` for each upgrade. It is the protocol above the TLS
engine until the handshake is done *and* the peer was accepted. Until then the protocol or socket
of the connection receives nothing; then it takes the place of the `Handshake`. The owner has the
deadline, and keeps the bytes that are written meanwhile.

``transport.startTLS`` is not used. The engine is made here, above a transport of twsock. So the end
of the handshake is reported under any wrapper, and code that has cached the socket cannot send
plaintext.
"""

from __future__ import annotations

import typing
from typing import Any, Final

from OpenSSL import SSL
from twisted.internet.interfaces import IHandshakeListener, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from twsock.errors import SocketError, SocketErrorStatus
from twsock.tls.certificates import Certificate
from twsock.tls.engine import make_engine

__all__ = [
    "CLIENT_HELLO",
    "DEFAULT_HANDSHAKE_TIMEOUT",
    "Handshake",
    "HandshakeOwner",
    "Verification",
]

#: How a client begins a handshake: the type of a record, and the first byte of its version
#: (:rfc:`8446` section 5.1).
CLIENT_HELLO: Final = b"\x16\x03"

#: Default limit on the duration of a handshake, in seconds.
DEFAULT_HANDSHAKE_TIMEOUT: Final = 10.0


class HandshakeOwner(typing.Protocol):
    """Receives the events of a handshake."""

    def handshake_completed(self) -> None:
        """Verify the peer with `Handshake.judge`: the handshake is done."""

    def handshake_lost(self, refusal: SocketError | None, reason: Failure) -> None:
        """
        Handle the loss of the connection before the peer was accepted.

        :param refusal: why the peer was refused; None if it was not.
        :param reason: the loss as Twisted reports it.
        """


class Verification(typing.Protocol):
    """The verification of the peer during a handshake."""

    @property
    def certificate(self) -> Certificate | None:
        """The peer's certificate; None if it sent none."""

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
    Runs one handshake, then passes the engine to the connection.

    :param owner: receives the end of the handshake, and decides what follows.
    :param creator: makes the OpenSSL connection.
    :param verification: decides at the end whether the peer is accepted.
    :param clock: the reactor.
    :param is_client: whether this end is the client of the handshake.

    :ivar is_lost: whether the connection was lost before the peer was accepted.
    """

    is_lost = False

    def __init__(
        self,
        owner: HandshakeOwner,
        creator: Any,
        verification: Verification,
        clock: IReactorTime,
        is_client: bool = True,
    ) -> None:
        self._owner = owner
        self._creator = creator
        self._verification = verification
        self._clock = clock
        self._is_client = is_client
        self._is_over = False

    @property
    def peer_certificate(self) -> Certificate | None:
        """The certificate of the peer; None if it sent none."""
        return self._verification.certificate

    def begin(self, plain: Any, leftover: bytes = b"") -> None:
        """
        Put a TLS engine on a transport, and start the handshake.

        :param plain: the transport; only the engine writes to it from now on.
        :param leftover: bytes of the peer's handshake that were received already.
        """
        engine = make_engine(self._creator, self._is_client, self, self._clock)
        plain.protocol = engine
        engine.makeConnection(plain)
        if leftover and not self._is_over:
            engine.dataReceived(leftover)
        # A transport in memory may be without the attribute.
        if not self._is_over and not getattr(plain, "disconnecting", False):
            # Last: a transport in memory may deliver what it has kept at once.
            plain.resumeProducing()

    def judge(self) -> SocketError | None:
        """Return why the peer of a handshake that is done is refused; None if it is accepted."""
        verification = self._verification
        engine: Any = self.transport
        verification.conclude(engine.getHandle())
        if verification.is_accepted:
            return None
        # OpenSSL may report success without a verification: such a peer is refused.
        return verification.refusal() or _not_judged()

    def pass_to(self, receiver: Any) -> Any:
        """
        Connect a protocol to the engine, in the place of this object.

        :param receiver: receives the decrypted bytes from now on.
        :returns: the engine, which is the transport of the protocol.
        """
        self._is_over = True
        engine: Any = self.transport
        engine.ended = self._verification.ended
        engine.wrappedProtocol = receiver
        return engine

    # Called by Twisted.

    def handshakeCompleted(self) -> None:
        """Report the end of the handshake, once."""
        if not self._is_over:
            self._owner.handshake_completed()

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._is_over = self.is_lost = True
        self._owner.handshake_lost(self._verification.refusal(), reason)


def _not_judged() -> SocketError:
    return SocketError(
        "the peer sent no certificate", status=SocketErrorStatus.CERTIFICATE_IS_INVALID
    )
