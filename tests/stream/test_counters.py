"""The numbers of connections."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from tests.stream.connections import Connected, FrameRecorder, Waiting
from twsock.protocols import FrameEcho, FrameProtocol, LineEcho, LineProtocol
from twsock.stream.counters import Counters
from twsock.wire.frames import encode_frame

FRAME = encode_frame(b"hello")


class CountersTests(SynchronousTestCase):
    """`Counters` on their own."""

    def test_every_number_is_added(self) -> None:
        """A new kind of number needs no line in ``add``."""
        one, other = Counters(), Counters()
        for counters in (one, other):
            for place, each in enumerate(fields(counters), 1):
                value = getattr(counters, each.name)
                if isinstance(value, dict):
                    value[place] = place
                elif isinstance(value, (int, float)):
                    setattr(counters, each.name, value + place)
                else:
                    value.observe(place)
        one.add(other)
        for place, each in enumerate(fields(one), 1):
            value = getattr(one, each.name)
            if isinstance(value, dict):
                value = value[place]
            self.assertEqual(getattr(value, "total", value), 2 * place, each.name)

    def test_a_peer_chooses_among_few_codes(self) -> None:
        """All codes of applications have two keys."""
        counters = Counters()
        for code in (1000, 1000, 1006, 3000, 3999, 4000, 4999):
            counters.count_close(code)
        self.assertEqual(counters.closes, {1000: 2, 1006: 1, 3000: 2, 4000: 2})

    def test_full_outputs_are_timed_without_a_time_for_each(self) -> None:
        """Those that are full now count up to now."""
        counters = Counters()
        counters.output_filled(10.0)
        counters.output_filled(11.0)
        self.assertEqual(counters.seconds_full(12.0), 3.0)
        counters.output_emptied(12.5)
        self.assertEqual((counters.paused, counters.full), (2, 1))
        self.assertEqual(counters.seconds_full(13.0), 4.5)


class ConnectionTests(SynchronousTestCase):
    """What a connection counts."""

    def test_sent_messages_are_counted(self) -> None:
        """Answers of an echo and of a handler, and messages outside a handler."""

        class Twice(FrameProtocol):
            def frame_received(self, payload: bytes) -> None:
                self.send_frame(payload)
                self.send_frame(bytes(5000))

        class TwiceAsLines(LineProtocol):
            def line_received(self, line: bytes) -> None:
                self.send_line(line)
                self.send_line(line)

        for protocol, data, count in (
            (FrameEcho, FRAME * 3, 3),
            (LineEcho, b"a\r\nb\n", 2),
            (Twice, FRAME * 2, 4),
            (TwiceAsLines, b"a\r\n", 2),
        ):
            connected: Any = Connected(protocol)
            connected.receive(data)
            self.assertEqual(connected.factory.counters.messages_sent, count, protocol)

    def test_a_handler_that_waits_is_timed(self) -> None:
        """From its first wait to its end, in order or with an error."""
        connected = Connected(Waiting)
        connected.receive(FRAME * 2)
        connected.clock.advance(0.02)
        connected.protocol.go_on()
        connected.clock.advance(3)
        connected.reset()
        counters = connected.factory.counters
        self.assertEqual(sum(counters.handler_seconds.counts), 2)
        self.assertAlmostEqual(counters.handler_seconds.total, 3.02)

    def test_a_handler_that_does_not_wait_is_not_timed(self) -> None:
        """Reading the clock twice would cost as much as a small handler."""

        class Ready(FrameProtocol):
            async def frame_received(self, payload: bytes) -> None:
                await succeed(None)

        for protocol in (FrameRecorder, Ready):
            connected: Any = Connected(protocol)
            connected.receive(FRAME)
            timed = sum(connected.factory.counters.handler_seconds.counts)
            self.assertEqual(timed, 0, protocol)

    def test_a_deferred_is_timed(self) -> None:
        """A handler may return one."""
        waits: list[Deferred[None]] = []

        class Slow(FrameProtocol):
            def frame_received(self, payload: bytes) -> Deferred[None]:
                waits.append(Deferred())
                return waits[-1]

        connected = Connected(Slow)
        connected.receive(FRAME)
        connected.clock.advance(2)
        waits[0].callback(None)
        self.assertEqual(connected.factory.counters.handler_seconds.total, 2)

    def test_a_full_output_is_timed_until_it_has_room_or_ends(self) -> None:
        """No connection is full after its end."""
        for ends in (False, True):
            connected = Connected(FrameEcho)
            producer: Any = connected.transport.producer
            producer.pauseProducing()
            connected.receive(FRAME)
            connected.clock.advance(1.5)
            if ends:
                connected.reset()
            else:
                producer.resumeProducing()
            connected.clock.advance(10)
            counters = connected.factory.counters
            self.assertEqual((counters.paused, counters.full), (1, 0), f"{ends=}")
            self.assertEqual(counters.seconds_full(connected.clock.seconds()), 1.5, f"{ends=}")

    def test_an_end_is_counted(self) -> None:
        """In order or not."""
        connected = Connected(FrameEcho)
        self.assertEqual(connected.factory.counters.ended, 0)
        connected.lose()
        self.assertEqual(connected.factory.counters.ended, 1)

    def test_an_output_that_was_full_before_a_write_is_timed(self) -> None:
        """The application asked whether it is full, and nothing was written."""
        connected = Connected(FrameRecorder)
        producer: Any = connected.transport.producer
        producer.pauseProducing()
        self.assertTrue(connected.protocol.is_full)
        connected.clock.advance(0)
        self.assertEqual(connected.factory.counters.full, 1)
        connected.clock.advance(2)
        producer.resumeProducing()
        counters = connected.factory.counters
        self.assertEqual((counters.paused, counters.full), (1, 0))
        self.assertEqual(counters.seconds_full(connected.clock.seconds()), 2)
