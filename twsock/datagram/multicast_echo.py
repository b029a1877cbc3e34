"""
An echo for a group: run → **answer or silence** → its sender, or the group.

Runs on the shared port of a `twsock.datagram.endpoint.MulticastEndpoint`. That port never
sends unicast, so the senders are answered from ports beside it, which belong to the protocol: one
for each interface that the group is heard on, opened and closed with it.

What must not happen is a loop. Members that answer the group hear each other: without a rule one
request between two of them would be answered for ever. They send from the port of the group, and
what comes from there is never answered by one of them, whatever its address. The ports beside it
receive nothing at all.
"""

from __future__ import annotations

import enum
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from typing_extensions import override

from twsock.datagram.network.membership import MembershipChange
from twsock.datagram.network.packet_info import is_multicast
from twsock.datagram.port import listen_datagrams
from twsock.datagram.protocol import DatagramProtocol
from twsock.datagram.runs import Address, Run, is_loop_risk
from twsock.datagram.udp_socket import DatagramOptions
from twsock.errors import SocketError
from twsock.log import TextLogger

__all__ = ["MulticastCounters", "MulticastEcho", "ReplyTo"]

#: Opens a port, as `listen_datagrams` does.
_OpenPort = Callable[[Any, DatagramProtocol, int, str, DatagramOptions], Any]


class ReplyTo(enum.Enum):
    """Who gets the answers of a `MulticastEcho`."""

    #: The address and port that a datagram came from.
    SENDER = "sender"
    #: All members, the one that answers among them.
    GROUP = "group"
    #: Nobody: datagrams are counted only.
    OFF = "off"


@dataclass(slots=True)
class MulticastCounters:
    """
    What became of the datagrams that came.

    :ivar received: all of them; each of the others but ``failed`` is some of these.
    :ivar answered: sent back.
    :ivar from_members: not answered, since they came from the port of the group: answers to it, our
        own among them.
    :ivar loop_risk: not answered, since that could make a loop.
    :ivar truncated: not answered, since they were not whole.
    :ivar failed: answers that could not be sent, which are not counted as answered.
    """

    received: int = 0
    answered: int = 0
    from_members: int = 0
    loop_risk: int = 0
    truncated: int = 0
    failed: int = 0


