"""Tests of `benchmarks.datagram_receiver`, over loopback."""

from __future__ import annotations

import socket
import sys

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.datagram_receiver import start_receiver
from benchmarks.segmentation import send_run


class ReceiverTests(SynchronousTestCase):
    """A process counts datagrams."""

    if sys.platform != "linux":
        skip = "runs of datagrams are Linux's"

    def test_datagrams_of_a_run_are_counted_each(self) -> None:
        """The last, shorter one included, as well as an empty one that was sent alone."""
        with (
            start_receiver(None) as receiver,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as source,
        ):
            source.connect(("127.0.0.1", receiver.port))
            send_run(source, bytes(950), 100)
            source.send(b"")
            self.assertEqual(receiver.wait_for(11, late=10), 0)
            self.assertEqual(receiver.received, 11)

    def test_missing_ones_are_told(self) -> None:
        """They are waited for no longer than was said."""
        with start_receiver(None) as receiver:
            self.assertEqual(receiver.wait_for(3, late=0.01), 3)
