"""
Multicast echo protocol: run from a group → **answer or drop** → its sender, or the group.

Runs on the shared port of a `twsock.datagram.endpoint.MulticastEndpoint`. That port never sends
unicast. The protocol therefore opens a second port for each interface of the group, a reply port,
which sends the answers to senders. It closes the reply ports when it stops.

Loops must not occur. Members that answer the group receive each other's answers; two members could
answer one request for ever. They send from the port of the group, so no member answers a datagram
from that port, whatever its address. Reply ports receive nothing.
"""

from __future__ import annotations

import enum
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from typing_extensions import override

from twsock.datagram.echo import is_loop_risk
from twsock.datagram.network.membership import MembershipChange
from twsock.datagram.network.packet_info import is_multicast
from twsock.datagram.port import listen_datagrams
from twsock.datagram.protocol import DatagramProtocol, EchoCounters
from twsock.datagram.runs import Address, Run
from twsock.datagram.udp_socket import DatagramOptions
from twsock.errors import SocketError
from twsock.log import TextLogger

__all__ = ["MulticastEcho", "ReplyTo"]

#: Opens a port, as `listen_datagrams` does.
_OpenPort = Callable[[Any, DatagramProtocol, int, str, DatagramOptions], Any]


class ReplyTo(enum.Enum):
    """The destination of the answers of a `MulticastEcho`."""

    #: The source address and port of the datagram.
    SENDER = "sender"
    #: All members of the group, including the one that answers.
    GROUP = "group"
    #: No answers: datagrams are only counted.
    OFF = "off"


class MulticastEcho(DatagramProtocol):
    """
    Answers each datagram to a group with a copy; a whole run in one call.

    It never answers source port 0, nor a multicast or broadcast address. With `ReplyTo.GROUP` it
    does not answer the port of the group either.

    :param reactor: watches the reply ports.
    :param reply: the destination of the answers.
    :param open_port: opens a reply port.
    :ivar counters: counts of received datagrams.
    """

    _log = TextLogger()

    def __init__(
        self,
        reactor: Any,
        *,
        reply: ReplyTo = ReplyTo.SENDER,
        open_port: _OpenPort = listen_datagrams,
    ) -> None:
        self.counters = EchoCounters()
        self._reactor = reactor
        self._reply = reply
        self._open_port = open_port
        self._own_port = 0
        # By the index of the interface that they send through.
        self._reply_ports: dict[int, _ReplyPort] = {}

    @override
    def started(self) -> None:
        """
        Open the reply ports, so that an error is raised at the start.

        :raises SocketError: when one cannot be opened.
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
        count, counters = run.count, self.counters
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
        # They are bound to interface indexes that may now be unused or belong to other interfaces.
        self._close_reply_ports()
        self.output_drained()
        super().membership_changed(change)

    # Called by the reply ports.

    def count_failed(self, count: int) -> None:
        """Count answers as failed that were counted as answered."""
        self.counters.answered -= count
        self.counters.failed += count

    # The answers.

    def _answer_group(self, run: Run) -> None:
        source_port, group = run.source[1], run.destination
        if source_port == self._own_port:
            self.counters.from_members += run.count
        elif not is_multicast(group):
            # The port is not shared, and the datagram was sent to this host, not to a group.
            self.counters.loop_risk += run.count
        else:
            address: Address = (group, self._own_port)
            if ":" in group:
                # For link-local groups (ff02::/16) the kernel needs the interface.
                address = (*address, 0, run.interface)
            self._answer(run, address, self._send_to_group)

    def _answer(self, run: Run, address: Address, send: Callable[[Run, Address], Any]) -> None:
        count = run.count
        # Counted before the send, which may call `send_failed`.
        self.counters.answered += count
        try:
            port = send(run, address)
        except SocketError as error:
            self.counters.answered -= count
            self.counters.failed += count
            self.warn_occasionally("{error}", error=error)
        else:
            if port.is_full and self.transport is not None:
                # Answers cannot be sent now, so new requests wait in the kernel.
                self.transport.pauseProducing()

    def _send_to_group(self, run: Run, address: Address) -> Any:
        self.transport.send_run(run.data, run.segment_size, address)
        return self.transport

    def _send_to_sender(self, run: Run, address: Address) -> Any:
        reply_port = self._find_reply_port(run.interface)
        reply_port.transport.send_run(run.data, run.segment_size, address)
        return reply_port.transport

    def _find_reply_port(self, interface: int) -> _ReplyPort:
        """Return the reply port of an interface; open one if the interface has none yet."""
        reply_port = self._reply_ports.get(interface)
        if reply_port is None:
            reply_port = _ReplyPort(self)
            is_ipv6 = self.transport.socket_family == socket.AF_INET6
            _open_reply_port(
                self._open_port, self._reactor, reply_port, "::" if is_ipv6 else "", interface
            )
            # It does not read, so it never answers.
            reply_port.transport.pauseProducing()
            self._reply_ports[interface] = reply_port
        return reply_port

    def _close_reply_ports(self) -> None:
        reply_ports, self._reply_ports = self._reply_ports, {}
        for reply_port in reply_ports.values():
            reply_port.transport.stopListening()


class _ReplyPort(DatagramProtocol):
    """The protocol of a port that sends answers to senders."""

    def __init__(self, echo: MulticastEcho) -> None:
        self._echo = echo

    @override
    def run_received(self, run: Run) -> None:
        """Ignore datagrams that arrived before the port was paused."""

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
        # The kernel raises it to its minimum; the port never reads.
        receive_buffer=1,
    )
    try:
        open_port(reactor, reply_port, 0, wildcard, options)
    except SocketError as error:
        if not isinstance(error.__cause__, PermissionError):
            raise
        # Before Linux 5.7 only root may bind a socket to an interface. Without root the routes
        # choose the interface.
        open_port(reactor, reply_port, 0, wildcard, replace(options, device=""))


def _name_device(interface: int) -> str:
    if not interface or sys.platform != "linux":
        return ""
    try:
        return socket.if_indextoname(interface)
    except OSError as error:
        raise SocketError.from_exception(
            error, f"cannot send answers through interface {interface}: {error.strerror}"
        ) from error
