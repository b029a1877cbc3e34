"""The kernel's figures of a TCP connection are read, or are zero."""

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
    """Write down what Linux would answer; all that is not asked about has every bit set."""
    raw = bytearray(b"\xff" * SIZE)
    raw[7] = 0xFE | is_limited
    for offset, width, value in ((68, 4, rtt), (72, 4, variation), (148, 4, least), (160, 8, rate)):
        raw[offset : offset + width] = value.to_bytes(width, sys.byteorder)
    return bytes(raw)


class FakeSocket:
    """Answers what it is told to, cut to what there is room for, as a kernel does."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer

    def getsockopt(self, _level: int, _option: int, size: int) -> bytes:
        return self.answer[:size]


def read(answer: bytes) -> TcpInfo:
    connection: Any = FakeSocket(answer)
    return read_tcp_info(connection)


class LayoutTests(SynchronousTestCase):
    """Where the figures are in the kernel's answer."""

    if not hasattr(socket, "TCP_INFO"):
        skip = "only Linux answers in this form"

    def test_each_figure_has_its_place(self) -> None:
        """As in <linux/tcp.h>, with other bytes around."""
        info = read(packed(rtt=0x01020304, variation=0x05060708, least=9, rate=0x0102030405060708))
        self.assertEqual(info, TcpInfo(0x01020304, 0x05060708, 9, 0x0102030405060708, False))

    def test_the_lowest_bit_of_byte_7_is_the_limit_by_the_sender(self) -> None:
        """The other bits there tell of something else."""
        for byte, expected in ((0x01, True), (0x00, False), (0xFF, True), (0xFE, False)):
            raw = bytearray(SIZE)
            raw[7] = byte
            self.assertIs(read(bytes(raw)).is_rate_limited_by_sender, expected, f"{byte=}")

    def test_a_shortest_time_not_measured_is_zero(self) -> None:
        """The kernel begins with the largest number."""
        self.assertEqual(read(packed(rtt=5, least=0xFFFF_FFFF)).least_round_trip, 0)
        self.assertEqual(read(packed(rtt=5, least=0xFFFF_FFFE)).least_round_trip, 0xFFFF_FFFE)

    def test_what_newer_kernels_add_is_not_read(self) -> None:
        """A field is never moved, so that a longer answer begins alike."""
        self.assertEqual(read(packed(rtt=5) + b"\xff" * 64), read(packed(rtt=5)))

    def test_an_answer_of_an_old_kernel_is_no_answer(self) -> None:
        """One byte less, and there is no rate."""
        self.assertEqual(read(packed(rtt=5)[:-1]), TcpInfo())
        self.assertEqual(read(b""), TcpInfo())

    @given(binary(max_size=2 * SIZE))
    def test_any_answer_is_read(self, answer: bytes) -> None:
        """Nothing that a kernel says is an error."""
        read(answer)


class KernelTests(SynchronousTestCase):
    """Real sockets."""

    def test_an_exchange_is_measured(self) -> None:
        """After a question and an answer over loopback there are times."""
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
        test_an_exchange_is_measured.skip = "only Linux measures"  # type: ignore[attr-defined]

    def test_a_unix_socket_has_no_figures(self) -> None:
        """It is no TCP, and that is no error."""
        near, far = socket.socketpair()
        self.addCleanup(near.close)
        self.addCleanup(far.close)
        self.assertEqual(read_tcp_info(near), TcpInfo())

    def test_a_closed_socket_has_no_figures(self) -> None:
        """Neither is it an error to come too late."""
        near, far = tcp_pair()
        near.close()
        far.close()
        self.assertEqual(read_tcp_info(near), TcpInfo())

    def test_no_socket_has_no_figures(self) -> None:
        """All are zero, and a rate that nobody measured is no peak."""
        self.assertEqual(read_tcp_info(None), TcpInfo(0, 0, 0, 0, True))
