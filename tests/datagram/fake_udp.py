"""
A UDP socket without a kernel for these tests: it accepts, refuses and receives as the test asks.

It splits runs as Linux does (udp(7), ``UDP_SEGMENT``), so the result is a list of datagrams for any
way of sending. It has its own definition of control messages, so that it does not repeat a mistake
of the code under test.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

Address = tuple[Any, ...]
Control = tuple[int, int, bytes]

HOST, PORT = "127.0.0.1", 1337
PEER, OTHER = ("127.0.0.1", 7001), ("127.0.0.1", 7002)

#: From <linux/udp.h>, <linux/in.h> and <linux/in6.h>.
UDP_SEGMENT, UDP_GRO, IP_PKTINFO, IPV6_PKTINFO = 103, 104, 8, 50

#: ``SO_MEMINFO`` of <asm-generic/socket.h>.
SO_MEMINFO = 55

#: More calls than any test makes; a test that reaches it loops endlessly.
TOO_MANY = 20_000


@dataclass(frozen=True)
class Call:
    """
    One send.

    :ivar segment_size: the segment size of a run; 0 for a single datagram.
    """

    data: bytes
    segment_size: int
    address: Address | None
    control: tuple[Control, ...] = ()

    @property
    def is_run(self) -> bool:
        """Whether the kernel was asked to split it."""
        return self.segment_size > 0

    def datagrams(self) -> list[bytes]:
        """Return the datagrams that the peer gets."""
        size = self.segment_size
        if not size or len(self.data) <= size:
            return [self.data]
        return [self.data[start : start + size] for start in range(0, len(self.data), size)]


Judge = Callable[[Call], int]


class FakeUdp:
    """
    A fake non-blocking socket.

    :param judges: called for each send that nothing else refuses; each returns an errno, or 0.
    :ivar sent: accepted datagrams with their addresses.
    :ivar calls: every send, including failed ones.
    :ivar plan: errors of the next sends, in order; with 0 a send succeeds.
    :ivar pending: errors of earlier datagrams; each call of any kind raises one of them.
    :ivar reads: the number of receives.
    :ivar dropped: the number of dropped datagrams that the kernel reports.
    """

    def __init__(
        self, *judges: Judge, host: str = HOST, port: int = PORT, plan: Iterable[int] = ()
    ) -> None:
        self.family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._name: Address = (host, port, 0, 0) if ":" in host else (host, port)
        self._judges = judges
        self._most = 65_527 if ":" in host else 65_507
        self._peer: Address | None = None
        self._arrivals: list[tuple[bytes, list[Control], int, Address]] = []
        self.sent: list[tuple[bytes, Address | None]] = []
        self.calls: list[Call] = []
        self.plan = list(plan)
        self.pending: list[int] = []
        self.reads = 0
        self.dropped = 0
        self.is_closed = False

    @property
    def sizes(self) -> list[int]:
        """The lengths of the accepted datagrams."""
        return [len(data) for data, _ in self.sent]

    @property
    def runs(self) -> int:
        """How many sends were runs."""
        return sum(call.is_run for call in self.calls)

    def arrive(
        self,
        data: bytes,
        source: Address = PEER,
        *,
        segment_size: int = 0,
        destination: str = "",
        local: str = "",
        interface: int = 0,
        flags: int = 0,
    ) -> None:
        """
        Add a run to be received.

        :param segment_size: segment size of a run; 0 if the kernel does not report it.
        :param destination: destination in the header; empty if the kernel does not report it.
        :param local: local address to answer from, as IPv4 reports it; empty for the destination.
            The two differ for groups.
        """
        messages: list[Control] = []
        if segment_size:
            messages.append((socket.IPPROTO_UDP, UDP_GRO, struct.pack("=i", segment_size)))
        if ":" in destination:
            packed = socket.inet_pton(socket.AF_INET6, destination)
            told = struct.pack("=16si", packed, interface)
            messages.append((socket.IPPROTO_IPV6, IPV6_PKTINFO, told))
        elif destination:
            own, packed = socket.inet_aton(local or destination), socket.inet_aton(destination)
            told = struct.pack("=i4s4s", interface, own, packed)
            messages.append((socket.IPPROTO_IP, IP_PKTINFO, told))
        self._arrivals.append((data, messages, flags, source))

    # As a socket.

    def send(self, data: bytes) -> int:
        return self._take(Call(data, 0, None))

    def sendto(self, data: bytes, address: Address) -> int:
        return self._take(Call(data, 0, address))

    def sendmsg(
        self,
        parts: Iterable[bytes],
        messages: Iterable[Control] = (),
        flags: int = 0,
        address: Address | None = None,
    ) -> int:
        segment_size, others = 0, []
        for level, kind, value in messages:
            if (level, kind) == (socket.IPPROTO_UDP, UDP_SEGMENT):
                (segment_size,) = struct.unpack("=H", value)
            else:
                others.append((level, kind, value))
        return self._take(Call(b"".join(parts), segment_size, address, tuple(others)))

    def recvmsg(
        self, size: int, control_size: int = 0
    ) -> tuple[bytes, list[Control], int, Address]:
        self._look_alive()
        self.reads += 1
        self._tell_pending()
        if not self._arrivals:
            raise error_of(errno.EAGAIN)
        data, messages, flags, source = self._arrivals.pop(0)
        if len(data) > size:
            data, flags = data[:size], flags | socket.MSG_TRUNC
        return data, messages, flags, source

    def getsockopt(self, level: int, option: int, size: int = 0) -> int | bytes:
        self._look_alive()
        if (level, option) == (socket.SOL_SOCKET, socket.SO_ERROR):
            return self.pending.pop(0) if self.pending else 0
        if (level, option) == (socket.SOL_SOCKET, SO_MEMINFO):
            return struct.pack("=9I", *[7] * 8, self.dropped)
        raise error_of(errno.ENOPROTOOPT)

    def connect(self, address: Address) -> None:
        self._look_alive()
        self._peer = address

    def getpeername(self) -> Address:
        if self._peer is None:
            raise error_of(errno.ENOTCONN)
        return self._peer

    def getsockname(self) -> Address:
        return self._name

    def fileno(self) -> int:
        return -1 if self.is_closed else 77

    def close(self) -> None:
        self.is_closed = True

    def _take(self, call: Call) -> int:
        self._look_alive()
        self.calls.append(call)
        if len(self.calls) > TOO_MANY:
            raise AssertionError("it sends for ever")
        self._tell_pending()
        number = self.plan.pop(0) if self.plan else 0
        for refuse in (self._refuse_as_linux, *self._judges):
            number = number or refuse(call)
        if number:
            raise error_of(number)
        self.sent += [(data, call.address) for data in call.datagrams()]
        return len(call.data)

    def _refuse_as_linux(self, call: Call) -> int:
        if len(call.data) > self._most:
            return errno.EMSGSIZE
        return errno.EINVAL if len(call.datagrams()) > 64 else 0

    def _tell_pending(self) -> None:
        if self.pending:
            raise error_of(self.pending.pop(0))

    def _look_alive(self) -> None:
        if self.is_closed:
            raise error_of(errno.EBADF)


def refuse_runs(number: int, least: int = 0) -> Judge:
    """Refuse runs with datagrams of at least so many bytes, with this errno."""
    return lambda call: number if call.is_run and call.segment_size >= least else 0


def limit_size(most: int) -> Judge:
    """Refuse datagrams of more bytes, as on a path with a small MTU."""
    return lambda call: errno.EMSGSIZE if max(map(len, call.datagrams())) > most else 0


def refuse_address(address: Address) -> Judge:
    """Refuse an address as unreachable."""
    return lambda call: errno.ENETUNREACH if call.address == address else 0


def error_of(number: int) -> OSError:
    """Return the exception of a socket, for example `BlockingIOError` for EAGAIN."""
    return OSError(number, os.strerror(number))
