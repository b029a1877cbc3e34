"""
What a program does with datagrams: port → **protocol** → application.

Runs on `twsock.datagram.port.DatagramPort`, where whole runs arrive and leave in one call,
and on any UDP port of Twisted, where each datagram comes by itself.
"""

from __future__ import annotations

import errno
from typing import Any

from twisted.internet import protocol
from typing_extensions import override
from zope.interface import implementer

from twsock.datagram.network.membership import MembershipChange
from twsock.datagram.owner import IDatagramOwner
from twsock.datagram.plain_protocol import log_membership_change
from twsock.datagram.runs import Address, Run
from twsock.datagram.syscalls import describe_refusal
from twsock.errors import LocalProtocolError, SocketError
from twsock.log import RateLimitedLogger, TextLogger

__all__ = ["DatagramProtocol"]


@implementer(IDatagramOwner)
class DatagramProtocol(protocol.DatagramProtocol):
    """
    A base for protocols over UDP: override `datagram_received`, or `run_received`.

    What is sent from within an event leaves at its end, in as few system calls as there can be.

    :ivar transport: the port, between `started` and `stopped`.
    """

    _log = TextLogger()

    noisy = False
    transport: Any
    # By message; made when there is one, since Twisted's protocols have no __init__ to be called.
    _warnings: dict[str, RateLimitedLogger] | None = None

    # To be overridden.

    def started(self) -> None:
        """The port is open."""

    def datagram_received(self, data: bytes, source: Address) -> None:
        """
        A datagram came.

        :param source: address and port of the peer; for IPv6 also flow information and scope id,
            so that an answer to a link-local address finds its way. `send` takes it as it is.
        """

    def run_received(self, run: Run) -> None:
        """
        Datagrams came together from one peer. Calls `datagram_received` for each, unless
        overridden; and `truncated_received` for one that is not whole.
        """
        if run.is_truncated:
            self.truncated_received(run.data, run.source)
            return
        transport = self.transport
        for data in run.datagrams():
            if self.transport is not transport:
                return  # Closed by the datagram before.
            try:
                self.datagram_received(data, run.source)
            except Exception:  # noqa: BLE001 - logged; the others of a run are not its fault
                self._log.failure("datagram_received failed")

    def truncated_received(self, data: bytes, source: Address) -> None:
        """
        A datagram came that was longer than the port takes. Logged, unless overridden.

        :param data: its beginning, ``max_datagram`` bytes.
        """
        self.warn_occasionally(
            "a datagram from {host} port {port} has more than {size} bytes, and is dropped",
            host=source[0],
            port=source[1],
            size=len(data),
        )

    def refused(self, error: SocketError) -> None:
        """
        What was sent to the connected peer was refused; the port stays open.

        :param error: with status ``CONNECTION_RESET_BY_PEER`` where nothing listens there.
        """

    def send_failed(self, error: SocketError, address: Address | None, count: int) -> None:
        """
        Datagrams could not be sent; all others go on. Logged, unless overridden.

        :param address: None where the port is connected.
        :param count: how many, of one run.
        """
        self.warn_occasionally("{error}", error=error)

    def output_drained(self) -> None:
        """The port is not full any more; see `DatagramPort.is_full`."""

    def membership_changed(self, change: MembershipChange) -> None:
        """A group that was joined is not heard any more, or again. Logged, unless overridden."""
        log_membership_change(self._log, change)

    def stopped(self) -> None:
        """The port was closed; there is no `transport` any more."""

    # Called by applications.

    def warn_occasionally(self, message: str, **fields: Any) -> None:
        """
        Log what a peer can cause as often as it likes: a line a minute, with how many there were.

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
        :raises LocalProtocolError: when there is no port.
        :raises SocketError: and others, see ``DatagramPort.send``; on a port of Twisted what its
            ``write`` raises.
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
        """Take a datagram from a port of Twisted, as a run of one."""
        self.run_received(Run(datagram, len(datagram), addr))

    @override
    def connectionRefused(self) -> None:
        """Take a refusal from a port of Twisted."""
        self.refused(describe_refusal(ConnectionRefusedError(errno.ECONNREFUSED, "refused")))
