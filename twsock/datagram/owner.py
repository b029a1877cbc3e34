"""
Interfaces between a datagram port and its protocol: port → **events**; protocol → **runs**.

A port and its protocol look them up at run time. A protocol of twsock may run on a port of Twisted,
and a port of twsock may have a protocol of Twisted. `PlainProtocol` adapts the latter: run →
datagrams → its ``datagramReceived``.
"""

from __future__ import annotations

from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger
from zope.interface import Interface, implementer

from twsock.datagram.network.membership import MembershipChange
from twsock.datagram.runs import Address, Run
from twsock.errors import SocketError
from twsock.ip.zones import with_zone
from twsock.log import RateLimitedLogger, TextLogger

__all__ = [
    "IDatagramOwner",
    "IRunTransport",
    "PlainProtocol",
    "log_membership_change",
]


class IDatagramOwner(Interface):
    """Provided by protocols that receive every event of a port."""

    def run_received(run: Run) -> None:  # noqa: N805
        """A run arrived, or the beginning of a datagram; see `Run.is_truncated`."""

    def refused(error: SocketError) -> None:  # noqa: N805
        """An ICMP error arrived for a datagram to the connected peer."""

    def send_failed(
        error: SocketError,  # noqa: N805
        address: Address | None,
        count: int,
    ) -> None:
        """``count`` datagrams of a run could not be sent; no address if the port is connected."""

    def output_drained() -> None:
        """The send queue is empty after the port was full."""

    def membership_changed(change: MembershipChange) -> None:  # noqa: N805
        """A group membership was lost or restored, because an interface changed."""


class IRunTransport(Interface):
    """Provided by ports that send runs."""

    def send_run(data: bytes, segment_size: int, address: Address | None) -> None:  # noqa: N805
        """Send a run; see `DatagramPort.send_run`."""

    def reply(run: Run, *, port: int | None) -> None:  # noqa: N805
        """Send a run back; see `DatagramPort.reply`."""


@implementer(IDatagramOwner)
class PlainProtocol:
    """Adapts a protocol of Twisted: delivers whole datagrams and ICMP errors, and logs the rest."""

    _log = TextLogger()

    def __init__(self, protocol: DatagramProtocol) -> None:
        self._protocol = protocol
        self._too_long = RateLimitedLogger(self._log)
        self._unsent = RateLimitedLogger(self._log)

    def run_received(self, run: Run) -> None:
        """Deliver each datagram of a run; log a truncated one."""
        host, port = run.source[:2]
        if run.is_truncated:
            self._too_long.warn("dropped a datagram from {host}: it is too long", host=host)
            return
        if len(run.source) == 4:
            host = with_zone(host, run.source[3])
        for data in run.datagrams():
            if self._protocol.transport is None:
                return  # The port was closed during the previous datagram.
            try:
                self._protocol.datagramReceived(data, (host, port))
            except Exception:  # noqa: BLE001 - logged; the rest of the run is still delivered
                self._log.failure("datagramReceived failed")

    def refused(self, error: SocketError) -> None:
        """Call ``connectionRefused``, which takes no reason."""
        self._protocol.connectionRefused()

    def send_failed(self, error: SocketError, address: Address | None, count: int) -> None:
        """Log the error: the protocol has no such event."""
        self._unsent.warn("{error}", error=error)

    def output_drained(self) -> None:
        """Do nothing: the protocol has no such event."""

    def membership_changed(self, change: MembershipChange) -> None:
        """Log the change: the protocol has no such event."""
        log_membership_change(self._log, change)


def log_membership_change(log: Logger, change: MembershipChange) -> None:
    """Log the loss of a group membership as a warning, its return as information."""
    group, where = change.membership.group, change.membership.interface.name
    if change.error is None:
        log.info("joined group {group} on {where} again", group=group, where=where)
    else:
        log.warn("{error}", error=change.error)  # noqa: G010
