"""A run of datagrams becomes a few lines."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twsock.cli.datagram_figures import describe_loss, describe_run
from twsock.cli.datagram_score import DatagramScore


class PeerFiguresTests(SynchronousTestCase):
    """Of one peer there is one line."""

    def run_of(self, sent: int, *answers: tuple[int, float]) -> DatagramScore:
        """Send all at 0, and let answers to some come at a time in milliseconds."""
        score = DatagramScore(1.0)
        for number in range(sent):
            score.send(b"%d" % number, 0.0)
        for number, milliseconds in answers:
            score.receive(b"%d" % number, "", milliseconds / 1000)
        return score

    def test_all_is_well(self) -> None:
        """No more than there is to say."""
        score = self.run_of(2, (0, 1), (1, 2))
        self.assertEqual(
            describe_run(score),
            ["2 sent, 2 answered, 0 lost; round trip min/median/p99/max 1.00/1.50/2.00/2.00 ms"],
        )
        self.assertIsNone(describe_loss(score))

    def test_all_that_can_happen(self) -> None:
        """Each with its number."""
        score = self.run_of(
            8, (1, 1), (0, 2), (0, 3), (2, 4), (2, 5), (3, 6), (4, 6), (5, 6), (6, 1000)
        )
        (line,) = describe_run(score)
        self.assertEqual(
            line,
            "8 sent, 6 answered, 1 late, 1 lost (12.5 %), 2 duplicates, 1 out of order; "
            "round trip min/median/p99/max 1.00/5.00/6.00/6.00 ms",
        )
        self.assertEqual(describe_loss(score), "of 8 datagrams, 1 lost (12.5 %)")

    def test_nothing_came_back(self) -> None:
        """There are no times then."""
        score = self.run_of(3)
        self.assertEqual(describe_run(score), ["3 sent, 0 answered, 3 awaited, 0 lost"])
        score.expire(1.0)
        self.assertEqual(describe_run(score), ["3 sent, 0 answered, 3 lost (100 %)"])

    def test_a_small_share_is_not_none(self) -> None:
        """Three digits, wherever they are."""
        score = self.run_of(3000, *((number, 1) for number in range(2999)))
        score.expire(1.0)
        self.assertIn("1 lost (0.0333 %)", describe_run(score)[0])

    def test_a_late_answer_is_no_loss(self) -> None:
        """Neither are duplicates and another order."""
        self.assertIsNone(describe_loss(self.run_of(3, (1, 1), (1, 1), (0, 1), (2, 1500))))

    def test_what_was_not_sent_is_told_first(self) -> None:
        """It is worse than a loss."""
        score = self.run_of(1)
        score.receive(b"x", "", 0.1)
        self.assertEqual(describe_loss(score), "1 datagram came back that was not sent")
        score.receive(b"y", "", 0.1)
        self.assertEqual(describe_loss(score), "2 datagrams came back that were not sent")


class GroupFiguresTests(SynchronousTestCase):
    """Of a group there is a line for each who answered."""

    def test_each_member_has_a_line(self) -> None:
        """Who only sent something else has none."""
        score = DatagramScore(1.0, is_group=True)
        for message in (b"a", b"b"):
            score.send(message, 0.0)
        for who, message in (
            ("192.0.2.1:7", b"a"),
            ("192.0.2.1:7", b"b"),
            ("192.0.2.2:7", b"b"),
            ("192.0.2.2:7", b"b"),
            ("192.0.2.3:7", b"c"),
        ):
            score.receive(message, who, 0.001)
        score.expire(1.0)
        times = "round trip min/median/p99/max 1.00/1.00/1.00/1.00 ms"
        self.assertEqual(
            describe_run(score, is_group=True),
            [
                "2 sent, 2 answered by 2, 1 not sent by us, 0 lost",
                f"192.0.2.1:7: 2 answered, 0 lost; {times}",
                f"192.0.2.2:7: 1 answered, 1 lost (50 %), 1 duplicate; {times}",
            ],
        )

    def test_a_member_that_missed_something_is_named(self) -> None:
        """Though another one answered."""
        score = DatagramScore(1.0, is_group=True)
        for message in (b"a", b"b"):
            score.send(message, 0.0)
        for who, message in (("one", b"a"), ("one", b"b"), ("two", b"b")):
            score.receive(message, who, 0.001)
        self.assertEqual(describe_loss(score), "two did not answer 1 of 2 datagrams")

    def test_what_nobody_answered_is_lost(self) -> None:
        """Of all members there is none then."""
        score = DatagramScore(1.0, is_group=True)
        score.send(b"a", 0.0)
        score.expire(1.0)
        self.assertEqual(describe_run(score, is_group=True), ["1 sent, 0 answered, 1 lost (100 %)"])
