"""
The way to a group: one port that sends, one that is a member → `twsock.cli.datagram_exchange`.

The one that sends gets the answers that come straight back. The other shares the port of the group,
and gets the answers that go to the group.
"""

from __future__ import annotations

from typing import Any

from typing_extensions import override

from twsock.cli.datagram_exchange import DatagramExchange
from twsock.cli.datagram_target import GroupTarget
from twsock.cli.datagram_way import OpenPort, check_datagram_size, find_wildcard, name_address
from twsock.cli.failure import CommandError
from twsock.cli.screen import Screen
from twsock.datagram.port import DatagramPort
from twsock.datagram.protocol import DatagramProtocol
from twsock.datagram.udp_socket import DatagramOptions
from twsock.errors import SocketError

__all__ = ["GroupWay"]

Address = tuple[Any, ...]


class GroupWay:
    """To all members of a group."""

    def __init__(
        self,
        target: GroupTarget,
        exchange: DatagramExchange,
        screen: Screen,
        open_port: OpenPort,
    ) -> None:
        self._target = target
        self._exchange = exchange
        self._screen = screen
        self._open_port = open_port
        self._sender: DatagramPort | None = None
        self._member: DatagramPort | None = None

    @property
    def name(self) -> str:
        """The group, and the port."""
        return name_address((self._target.group, self._target.port))

    @property
    def question(self) -> str:
        """What to look into when nobody answers."""
        interface = self._target.interface.name
        return f"is a member running there, and reached by the interface {interface}?"

    @property
    def is_full(self) -> bool:
        """Whether to send nothing now."""
        return self._sender is not None and self._sender.is_full

    def open(self) -> None:
        """
        Open both ports.

        :raises CommandError: when there can be no port to send from.
        """
        target = self._target
        wildcard = find_wildcard(target.group)
        index = target.interface.index
        options = DatagramOptions(interface=index, multicast_hop_limit=target.ttl)
        shared = DatagramOptions(interface=index, multicast_only=True)
        try:
            self._sender = self._open_port(_Sender(self), 0, wildcard, options)
        except SocketError as error:
            raise CommandError(f"cannot send to {self.name}: {error.summary}") from error
        try:
            self._member = self._open_port(_Member(self), target.port, wildcard, shared)
            self._member.join_group(target.group, target.interface)
        except SocketError as error:
            self._screen.note(f"answers to the group are not heard: {error.summary}")

    def send(self, message: bytes) -> None:
        """
        Send a datagram to the group.

        :raises CommandError: when it cannot be sent.
        """
        assert self._sender is not None
        check_datagram_size(message, self._target.group)
        try:
            self._sender.send(message, (self._target.group, self._target.port))
        except SocketError as error:
            raise CommandError(f"cannot send to {self.name}: {error.summary}") from error

    def close(self) -> None:
        """Close both ports."""
        for port in (self._sender, self._member):
            if port is not None:
                port.stopListening()
        self._sender = self._member = None

    # Called by the protocols.

    def received(self, message: bytes, source: Address) -> None:
        """Take an answer that came straight back."""
        if self._sender is not None:
            self._exchange.received(message, name_address(source))

    def received_by_member(self, message: bytes, source: Address) -> None:
        """
        Take what was sent to the group.

        Members answer from its port. From other ports come requests: our own, and those of others.
        """
        if self._sender is not None and source[1] == self._target.port:
            self._exchange.received(message, name_address(source), is_certain=False)

    def failed(self, error: SocketError) -> None:
        """End, as what is not sent is not lost."""
        if self._sender is not None:
            self._exchange.fail(CommandError(f"cannot send to {self.name}: {error.summary}"))

    def drained(self) -> None:
        """Go on sending."""
        self._exchange.tell()


class _Sender(DatagramProtocol):
    """What happens on the port that sends to a group."""

    def __init__(self, way: GroupWay) -> None:
        self._way = way

    @override
    def datagram_received(self, data: bytes, source: Address) -> None:
        self._way.received(data, source)

    @override
    def send_failed(self, error: SocketError, address: Address | None, count: int) -> None:
        self._way.failed(error)

    @override
    def output_drained(self) -> None:
        self._way.drained()


class _Member(DatagramProtocol):
    """What happens on the port that is a member of a group."""

    def __init__(self, way: GroupWay) -> None:
        self._way = way

    @override
    def datagram_received(self, data: bytes, source: Address) -> None:
        self._way.received_by_member(data, source)
