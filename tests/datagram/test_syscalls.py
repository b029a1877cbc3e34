"""Queued datagrams form runs where the kernel can segment them; errors belong to a datagram."""

from __future__ import annotations

import errno
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.datagram.fake_udp import FakeUdp, error_of, refuse_runs
from tests.datagram.test_send_queue import Item, datagrams
from twsock.datagram.syscalls import (
    DatagramCalls,
    Segmentation,
    describe_refusal,
    send_error,
    split_item,
)
from twsock.errors import SocketError, SocketErrorStatus
from twsock.wire.datagrams import MAX_IPV4_DATAGRAM

RESET = SocketErrorStatus.CONNECTION_RESET_BY_PEER
UNREACHABLE = SocketErrorStatus.UNREACHABLE_HOST


class DatagramCallsTests(SynchronousTestCase):
    """Sent datagrams, reported errors and returned errors."""

    def open(self, *judges: Any, plan: tuple[int, ...] = ()) -> None:
        self.udp = FakeUdp(*judges, plan=plan)
        self.refusals: list[SocketErrorStatus] = []
        self.goes_on = True
        udp: Any = self.udp
        self.calls = DatagramCalls(udp, self.tell)

    def tell(self, error: SocketError) -> bool:
        self.refusals.append(error.status)
        return self.goes_on

    def send_again(self, first: int) -> int | None:
        """
        Repeat the call for a datagram to the connected peer; return the errno of its own error.
        """
        error = self.calls.send_again(datagrams(9, address=None), error_of(first), is_run=False)
        return None if error is None else error.errno

    def test_a_run_is_one_call(self) -> None:
        """The control message contains the segment size."""
        self.open()
        self.assertIsNone(self.calls.send(datagrams(9, 9, 5), is_run=True))
        self.assertEqual((len(self.udp.calls), self.udp.sizes), (1, [9, 9, 5]))

    def test_separate_sends_stop_at_the_first_error(self) -> None:
        """The number of sent datagrams is returned."""
        self.open(plan=(0, 0, errno.EAGAIN))
        for address in (None, ("127.0.0.1", 9)):
            self.udp.plan = [0, 0, errno.EAGAIN]
            done, error = self.calls.send_each(datagrams(9, 8, 7, 6, address=address))
            self.assertEqual((done, error and error.errno), (2, errno.EAGAIN), address)

    def test_an_item_that_python_cannot_send_is_an_error(self) -> None:
        """It raises no exception between the other items."""

        def judge(call: Any) -> int:
            raise OverflowError("port must be 0-65535.")

        self.open(judge)
        item = Item(b"a")
        for error in (self.calls.send([item], is_run=False), self.calls.send_each([item])[1]):
            self.assertEqual(error and error.errno, errno.EINVAL, error)

    def test_an_error_that_does_not_repeat_belongs_to_an_earlier_datagram(self) -> None:
        """It is reported, and the datagram has been sent."""
        self.open()
        self.assertIsNone(self.send_again(errno.EHOSTUNREACH))
        self.assertEqual((self.refusals, self.udp.sizes), ([UNREACHABLE], [9]))

    def test_an_error_that_repeats_belongs_to_the_datagram(self) -> None:
        """Nothing is reported."""
        self.open(plan=(errno.EMSGSIZE,))
        self.assertEqual(self.send_again(errno.EMSGSIZE), errno.EMSGSIZE)
        self.assertEqual(self.refusals, [])

    def test_an_icmp_error_in_between_belongs_to_an_earlier_datagram(self) -> None:
        """For any error of the datagram itself."""
        self.open(plan=(errno.ECONNREFUSED, errno.EMSGSIZE))
        self.assertEqual(self.send_again(errno.EMSGSIZE), errno.EMSGSIZE)
        self.assertEqual(self.refusals, [RESET])

    def test_a_callback_can_stop_the_repetition(self) -> None:
        """No further call is made."""
        self.open(plan=(errno.ECONNREFUSED,) * 5)
        self.goes_on = False
        self.assertEqual(self.send_again(errno.ECONNREFUSED), errno.ECONNREFUSED)
        self.assertEqual((self.refusals, len(self.udp.calls)), ([RESET], 1))

    def test_a_refused_run_is_not_reported_as_an_icmp_error(self) -> None:
        """The error is returned; the send queue handles it."""
        self.open(refuse_runs(errno.EINVAL))
        error = self.calls.send_again(
            datagrams(9, 9, address=None), error_of(errno.EINVAL), is_run=True
        )
        self.assertEqual((error and error.errno, self.refusals), (errno.EINVAL, []))

    def test_a_closed_port_has_the_status_of_winrt(self) -> None:
        """The kernel's error is the cause; other errors keep their status."""
        number = error_of(errno.ECONNREFUSED)
        error = describe_refusal(number)
        self.assertIs(error.status, RESET)
        self.assertIs(error.__cause__, number)
        self.assertIn("ICMP", str(error))
        self.assertIs(describe_refusal(error_of(errno.EHOSTUNREACH)).status, UNREACHABLE)

    def test_the_error_of_a_datagram_names_its_peer(self) -> None:
        """A connected socket has one peer, which needs no name."""
        error = error_of(errno.EHOSTUNREACH)
        self.assertIn("cannot send to 127.0.0.1: ", str(send_error(Item(b""), error)))
        to_peer = send_error(Item(b"", address=None), error)
        self.assertIn("cannot send to the connected peer: ", str(to_peer))
        self.assertIs(to_peer.status, UNREACHABLE)


