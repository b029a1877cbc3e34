"""
Packets between two processes on one machine: UNIX socket of type SEQPACKET ↔ **channel** ↔ packets.

The format is that of `twsock.restart.records`. A new process reads its first packets with
`receive_packet`, before its reactor runs; everything else goes through a `PacketChannel`. A channel
holds the packets that the kernel has not taken, with their sockets.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
import typing
from collections import deque
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from twsock.errors import RemoteProtocolError
from twsock.handover.descriptors import ReceivedPacket, channel_peer, receive_with_descriptors
from twsock.restart.records import (
    MAX_RESTART_PACKET,
    ConnectionOffer,
    RestartPacket,
    SharedSocket,
    decode_restart,
    encode_restart,
)

__all__ = ["PacketChannel", "PacketReceiver", "receive_packet"]

#: How many descriptors are received. The kernel closes further ones; such a packet is refused.
_MOST_DESCRIPTORS: Final = 8

#: Packets with a socket beside them.
_WITH_SOCKET: Final = (ConnectionOffer, SharedSocket)

#: Seconds that a closed channel waits for the other process to read what was sent before.
_LINGER: Final = 5.0


def receive_packet(channel: socket.socket) -> tuple[RestartPacket, socket.socket | None] | None:
    """
    Receive one packet.

    :returns: the packet, and the socket beside it, which the caller closes; None at the end of the
        channel.
    :raises RemoteProtocolError: when it is not a valid packet, has too few or too many descriptors,
        or a descriptor was lost. All descriptors are closed then.
    :raises OSError: of the socket, such as BlockingIOError or TimeoutError.
    """
    with _receive(channel) as packet:
        return _parse(packet)


def _receive(channel: socket.socket) -> ReceivedPacket:
    while True:
        try:
            return receive_with_descriptors(channel, MAX_RESTART_PACKET, _MOST_DESCRIPTORS)
        except ConnectionResetError:
            # Reported once, and packets may lie behind it.
            continue


def _parse(received: ReceivedPacket) -> tuple[RestartPacket, socket.socket | None] | None:
    if not received.data:
        return None
    received.check_whole()
    packet = decode_restart(received.data)
    wanted, count = int(isinstance(packet, _WITH_SOCKET)), len(received.descriptors)
    if count != wanted:
        raise RemoteProtocolError(
            f"{count} descriptors beside {type(packet).__name__}, not {wanted}"
        )
    return packet, _socket_of(received.descriptors) if wanted else None


def _socket_of(descriptors: list[int]) -> socket.socket:
    try:
        found = socket.socket(fileno=descriptors[0])
    except OSError as error:
        raise RemoteProtocolError("a descriptor is not a socket") from error
    del descriptors[0]
    return found


class PacketReceiver(typing.Protocol):
    """Handles what arrives on a channel; each call may close the channel."""

    def packet_received(
        self, channel: PacketChannel, packet: RestartPacket, passed: socket.socket | None
    ) -> None:
        """Handle a packet and the socket beside it, which belongs to the receiver."""

    def foreign_received(self, channel: PacketChannel, reason: str) -> None:
        """Handle an invalid packet; the reason is one line."""

    def channel_ended(self, channel: PacketChannel) -> None:
        """Handle the end of the channel: the other process has closed it, or is dead."""


class PacketChannel:
    """
    One connected channel on a reactor.

    :param channel: connected; the object closes it.
    :param receiver: may be replaced at any time.

    :ivar process: the process id at the other end; see `channel_peer`, also for `user`.
    """

    def __init__(self, reactor: Any, channel: socket.socket, receiver: PacketReceiver) -> None:
        self._reactor = reactor
        self._channel = channel
        self._unsent: deque[tuple[bytes, socket.socket | None]] = deque()
        self._lingering: IDelayedCall | None = None
        self._is_closed = False
        self.receiver = receiver
        self.process, self.user = channel_peer(channel)
        self.fileno = channel.fileno
        channel.setblocking(False)

    @property
    def is_closed(self) -> bool:
        """Whether this end was closed; packets that were sent before may still be on their way."""
        return self._is_closed

    @property
    def is_read(self) -> bool:
        """Whether the other process has read all packets, or has ended."""
        if self._is_closed:
            return True
        # For a UNIX socket, Linux returns the bytes that the other end has not read.
        queued = fcntl.ioctl(self._channel, termios.TIOCOUTQ, struct.pack("=i", 0))
        return not self._unsent and struct.unpack("=i", queued) == (0,)

    def start(self) -> None:
        """Read from now on."""
        self._reactor.addReader(self)

    def send(self, packet: RestartPacket, passed: socket.socket | None = None) -> None:
        """
        Send a packet, now or later; nothing is sent to a process that has ended.

        :param passed: the socket beside it. It is closed once the kernel has a copy.
        :raises LocalProtocolError: when the packet cannot be encoded. ``passed`` is closed then.
        """
        try:
            data = encode_restart(packet)
        except BaseException:
            _close(passed)
            raise
        if self._is_closed:
            _close(passed)
            return
        self._unsent.append((data, passed))
        self._flush()

    def close(self) -> None:
        """Close the channel once all packets are sent; closing twice is harmless."""
        if self._is_closed:
            return
        self._is_closed = True
        self._reactor.removeReader(self)
        if self._unsent:
            self._lingering = self._reactor.callLater(_LINGER, self._finish)
        else:
            self._finish()

    def read(self) -> None:
        """Handle all packets that have arrived."""
        while not self._is_closed:
            try:
                received = receive_packet(self._channel)
            except BlockingIOError:
                return
            except (RemoteProtocolError, OSError) as error:
                self.receiver.foreign_received(self, str(error))
                continue
            if received is None:
                self._drop_unsent()
                self.receiver.channel_ended(self)
                return
            self.receiver.packet_received(self, *received)

    def _flush(self) -> None:
        while self._unsent:
            data, passed = self._unsent[0]
            rights = [] if passed is None else [passed.fileno()]
            try:
                socket.send_fds(self._channel, [data], rights, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                self._reactor.addWriter(self)
                return
            except OSError:
                # The other process has ended. The reader reports that, after what it has sent.
                self._drop_unsent()
                break
            self._unsent.popleft()
            _close(passed)
        self._reactor.removeWriter(self)
        if self._is_closed:
            self._finish()

    def _drop_unsent(self) -> None:
        while self._unsent:
            _close(self._unsent.popleft()[1])

    def _finish(self) -> None:
        if self._lingering is not None and self._lingering.active():
            self._lingering.cancel()
        self._lingering = None
        self._drop_unsent()
        self._reactor.removeWriter(self)
        self._channel.close()

    # Called by the reactor.

    def logPrefix(self) -> str:
        """Return the name of the channel for the log."""
        return "restart"

    def doRead(self) -> None:
        """Handle all packets that have arrived."""
        self.read()

    def doWrite(self) -> None:
        """Send the queued packets."""
        self._flush()

    def connectionLost(self, _reason: Failure) -> None:
        """Read to the end: a reactor on epoll or poll reports the end of the channel this way."""
        self.read()
        if self._is_closed:
            self._finish()


def _close(passed: socket.socket | None) -> None:
    if passed is not None:
        passed.close()
