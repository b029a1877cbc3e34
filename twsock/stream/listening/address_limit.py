"""
A limit on the connections of one peer: address → **address limit** → accept or refuse.

Called by `twsock.protocols.StreamServerFactory` and `twsock.StreamSocketListener` before they
accept a connection. Holds one entry for each open connection.

One peer is one IPv4 address, or one IPv6 network of 64 bits, since a host can use any address of
its network (HAProxy's ``ipmask(32,64)``). UNIX sockets have no address and are not counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from twsock._integers import checked_integer
from twsock.ip.addresses import network_of
from twsock.log import RateLimitedLogger, TextLogger

__all__ = ["AddressLimit"]


class AddressLimit:
    """
    Counts connections by their peers' addresses.

    :param max_connections: how many one address may have open; 1 or more.
    :param now: seconds of a monotonic clock; limits the log to one line a minute.
    :raises ValueError: when the limit is less than 1.
    :raises TypeError: when the limit is not a whole number.
    """

    _log = TextLogger()

    def __init__(self, max_connections: int, now: Callable[[], float] = time.monotonic) -> None:
        if checked_integer(max_connections, "max_connections_per_address") < 1:
            raise ValueError(f"max_connections_per_address is 1 or more, not {max_connections}")
        self.max_connections = max_connections
        self._counts: dict[str, int] = {}
        self._networks: dict[object, str] = {}
        self._rate_limited_log = RateLimitedLogger(self._log, now)

    def admits(self, host: str | None) -> bool:
        """
        Return whether an address may have one more connection; log refusals once a minute.

        :param host: numeric address; None if the peer has no address.
        """
        if host is None or self._counts.get(network_of(host), 0) < self.max_connections:
            return True
        self._rate_limited_log.warn(
            "{host} has {limit} connections, the limit for one address: closed another",
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
        """Remove a lost connection; does nothing if it was not counted."""
        network = self._networks.pop(connection, None)
        if network is not None:
            self._counts[network] -= 1
            if not self._counts[network]:
                del self._counts[network]
