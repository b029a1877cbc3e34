"""All members of a group may answer, straight back or to the group."""

from __future__ import annotations

import socket
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.cli.datagram_conversations import GROUP, DatagramConversation
from twsock.errors import SocketError, SocketErrorStatus

MEMBER = ("192.0.2.9", 4000)
OTHER = ("192.0.2.10", 4000)


class GroupTests(SynchronousTestCase):
    """Datagrams go to all members."""

    def group(self, *messages: bytes, **settings: Any) -> DatagramConversation:
        settings.setdefault("timeout", 1.0)
        return DatagramConversation(
            *messages, endpoint="multicast:224.3.0.5:22113:ttl=3", **settings
        )

    def answer(self, conversation: DatagramConversation, message: bytes, source: Any) -> None:
        """Let a member answer straight back."""
        conversation.receive(message, source=source, port=0)

    def test_one_port_sends_and_one_is_a_member(self) -> None:
        """The one alone on its port, the other sharing that of the group."""
        conversation = self.group(b"a")
        sender, member = conversation.ports
        self.assertEqual(sender.sent, [(b"a", GROUP)])
        self.assertEqual(sender.options.multicast_hop_limit, 3)
        self.assertEqual((sender.port, sender.options.multicast_only), (0, False))
        self.assertEqual((member.port, member.options.multicast_only), (22113, True))
        self.assertEqual((sender.groups, member.groups), ([], ["224.3.0.5"]))
        self.assertEqual(sender.options.interface, socket.if_nametoindex("lo"))
        self.assertEqual(member.options.interface, sender.options.interface)

    def test_every_answer_is_told_with_whose_it_is(self) -> None:
        """For the whole timeout, and then there are the figures of each."""
        conversation = self.group(b"a")
        self.answer(conversation, b"a", MEMBER)
        self.answer(conversation, b"a", OTHER)
        self.answer(conversation, b"a", MEMBER)
        self.assertNoResult(conversation.done)
        conversation.clock.advance(1.0)
        conversation.ends(self)
        times = "round trip min/median/p99/max 0.00/0.00/0.00/0.00 ms"
        self.assertEqual(
            conversation.lines,
            [
                'client sent the request: "a"',
                '192.0.2.9:4000 answered: "a"',
                '192.0.2.10:4000 answered: "a"',
                '192.0.2.9:4000 answered once more: "a"',
                "client closed its socket",
                "1 sent, 1 answered by 2, 0 lost",
                f"192.0.2.9:4000: 1 answered, 0 lost, 1 duplicate; {times}",
                f"192.0.2.10:4000: 1 answered, 0 lost; {times}",
            ],
        )

    def test_one_answer_needs_no_figures(self) -> None:
        """With ``--quiet`` there is nothing but it."""
        for quiet, lines in (
            (True, ["a"]),
            (
                False,
                [
                    'client sent the request: "a"',
                    '192.0.2.9:4000 answered: "a"',
                    "client closed its socket",
                ],
            ),
        ):
            conversation = self.group(b"a", quiet=quiet)
            self.answer(conversation, b"a", MEMBER)
            conversation.clock.advance(1.0)
            conversation.ends(self)
            self.assertEqual(conversation.lines, lines)

    def test_the_first_answer_lets_the_next_request_go(self) -> None:
        """The others may still come, and only the last request is awaited to its end."""
        conversation = self.group(b"a", b"b")
        self.answer(conversation, b"a", MEMBER)
        self.assertEqual(conversation.sent(0), [b"a", b"b"])
        self.answer(conversation, b"b", MEMBER)
        conversation.clock.advance(0.9)
        self.answer(conversation, b"a", OTHER)
        self.answer(conversation, b"b", OTHER)
        conversation.clock.advance(0.1)
        conversation.ends(self)

    def test_an_answer_to_the_group_is_heard(self) -> None:
        """It comes from the group's port; a request does not, neither ours nor another's."""
        conversation = self.group(b"a")
        conversation.receive(b"a", source=("192.0.2.1", 50000), port=1)
        conversation.receive(b"other", source=("192.0.2.2", 22113), port=1)
        conversation.receive(b"a", source=("192.0.2.9", 22113), port=1)
        conversation.clock.advance(1.0)
        conversation.ends(self)
        self.assertEqual(conversation.lines[1:-1], ['192.0.2.9:22113 answered: "a"'])

    def test_what_was_not_sent_is_told_and_fails_in_the_end(self) -> None:
        """The others are still waited for."""
        conversation = self.group(b"a")
        self.answer(conversation, b"bc", OTHER)
        self.answer(conversation, b"a", MEMBER)
        conversation.clock.advance(1.0)
        self.assertEqual(conversation.fails(self), "1 datagram came back that was not sent")
        self.assertIn(
            "2 bytes came back from 192.0.2.10:4000 that were not sent", conversation.lines
        )

    def test_a_group_without_an_answer_is_told(self) -> None:
        """With what to look into."""
        for messages in ((b"a",), (b"a", b"b")):
            conversation = self.group(*messages)
            conversation.clock.pump([1.0, 1.0])
            self.assertEqual(
                conversation.fails(self),
                "no answer within 1 s: ConnectionTimedOut (3): 224.3.0.5:22113 sent nothing; "
                "is a member running there, and reached by the interface lo?",
            )

    def test_a_member_that_missed_one_is_told(self) -> None:
        """Though nothing was lost altogether."""
        conversation = self.group(b"a", b"b")
        self.answer(conversation, b"a", MEMBER)
        self.answer(conversation, b"a", OTHER)
        self.answer(conversation, b"b", OTHER)
        conversation.clock.advance(1.0)
        self.assertEqual(conversation.fails(self), "192.0.2.9:4000 did not answer 1 of 2 datagrams")

    def test_a_send_that_fails_is_told(self) -> None:
        """It is no loss."""
        conversation = self.group(b"a")
        away = SocketError("gone", status=SocketErrorStatus.NETWORK_IS_DOWN)
        conversation.ports[0].protocol.send_failed(away, GROUP, 1)
        self.assertEqual(
            conversation.fails(self), f"cannot send to 224.3.0.5:22113: {away.summary}"
        )

    def test_a_full_port_is_waited_for(self) -> None:
        """Until it says that there is room."""
        conversation = self.group(b"a", b"b")
        sender = conversation.ports[0]
        sender.is_full = True
        self.answer(conversation, b"a", MEMBER)
        self.assertEqual(conversation.sent(0), [b"a"])
        sender.is_full = False
        sender.protocol.output_drained()
        self.assertEqual(conversation.sent(0), [b"b"])

    def test_a_machine_without_ipv6_is_told(self) -> None:
        """There is no port to send from."""
        conversation = DatagramConversation(
            b"a", endpoint="multicast:[ff15::1]:22113", taken=(0, 22113)
        )
        self.assertIn("cannot send to [ff15::1]:22113: ", conversation.fails(self))

    def test_a_port_that_is_taken_costs_only_the_answers_to_the_group(self) -> None:
        """A note says so."""
        conversation = self.group(b"a", taken=(22113,))
        self.answer(conversation, b"a", MEMBER)
        conversation.clock.advance(1.0)
        conversation.ends(self)
        self.assertEqual(
            conversation.notes.getvalue(),
            "answers to the group are not heard: AddressAlreadyInUse (10): taken\n",
        )
