"""Requests leave at their times, and all that comes back is told."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.cli.datagram_conversations import DatagramConversation
from twsock.cli.datagram_score import MAX_AWAITED
from twsock.cli.made_texts import make_numbered
from twsock.cli.texts import InputLines

TIMES = "round trip min/median/p99/max"
NO_TIMES = "0.00/0.00/0.00/0.00 ms"


class TimesTests(SynchronousTestCase):
    """One after the other, or at an interval."""

    def test_the_next_leaves_when_the_last_was_answered(self) -> None:
        """Each text as often as asked for, empty ones too."""
        conversation = DatagramConversation(b"a", b"", count=2)
        for text in (b"a", b"a", b"", b""):
            self.assertEqual(conversation.sent(), [text])
            conversation.receive(text)
        conversation.ends(self)

    def test_the_next_leaves_when_the_last_has_timed_out(self) -> None:
        """Not before, and the last one is waited for as long."""
        conversation = DatagramConversation(b"a", b"b", timeout=2.0)
        conversation.clock.advance(1.9)
        self.assertEqual(conversation.sent(), [b"a"])
        conversation.clock.advance(0.1)
        self.assertEqual(conversation.sent(), [b"b"])
        conversation.clock.advance(1.9)
        self.assertNoResult(conversation.done)
        conversation.clock.advance(0.1)
        self.assertIn("no answer within 2 s", conversation.fails(self))

    def test_an_interval_is_kept_whatever_comes_back(self) -> None:
        """Several requests are on their way then."""
        conversation = DatagramConversation(size=8, count=3, interval=0.5, timeout=10.0)
        for number in range(3):
            self.assertEqual(conversation.sent(), [make_numbered(number, 8)])
            conversation.clock.advance(0.5)
        for number in range(3):
            self.assertNoResult(conversation.done)
            conversation.receive(make_numbered(number, 8))
        conversation.clock.advance(1.5)
        conversation.ends(self)

    def test_an_early_answer_does_not_shorten_the_interval(self) -> None:
        """It runs from send to send."""
        conversation = DatagramConversation(b"a", count=2, interval=3.0)
        conversation.receive(*conversation.sent())
        conversation.clock.advance(2.9)
        self.assertEqual(conversation.sent(), [])
        conversation.clock.advance(0.1)
        self.assertEqual(conversation.sent(), [b"a"])

    def test_an_interval_too_short_to_keep_leaves_the_reactor_its_turns(self) -> None:
        """One before each request, or no answer would be read."""
        conversation = DatagramConversation(size=8, count=9, interval=1e-30, timeout=1e9)
        conversation.clock.delays.clear()
        # So late that such an interval does not make it later.
        conversation.clock.advance(1e6)
        self.assertEqual(len(conversation.sent()), 9)
        self.assertEqual(conversation.clock.delays.count(0.0), 7)

    def test_a_full_port_is_waited_for(self) -> None:
        """Until it says that there is room."""
        conversation = DatagramConversation(b"a", b"b")
        (port,) = conversation.ports
        port.is_full = True
        conversation.receive(*conversation.sent())
        self.assertEqual(conversation.sent(), [])
        port.is_full = False
        port.protocol.output_drained()
        self.assertEqual(conversation.sent(), [b"b"])

    def test_no_more_is_on_the_way_than_can_be_counted(self) -> None:
        """The interval waits for an answer then."""
        conversation = DatagramConversation(
            size=8, count=MAX_AWAITED + 1, interval=1.0, timeout=1e6, quiet=True
        )
        conversation.clock.pump([1.0] * (MAX_AWAITED + 9))
        self.assertEqual(len(conversation.sent()), MAX_AWAITED)
        conversation.receive(make_numbered(5, 8))
        self.assertEqual(conversation.sent(), [make_numbered(MAX_AWAITED, 8)])

    def test_input_is_read_when_it_is_wanted(self) -> None:
        """The next line is asked for when the last was answered."""
        reads: list[Deferred[bytes]] = []

        def read() -> Deferred[bytes]:
            reads.append(Deferred())
            return reads[-1]

        conversation = DatagramConversation(texts=InputLines(read, 100))
        reads[0].callback(b"one\n")
        self.assertEqual((conversation.sent(), len(reads)), ([b"one"], 1))
        conversation.receive(b"one")
        reads[1].callback(b"")
        conversation.ends(self)

    def test_the_last_duplicate_is_waited_for(self) -> None:
        """As long as the slowest answer took."""
        conversation = DatagramConversation(b"a", count=2, timeout=5.0)
        conversation.clock.advance(1.5)
        conversation.receive(b"a")
        conversation.receive(b"a")
        self.assertNoResult(conversation.done)
        conversation.clock.advance(1.4)
        conversation.receive(b"a")
        conversation.clock.advance(0.1)
        conversation.ends(self)
        self.assertIn(", 1 duplicate;", conversation.lines[-1])


class TellingTests(SynchronousTestCase):
    """What a user sees of it."""

    def test_the_lines_are_exact(self) -> None:
        """Those of a stream, without the connection."""
        conversation = DatagramConversation(b"Hello, World!")
        conversation.receive(b"Hello, World!")
        conversation.ends(self)
        self.assertEqual(
            conversation.lines,
            [
                'client sent the request: "Hello, World!"',
                'client received the response: "Hello, World!"',
                "client closed its socket",
            ],
        )

    def test_quiet_leaves_the_responses(self) -> None:
        """Each request's first one, also when it is late."""
        conversation = DatagramConversation(b"a", b"b", quiet=True)
        conversation.clock.advance(2.0)
        conversation.receive(b"a", b"a", b"b", b"b")
        conversation.ends(self)
        self.assertEqual(conversation.lines, ["a", "b"])

    def test_made_up_messages_are_counted_and_not_shown(self) -> None:
        """Their number and size say it all."""
        conversation = DatagramConversation(size=10, count=2, interval=0.1)
        conversation.clock.advance(0.1)
        conversation.receive(*reversed(conversation.sent()))
        conversation.clock.advance(0.1)
        conversation.ends(self)
        self.assertEqual(
            conversation.lines,
            [
                "client sent the request: number 1, 10 bytes",
                "client sent the request: number 2, 10 bytes",
                "client received the response: number 2, 10 bytes",
                "client received the response: number 1, 10 bytes",
                "client closed its socket",
                f"2 sent, 2 answered, 0 lost, 1 out of order; {TIMES} 0.00/50.00/100.00/100.00 ms",
            ],
        )

    def test_quiet_names_made_up_messages(self) -> None:
        """Their bytes are of no use to anybody."""
        conversation = DatagramConversation(size=10, quiet=True)
        conversation.receive(*conversation.sent())
        conversation.ends(self)
        self.assertEqual(conversation.lines, ["number 1, 10 bytes"])

    def test_what_is_late_lost_or_comes_twice_has_a_line(self) -> None:
        """And the figures at the end."""
        conversation = DatagramConversation(b"a", b"b", b"c", timeout=1.0)
        conversation.clock.advance(1.0)
        conversation.receive(b"a", b"a")
        conversation.clock.advance(1.0)
        conversation.receive(b"c")
        self.assertEqual(conversation.fails(self), "of 3 datagrams, 1 lost (33.3 %)")
        self.assertEqual(
            conversation.lines,
            [
                'client sent the request: "a"',
                "nothing came back for request 1 within 1 s",
                'client sent the request: "b"',
                'client received the response late: "a"',
                'client received the response once more: "a"',
                "nothing came back for request 2 within 1 s",
                'client sent the request: "c"',
                'client received the response: "c"',
                "client closed its socket",
                f"3 sent, 1 answered, 1 late, 1 lost (33.3 %), 1 duplicate; {TIMES} {NO_TIMES}",
            ],
        )

    def test_late_answers_and_duplicates_are_no_failure(self) -> None:
        """Nothing was lost."""
        conversation = DatagramConversation(b"a", b"b", timeout=1.0)
        conversation.clock.advance(1.0)
        conversation.receive(b"a", b"a", b"b")
        conversation.ends(self)

    def test_bytes_that_were_not_sent_end_it(self) -> None:
        """They are shown, and then told."""
        for answer in (b"hollo", b"hell", b"", b"hello!"):
            conversation = DatagramConversation(b"hello", count=2)
            conversation.receive(answer)
            self.assertEqual(
                conversation.fails(self), f"{len(answer)} bytes came back that were not sent"
            )
            self.assertEqual(
                conversation.lines[1], f'client received the response: "{answer.decode()}"'
            )
            self.assertEqual(conversation.sent(), [b"hello"])

    def test_bytes_that_were_not_sent_end_it_while_the_user_thinks(self) -> None:
        """At once, not with the next line."""
        conversation = DatagramConversation(texts=InputLines(Deferred, 100))
        conversation.receive(b"?")
        self.assertEqual(conversation.fails(self), "1 bytes came back that were not sent")
