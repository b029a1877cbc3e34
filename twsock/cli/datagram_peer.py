"""
The way to one peer: its addresses → **a connected port** → `twsock.cli.datagram_exchange`.

The port is connected, so that the kernel tells who refuses, and drops what others send. Which of
several addresses is right shows only when something is sent: one that refuses is left for the next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from typing_extensions import override

from twsock.cli.datagram_exchange import DatagramExchange
from twsock.cli.datagram_way import OpenPort, check_datagram_size, find_wildcard, name_address
from twsock.cli.failure import CommandError
from twsock.datagram.port import DatagramPort
from twsock.datagram.protocol import DatagramProtocol
from twsock.datagram.udp_socket import DatagramOptions
from twsock.errors import SocketError, SocketErrorStatus

__all__ = ["PeerWay"]

Address = tuple[Any, ...]


class PeerWay:
    """
    To one peer, by one of its addresses.

    :param addresses: tried in this order, one or more.
    """

    question = "is a server running there?"

    def __init__(
        self,
        addresses: Sequence[str],
        port: int,
        exchange: DatagramExchange,
        now: Callable[[], float],
        open_port: OpenPort,
    ) -> None:
        self._addresses = deque(addresses)
        self._address = addresses[0]
        self._port_number = port
        self._exchange = exchange
        self._now = now
        self._open_port = open_port
        self._port: DatagramPort | None = None
        self._message: bytes | None = None

    @property
    def name(self) -> str:
        """The address in use, and the port."""
        return name_address((self._address, self._port_number))

    @property
    def is_full(self) -> bool:
        """Whether to send nothing now."""
        return self._port is not None and self._port.is_full

    def open(self) -> None:
        """
        Open a port to the next address to which there is a way.

        :raises CommandError: when there is no such address.
        """
        while True:
            self.close()
            self._address = self._addresses.popleft()
            # While another address could do better, requests are tried out one by one.
            self._exchange.hurries = not self._addresses
            try:
                self._connect()
            except SocketError as error:
                if not self._addresses:
                    raise CommandError(f"cannot send to {self.name}: {error.summary}") from error
            else:
                return

    def send(self, message: bytes) -> None:
        """
        Send a datagram to the address that is in use, or else to the next one.

        :raises CommandError: when it cannot be sent.
        """
        assert self._port is not None
        self._message = message
        check_datagram_size(message, self._address)
        try:
            self._port.send(message)
        except SocketError as error:
            raise CommandError(f"cannot send to {self.name}: {error.summary}") from error

    def close(self) -> None:
        """Close the port."""
        port, self._port = self._port, None
        if port is not None:
            port.stopListening()

    # Called by the protocol.

    def received(self, protocol: _Peer, message: bytes) -> None:
        """Take an answer."""
        if self._is_current(protocol):
            self._settle()
            self._exchange.received(message, "")

    def failed(self, protocol: _Peer, error: SocketError, verb: str) -> None:
        """Try the next address, where nothing came back from this one and there is one."""
        if not self._is_current(protocol):
            return
        score = self._exchange.score
        line = f"{self.name} {verb}: {error.summary}"
        if error.status is SocketErrorStatus.CONNECTION_RESET_BY_PEER:
            line += f"; {self.question}"
        if not self._addresses or score.lost or self._message is None:
            self._exchange.fail(CommandError(line))
            return
        try:
            self.open()
            score.send_again(self._now())
            self.send(self._message)
        except CommandError as failure:
            self._exchange.fail(failure)

    def drained(self) -> None:
        """Go on sending."""
        self._exchange.tell()

    def _connect(self) -> None:
        wildcard = find_wildcard(self._address)
        protocol = _Peer(self)
        port = self._open_port(protocol, 0, wildcard, DatagramOptions())
        try:
            port.connect(self._address, self._port_number)
        except BaseException:
            port.stopListening()
            raise
        protocol.port = port
        self._port = port

    def _settle(self) -> None:
        self._addresses.clear()
        self._exchange.hurries = True

    def _is_current(self, protocol: _Peer) -> bool:
        return self._port is not None and protocol.port is self._port


class _Peer(DatagramProtocol):
    """What happens on one port to a peer."""

    def __init__(self, way: PeerWay) -> None:
        self.port: DatagramPort | None = None
        self._way = way

    @override
    def datagram_received(self, data: bytes, source: Address) -> None:
        self._way.received(self, data)

    @override
    def refused(self, error: SocketError) -> None:
        self._way.failed(self, error, "refused")

    @override
    def send_failed(self, error: SocketError, address: Address | None, count: int) -> None:
        self._way.failed(self, error, "cannot be sent to")

    @override
    def output_drained(self) -> None:
        self._way.drained()
