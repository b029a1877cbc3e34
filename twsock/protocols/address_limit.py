"""
How many connections one peer may have: addresses in, yes or no out.

Asked before a connection is accepted, by `twsock.protocols.StreamServerFactory` and by
`twsock.StreamSocketListener`. Held is one entry for each connection that is open.

What counts as one peer is an IPv4 address, or the network of 64 bits of an IPv6 address, as a host
takes as many addresses of its network as it likes (``ipmask(32,64)``, as HAProxy has it). UNIX
sockets have no address and are not counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from twisted.internet.interfaces import IAddress

from twsock._integers import checked_integer
from twsock.protocols.rate_limit import network_of
from twsock.transport.log import TextLogger
from twsock.transport.occasional_log import OccasionalLog

__all__ = ["AddressLimit", "host_of"]


def host_of(address: IAddress | None) -> str | None:
    """Return the numeric address of a peer; None where it has none, on a UNIX socket say."""
    host: str | None = getattr(address, "host", None)
    return host


class AddressLimit:
    """
    Counts connections by their peers' addresses.

    :param max_connections: how many one address may have open; 1 or more.
    :param now: seconds, on a clock that never goes back; for the log, which has a line a minute.
    :raises ValueError: when the limit is less than 1.
    """

    _log = TextLogger()

    def __init__(self, max_connections: int, now: Callable[[], float] = time.monotonic) -> None:
        if checked_integer(max_connections, "max_connections_per_address") < 1:
            raise ValueError(f"max_connections_per_address is 1 or more, not {max_connections}")
        self.max_connections = max_connections
        self._counts: dict[str, int] = {}
        self._networks: dict[object, str] = {}
        self._occasional_log = OccasionalLog(self._log, now)

    def admits(self, host: str | None) -> bool:
        """
        Return whether one more connection may come from an address; log a refusal now and then.

        :param host: numeric; None where the peer has no address.
        """
        if host is None or self._counts.get(network_of(host), 0) < self.max_connections:
            return True
        self._occasional_log.warn(
            "{host} has {limit} connections, as many as one address may: another is closed",
            host=host,
            limit=self.max_connections,
        )
        return False

    def add(self, connection: object, host: str | None) -> None:
        """Count a connection until it is removed."""
        if host is not None:
            network = self._networks[connection] = network_of(host)
            self._counts[network] = self._counts.get(network, 0) + 1

    def remove(self, connection: object) -> None:
        """Forget a connection that is gone; harmless for one that was not counted."""
        network = self._networks.pop(connection, None)
        if network is not None:
            self._counts[network] -= 1
            if not self._counts[network]:
                del self._counts[network]
