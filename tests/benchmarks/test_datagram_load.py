"""Tests of `benchmarks.datagram_load`, over loopback."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.datagram_load import LATE, DatagramCase, DatagramLoad
from benchmarks.processes import MeasurementError

#: Seconds to wait for what does not come; an answer of a thread takes far less.
_SOON = 0.4
_SINGLE = DatagramCase(payload=100, window=8)
_RUN = DatagramCase(payload=100, window=8, is_run=True)


class DatagramLoadTests(SynchronousTestCase):
    """Datagrams are kept in flight, and what comes back is looked at."""

    if sys.platform != "linux":
        skip = "runs of datagrams are Linux's"

    def start_load(
        self,
        answer: Callable[[bytes, int], list[bytes]],
        case: DatagramCase = _SINGLE,
        late: float = LATE,
    ) -> DatagramLoad:
        """A load on a server that answers each datagram, of such a number, with others."""
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("127.0.0.1", 0))

        def serve() -> None:
            number = 0
            with server:
                while True:
                    data, source = server.recvfrom(2000)
                    if not data:
                        return
                    for each in answer(data, number):
                        server.sendto(each, source)
                    number += 1

        thread = threading.Thread(target=serve)
        thread.start()
        address = server.getsockname()
        load = DatagramLoad(address[1], case, sleeps=True, late=late)
        self.addCleanup(thread.join)
        self.addCleanup(self.end, address)
        self.addCleanup(load.close)
        return load

    def end(self, address: tuple[str, int]) -> None:
        """Tell the server to end, with a datagram that no load sends."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.sendto(b"", address)

    def test_echo_is_counted(self) -> None:
        """Whole windows come back, sent as a run or one by one, in one run of the load or two."""
        for case in (_SINGLE, _RUN):
            load = self.start_load(lambda data, _number: [data], case)
            for run in range(2):
                count = load.run(0.001)
                self.assertEqual(
                    (count > 0, count % case.window, load.lost), (True, 0, 0), f"{case=}, {run=}"
                )

    def test_missing_answer_is_lost(self) -> None:
        """One of eight is not waited for forever; the others count."""
        load = self.start_load(lambda data, number: [data] if number else [], late=_SOON)
        self.assertEqual((load.run(0), load.lost), (7, 1))

    def test_loss_does_not_end_the_load(self) -> None:
        """The next windows come back whole."""
        load = self.start_load(lambda data, number: [data] if number else [], late=_SOON)
        load.run(0)
        self.assertEqual((load.run(0), load.lost), (8, 1))

    def test_silence_is_refused(self) -> None:
        """A server that answers nothing is not measured."""
        with self.assertRaisesRegex(MeasurementError, "8 datagrams are lost"):
            self.start_load(lambda _data, _number: [], late=_SOON).run(0)

    def test_changed_byte_is_refused(self) -> None:
        """One wrong byte at the end of an answer is enough."""
        load = self.start_load(lambda data, _number: [data[:-1] + bytes([data[-1] ^ 1])])
        with self.assertRaisesRegex(MeasurementError, "differs"):
            load.run(0)

    def test_cut_and_joined_datagrams_are_refused(self) -> None:
        """The same bytes in other datagrams are no echo, and neither is an empty one."""
        for answer in (
            lambda data, _number: [data[:50], data[50:]],
            lambda data, _number: [data * 2],
            lambda _data, _number: [b""],
        ):
            with self.assertRaisesRegex(MeasurementError, "differs"):
                self.start_load(answer).run(0)

    def test_second_answer_is_refused(self) -> None:
        """Even if it comes at the end, and is received with the answers to the next window."""
        load = self.start_load(lambda data, number: [data] * (2 if number == 7 else 1))
        with self.assertRaisesRegex(MeasurementError, "twice"):
            for _ in range(2):
                load.run(0)

    def test_without_a_server_the_load_is_refused(self) -> None:
        """Nobody waits for an answer that cannot come."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
        load = DatagramLoad(port, _RUN, sleeps=True)
        self.addCleanup(load.close)
        self.assertRaises(ConnectionRefusedError, load.run, 0)
