"""
Received messages of a datagram socket: run → **message** → handler, or ``async for``.

Made by `twsock.sockets.datagram.delivery`. A message may also report an error, as in WinRT: that
the peer refused an earlier datagram, or that this one was too long. Reading it raises the error.
"""

from __future__ import annotations

import typing
from typing import Any, Final

from twisted.internet.defer import Deferred

from twsock.datagram.runs import Run
from twsock.errors import LocalProtocolError, SocketError, SocketErrorStatus
from twsock.ip.zones import needs_zone, with_zone
from twsock.names import EndpointPair, HostName
from twsock.operation import fail
from twsock.sockets.data_reader import DataReader
from twsock.sockets.datagram.information import readable_address
from twsock.sockets.stream.input import InputStream
from twsock.wire.byte_queue import Buffer

__all__ = [
    "Answering",
    "DatagramSocketMessageReceivedEventArgs",
    "SenderAddress",
    "SenderAddresses",
]

#: The most senders in the cache. A full cache is cleared.
_MAX_CACHED: Final = 1024


class SenderAddress(tuple[str, int]):
    """
    The host and port of a sender, together with the destination address of its message.

    It equals the plain pair of host and port, and can be used in its place.

    :ivar run: addresses of the message, without its bytes.
    """

    run: Run

    @classmethod
    def of(cls, run: Run) -> SenderAddress:
        """Return the sender's address for all messages of a run."""
        made = cls(readable_address(run.source))
        made.run = run.part(b"", 0)
        return made


class SenderAddresses:
    """Makes the addresses of messages; caches those of up to 1,024 senders."""

    __slots__ = ("_made",)

    def __init__(self) -> None:
        self._made: dict[tuple[Any, ...], tuple[SenderAddress, str]] = {}

    def find(self, run: Run) -> tuple[SenderAddress, str]:
        """
        Return the sender's address, and the address that the run was sent to.

        A link-local address has its zone.
        """
        key = run.source, run.destination, run.interface, run.local
        found = self._made.get(key)
        if found is None:
            found = SenderAddress.of(run), _name_destination(run)
            if len(self._made) >= _MAX_CACHED:
                self._made.clear()
            # An interface may be renamed, so addresses with a zone (its name) are not cached.
            if "%" not in found[0][0] and "%" not in found[1]:
                self._made[key] = found
        return found


def _name_destination(run: Run) -> str:
    """Return the address that a run was sent to; a link-local one has its zone."""
    destination = run.destination
    return with_zone(destination, run.interface if needs_zone(destination) else 0)


class Answering(typing.Protocol):
    """The methods of a socket that its messages use."""

    def answer(self, data: Buffer, address: tuple[str, int]) -> Deferred[int]:
        """Send to a sender, from the address that its message was sent to."""

    def find_answering_pair(self, address: tuple[str, int]) -> EndpointPair:
        """Return the local and the remote end of such an answer."""


class DatagramSocketMessageReceivedEventArgs:
    """
    A received datagram, or an error in its place.

    :ivar error: the error that reading raises: status ``CONNECTION_RESET_BY_PEER`` if the peer
        refused an earlier datagram (ICMP port unreachable), ``MESSAGE_TOO_LONG`` if this one was
        longer than ``control.max_datagram``; None for a complete datagram.
    :ivar beginning: the bytes of the datagram; of one that was too long, the received part.
    :ivar address: numeric host and port of the sender; for a refusal, those of the connected peer.
        ``DatagramSocket.send_to`` with this address sends from the same address as `reply`.
    """

    __slots__ = (
        "__weakref__",
        "_destination",
        "_reader",
        "_socket",
        "_stream",
        "address",
        "beginning",
        "error",
    )

    def __init__(
        self,
        data: bytes,
        address: tuple[str, int],
        destination: str,
        error: SocketError | None = None,
        socket: Answering | None = None,
    ) -> None:
        self.beginning = data
        self._destination = destination
        self._reader: DataReader | None = None
        self._stream: InputStream | None = None
        self._socket = socket
        self.address = address
        self.error = error

    @property
    def data(self) -> bytes:
        """
        The whole datagram.

        :raises SocketError: `error`, if there is one.
        """
        if self.error is not None:
            # A copy: a raised error has frames, which refer to this message.
            raise self.error.copy()
        return self.beginning

    @property
    def data_reader(self) -> DataReader:
        """
        A reader of the datagram, with all of it loaded; the same one each time.

        :raises SocketError: `error`, if there is one.
        """
        if self._reader is None:
            self._reader = DataReader.from_buffer(self.data)
        return self._reader

    def get_data_stream(self) -> InputStream:
        """
        Return an input stream of the bytes of the datagram; every call returns the same stream.

        Its reads never wait. After the last byte it is at the end of the stream. It and
        `data_reader` each read the whole datagram.

        :raises SocketError: `error`, if there is one.
        """
        if self._stream is None:
            self._stream = InputStream.from_buffer(self.data)
        return self._stream

    @property
    def is_truncated(self) -> bool:
        """Whether the datagram was longer than ``control.max_datagram``."""
        error = self.error
        return error is not None and error.status is SocketErrorStatus.MESSAGE_TOO_LONG

    @property
    def remote_address(self) -> HostName:
        """The address of the sender, with the zone of a link-local one."""
        return HostName(self.address[0])

    @property
    def remote_port(self) -> str:
        """The port of the sender."""
        return str(self.address[1])

    @property
    def local_address(self) -> HostName | None:
        """
        The address that the message was sent to, such as a group; None if the system reports none.

        A link-local address has its zone.
        """
        return HostName(self._destination) if self._destination else None

    def reply(self, data: Buffer) -> Deferred[int]:
        """
        Send a datagram to the sender, from the address that this one was sent to. Not in WinRT.

        The answer to a multicast or broadcast datagram leaves from a unicast address of the
        interface that received it. If `local_address` is None, the kernel chooses the address.

        :param data: as for ``DatagramOutputStream.write``.
        :returns: as ``DatagramSocket.send_to``, on a connected socket too. It fails with
            `LocalProtocolError` if this message is a refusal, or if the socket was connected to
            another peer since.
        """
        if self._socket is None or (self.error is not None and not self.is_truncated):
            return fail(LocalProtocolError("this message is a refusal: it cannot be answered"))
        return self._socket.answer(data, self.address)

    @property
    def endpoint_pair(self) -> EndpointPair:
        """
        Both ends of an answer: the addresses that `reply` sends from and to. Not in WinRT.

        A stream of ``get_output_stream`` for this pair sends as `reply` does. The local address is
        None if the kernel chooses.

        :raises LocalProtocolError: when this message has no socket.
        :raises ClosedError: when the socket was closed.
        """
        if self._socket is None:
            raise LocalProtocolError("this message has no socket")
        return self._socket.find_answering_pair(self.address)
