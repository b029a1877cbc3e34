"""One message to many connections: what each receives, and what each may do meanwhile."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.stream.test_protocol import OnKernel
from tests.websocket.connections import (
    END,
    REQUEST,
    Connected,
    Recorder,
    close,
    connected,
    text,
)
from twsock.protocols import broadcast
from twsock.websocket.deflate import DeflateSettings, Inflater
from twsock.websocket.factory import WebSocketFactory
from twsock.websocket.messages import MessageDecoder


class Acting(Recorder):
    """Does something when its output becomes full, or when its connection is lost."""

    paused: Callable[[], object] = staticmethod(lambda: None)
    gone: Callable[[], object] = staticmethod(lambda: None)

    def writing_paused(self) -> None:
        super().writing_paused()
        self.paused()

    def connection_lost(self, error: Any) -> None:
        super().connection_lost(error)
        self.gone()


class Speaking(Recorder):
    """Broadcasts each text between two answers."""

    everybody: list[Recorder]

    def text_received(self, text: str) -> None:
        self.send_text("before")
        self.events.append(broadcast(self.everybody, text))
        self.send_text("after")


def fill(made: Connected[Any]) -> None:
    """Let the transport report a full buffer."""
    made.transport.producer.pauseProducing()


def protocols(*connections: Connected[Any]) -> list[Any]:
    """Return the protocols of connections."""
    return [made.protocol for made in connections]


class BroadcastTests(SynchronousTestCase):
    """Which connections receive a message."""

    def test_each_connection_receives_the_message(self) -> None:
        """Text and binary, small and large, from any iterable."""
        rows = [connected(Recorder) for _ in range(3)]
        messages: list[tuple[str, str | bytes]] = [
            ("text", "Grüße"),
            ("binary", b"\0\xff"),
            ("text", "x" * 100_000),
        ]
        for kind, message in messages:
            self.assertEqual(broadcast(iter(protocols(*rows)), message), 3, kind)
            for made in rows:
                self.assertEqual(made.frames(), [(kind, message)], kind)

    def test_thousand_connections_receive_the_message(self) -> None:
        """Each sends the same bytes."""
        rows = [connected(Recorder) for _ in range(1000)]
        self.assertEqual(broadcast(protocols(*rows), b"x" * 70), 1000)
        self.assertEqual({made.sent() for made in rows}, {b"\x82\x46" + b"x" * 70})

    def test_nobody_receives_nothing(self) -> None:
        """Without connections the count is 0."""
        self.assertEqual(broadcast((), "x"), 0)

    def test_closed_and_opening_connections_are_skipped(self) -> None:
        """Connections that are not connected, opening, closing, closed or lost receive nothing."""
        unconnected, opening = Recorder(), Connected(Recorder)
        closing, left, lost, alive = (connected(Recorder) for _ in range(4))
        closing.protocol.close()
        left.receive(close(1000))
        lost.reset()
        for made in (closing, left):
            made.sent()
        rows = [opening, closing, left, lost, alive]
        self.assertEqual(broadcast([unconnected, *protocols(*rows)], "x"), 1)
        self.assertEqual([made.sent() for made in rows], [b""] * 4 + [b"\x81\x01x"])

    def test_message_of_another_type_is_sent_to_nobody(self) -> None:
        """An error of the caller ends no connection."""
        made = connected(Recorder)
        for wrong in (5, None, [1], {"a": 1}):
            with self.assertRaises(TypeError, msg=repr(wrong)):
                broadcast(protocols(made), wrong)  # type: ignore[arg-type]
        self.assertFalse(made.is_aborted)
        self.assertEqual(made.frames(), [])

    def test_text_without_a_form_in_utf_8_is_sent_to_nobody(self) -> None:
        """The caller gets the error."""
        made = connected(Recorder)
        with self.assertRaises(UnicodeEncodeError):
            broadcast([made.protocol], "\ud800")
        self.assertEqual(made.sent(), b"")

    def test_within_a_handler_the_order_is_kept(self) -> None:
        """The sender gets the message between its answers, the others at once."""
        speaker, other = connected(Speaking), connected(Recorder)
        speaker.protocol.everybody = protocols(speaker, other)
        speaker.receive(text("Hello"))
        expected = [("text", "before"), ("text", "Hello"), ("text", "after")]
        self.assertEqual(speaker.frames(), expected)
        self.assertEqual(other.frames(), [("text", "Hello")])
        self.assertEqual(speaker.protocol.events, ["made", 2])


class CostTests(SynchronousTestCase):
    """What one more receiver costs."""

    def count_calls(self, connections: list[Any]) -> int:
        """Return the number of Python calls of a broadcast."""
        calls = 0

        def count(_frame: object, event: str, _argument: object) -> None:
            nonlocal calls
            calls += event == "call"

        previous = sys.getprofile()
        sys.setprofile(count)
        try:
            broadcast(connections, "x" * 500)
        finally:
            sys.setprofile(previous)
        return calls

    def test_each_receiver_on_a_socket_takes_five_calls(self) -> None:
        """So 1,000 receivers take 1,000 system calls and little else."""
        factory = WebSocketFactory(Clock(), Recorder, ping_interval=None)
        rows = [OnKernel(lambda: factory.buildProtocol(None)) for _ in range(11)]
        for row in rows:
            self.addCleanup(row.close)
            row.protocol.dataReceived(REQUEST + END)
        connections = [row.protocol for row in rows]
        one, eleven = (self.count_calls(connections[:count]) for count in (1, 11))
        self.assertLessEqual(eleven - one, 10 * 5)


class CompressionTests(SynchronousTestCase):
    """Compressed once for all connections that agreed on the same."""

    def compressing(self, offer: bytes = b"", **settings: Any) -> Connected[Recorder]:
        """Return a connection with compression."""
        made = Connected(Recorder, compression=DeflateSettings(**settings))
        made.receive(
            REQUEST + b"Sec-WebSocket-Extensions: permessage-deflate" + offer + b"\r\n" + END
        )
        self.assertIn(b"Sec-WebSocket-Extensions: permessage-deflate", made.sent())
        return made

    def test_connections_without_a_context_share_the_result(self) -> None:
        """A smaller window has a result of its own, and so has a client without compression."""
        one, two = self.compressing(), self.compressing()
        small = self.compressing(b"; server_max_window_bits=9")
        plain = connected(Recorder)
        message = b"".join(b"%d " % number for number in range(1000)) * 2
        self.assertEqual(broadcast(protocols(one, two, small, plain), message), 4)
        sent = [made.sent() for made in (one, two, small, plain)]
        self.assertEqual(sent[0], sent[1])
        self.assertEqual(len(set(sent)), 3)
        for made, bits in zip(sent, (12, 12, 9, 12), strict=True):
            inflater = Inflater(window_bits=bits, keeps_context=False)
            decoder = MessageDecoder(is_server=False, max_message_size=1 << 20, inflater=inflater)
            decoder.feed(made)
            self.assertEqual([data for _, data, _ in decoder.messages()], [message], bits)

    def test_connections_with_a_context_have_their_own_result(self) -> None:
        """What a message refers to was sent on the same connection."""
        older, newer = (self.compressing(context_takeover=True) for _ in range(2))
        older.protocol.send_text("chorus " * 100)
        messages = [("text", "chorus " * 100)]
        for made, expected in ((older, messages * 2), (newer, messages)):
            made.decoder = MessageDecoder(
                is_server=False,
                max_message_size=1 << 20,
                inflater=Inflater(window_bits=12, keeps_context=True),
            )
            if made is older:
                self.assertEqual(broadcast(protocols(older, newer), "chorus " * 100), 2)
            self.assertEqual(made.frames(), expected)


class FailureTests(SynchronousTestCase):
    """Nothing that happens to one connection reaches the others."""

    def test_connection_that_does_not_read_is_aborted_at_its_limit(self) -> None:
        """The others receive each message; the aborted one is not counted, and logged once."""
        slow, fast = connected(Recorder, max_unsent=70_000), connected(Recorder)
        fill(slow)
        both = protocols(slow, fast)
        with capturedLogs() as logs:
            counts = [broadcast(both, b"x" * 40_000) for _ in range(5)]
        self.assertEqual(counts, [2, 2, 1, 1, 1])
        self.assertEqual(len([event for event in logs if event["log_level"] is LogLevel.warn]), 1)
        self.assertTrue(slow.is_aborted)
        self.assertEqual(slow.factory.counters.unsent_limit_aborts, 1)
        self.assertEqual(len(fast.frames()), 5)
        self.assertFalse(fast.is_aborted)

    def test_connections_that_do_not_read_have_one_limit_together(self) -> None:
        """At ``max_buffered`` the connection that holds most is aborted; the others stay."""
        first = connected(Recorder, max_buffered=100_000)
        slow = [first]
        for _ in range(9):
            made = Connected(Recorder, clock=first.clock, factory=first.factory)
            made.receive(REQUEST + END)
            made.sent()
            slow.append(made)
        for made in slow:
            fill(made)
        most = 0
        for _ in range(15):
            broadcast(protocols(*slow), b"x" * 1000)
            most = max(most, sum(made.protocol.buffered for made in slow if not made.is_aborted))
        self.assertLessEqual(most, 100_000 + 10_040)
        self.assertGreater(most, 80_000)
        self.assertIn(sum(made.is_aborted for made in slow), range(3, 6))

    def test_message_in_fragments_is_not_interrupted(self) -> None:
        """The connection is skipped, with one log line and no traceback."""
        busy, other = connected(Recorder), connected(Recorder)
        busy.protocol.send_fragment(b"a", False, False)
        with capturedLogs() as logs:
            self.assertEqual(broadcast(protocols(busy, other), "x"), 1)
        (line,) = [event for event in logs if event["log_level"] is LogLevel.warn]
        self.assertIn("sent in fragments", formatEvent(line))
        busy.protocol.send_fragment(b"b", False, True)
        self.assertEqual(busy.frames(), [("binary", b"ab")])
        self.assertEqual(broadcast(protocols(busy, other), "x"), 2)

    def test_failed_write_aborts_its_own_connection(self) -> None:
        """The error is logged, and the next connection receives the message."""
        broken, other = connected(Recorder), connected(Recorder)

        def write(_: bytes) -> None:
            raise RuntimeError("no transport for this")

        broken.transport.write = write
        self.assertEqual(broadcast(protocols(broken, other), "x"), 1)
        (failure,) = self.flushLoggedErrors(RuntimeError)
        self.assertEqual(str(failure.value), "no transport for this")
        self.assertTrue(broken.is_aborted)
        self.assertEqual(other.frames(), [("text", "x")])

    def test_failed_hook_closes_its_own_connection(self) -> None:
        """An error in ``writing_paused`` is logged."""

        def fail() -> None:
            raise RuntimeError("failed")

        first, second = connected(Acting), connected(Acting)
        first.protocol.paused = fail
        fill(first)
        self.assertEqual(broadcast(protocols(first, second), b"x" * 70_000), 1)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(len(second.frames()), 1)


class ReentranceTests(SynchronousTestCase):
    """A transport in memory causes events within the call."""

    def test_set_may_change_meanwhile(self) -> None:
        """One that leaves does not receive the message, and one that joins receives the next."""
        members: set[Any] = set()
        rows = [connected(Acting) for _ in range(3)]
        joining = connected(Acting)
        members.update(protocols(*rows))
        for made in rows:
            fill(made)
            made.protocol.paused = lambda: members.add(joining.protocol)
            made.protocol.gone = members.clear
        self.assertEqual(broadcast(members, b"x" * 70_000), 3)
        self.assertEqual(joining.sent(), b"")
        self.assertIn(joining.protocol, members)

    def test_connection_that_is_lost_meanwhile_is_skipped(self) -> None:
        """The first one takes the second with it; the third receives the message."""
        first, second, third = (connected(Acting) for _ in range(3))
        members = set(protocols(first, second, third))
        second.protocol.gone = lambda: members.discard(second.protocol)
        first.protocol.paused = second.reset
        fill(first)
        self.assertEqual(broadcast(protocols(first, second, third), b"x" * 70_000), 2)
        self.assertEqual(second.sent(), b"")
        self.assertEqual(members, set(protocols(first, third)))

    def test_connection_may_close_itself_meanwhile(self) -> None:
        """The connection sends the message in front of its close frame."""
        made = connected(Acting)
        fill(made)
        made.protocol.paused = made.protocol.close
        self.assertEqual(broadcast([made.protocol], b"x" * 70_000), 1)
        self.assertEqual([kind for kind, _ in made.frames()], ["binary", "close"])

    def test_broadcast_within_a_broadcast_is_sent(self) -> None:
        """The application announces who is slow; each connection receives both messages."""
        first, second = connected(Acting), connected(Acting)
        both = protocols(first, second)
        first.protocol.paused = lambda: broadcast(both, "one is slow")
        fill(first)
        self.assertEqual(broadcast(both, b"x" * 70_000), 2)
        for made in (first, second):
            self.assertEqual({kind for kind, _ in made.frames()}, {"binary", "text"})
