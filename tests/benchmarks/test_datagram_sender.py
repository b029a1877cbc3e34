"""Tests of `benchmarks.programs.datagram_sender`, over loopback."""

from __future__ import annotations

import socket
import sys

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from benchmarks.programs import SENDERS
from benchmarks.programs.datagram_sender import WAYS, count_received, measure_sends, open_sink
from benchmarks.segmentation import send_run
from benchmarks.sending import CASES


class MeasureSendsTests(TestCase):
    """Batches are sent, and each has to arrive."""

    if sys.platform != "linux":
        skip = "runs of datagrams are Linux's"

    async def test_every_way_sends_every_case(self) -> None:
        """Nothing is lost, and each way of the command is there."""
        self.assertEqual(list(WAYS), [program.key for program in SENDERS])
        for way in WAYS:
            for name, case in CASES.items():
                figures = await measure_sends(reactor, way, case, 2)
                self.assertEqual(figures["lost"], 0, (way, name))
                self.assertGreater(figures["cpu"], 0, (way, name))


class CountReceivedTests(TestCase):
    """Datagrams are received and counted."""

    if sys.platform != "linux":
        skip = "runs of datagrams are Linux's"

    def test_datagrams_of_a_run_are_counted_each(self) -> None:
        """The last, shorter one included, as well as an empty one that was sent alone."""
        with open_sink() as sink, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as source:
            source.connect(sink.getsockname())
            send_run(source, bytes(950), 100)
            source.send(b"")
            self.assertEqual(count_received(sink, 11, late=10), 11)

    def test_missing_datagrams_are_not_counted(self) -> None:
        """They are waited for no longer than was said."""
        with open_sink() as sink:
            self.assertEqual(count_received(sink, 3, late=0.01), 0)
