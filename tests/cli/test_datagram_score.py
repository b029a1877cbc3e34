"""Answers find their requests, whatever happens to datagrams."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis.strategies import DataObject, data, integers, lists, sampled_from
from twisted.trial.unittest import SynchronousTestCase

from twsock.cli.datagram_score import (
    MAX_AWAITED,
    MAX_REMEMBERED,
    MAX_RESPONDERS,
    AnswerKind,
    DatagramScore,
    Verdict,
)

ANSWER, LATE, DUPLICATE, FOREIGN = AnswerKind


class PeerTests(SynchronousTestCase):
    """One peer, which answers in its own way; the timeout is 10 seconds."""

    def setUp(self) -> None:
        self.score = DatagramScore(10.0)

    def receive(self, message: bytes, now: float = 1.0) -> Verdict | None:
        return self.score.receive(message, "peer", now)

    def send(self, *messages: bytes, now: float = 0.0) -> None:
        for message in messages:
            self.score.send(message, now)

    def test_an_answer_settles_its_request(self) -> None:
        """With the time that it took."""
        self.send(b"a")
        self.assertEqual((self.score.awaited, self.score.next_deadline()), (1, 10.0))
        self.assertEqual(self.receive(b"a", 0.25), Verdict(ANSWER, 1))
        self.assertEqual((self.score.awaited, self.score.next_deadline()), (0, None))
        self.assertEqual(self.score.responders["peer"].round_trips.longest, 0.25)
        self.assertEqual((self.score.answered, self.score.lost, self.score.missing), (1, 0, 0))

    def test_a_request_without_an_answer_is_lost(self) -> None:
        """When its time is over, and not before."""
        self.send(b"a")
        self.assertEqual(self.score.expire(9.9), [])
        self.assertEqual(self.score.lost, 0)
        self.assertEqual(self.score.expire(10.0), [1])
        self.assertEqual((self.score.lost, self.score.missing, self.score.awaited), (1, 1, 0))

    def test_a_late_answer_is_not_a_loss(self) -> None:
        """Neither is it one in time; without a second one, which is a duplicate."""
        self.send(b"a")
        self.assertEqual(self.receive(b"a", 10.0), Verdict(LATE))
        self.assertEqual((self.score.answered, self.score.late, self.score.lost), (0, 1, 0))
        self.assertEqual(self.receive(b"a", 11.0), Verdict(DUPLICATE))
        self.assertEqual((self.score.late, self.score.duplicates, self.score.missing), (1, 1, 0))

    def test_a_second_answer_is_a_duplicate(self) -> None:
        """So is a third."""
        self.send(b"a")
        kinds = [self.receive(b"a") for _ in range(3)]
        self.assertEqual(kinds, [Verdict(ANSWER, 1), Verdict(DUPLICATE), Verdict(DUPLICATE)])
        self.assertEqual(self.score.duplicates, 2)

    def test_an_answer_that_was_overtaken_is_out_of_order(self) -> None:
        """Each that comes behind a newer one."""
        self.send(b"a", b"b", b"c", b"d")
        for message in (b"b", b"a", b"d", b"c"):
            self.receive(message)
        self.assertEqual((self.score.answered, self.score.reordered), (4, 2))

    def test_other_bytes_belong_to_nothing(self) -> None:
        """Neither others nor some of them."""
        self.send(b"a" * 40)
        for message in (b"", b"a" * 39, b"a" * 41):
            self.assertEqual(self.receive(message), Verdict(FOREIGN))
        self.assertEqual((self.score.foreign, self.score.unanswered), (3, 1))

    def test_an_empty_datagram_is_one(self) -> None:
        """As any other."""
        self.send(b"")
        self.assertEqual(self.receive(b""), Verdict(ANSWER, 1))

    def test_a_message_and_its_digest_differ(self) -> None:
        """What is kept of a long message is not taken for a short one."""
        self.send(b"a" * 100)
        digest = hashlib.blake2b(b"a" * 100, digest_size=32).digest()
        self.assertEqual(self.receive(digest), Verdict(FOREIGN))

    def test_equal_requests_are_answered_oldest_first(self) -> None:
        """As many as there are, and then there are duplicates."""
        self.send(b"a", b"a")
        numbers = [self.receive(b"a") for _ in range(3)]
        self.assertEqual(numbers, [Verdict(ANSWER, 1), Verdict(ANSWER, 2), Verdict(DUPLICATE)])

    def test_what_is_awaited_comes_before_what_timed_out(self) -> None:
        """Of equal requests, of which the first was lost: then there is one late answer left."""
        self.send(b"a")
        self.send(b"a", now=10.0)
        kinds = [self.receive(b"a", 11.0) for _ in range(3)]
        self.assertEqual(kinds, [Verdict(ANSWER, 2), Verdict(LATE), Verdict(DUPLICATE)])
        self.assertEqual((self.score.answered, self.score.late, self.score.lost), (1, 1, 0))

    def test_what_is_sent_again_has_its_time_from_then_on(self) -> None:
        """Its timeout and its round trip."""
        self.send(b"a")
        self.score.send_again(4.0)
        self.assertEqual((self.score.sent, self.score.next_deadline()), (1, 14.0))
        self.receive(b"a", 4.5)
        self.assertEqual(self.score.longest_round_trip, 0.5)

    def test_no_more_is_awaited_than_can_be_held(self) -> None:
        """It says so before."""
        for number in range(MAX_AWAITED):
            self.assertFalse(self.score.is_full)
            self.send(b"%d" % number)
        self.assertTrue(self.score.is_full)

    def test_what_is_long_over_is_forgotten(self) -> None:
        """What is awaited is not, however much came after it."""
        self.send(b"lost", b"first")
        self.receive(b"first")
        for number in range(2 * MAX_REMEMBERED):
            self.send(b"%d" % number)
            self.receive(b"%d" % number)
        self.assertFalse(self.score.was_sent(b"first"))
        self.assertTrue(self.score.was_sent(b"lost"))
        self.assertEqual(self.receive(b"lost"), Verdict(ANSWER, 1))

    @given(lists(integers(0, 30), max_size=40), data())
    def test_the_figures_of_different_messages_are_exact(
        self, order: list[int], chance: DataObject
    ) -> None:
        """Whatever is lost, comes again or late, in whatever order."""
        score = DatagramScore(10.0)
        for number in range(31):
            score.send(b"%d" % number, 0.0)
        first_late = chance.draw(integers(0, len(order)))
        for index, number in enumerate(order):
            score.receive(b"%d" % number, "peer", 20.0 if index >= first_late else 1.0)
        score.expire(20.0)
        in_time = set(order[:first_late])
        self.assertEqual(score.answered, len(in_time))
        self.assertEqual(score.late, len(set(order) - in_time))
        self.assertEqual(score.lost, 31 - len(set(order)))
        self.assertEqual(score.duplicates, len(order) - len(set(order)))

    @given(lists(sampled_from((b"a", b"b", b"long" * 20)), max_size=60), data())
    def test_the_sums_of_equal_messages_are_right(
        self, messages: list[bytes], chance: DataObject
    ) -> None:
        """Each request and each answer is counted once, and no answer without a request."""
        score = DatagramScore(3.0)
        answers = 0
        for now, message in enumerate(messages):
            if chance.draw(sampled_from((True, False))):
                score.send(message, now)
            else:
                answers += 1
                score.receive(message, "peer", now)
        score.expire(1000.0)
        self.assertEqual((score.awaited, score.unanswered), (0, 0))
        self.assertEqual(score.answered + score.late + score.lost, score.sent)
        self.assertEqual(score.answered + score.late + score.duplicates + score.foreign, answers)
        self.assertGreaterEqual(score.lost, 0)


class GroupTests(SynchronousTestCase):
    """Several members answer each request."""

    def setUp(self) -> None:
        self.score = DatagramScore(1.0, is_group=True)

    def test_each_member_may_answer_each_request(self) -> None:
        """Until its time is over, and only once."""
        self.score.send(b"a", 0.0)
        self.assertEqual(self.score.receive(b"a", "one", 0.1), Verdict(ANSWER, 1))
        self.assertEqual((self.score.unanswered, self.score.awaited), (0, 1))
        self.assertEqual(self.score.receive(b"a", "two", 0.2), Verdict(ANSWER, 1))
        self.assertEqual(self.score.receive(b"a", "two", 0.3), Verdict(DUPLICATE))
        self.assertEqual(self.score.receive(b"a", "three", 1.0), Verdict(LATE))
        self.assertEqual((self.score.answered, self.score.late, self.score.lost), (1, 0, 0))
        self.assertEqual((self.score.awaited, self.score.missing), (0, 0))

    def test_each_member_has_its_own_figures(self) -> None:
        """A request is lost when nobody answered it, and the worst member is known."""
        for message in (b"a", b"b", b"c"):
            self.score.send(message, 0.0)
        for member, message in (("one", b"b"), ("one", b"a"), ("two", b"a"), ("two", b"a")):
            self.score.receive(message, member, 0.5)
        self.score.expire(1.0)
        one, two = self.score.responders["one"], self.score.responders["two"]
        self.assertEqual((one.answered, one.reordered, one.duplicates), (2, 1, 0))
        self.assertEqual((two.answered, two.reordered, two.duplicates), (1, 0, 1))
        self.assertEqual((self.score.answered, self.score.lost, self.score.missing), (2, 1, 2))

    def test_several_late_answers_save_one_request(self) -> None:
        """It was lost once only."""
        self.score.send(b"a", 0.0)
        self.score.send(b"b", 0.0)
        for member in ("one", "two"):
            self.assertEqual(self.score.receive(b"a", member, 2.0), Verdict(LATE))
        self.assertEqual((self.score.late, self.score.lost), (1, 1))

    def test_who_sends_something_else_is_no_member(self) -> None:
        """It is counted, and nobody says that it lost something."""
        self.score.send(b"a", 0.0)
        self.score.receive(b"a", "one", 0.1)
        self.score.receive(b"b", "stranger", 0.1)
        self.assertEqual((self.score.foreign, self.score.missing), (1, 0))

    def test_more_responders_than_can_be_told_apart_are_left_out(self) -> None:
        """Anybody on the network may answer, from any number of ports."""
        self.score.send(b"a", 0.0)
        for number in range(MAX_RESPONDERS):
            self.assertIsNotNone(self.score.receive(b"a", str(number), 0.1))
        self.assertIsNone(self.score.receive(b"a", "one more", 0.1))
        self.assertEqual(len(self.score.responders), MAX_RESPONDERS)
