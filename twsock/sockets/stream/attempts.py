"""
Attempts to connect to one of several addresses: addresses → **attempts** → connection, or errors.

Used by `twsock.StreamSocket`. Twisted's ``HostnameEndpoint`` makes the attempts, one address after
the other until one answers (:rfc:`8305`). `_Attempts` replaces its reactor: it returns the known
addresses, starts the next attempt as soon as one has failed, and records each error.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IReactorPluggableNameResolver,
    IResolutionReceiver,
    ITransport,
)
from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure
from zope.interface import directlyProvides

from twsock.errors import SocketError, SocketErrorStatus
from twsock.ip.address_errors import missing_zone_error
from twsock.sockets.resolving import RemoteAddress

__all__ = ["ATTEMPT_DELAY", "ATTEMPT_TIMEOUT", "Attempt", "ConnectError", "connect_to_any"]

#: Seconds until the next attempt starts while one is under way (:rfc:`8305`, section 5).
ATTEMPT_DELAY: Final = 0.25

#: Default of the seconds of one attempt, which is that of Twisted.
ATTEMPT_TIMEOUT: Final = 30.0

#: The delay if attempts must not overlap: longer than any attempt.
_NEVER: Final = 1e6

#: Statuses whose cause is this machine, and not the remote host.
_LOCAL_REASONS: Final = frozenset(
    {
        SocketErrorStatus.ADDRESS_FAMILY_NOT_SUPPORTED,
        SocketErrorStatus.CANNOT_ASSIGN_REQUESTED_ADDRESS,
        SocketErrorStatus.NETWORK_IS_UNREACHABLE,
    }
)


@dataclass(frozen=True, slots=True)
class Attempt:
    """
    One attempt that failed.

    :ivar address: the address that was tried.
    :ivar port: the port that was tried.
    :ivar error: the reason of the failure.
    """

    address: str
    port: int
    error: SocketError


class ConnectError(SocketError):
    """
    All attempts to connect failed.

    Its status is that of the first attempt whose error concerns the remote host. An error that only
    concerns this machine, such as a lack of IPv6, counts if there is no other.

    :ivar attempts: all attempts, in the order in which they failed.
    """

    attempts: tuple[Attempt, ...] = ()


async def connect_to_any(
    reactor: Any,
    name: str,
    addresses: Sequence[RemoteAddress],
    factory: IProtocolFactory,
    *,
    bind: tuple[str, int] | None = None,
    is_serial: bool = False,
    timeout: float = ATTEMPT_TIMEOUT,
    prepare: Callable[[ITransport], None] | None = None,
) -> IProtocol:
    """
    Connect to the first of several addresses that answers.

    :param name: name of the destination in error messages.
    :param addresses: at least one, in the order of the attempts.
    :param factory: builds the protocol of the attempt that succeeds.
    :param bind: local address, or empty, and local port, or 0.
    :param is_serial: whether an attempt must fail before the next one starts.
    :param timeout: seconds of each attempt, above 0.
    :param prepare: called with each transport before it connects, to set options on its socket.
    :raises ConnectError: when all attempts failed.
    """
    # Here, since it loads all endpoints of Twisted: a program that only accepts needs none.
    from twisted.internet.endpoints import HostnameEndpoint

    delay = _NEVER if is_serial else ATTEMPT_DELAY
    attempts = _Attempts(reactor, addresses, bind, delay, prepare)
    endpoint = HostnameEndpoint(attempts, addresses[0].host, 0, timeout=timeout, attemptDelay=1)
    try:
        connecting: Deferred[IProtocol] = endpoint.connect(factory)
        return await connecting
    except ConnectingCancelledError as error:
        raise CancelledError from error
    except Exception as error:
        if not attempts.failed:
            raise
        raise _sum_up(name, attempts.failed) from error
    finally:
        attempts.end()


def _sum_up(name: str, failed: Sequence[Attempt]) -> ConnectError:
    remote = [attempt.error for attempt in failed if attempt.error.status not in _LOCAL_REASONS]
    main = (remote or [attempt.error for attempt in failed])[0]
    reasons = "; ".join(f"{each.address} port {each.port}: {each.error}" for each in failed)
    error = ConnectError(
        f"cannot connect to {name}: {reasons}", status=main.status, hresult=main.hresult
    )
    error.attempts = tuple(failed)
    return error


class _Attempts:
    """
    Replaces the reactor of ``HostnameEndpoint``.

    :ivar failed: attempts that failed so far.
    """

    def __init__(
        self,
        reactor: Any,
        addresses: Sequence[RemoteAddress],
        bind: tuple[str, int] | None,
        delay: float,
        prepare: Callable[[ITransport], None] | None,
    ) -> None:
        # Declared for the instance only: it is no reactor, but has the methods that are used here.
        directlyProvides(self, IReactorPluggableNameResolver)
        self.nameResolver = _Resolved(addresses)
        self.failed: list[Attempt] = []
        self._reactor = reactor
        self._bind = bind
        self._delay = delay
        self._prepare = prepare
        self._is_next_due = False
        self._next: IDelayedCall | None = None

    def end(self) -> None:
        """Drop the delayed call of the endpoint, which refers back to this object."""
        self._next = None

    # Called by Twisted.

    def seconds(self) -> float:
        """Return the time of the reactor."""
        now: float = self._reactor.seconds()
        return now

    def callLater(self, _delay: float, begin: Callable[[], Any]) -> IDelayedCall:
        """Start the next attempt after the delay of this class, or as soon as one fails."""
        delay = 0 if self._is_next_due else self._delay
        self._is_next_due = False
        self._next = self._reactor.callLater(delay, begin)
        return self._next

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: ClientFactory,
        timeout: float = ATTEMPT_TIMEOUT,
        bindAddress: Any = None,  # noqa: N803 - Twisted's name
    ) -> IConnector:
        """Make one attempt."""
        if self._bind is not None:
            any_address = "::" if ":" in host else "0.0.0.0"
            bindAddress = (self._bind[0] or any_address, self._bind[1])  # noqa: N806 - the same
        try:
            connector: IConnector = self._reactor.connectTCP(
                host, port, _Observed(factory, self._note_failure), timeout, bindAddress
            )
        except Exception as error:
            # For example, two address families, or an unknown zone. No attempt was made, so no
            # callback reports the error.
            self._note_failure(host, port, error)
            raise
        # Twisted has made the socket, and connects it in the next turn of the reactor.
        transport = getattr(connector, "transport", None)
        if self._prepare is not None and transport is not None:
            self._prepare(transport)
        return connector

    def _note_failure(self, host: str, port: int, error: BaseException) -> None:
        reason = missing_zone_error(error) or SocketError.from_exception(error)
        self.failed.append(Attempt(host, port, reason))
        if self._next is not None and self._next.active():
            self._next.reset(0)
        else:
            self._is_next_due = True


class _Resolved:
    """Reports the known addresses to Twisted."""

    def __init__(self, addresses: Sequence[RemoteAddress]) -> None:
        self._addresses = addresses

    # Called by Twisted.

    def resolveHostName(self, receiver: IResolutionReceiver, *_: object, **__: object) -> None:
        """Report all addresses at once."""
        receiver.resolutionBegan(self)  # type: ignore[arg-type]
        for address in self._addresses:
            receiver.addressResolved(address)
        receiver.resolutionComplete()

    def cancel(self) -> None:
        """Do nothing: the lookup is done."""


class _Observed(ClientFactory):
    """Passes all calls to the factory of the endpoint, and reports a failure."""

    noisy = False

    def __init__(
        self, factory: ClientFactory, failed: Callable[[str, int, BaseException], None]
    ) -> None:
        self._factory = factory
        self._failed = failed

    # Called by Twisted.

    def doStart(self) -> None:
        self._factory.doStart()

    def doStop(self) -> None:
        self._factory.doStop()

    def startedConnecting(self, connector: IConnector) -> None:
        self._factory.startedConnecting(connector)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return self._factory.buildProtocol(addr)

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        destination: Any = connector.getDestination()
        # First, so that the list is complete when the last failure ends the wait.
        self._failed(destination.host, destination.port, typing.cast(BaseException, reason.value))
        self._factory.clientConnectionFailed(connector, reason)
        self._release()

    def clientConnectionLost(self, connector: IConnector, reason: Failure) -> None:
        self._factory.clientConnectionLost(connector, reason)
        self._release()

    def _release(self) -> None:
        # The endpoint's factory refers to the connector, and the connector to this factory.
        self._factory = ClientFactory()
