"""
A name → **its addresses**, in the order in which they are to be tried.

Asked by `twsock.cli.datagram_echo`; streams have an endpoint of Twisted for that. The names are
looked up by the reactor's own resolver, as those of streams.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IHostResolution, IResolutionReceiver
from zope.interface import implementer

from twsock.cli.failure import CommandError
from twsock.errors import SocketError, SocketErrorStatus
from twsock.ip.zones import with_zone

__all__ = ["find_addresses"]


async def find_addresses(reactor: Any, host: str, timeout: float) -> list[str]:
    """
    Look a host up.

    :param host: a name, or an address, which is given back.
    :param timeout: seconds, above 0.
    :returns: numeric addresses, IPv6 ones with their zone; one or more.
    :raises CommandError: when there are none, or none are found in time.
    """
    try:
        ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        return [host]
    receiver = _Receiver()
    resolution = reactor.nameResolver.resolveHostName(receiver, host, transportSemantics="UDP")
    receiver.done.addTimeout(timeout, reactor)
    try:
        await receiver.done
    except defer.TimeoutError:
        resolution.cancel()
        late = SocketError(
            f"nobody told the address of {host} within {timeout:g} s",
            status=SocketErrorStatus.CONNECTION_TIMED_OUT,
        )
        raise CommandError(f"look-up failed: {late.summary}") from None
    if not receiver.found:
        unknown = SocketError(
            f"nobody knows an address of {host}", status=SocketErrorStatus.HOST_NOT_FOUND
        )
        raise CommandError(f"look-up failed: {unknown.summary}")
    # One that is found for several kinds of sockets is one address still.
    return list(dict.fromkeys(receiver.found))


@implementer(IResolutionReceiver)
class _Receiver:
    """
    Collects what a resolver finds.

    :ivar done: fires at the end of it.
    """

    def __init__(self) -> None:
        self.found: list[str] = []
        self.done: Deferred[None] = Deferred()

    # Called by a resolver.

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:  # noqa: N803
        """Wait."""

    def addressResolved(self, address: IAddress) -> None:
        """Take an address."""
        self.found.append(with_zone(address.host, getattr(address, "scopeID", 0)))  # type: ignore[attr-defined]

    def resolutionComplete(self) -> None:
        """Wait no more."""
        # Nobody may be waiting any more.
        if not self.done.called:
            self.done.callback(None)
