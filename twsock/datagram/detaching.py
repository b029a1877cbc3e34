"""
Separates a port from its UDP socket, and back: port → **detaching** → socket and its state.

The base of `twsock.datagram.port.DatagramPort`. It holds nothing.
"""

from __future__ import annotations

import dataclasses
import socket
from typing import Any, Final

from typing_extensions import Self

from twsock.datagram.addresses import Destinations
from twsock.datagram.descriptor import DatagramDescriptor
from twsock.datagram.network.interfaces import Interface, LinkWatch
from twsock.datagram.network.membership import Membership, Memberships
from twsock.datagram.network.packet_info import read_source, source_control
from twsock.datagram.runs import DatagramCounters, Run
from twsock.datagram.send_queue import CountedRun
from twsock.datagram.sending import Sendable
from twsock.datagram.udp_socket import DatagramOptions, OpenedSocket
from twsock.errors import ClosedError, LocalProtocolError, SocketError
from twsock.handover.datagram_state import (
    DatagramState,
    GroupMembership,
    UnreadDatagram,
    UnsentDatagram,
)
from twsock.handover.detached import DetachedDatagramPort

__all__ = ["DetachableDatagramPort"]

_DEFAULTS: Final = dataclasses.asdict(DatagramOptions())


class DetachableDatagramPort(DatagramDescriptor):
    """A port whose socket can move to another port, also of another process."""

    counters: DatagramCounters
    _options: DatagramOptions
    _memberships: Memberships
    _destinations: Destinations
    _watch: LinkWatch | None

    # Implemented by `DatagramPort`.

    def __init__(
        self, reactor: Any, protocol: Any, opened: OpenedSocket, options: DatagramOptions
    ) -> None:
        super().__init__(reactor, opened.udp)
        self._opened = opened

    def startListening(self) -> None:
        """Connect the protocol and start to receive."""
        raise NotImplementedError

    def send_failed(self, error: SocketError, item: CountedRun) -> None:
        """Report to the protocol that datagrams could not be sent."""
        raise NotImplementedError

    def _links_changed(self) -> None:
        raise NotImplementedError

    # Called by applications.

    def detach(self) -> DetachedDatagramPort:
        """
        Take the socket out of the reactor, with all datagrams that are not in the kernel.

        The kernel goes on receiving, as many datagrams as the receive buffer takes. No option
        changes, and the socket stays in its groups. Then this port is closed, and the protocol is
        stopped within this call. The counters do not move.

        :returns: the socket, which the caller owns now, and its state for `from_socket`.
        :raises LocalProtocolError: while the protocol handles a datagram, also if it makes this
            call; while datagrams are being sent, also if a callback of one makes this call; when
            the socket is not one of the kernel. Nothing has changed then.
        :raises ClosedError: when the port was closed.
        :raises SocketError: when no descriptor is free. Nothing has changed then.
        """
        return self.leave(self.copy_socket())

    @classmethod
    def from_socket(
        cls,
        reactor: Any,
        protocol: Any,
        udp: socket.socket,
        *,
        state: DatagramState | None = None,
    ) -> Self:
        """
        Make a port for a bound UDP socket, such as one of `detach`, and start its protocol.

        Unread datagrams are delivered within this call, before those that the kernel holds. Unsent
        ones leave before any that the protocol sends. If an interface of a group has changed
        meanwhile, the group is joined again, and the protocol is notified.

        :param udp: the port uses a copy, and this object is closed; if the call fails, it is only
            made non-blocking.
        :param state: of the detached value; None for a socket with default options.
        :raises ValueError: when it is not a bound UDP socket, or the state has an option that does
            not exist or is out of bounds.
        :raises SocketError: when no descriptor is free.
        """
        state = DatagramState() if state is None else state
        port = cls.take_socket(reactor, protocol, udp, state)
        udp.close()
        port.catch_up(state)
        return port

    # Called by sockets of several ports.

    @property
    def options(self) -> DatagramOptions:
        """The options of the socket, as far as the port has set them."""
        return self._options

    def copy_socket(self) -> socket.socket:
        """
        Return a copy of the socket for `leave`; the port does not change.

        :raises SocketError: the errors of `detach`.
        """
        udp: Any = self._udp
        if udp is None:
            raise ClosedError("cannot detach: the port was closed")
        reason = ""
        if not isinstance(udp, socket.socket):
            reason = "its socket is not one of the kernel"
        elif self._receiver.run is not None:
            reason = "its protocol handles a datagram"
        elif self._output.is_sending:
            reason = "datagrams are being sent"
        if reason:
            raise LocalProtocolError(f"cannot detach: {reason}")
        try:
            copy: socket.socket = udp.dup()
        except OSError as error:
            raise SocketError.from_exception(error) from error
        return copy

    def leave(
        self, copy: socket.socket, unread: tuple[UnreadDatagram, ...] = ()
    ) -> DetachedDatagramPort:
        """
        Leave the socket to another owner, and close the port.

        :param copy: of `copy_socket`, in the same event.
        :param unread: datagrams that the protocol received and did not use.
        """
        state = DatagramState(
            self._opened.has_runs,
            self._opened.has_packet_info,
            _changed_options(self._options),
            tuple(map(self._describe, self._memberships)),
            unread,
            tuple(map(_describe_unsent, self._output.take_unsent())),
        )
        # It leaves the reactor first, and then closes its descriptor.
        self._close()
        return DetachedDatagramPort(copy, state)

    @classmethod
    def take_socket(
        cls, reactor: Any, protocol: Any, udp: socket.socket, state: DatagramState
    ) -> Self:
        """
        Make a port on a copy of a socket, and start its protocol; `catch_up` follows.

        :raises SocketError: and the other errors of `from_socket`.
        """
        options = _options_of(state)
        _check_bound(udp)
        try:
            udp.setblocking(False)
            copy = udp.dup()
        except OSError as error:
            raise SocketError.from_exception(error) from error
        try:
            port = cls(
                reactor,
                protocol,
                OpenedSocket(copy, state.has_runs, state.has_packet_info),
                options,
            )
        except BaseException:
            copy.close()
            raise
        try:
            port._continue(copy, state)
        except BaseException:
            port.abandon()
            raise
        return port

    def catch_up(self, state: DatagramState) -> None:
        """Notify the protocol of changed groups, deliver unread datagrams, and send unsent ones."""
        if state.memberships and self._udp is not None:
            self._links_changed()
        for received in state.unread:
            self._receiver.deliver_again(_run_of(received))
        self._output.release()

    def abandon(self) -> None:
        """Close the port and send nothing: the detached value has the datagrams."""
        self._output.take_unsent()
        self._close()

    # The hand-over.

    def _describe(self, membership: Membership) -> GroupMembership:
        interface = membership.interface
        return GroupMembership(
            membership.group,
            interface.name,
            interface.index,
            membership.source,
            self._memberships.is_lost(membership),
        )

    def _continue(self, udp: socket.socket, state: DatagramState) -> None:
        """Take over the peer, the groups and the unsent datagrams, then start the protocol."""
        self._receiver.peer = self._destinations.take_peer(udp)
        if state.memberships:
            for held in state.memberships:
                interface = Interface(held.interface, held.index)
                membership = Membership(held.group, interface, held.source)
                self._memberships.take(membership, is_lost=held.is_lost)
            self._watch = LinkWatch(self._reactor, self._links_changed)
        self._output.hold()  # So that they leave before what the protocol sends.
        self._output.push_all([self._make_item(datagram) for datagram in state.unsent])
        self.startListening()

    def _make_item(self, unsent: UnsentDatagram) -> CountedRun:
        control = source_control(unsent.source, unsent.interface) if unsent.source else None
        return CountedRun(
            self.counters,
            self.send_failed,
            unsent.data,
            unsent.segment_size,
            unsent.address,
            control,
        )


def _check_bound(udp: socket.socket) -> None:
    is_udp = udp.type == socket.SOCK_DGRAM and udp.family in (socket.AF_INET, socket.AF_INET6)
    if not is_udp or not udp.getsockname()[1]:
        raise ValueError(f"a bound UDP socket is needed, not {udp!r}")


def _changed_options(options: DatagramOptions) -> dict[str, int | str]:
    """Return the options that differ from their defaults."""
    return {
        name: value
        for name, value in dataclasses.asdict(options).items()
        if value != _DEFAULTS[name]
    }


def _options_of(state: DatagramState) -> DatagramOptions:
    try:
        return DatagramOptions(**dict[str, Any](state.options))
    except TypeError as error:
        raise ValueError(f"an option of the UDP socket does not exist: {error}") from error


def _describe_unsent(item: Sendable) -> UnsentDatagram:
    source, interface = ("", 0) if item.control is None else read_source(item.control)
    return UnsentDatagram(item.data, item.segment_size, item.address, source, interface)


def _run_of(unread: UnreadDatagram) -> Run:
    return Run(
        unread.data,
        len(unread.data),
        unread.source,
        unread.destination,
        unread.interface,
        unread.is_truncated,
        unread.local,
    )