class _Queued:
    """A queued datagram or run."""

    control: tuple[int, int, bytes] | None = None

    def __init__(self, data: bytes, segment_size: int, host: str = "192.0.2.1") -> None:
        self.data = data
        self.segment_size = segment_size
        self.address: tuple[Any, ...] | None = (host, 7001)


def _segmentation(*, is_offered: bool = True) -> Segmentation:
    return Segmentation(MAX_IPV4_DATAGRAM, is_offered=is_offered)


class SegmentationTests(SynchronousTestCase):
    """Queued datagrams leave together where the system and the route allow it."""

    def test_equal_sizes_form_a_run_that_a_shorter_one_ends(self) -> None:
        """The shorter datagram is the last of the run."""
        window = [_Queued(b"aa", 2), _Queued(b"bb", 2), _Queued(b"c", 1), _Queued(b"dd", 2)]
        self.assertTrue(_segmentation().begins_run(window))
        self.assertEqual(_segmentation().count_run(window), 3)

    def test_growing_sizes_leave_one_by_one(self) -> None:
        """Only a datagram of the same or a smaller size can join the one before it."""
        window = [_Queued(b"a", 1), _Queued(b"bb", 2), _Queued(b"ccc", 3)]
        self.assertFalse(_segmentation().begins_run(window))
        self.assertEqual(_segmentation().count_singles(window), 3)

    def test_without_segmentation_all_datagrams_leave_one_by_one(self) -> None:
        """Without ``UDP_SEGMENT``, no run is passed to the kernel."""
        window = [_Queued(b"aa", 2), _Queued(b"bb", 2)]
        segmentation = _segmentation(is_offered=False)
        self.assertEqual(
            (segmentation.count_run(window), segmentation.count_singles(window)), (1, 2)
        )

    def test_a_refused_size_is_not_offered_again_to_that_address(self) -> None:
        """Smaller datagrams, and other addresses, still form runs."""
        segmentation = _segmentation()
        refused = _Queued(bytes(1400), 1400)
        segmentation.note_refusal(OSError(errno.EINVAL, ""), refused.address, 1400)
        self.assertFalse(segmentation.allows(refused))
        self.assertTrue(segmentation.allows(_Queued(bytes(1399), 1399)))
        self.assertTrue(segmentation.allows(_Queued(bytes(1400), 1400, "192.0.2.2")))

    def test_an_error_of_the_network_card_ends_all_runs(self) -> None:
        """``EIO`` means that the system cannot segment at all (udp(7))."""
        segmentation = _segmentation()
        segmentation.note_refusal(OSError(errno.EIO, ""), ("192.0.2.1", 7001), 100)
        self.assertFalse(segmentation.allows(_Queued(b"a", 1, "192.0.2.2")))

    def test_at_most_256_addresses_are_remembered(self) -> None:
        """At the limit all sizes are dropped, and learned again from refusals."""
        segmentation = _segmentation()
        for number in range(257):
            segmentation.note_refusal(OSError(errno.EINVAL, ""), (f"192.0.2.{number}", 7001), 10)
        allowed = [
            segmentation.allows(_Queued(bytes(10), 10, f"192.0.2.{n}")) for n in (0, 255, 256)
        ]
        self.assertEqual(allowed, [True, True, False])


class SplitItemTests(SynchronousTestCase):
    """A queued run is split into its datagrams."""

    def test_each_datagram_keeps_the_address_and_the_control_message(self) -> None:
        """The last datagram may be shorter."""
        pieces = split_item(_Queued(b"aabbc", 2))
        self.assertEqual([piece.data for piece in pieces], [b"aa", b"bb", b"c"])
        self.assertEqual([piece.segment_size for piece in pieces], [2, 2, 1])
        self.assertEqual({piece.address for piece in pieces}, {("192.0.2.1", 7001)})
        self.assertEqual({piece.control for piece in pieces}, {None})
