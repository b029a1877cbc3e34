"""A run is one piece, until somebody wants it apart."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twsock.datagram.runs import Run

SOURCE = ("192.0.2.1", 7001)
LINK_LOCAL = ("fe80::1", 7001, 0, 3)


class RunTests(SynchronousTestCase):
    """What arrived together."""

    def test_its_length_is_the_number_of_datagrams(self) -> None:
        """The last of which may be shorter."""
        self.assertEqual(len(Run(b"aabbc", 2, SOURCE)), 3)
        self.assertEqual(len(Run(b"aabb", 2, SOURCE)), 2)
        self.assertEqual(Run(b"aabbc", 2, SOURCE).datagrams(), [b"aa", b"bb", b"c"])

    def test_an_empty_datagram_is_a_run_of_one(self) -> None:
        """It is true, and cut into itself."""
        run = Run(b"", 0, SOURCE)
        self.assertTrue(run)
        self.assertEqual((len(run), run.datagrams()), (1, [b""]))

    def test_what_is_not_told_is_unknown(self) -> None:
        """No destination, no interface, nothing cut off."""
        run = Run(b"a", 1, SOURCE)
        self.assertEqual((run.destination, run.interface, run.local), ("", 0, ""))
        self.assertFalse(run.is_truncated)

    def test_a_part_has_the_same_origin(self) -> None:
        """Its bytes are its own, and whether they are the beginning of more."""
        run = Run(b"aabb", 2, LINK_LOCAL, "fe80::2", 3, local="fe80::2")
        part = run.part(b"aa", 2, is_truncated=True)
        self.assertEqual((part.datagrams(), part.is_truncated), ([b"aa"], True))
        self.assertEqual(part.source, LINK_LOCAL)
        self.assertEqual((part.destination, part.interface, part.local), ("fe80::2", 3, "fe80::2"))

    def test_a_scope_id_is_kept(self) -> None:
        """All of an IPv6 address, which an answer needs."""
        self.assertEqual(Run(b"a", 1, LINK_LOCAL).source, LINK_LOCAL)

    def test_it_shows_itself_without_its_payload(self) -> None:
        """How many, how long, and from whom."""
        shown = repr(Run(b"secret", 2, LINK_LOCAL))
        self.assertEqual(shown, "<3 datagrams of 2 bytes from fe80::1 port 7001>")