class MulticastEcho(DatagramProtocol):
    """
    Answers what a group is asked, whole runs in one call.

    It never answers source port 0, nor a group or a broadcast address. With `ReplyTo.GROUP` it does
    not answer the port of the group either.

    :param reactor: watches the ports that answers to senders leave by.
    :param reply: who is answered.
    :param open_port: opens those.
    :ivar counters: what became of what came.
    """

    _log = TextLogger()

    def __init__(
        self,
        reactor: Any,
        *,
        reply: ReplyTo = ReplyTo.SENDER,
        open_port: _OpenPort = listen_datagrams,
    ) -> None:
        self.counters = MulticastCounters()
        self._reactor = reactor
        self._reply = reply
        self._open_port = open_port
        self._own_port = 0
        # By the index of the interface that they send by.
        self._reply_ports: dict[int, _ReplyPort] = {}

    @override
    def started(self) -> None:
        """
        Open what answers leave by, so that a port that cannot be had is known at once.

        :raises SocketError: when there can be none.
        """
        self._own_port = self.transport.getHost().port
        if self._reply is ReplyTo.SENDER:
            try:
                for membership in self.transport.memberships:
                    self._find_reply_port(membership.interface.index)
            except BaseException:
                self._close_reply_ports()
                raise

    @override
    def stopped(self) -> None:
        self._close_reply_ports()

    @override
    def run_received(self, run: Run) -> None:
        count, counters = len(run), self.counters
        counters.received += count
        if run.is_truncated:
            counters.truncated += count
            super().run_received(run)
        elif is_loop_risk(run.source):
            counters.loop_risk += count
        elif self._reply is ReplyTo.SENDER:
            self._answer(run, run.source, self._send_to_sender)
        elif self._reply is ReplyTo.GROUP:
            self._answer_group(run)

    @override
    def send_failed(self, error: SocketError, address: Address | None, count: int) -> None:
        self.count_failed(count)
        super().send_failed(error, address, count)

    @override
    def output_drained(self) -> None:
        if self.transport is not None:
            self.transport.resumeProducing()

    @override
    def membership_changed(self, change: MembershipChange) -> None:
        # They are bound to interfaces that may be gone, or be others by now.
        self._close_reply_ports()
        self.output_drained()
        super().membership_changed(change)

    # Called by the reply_ports.

    def count_failed(self, count: int) -> None:
        """Count answers that were under way as failed; for the reply_ports."""
        self.counters.answered -= count
        self.counters.failed += count

    # The answers.

    def _answer_group(self, run: Run) -> None:
        source_port, group = run.source[1], run.destination
        if source_port == self._own_port:
            self.counters.from_members += len(run)
        elif not is_multicast(group):
            # On a port that is not shared; its own address is no group to answer.
            self.counters.loop_risk += len(run)
        else:
            address: Address = (group, self._own_port)
            if ":" in group:
                # The kernel asks groups of one network (ff02::/16) for the interface.
                address = (*address, 0, run.interface)
            self._answer(run, address, self._send_to_group)

    def _answer(self, run: Run, address: Address, send: Callable[[Run, Address], Any]) -> None:
        count = len(run)
        # Before it is sent, as it may fail within.
        self.counters.answered += count
        try:
            port = send(run, address)
        except SocketError as error:
            self.counters.answered -= count
            self.counters.failed += count
            self.warn_occasionally("{error}", error=error)
        else:
            if port.is_full and self.transport is not None:
                # What comes meanwhile waits in the kernel; there is no use in answers that
                # cannot leave.
                self.transport.pauseProducing()

    def _send_to_group(self, run: Run, address: Address) -> Any:
        self.transport.send_run(run.data, run.segment_size, address)
        return self.transport

    def _send_to_sender(self, run: Run, address: Address) -> Any:
        reply_port = self._find_reply_port(run.interface)
        reply_port.transport.send_run(run.data, run.segment_size, address)
        return reply_port.transport

    def _find_reply_port(self, interface: int) -> _ReplyPort:
        """Give the reply_port of an interface; the one that came later than us is opened now."""
        reply_port = self._reply_ports.get(interface)
        if reply_port is None:
            reply_port = _ReplyPort(self)
            is_ipv6 = self.transport.socket_family == socket.AF_INET6
            _open_reply_port(
                self._open_port, self._reactor, reply_port, "::" if is_ipv6 else "", interface
            )
            # Nothing that it is sent is read, so nobody gets an answer out of it.
            reply_port.transport.pauseProducing()
            self._reply_ports[interface] = reply_port
        return reply_port

    def _close_reply_ports(self) -> None:
        reply_ports, self._reply_ports = self._reply_ports, {}
        for reply_port in reply_ports.values():
            reply_port.transport.stopListening()


class _ReplyPort(DatagramProtocol):
    """What happens on a port that answers to senders leave by."""

    def __init__(self, echo: MulticastEcho) -> None:
        self._echo = echo

    @override
    def run_received(self, run: Run) -> None:
        """Ignore it; what came before the port was paused, too."""

    @override
    def send_failed(self, error: SocketError, address: Address | None, count: int) -> None:
        self._echo.count_failed(count)
        super().send_failed(error, address, count)

    @override
    def output_drained(self) -> None:
        self._echo.output_drained()


def _open_reply_port(
    open_port: _OpenPort, reactor: Any, reply_port: _ReplyPort, wildcard: str, interface: int
) -> None:
    options = DatagramOptions(
        interface=interface,
        device=_name_device(interface),
        # Of the size that the kernel raises it to: nothing in it is ever read.
        receive_buffer=1,
    )
    try:
        open_port(reactor, reply_port, 0, wildcard, options)
    except SocketError as error:
        if not isinstance(error.__cause__, PermissionError):
            raise
        # Before Linux 5.7 only root may bind a socket to an interface; then the routes decide.
        open_port(reactor, reply_port, 0, wildcard, replace(options, device=""))


def _name_device(interface: int) -> str:
    if not interface or sys.platform != "linux":
        return ""
    try:
        return socket.if_indextoname(interface)
    except OSError as error:
        raise SocketError.from_exception(
            error, f"cannot answer by interface {interface}: {error.strerror}"
        ) from error
