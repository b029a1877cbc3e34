"""
What a datagram port and its protocol know of each other: events up, runs down, counts.

The interfaces are those of `twsock.datagram.port.DatagramPort`; they are asked for at run
time, since a protocol may run on a port of Twisted, and a port may have a protocol of Twisted.
"""

from __future__ import annotations

from dataclasses import dataclass

from zope.interface import Interface

from twsock.datagram.network.membership import MembershipChange
from twsock.datagram.runs import Address, Run
from twsock.errors import SocketError

__all__ = ["DatagramCounters", "IDatagramOwner", "IRunTransport"]


@dataclass(slots=True)
class DatagramCounters:
    """
    What a port has seen.

    :ivar received: datagrams handed to the protocol whole.
    :ivar truncated: datagrams that were longer than ``max_datagram``.
    :ivar unexpected_source: datagrams not from the connected peer, or not to a group on a shared
        port; dropped.
    :ivar sent: datagrams that the kernel took.
    :ivar failed: datagrams that it did not.
    :ivar refused: ICMP replies to what was sent.
    """

    received: int = 0
    truncated: int = 0
    unexpected_source: int = 0
    sent: int = 0
    failed: int = 0
    refused: int = 0


class IDatagramOwner(Interface):
    """Declared by protocols that want to be told of everything that happens to a port."""

    def run_received(run: Run) -> None:  # noqa: N805
        """Datagrams came, or the beginning of one: see `Run.is_truncated`."""

    def refused(error: SocketError) -> None:  # noqa: N805
        """The peer's machine, or one on the way, refused what was sent to the connected peer."""

    def send_failed(
        error: SocketError,  # noqa: N805
        address: Address | None,
        count: int,
    ) -> None:
        """So many datagrams of a run could not be sent, to nowhere where the port is connected."""

    def output_drained() -> None:
        """What waited for the kernel has left."""

    def membership_changed(change: MembershipChange) -> None:  # noqa: N805
        """An interface came or went, and with it a group that was joined there."""


class IRunTransport(Interface):
    """Declared by ports that take runs."""

    def send_run(data: bytes, segment_size: int, address: Address | None) -> None:  # noqa: N805
        """Send a run; see `DatagramPort.send_run`."""

    def reply(run: Run, *, port: int | None) -> None:  # noqa: N805
        """Send a run back; see `DatagramPort.reply`."""
