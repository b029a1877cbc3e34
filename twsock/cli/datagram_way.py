"""
What the ways of datagrams have in common: ports, names of addresses, sizes.

Used by `twsock.cli.datagram_peer` and `twsock.cli.datagram_group`.
"""

from __future__ import annotations

import typing
from typing import Any

from twsock.cli.failure import UsageError
from twsock.datagram.port import DatagramPort
from twsock.datagram.udp_socket import DatagramOptions
from twsock.ip.zones import with_zone
from twsock.wire.datagrams import MAX_IPV4_DATAGRAM, MAX_IPV6_DATAGRAM

__all__ = ["OpenPort", "Way", "check_datagram_size", "find_wildcard", "name_address"]

Address = tuple[Any, ...]


class OpenPort(typing.Protocol):
    """Opens a port for a protocol, as `listen_datagrams` does on a reactor."""

    def __call__(
        self, protocol: Any, port: int, interface: str, options: DatagramOptions
    ) -> DatagramPort:
        """Give the port, which has started."""


class Way(typing.Protocol):
    """How datagrams get to whom they are for."""

    @property
    def name(self) -> str:
        """Whom they are for, as ENDPOINT has it."""

    @property
    def question(self) -> str:
        """What to look into when nothing comes back."""

    @property
    def is_full(self) -> bool:
        """Whether to send nothing now."""

    def open(self) -> None:
        """
        Open the ports.

        :raises CommandError: when nothing can be sent.
        """

    def send(self, message: bytes) -> None:
        """
        Send a datagram.

        :raises CommandError: when it cannot be sent.
        """

    def close(self) -> None:
        """Close the ports."""


def find_wildcard(address: str) -> str:
    """Give what a port is bound to that sends to an address."""
    return "::" if ":" in address else "0.0.0.0"


def name_address(source: Address) -> str:
    """Write an address as ENDPOINT has it."""
    host, port = source[:2]
    if ":" not in host:
        return f"{host}:{port}"
    named = with_zone(host, source[3] if len(source) == 4 else 0)
    return f"[{named}]:{port}"


def check_datagram_size(message: bytes, address: str) -> None:
    """
    Make sure that a message is not too long for a datagram.

    :raises UsageError: when it is.
    """
    maximum = MAX_IPV6_DATAGRAM if ":" in address else MAX_IPV4_DATAGRAM
    if len(message) > maximum:
        version = "IPv6" if ":" in address else "IPv4"
        raise UsageError(
            f"a TEXT has {len(message)} bytes, a datagram over {version} has at most {maximum}"
        )
