"""Received runs stay in one piece; queued datagrams form runs where the kernel can segment them."""

from __future__ import annotations

import errno
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twsock.datagram.runs import Run, Segmentation, is_loop_risk, split_item
from twsock.wire.datagrams import MAX_IPV4_DATAGRAM

SOURCE = ("192.0.2.1", 7001)
LINK_LOCAL = ("fe80::1", 7001, 0, 3)


class RunTests(SynchronousTestCase):
    """Runs of received datagrams."""

    def test_the_length_is_the_number_of_datagrams(self) -> None:
        """The last datagram may be shorter."""
        self.assertEqual(len(Run(b"aabbc", 2, SOURCE)), 3)
        self.assertEqual(len(Run(b"aabb", 2, SOURCE)), 2)
        self.assertEqual(Run(b"aabbc", 2, SOURCE).datagrams(), [b"aa", b"bb", b"c"])

    def test_an_empty_datagram_is_a_run_of_one(self) -> None:
        """The run is true, and splits into one empty datagram."""
        run = Run(b"", 0, SOURCE)
        self.assertTrue(run)
        self.assertEqual((len(run), run.datagrams()), (1, [b""]))

    def test_defaults_mean_unknown(self) -> None:
        """No destination, no interface, not truncated."""
        run = Run(b"a", 1, SOURCE)
        self.assertEqual((run.destination, run.interface, run.local), ("", 0, ""))
        self.assertFalse(run.is_truncated)

    def test_a_part_has_the_same_addresses(self) -> None:
        """Its bytes and its truncation differ."""
        run = Run(b"aabb", 2, LINK_LOCAL, "fe80::2", 3, local="fe80::2")
        part = run.part(b"aa", 2, is_truncated=True)
        self.assertEqual((part.datagrams(), part.is_truncated), ([b"aa"], True))
        self.assertEqual(part.source, LINK_LOCAL)
        self.assertEqual((part.destination, part.interface, part.local), ("fe80::2", 3, "fe80::2"))

    def test_a_scope_id_is_kept(self) -> None:
        """An answer needs the whole IPv6 address."""
        self.assertEqual(Run(b"a", 1, LINK_LOCAL).source, LINK_LOCAL)

    def test_the_repr_has_no_payload(self) -> None:
        """It has the number, the size and the source."""
        shown = repr(Run(b"secret", 2, LINK_LOCAL))
        self.assertEqual(shown, "<3 datagrams of 2 bytes from fe80::1 port 7001>")


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
        """No datagram of these can join the one before it."""
        window = [_Queued(b"a", 1), _Queued(b"bb", 2), _Queued(b"ccc", 3)]
        self.assertFalse(_segmentation().begins_run(window))
        self.assertEqual(_segmentation().count_singles(window), 3)

    def test_without_segmentation_all_datagrams_leave_one_by_one(self) -> None:
        """A kernel without ``UDP_SEGMENT`` is offered no run."""
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
        """At the limit the remembered sizes are dropped; the next refusals teach them again."""
        segmentation = _segmentation()
        for number in range(257):
            segmentation.note_refusal(OSError(errno.EINVAL, ""), (f"192.0.2.{number}", 7001), 10)
        allowed = [
            segmentation.allows(_Queued(bytes(10), 10, f"192.0.2.{n}")) for n in (0, 255, 256)
        ]
        self.assertEqual(allowed, [True, True, False])


class LoopRiskTests(SynchronousTestCase):
    """Some sources are never answered."""

    def test_sources_that_no_host_sends_from_are_a_risk(self) -> None:
        """Port 0, an unspecified, broadcast or group address, also as an IPv4-mapped address."""
        for host in (
            "0.0.0.0",
            "::",
            "255.255.255.255",
            "224.0.0.1",
            "ff02::1",
            "::ffff:224.0.0.1",
        ):
            self.assertTrue(is_loop_risk((host, 7001)), host)
        self.assertTrue(is_loop_risk(("192.0.2.1", 0)))

    def test_a_host_with_a_port_is_no_risk(self) -> None:
        """Unicast addresses of both families are answered."""
        for source in (SOURCE, LINK_LOCAL, ("::ffff:192.0.2.1", 7001)):
            self.assertFalse(is_loop_risk(source), source)


class SplitItemTests(SynchronousTestCase):
    """A queued run is split into its datagrams."""

    def test_each_datagram_keeps_the_address_and_the_control_message(self) -> None:
        """The last one may be shorter."""
        pieces = split_item(_Queued(b"aabbc", 2))
        self.assertEqual([piece.data for piece in pieces], [b"aa", b"bb", b"c"])
        self.assertEqual([piece.segment_size for piece in pieces], [2, 2, 1])
        self.assertEqual({piece.address for piece in pieces}, {("192.0.2.1", 7001)})
        self.assertEqual({piece.control for piece in pieces}, {None})
