"""A peer may have several addresses, and be gone from any of them."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.cli.datagram_conversations import DatagramConversation
from twsock.cli.texts import InputLines
from twsock.errors import SocketError, SocketErrorStatus


class PeerTests(SynchronousTestCase):
    """Datagrams go to the first address that does not refuse."""

    def test_the_port_is_connected(self) -> None:
        """So the kernel drops what others send, and tells who refuses; in either family."""
        for endpoint, peer, wildcard in (
            ("udp:192.0.2.1:7", ("192.0.2.1", 7), "0.0.0.0"),
            ("udp:[2001:db8::1]:7", ("2001:db8::1", 7), "::"),
        ):
            conversation = DatagramConversation(b"a", endpoint=endpoint)
            (port,) = conversation.ports
            self.assertEqual((port.peer, port.interface, port.port), (peer, wildcard, 0))
            self.assertEqual(port.sent, [(b"a", None)])

    def test_a_refusal_is_told_at_once(self) -> None:
        """With where, why, and what to look into."""
        conversation = DatagramConversation(b"a", count=2)
        conversation.refuse()
        self.assertEqual(
            conversation.fails(self),
            "192.0.2.1:7 refused: ConnectionResetByPeer (18): nobody; is a server running there?",
        )

    def test_a_refusal_is_told_while_the_user_thinks(self) -> None:
        """Not with the next line."""
        conversation = DatagramConversation(texts=InputLines(Deferred, 100))
        conversation.refuse()
        self.assertIn("192.0.2.1:7 refused", conversation.fails(self))

    def test_a_refusal_in_the_middle_leaves_the_figures(self) -> None:
        """The server went away: what was before is told, too."""
        conversation = DatagramConversation(b"a", count=3)
        conversation.receive(b"a")
        conversation.refuse()
        self.assertIn("192.0.2.1:7 refused", conversation.fails(self))
        self.assertIn("2 sent, 1 answered, 1 awaited, 0 lost;", conversation.lines[-1])

    def test_the_next_address_is_tried(self) -> None:
        """As long as nothing has come back, with the same request, which was not lost by that."""
        conversation = DatagramConversation(
            b"a", endpoint="udp:name:7", addresses=("::1", "127.0.0.1")
        )
        self.assertEqual(conversation.sent(), [b"a"])
        conversation.clock.advance(1.5)
        conversation.refuse()
        self.assertFalse(conversation.ports[0].is_open)
        self.assertEqual(conversation.ports[1].peer, ("127.0.0.1", 7))
        self.assertEqual(conversation.sent(), [b"a"])
        # Of the timeout that began anew.
        conversation.clock.advance(1.5)
        conversation.receive(b"a")
        conversation.ends(self)
        self.assertEqual(len(conversation.lines), 3)

    def test_an_address_that_was_left_has_nothing_to_say(self) -> None:
        """What its port still tells is of no account."""
        conversation = DatagramConversation(
            b"a", endpoint="udp:name:7", addresses=("::1", "127.0.0.1")
        )
        conversation.refuse()
        conversation.refuse(port=0)
        conversation.receive(b"a", port=0)
        self.assertNoResult(conversation.done)
        conversation.receive(b"a")
        conversation.ends(self)

    def test_a_send_that_fails_is_told(self) -> None:
        """As where a firewall forbids it."""
        conversation = DatagramConversation(b"a")
        forbidden = SocketError("forbidden", status=SocketErrorStatus.UNREACHABLE_HOST)
        conversation.ports[0].protocol.send_failed(forbidden, None, 1)
        self.assertEqual(
            conversation.fails(self),
            f"192.0.2.1:7 cannot be sent to: {forbidden.summary}",
        )

    def test_an_address_without_a_way_is_left_out(self) -> None:
        """As IPv6 is on a machine that has none; the last one is told."""
        conversation = DatagramConversation(
            b"a", endpoint="udp:name:7", addresses=("::1", "127.0.0.1"), unreachable=("::1",)
        )
        self.assertFalse(conversation.ports[0].is_open)
        self.assertEqual(conversation.sent(), [b"a"])
        conversation = DatagramConversation(b"a", unreachable=("192.0.2.1",))
        self.assertEqual(
            conversation.fails(self),
            "cannot send to 192.0.2.1:7: NetworkIsUnreachable (13): no way",
        )

    def test_a_refusal_with_no_way_to_the_next_address_is_told(self) -> None:
        """The line is about the last one."""
        conversation = DatagramConversation(
            b"a",
            endpoint="udp:name:7",
            addresses=("127.0.0.1", "2001:db8::1"),
            unreachable=("2001:db8::1",),
        )
        conversation.refuse()
        self.assertIn("cannot send to [2001:db8::1]:7: ", conversation.fails(self))

    def test_a_port_that_takes_no_more_is_told(self) -> None:
        """It is not counted as lost."""
        conversation = DatagramConversation(b"a", b"b")
        conversation.ports[0].error = SocketError("no more", status=SocketErrorStatus.UNKNOWN)
        conversation.receive(b"a")
        self.assertIn("cannot send to 192.0.2.1:7: ", conversation.fails(self))

    def test_the_last_address_that_refuses_is_told(self) -> None:
        """IPv6 ones in brackets."""
        conversation = DatagramConversation(
            b"a", endpoint="udp:name:7", addresses=("127.0.0.1", "fe80::1%eth0")
        )
        conversation.refuse()
        conversation.refuse()
        self.assertIn("[fe80::1%eth0]:7 refused: ", conversation.fails(self))

    def test_an_interval_begins_when_the_address_is_known(self) -> None:
        """Until an answer has come, or has not come in time, requests go one by one."""
        for answers in (True, False):
            conversation = DatagramConversation(
                *(b"a", b"b", b"c"),
                endpoint="udp:name:7",
                addresses=("::1", "127.0.0.1"),
                interval=0.25,
            )
            conversation.clock.advance(1.0)
            self.assertEqual(conversation.sent(), [b"a"])
            if answers:
                conversation.receive(b"a")
            else:
                conversation.clock.advance(1.0)
            self.assertEqual(conversation.sent(), [b"b"])
            conversation.clock.advance(0.25)
            self.assertEqual(conversation.sent(), [b"c"])

    def test_an_address_that_answered_is_kept(self) -> None:
        """A refusal is the end then, though another address is known."""
        conversation = DatagramConversation(
            b"a", b"b", endpoint="udp:name:7", addresses=("::1", "127.0.0.1")
        )
        conversation.receive(b"a")
        conversation.refuse()
        self.assertIn("[::1]:7 refused: ", conversation.fails(self))
        self.assertEqual(len(conversation.ports), 1)
