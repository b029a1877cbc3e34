"""Each answer is counted for the request that it belongs to."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis.strategies import integers, lists, sampled_from, tuples
from twisted.trial.unittest import SynchronousTestCase

from twsock.cli.tally import MAX_REMEMBERED, MAX_RESPONDERS, Tally


class TallyTests(SynchronousTestCase):
    """A tally finds the request of each answer; the timeout is 10 seconds."""

    def setUp(self) -> None:
        self.tally = Tally(10.0)

    def receive(self, message: bytes, now: float = 1.0, name: str = "") -> str:
        return self.tally.receive(message, name, now)

    def send(self, *messages: bytes, now: float = 0.0) -> None:
        for message in messages:
            self.tally.send(message, now)

    def test_an_answer_settles_its_request(self) -> None:
        """The round trip is recorded, also after the timeout."""
        for message, now in ((b"a", 0.25), (b"", 20.0)):
            self.send(message)
            self.assertEqual(self.receive(message, now), "answer", f"{message=}, {now=}")
            self.assertEqual(self.tally.responders[""].round_trips.longest, now, f"{message=}")
        self.assertEqual((self.tally.sent, self.tally.answered), (2, 2))

    def test_a_second_answer_is_a_duplicate(self) -> None:
        """A third answer is a duplicate, too."""
        self.send(b"a")
        found = [self.receive(b"a") for _ in range(3)]
        self.assertEqual(found, ["answer", "duplicate", "duplicate"])
        one = self.tally.responders[""]
        self.assertEqual((one.received, one.duplicates, one.round_trips.count), (1, 2, 1))

    def test_other_bytes_belong_to_nothing(self) -> None:
        """Other bytes, a part of a request, or the digest of a long request match none."""
        self.send(b"a" * 100)
        digest = hashlib.blake2b(b"a" * 100, digest_size=32).digest()
        for message in (b"", b"a" * 99, b"a" * 101, digest):
            self.assertEqual(self.receive(message), "unexpected", message)
        self.assertEqual((self.tally.unexpected, self.tally.responders), (4, {}))

    def test_equal_requests_are_answered_oldest_first(self) -> None:
        """After as many answers as requests, further answers are duplicates."""
        self.send(b"a")
        self.send(b"a", now=0.5)
        found = [self.receive(b"a", now) for now in (1.0, 1.25, 1.5)]
        self.assertEqual(found, ["answer", "answer", "duplicate"])
        trips = self.tally.responders[""].round_trips
        self.assertEqual((trips.shortest, trips.longest), (0.75, 1.0))

    def test_equal_requests_that_timed_out_are_passed_over(self) -> None:
        """The answer belongs to the request whose timeout has not passed."""
        self.send(b"a")
        self.send(b"a", now=10.5)
        self.assertEqual(self.receive(b"a", 11.0), "answer")
        self.assertEqual(self.tally.responders[""].round_trips.longest, 0.5)

    def test_each_responder_may_answer_each_request(self) -> None:
        """Each responder has its own figures; a request counts as answered once."""
        self.send(b"a", b"b")
        for name, message in (("one", b"a"), ("two", b"a"), ("two", b"a"), ("two", b"b")):
            self.receive(message, name=name)
        one, two = self.tally.responders.values()
        self.assertEqual((one.received, one.duplicates), (1, 0))
        self.assertEqual((two.received, two.duplicates), (2, 1))
        self.assertEqual(self.tally.answered, 2)

    def test_responders_are_bounded(self) -> None:
        """Any host on the network may answer, from any number of ports."""
        self.send(b"a")
        for number in range(MAX_RESPONDERS):
            self.assertEqual(self.receive(b"a", name=str(number)), "answer", f"{number=}")
        self.assertEqual(self.receive(b"a", name="one more"), "")
        self.assertEqual(len(self.tally.responders), MAX_RESPONDERS)
        self.assertEqual((self.tally.answered, self.tally.others.received), (1, 1))

    def test_a_request_that_only_an_unlisted_responder_answers_is_not_lost(self) -> None:
        """All unlisted responders count as one."""
        self.send(b"a")
        for number in range(MAX_RESPONDERS):
            self.receive(b"a", name=str(number))
        self.send(b"b")
        for name in ("one more", "another", "one more"):
            self.assertEqual(self.receive(b"b", name=name), "", name)
        self.assertEqual((self.tally.answered, self.tally.others.received), (2, 1))

    def test_messages_are_bounded(self) -> None:
        """The oldest message is forgotten when the limit is exceeded, and not before."""
        self.send(b"first")
        self.send(*(b"%d" % number for number in range(MAX_REMEMBERED - 1)))
        self.assertTrue(self.tally.was_sent(b"first"))
        self.send(b"last")
        self.assertFalse(self.tally.was_sent(b"first"))

    @given(lists(integers(0, 30), max_size=40))
    def test_the_counts_of_different_messages_are_exact(self, order: list[int]) -> None:
        """Answers may be lost, repeated or reordered."""
        tally = Tally(10.0)
        for number in range(31):
            tally.send(b"%d" % number, 0.0)
        for now, number in enumerate(order):
            tally.receive(b"%d" % number, "", now)
        self.assertEqual(tally.answered, len(set(order)))
        duplicates = sum(one.duplicates for one in tally.responders.values())
        self.assertEqual(duplicates, len(order) - len(set(order)))

    @given(lists(tuples(sampled_from(["send", "a", "b"]), sampled_from([b"x", b"y" * 50]))))
    def test_each_answer_is_counted_once(self, events: list[tuple[str, bytes]]) -> None:
        """With equal requests, too, there are never more answers than requests."""
        tally = Tally(3.0)
        answers = 0
        for now, (name, message) in enumerate(events):
            if name == "send":
                tally.send(message, now)
            else:
                answers += 1
                tally.receive(message, name, now)
        counted = sum(one.received + one.duplicates for one in tally.responders.values())
        self.assertEqual(counted + tally.unexpected, answers)
        for one in tally.responders.values():
            self.assertLessEqual(one.received, tally.answered, f"{one=}")
        self.assertLessEqual(tally.answered, tally.sent)
