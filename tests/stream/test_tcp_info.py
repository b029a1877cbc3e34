"""The kernel's statistics of a TCP connection: they are read, or are zero."""

from __future__ import annotations

import socket
import sys
from typing import Any

from hypothesis import given
from hypothesis.strategies import binary
from twisted.trial.unittest import SynchronousTestCase

from tests.stream.test_transport import tcp_pair
from twsock.stream.tcp_info import TcpInfo, read_tcp_info

#: ``struct tcp_info`` up to the end of its delivery rate.
SIZE = 168


def packed(
    rtt: int = 0, variation: int = 0, least: int = 0, rate: int = 0, is_limited: bool = False
) -> bytes:
    """Return an answer of Linux with these values; all other bits are set."""
    raw = bytearray(b"\xff" * SIZE)
    raw[7] = 0xFE | is_limited
    for offset, width, value in ((68, 4, rtt), (72, 4, variation), (148, 4, least), (160, 8, rate)):
        raw[offset : offset + width] = value.to_bytes(width, sys.byteorder)
    return bytes(raw)


class FakeSocket:
    """Answers with the bytes it was made with, cut to the buffer, as a kernel does."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer

    def getsockopt(self, _level: int, _option: int, size: int) -> bytes:
        return self.answer[:size]


def read(answer: bytes) -> TcpInfo:
    connection: Any = FakeSocket(answer)
    return read_tcp_info(connection)


class LayoutTests(SynchronousTestCase):
    """The places of the fields in the kernel's answer."""

    if not hasattr(socket, "TCP_INFO"):
        skip = "only Linux answers in this form"

    def test_each_field_is_read_from_its_place(self) -> None:
        """The places are those of <linux/tcp.h>; the bytes around differ."""
        info = read(packed(rtt=0x01020304, variation=0x05060708, least=9, rate=0x0102030405060708))
        self.assertEqual(info, TcpInfo(0x01020304, 0x05060708, 9, 0x0102030405060708, False))

    def test_the_lowest_bit_of_byte_7_says_rate_limited_by_the_sender(self) -> None:
        """The other bits of that byte have other meanings."""
        for byte, expected in ((0x01, True), (0x00, False), (0xFF, True), (0xFE, False)):
            raw = bytearray(SIZE)
            raw[7] = byte
            self.assertIs(read(bytes(raw)).is_rate_limited_by_sender, expected, f"{byte=}")

    def test_an_unmeasured_shortest_round_trip_is_zero(self) -> None:
        """The kernel starts with the largest number."""
        self.assertEqual(read(packed(rtt=5, least=0xFFFF_FFFF)).least_round_trip, 0)
        self.assertEqual(read(packed(rtt=5, least=0xFFFF_FFFE)).least_round_trip, 0xFFFF_FFFE)

    def test_fields_of_newer_kernels_are_ignored(self) -> None:
        """A field never moves, so a longer answer begins in the same way."""
        self.assertEqual(read(packed(rtt=5) + b"\xff" * 64), read(packed(rtt=5)))

    def test_a_too_short_answer_is_none(self) -> None:
        """Older kernels answer without the delivery rate."""
        self.assertEqual(read(packed(rtt=5)[:-1]), TcpInfo())
        self.assertEqual(read(b""), TcpInfo())

    @given(binary(max_size=2 * SIZE))
    def test_any_answer_is_read_without_an_error(self, answer: bytes) -> None:
        """No bytes that a kernel returns raise an error."""
        read(answer)


class KernelTests(SynchronousTestCase):
    """Real sockets."""

    def test_an_exchange_over_loopback_has_times(self) -> None:
        """After a request and its answer the round-trip times are above zero."""
        near, far = tcp_pair()
        self.addCleanup(near.close)
        self.addCleanup(far.close)
        for sender, receiver in ((near, far), (far, near)):
            sender.sendall(b"x" * 1000)
            receiver.recv(1000)
        info = read_tcp_info(near)
        self.assertGreater(info.smoothed_round_trip, 0)
        self.assertGreater(info.least_round_trip, 0)

    if not hasattr(socket, "TCP_INFO"):
        test_an_exchange_over_loopback_has_times.skip = "only Linux measures"  # type: ignore[attr-defined]

    def test_a_unix_socket_has_zero_statistics(self) -> None:
        """It is no TCP socket, and no error is raised."""
        near, far = socket.socketpair()
        self.addCleanup(near.close)
        self.addCleanup(far.close)
        self.assertEqual(read_tcp_info(near), TcpInfo())

    def test_a_closed_socket_has_zero_statistics(self) -> None:
        """Reading after the close raises no error."""
        near, far = tcp_pair()
        near.close()
        far.close()
        self.assertEqual(read_tcp_info(near), TcpInfo())

    def test_without_a_socket_all_is_zero(self) -> None:
        """A rate that was never measured is no peak."""
        self.assertEqual(read_tcp_info(None), TcpInfo(0, 0, 0, 0, True))
