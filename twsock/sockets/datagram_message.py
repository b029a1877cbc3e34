"""
One datagram as its receiver sees it: run → **message** → handler, or ``async for``.

Made by `twsock.DatagramSocket`. A message may also be the news of an error: in WinRT a datagram
that was refused is told so, and whoever reads it learns of it.
"""

from __future__ import annotations

from typing import Any

from twsock.errors import SocketError, SocketErrorStatus
from twsock.names import HostName
from twsock.sockets.data_reader import DataReader
from twsock.sockets.input import InputStream

__all__ = ["DatagramSocketMessageReceivedEventArgs"]

Address = tuple[Any, ...]


class DatagramSocketMessageReceivedEventArgs:
    """
    A datagram, or why there is none.

    :ivar error: what reading it raises: status ``CONNECTION_RESET_BY_PEER`` where a datagram sent
        before was refused (ICMP port unreachable), ``MESSAGE_TOO_LONG`` where this one was longer
        than ``control.max_datagram``; None where it is whole.
    :ivar address: host and port of the sender, numeric; of a refusal, the connected peer.
    """

    __slots__ = ("_data", "_destination", "_reader", "_stream", "address", "error")

    def __init__(
        self,
        data: bytes,
        address: tuple[str, int],
        destination: str,
        error: SocketError | None = None,
    ) -> None:
        self._data = data
        self._destination = destination
        self._reader: DataReader | None = None
        self._stream: InputStream | None = None
        self.address = address
        self.error = error

    @property
    def data(self) -> bytes:
        """
        The whole datagram.

        :raises SocketError: `error`, if there is one.
        """
        if self.error is not None:
            raise self.error
        return self._data

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
        Return a stream over the datagram, whose end is the end of the stream; the same one each
        time.

        Its reads never wait. What is read from it is still in `data_reader`, and the other way.

        :raises SocketError: `error`, if there is one.
        """
        if self._stream is None:
            self._stream = InputStream.from_buffer(self.data)
        return self._stream

    @property
    def beginning(self) -> bytes:
        """What there is of a datagram that was too long; the whole of any other."""
        return self._data

    @property
    def is_truncated(self) -> bool:
        """Whether the datagram was longer than ``control.max_datagram``."""
        error = self.error
        return error is not None and error.status is SocketErrorStatus.MESSAGE_TOO_LONG

    @property
    def remote_address(self) -> HostName:
        """Who sent it, with the zone of a link-local address."""
        return HostName(self.address[0])

    @property
    def remote_port(self) -> str:
        """From which port."""
        return str(self.address[1])

    @property
    def local_address(self) -> HostName | None:
        """The address it was sent to, a group's for instance; None where the system is silent."""
        return HostName(self._destination) if self._destination else None
