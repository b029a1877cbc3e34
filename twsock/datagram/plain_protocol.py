"""
A datagram protocol of Twisted on a port of ours: run → **datagrams** → its ``datagramReceived``.

Put in between by `twsock.datagram.port.DatagramPort` where a protocol does not know runs.
"""

from __future__ import annotations

from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger
from zope.interface import implementer

from twsock.datagram.network.membership import MembershipChange
from twsock.datagram.owner import IDatagramOwner
from twsock.datagram.runs import Address, Run
from twsock.errors import SocketError
from twsock.ip.zones import with_zone
from twsock.log import RateLimitedLogger, TextLogger

__all__ = ["PlainProtocol", "log_membership_change"]


@implementer(IDatagramOwner)
class PlainProtocol:
    """Gives a protocol of Twisted what it knows: whole datagrams, and that it was refused."""

    _log = TextLogger()

    def __init__(self, protocol: DatagramProtocol) -> None:
        self._protocol = protocol
        self._too_long = RateLimitedLogger(self._log)
        self._unsent = RateLimitedLogger(self._log)

    def run_received(self, run: Run) -> None:
        """Hand over each datagram that is whole, and log any other."""
        host, port = run.source[:2]
        if run.is_truncated:
            self._too_long.warn("a datagram of {host} was too long, and is dropped", host=host)
            return
        if len(run.source) == 4:
            host = with_zone(host, run.source[3])
        for data in run.datagrams():
            if self._protocol.transport is None:
                return  # Stopped by the datagram before.
            try:
                self._protocol.datagramReceived(data, (host, port))
            except Exception:  # noqa: BLE001 - logged; the others of a run are not its fault
                self._log.failure("datagramReceived failed")

    def refused(self, error: SocketError) -> None:
        """Tell it; not why, for which there is no place."""
        self._protocol.connectionRefused()

    def send_failed(self, error: SocketError, address: Address | None, count: int) -> None:
        """Log it, as there is no event for it."""
        self._unsent.warn("{error}", error=error)

    def output_drained(self) -> None:
        """Keep it: it never asks whether there is room."""

    def membership_changed(self, change: MembershipChange) -> None:
        """Log it, as there is no event for it."""
        log_membership_change(self._log, change)


def log_membership_change(log: Logger, change: MembershipChange) -> None:
    """Say what became of a group."""
    group, where = change.membership.group, change.membership.interface.name
    if change.error is None:
        log.info("group {group} is heard on {where} again", group=group, where=where)
    else:
        log.warn("{error}", error=change.error)  # noqa: G010
