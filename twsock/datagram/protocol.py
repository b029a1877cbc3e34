"""
Base class of datagram protocols: port → **protocol** → application.

It runs on `twsock.datagram.port.DatagramPort`, which receives and sends whole runs in one call. It
also runs on any UDP port of Twisted, which delivers each datagram separately.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, fields
from typing import Any

from twisted.internet import protocol
from typing_extensions import override
from zope.interface import implementer

from twsock.datagram.network.membership import MembershipChange
from twsock.datagram.owner import IDatagramOwner, log_membership_change
from twsock.datagram.runs import Address, Run
from twsock.datagram.syscalls import describe_refusal
from twsock.errors import LocalProtocolError, SocketError
from twsock.log import RateLimitedLogger, TextLogger

__all__ = ["DatagramProtocol", "EchoCounters"]


@dataclass(slots=True)
class EchoCounters:
    """
    Counts of the datagrams of an echo, or of all echoes of a service, by outcome.

    :ivar received: datagrams that the echo received, whole or truncated.
    :ivar answered: sent back.
    :ivar from_members: not answered, because their source port is the port of the group. They are
        answers of members, including this one.
    :ivar loop_risk: not answered, because the answer could cause a loop.
    :ivar limited: not answered, because the peer exceeded the rate limit.
    :ivar truncated: not answered, because they were longer than ``max_datagram``.
    :ivar not_for_a_group: dropped by a port, because they were not sent to a joined group; not in
        ``received``. Counted by services only.
    :ivar dropped_by_the_kernel: arrived while the receive buffer was full; not in ``received``.
        Counted by services only.
    :ivar failed: answers that could not be sent; they are not counted as answered.
    """

    received: int = 0
    answered: int = 0
    from_members: int = 0
    loop_risk: int = 0
    limited: int = 0
    truncated: int = 0
    not_for_a_group: int = 0
    dropped_by_the_kernel: int = 0
    failed: int = 0

    def add(self, other: EchoCounters) -> None:
        """Add the counts of another echo."""
        for counter in fields(self):
            name = counter.name
            setattr(self, name, getattr(self, name) + getattr(other, name))


@implementer(IDatagramOwner)
class DatagramProtocol(protocol.DatagramProtocol):
    """
    A base for protocols over UDP: override `datagram_received`, or `run_received`.

    Datagrams sent during an event leave at its end, in as few system calls as possible.

    :ivar transport: the port, between `started` and `stopped`.
    """

    _log = TextLogger()

    noisy = False
    transport: Any
    # By message. Created at the first warning, because Twisted's protocols have no `__init__` that
    # subclasses would call.
    _warnings: dict[str, RateLimitedLogger] | None = None

    # To be overridden.

    def started(self) -> None:
        """The port is open."""

    def datagram_received(self, data: bytes, source: Address) -> None:
        """
        A datagram was received.

        :param source: address and port of the peer; for IPv6 also flow information and scope id. An
            answer to a link-local address needs the scope id. `send` accepts this tuple.
        """

    def run_received(self, run: Run) -> None:
        """
        A run of datagrams was received from one peer.

        Calls `datagram_received` for each datagram, or `truncated_received` for a truncated one,
        unless overridden.
        """
        if run.is_truncated:
            self.truncated_received(run.data, run.source)
            return
        transport = self.transport
        for data in run.datagrams():
            if self.transport is not transport:
                return  # The port was closed during the previous datagram.
            try:
                self.datagram_received(data, run.source)
            except Exception:  # noqa: BLE001 - logged; the rest of the run is still delivered
                self._log.failure("datagram_received failed")

    def truncated_received(self, data: bytes, source: Address) -> None:
        """
        A datagram was longer than ``max_datagram``. Logs a warning, unless overridden.

        :param data: the first ``max_datagram`` bytes.
        """
        self.warn_occasionally(
            "dropped a datagram from {host} port {port}: it has more than {size} bytes",
            host=source[0],
            port=source[1],
            size=len(data),
        )

    def refused(self, error: SocketError) -> None:
        """
        An ICMP error arrived for a datagram to the connected peer. The port stays open.

        :param error: with status ``CONNECTION_RESET_BY_PEER`` if no socket has that port.
        """

    def send_failed(self, error: SocketError, address: Address | None, count: int) -> None:
        """
        Datagrams could not be sent. Other datagrams are not affected. Logged, unless overridden.

        :param address: None if the port is connected.
        :param count: how many datagrams of one run.
        """
        self.warn_occasionally("{error}", error=error)

    def output_drained(self) -> None:
        """The port is no longer full; see `DatagramPort.is_full`."""

    def membership_changed(self, change: MembershipChange) -> None:
        """A group membership was lost or restored. Logged, unless overridden."""
        log_membership_change(self._log, change)

    def stopped(self) -> None:
        """The port was closed, and `transport` is None."""

    # Called by applications.

    def warn_occasionally(self, message: str, **fields: Any) -> None:
        """
        Log a warning that a peer can cause at any rate, at most once a minute for each message.

        :param message: a format of Twisted's logger, for the fields.
        """
        if self._warnings is None:
            self._warnings = {}
        log = self._warnings.setdefault(message, RateLimitedLogger(self._log))
        log.warn(message, **fields)  # noqa: G010 - not the standard library's

    def send(self, data: bytes, address: Address | None = None) -> None:
        """
        Send a datagram.

        Within `datagram_received` or `run_received`, a datagram to the host of ``source`` leaves
        from the address that the received one was sent to. For all other datagrams, and on ports of
        Twisted, the kernel chooses the source address.

        :param address: numeric host, and port; None for the connected peer.
        :raises LocalProtocolError: when the protocol has no port.
        :raises SocketError: and other errors of ``DatagramPort.send``; on a port of Twisted the
            errors of its ``write``.
        """
        if self.transport is None:
            raise LocalProtocolError("cannot send: this protocol has no port")
        self.transport.write(data, address)

    # Called by Twisted.

    @override
    def startProtocol(self) -> None:
        self.started()

    @override
    def stopProtocol(self) -> None:
        self.stopped()

    @override
    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Deliver a datagram from a port of Twisted as a run of one."""
        self.run_received(Run(datagram, len(datagram), addr))

    @override
    def connectionRefused(self) -> None:
        """Report an ICMP error from a port of Twisted."""
        self.refused(describe_refusal(ConnectionRefusedError(errno.ECONNREFUSED, "refused")))
