"""
The memory that a peer can take from a server, measured: idle, hostile, and never reading.

Each test measures a `WebSocketEcho` and an echo on a `ServerMessageWebSocket`, with the defaults.
The figures are those of docs/websockets.rst, "Memory".
"""

from __future__ import annotations

import gc
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.sockets.websocket.accepted import REQUEST, Accepted
from tests.sockets.websocket.test_server import echo
from tests.websocket.connections import END, Connected
from tests.websocket.connections import REQUEST as OPEN_REQUEST
from tests.websocket.frame_bytes import MIB, client_frame, pieces, pull_all
from twsock.protocols import WebSocketEcho
from twsock.websocket import DeflateSettings
from twsock.websocket.messages import MessageDecoder

KIB = 1024
HIGH_WATER = 64 * KIB
#: The size of the reads of these tests: that of a first read of Twisted.
READ = 64 * KIB
OFFER = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"


async def receive_nothing(_listener: object, _args: Any) -> None:
    await Deferred()


class OfProtocol:
    """
    An echo of the protocol class.

    :param other: another connection of the same factory; None to make a factory.
    """

    #: Messages that may be in memory together with the high water.
    messages = 1

    def __init__(
        self,
        compression: DeflateSettings | None = None,
        other: OfProtocol | None = None,
        **settings: Any,
    ) -> None:
        factory = None if other is None else other.made.factory
        clock = None if other is None else other.made.clock
        self.made: Connected[WebSocketEcho] = Connected(
            WebSocketEcho, "192.0.2.1", clock, factory, compression=compression, **settings
        )
        self.made.receive(OPEN_REQUEST + OFFER + END)
        self.made.sent()

    @property
    def held(self) -> int:
        """Bytes received and not handled, or not passed to the transport."""
        return self.made.protocol.buffered


class OfListener:
    """
    An echo of the awaitable class.

    :param other: another connection of the same listener; None to make a listener.
    """

    #: One above the high water, one that the application sends, and one that it will receive.
    messages = 3

    def __init__(
        self,
        compression: DeflateSettings | None = None,
        other: OfListener | None = None,
        handler: Any = echo,
    ) -> None:
        if other is None:
            self.made = Accepted(handler, compression=compression)
        else:
            self.made = other.made.accept_another()
        self.made.receive(REQUEST[:-2] + OFFER + END)
        self.made.sent()

    @property
    def held(self) -> int:
        """Bytes received and not taken, or not passed to the transport."""
        return int(self.made.protocol.stream.buffered)


KINDS: tuple[Any, ...] = (OfProtocol, OfListener)


def stop_reading(one: Any) -> None:
    """Let the transport report that the peer does not read."""
    one.made.transport.producer.pauseProducing()


def flood(one: Any, stream: bytes) -> int:
    """Deliver a stream while the server reads; return the most bytes that it has held."""
    most = 0
    for piece in pieces(stream, READ):
        if one.made.transport.producerState == "paused":
            break
        one.made.receive(piece)
        one.made.sent()
        most = max(most, one.held)
    return most


@contextmanager
def traced() -> Iterator[None]:
    """Trace memory from now on."""
    gc.collect()
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def _measure_group(make: Callable[[], object]) -> tuple[float, str]:
    """
    Make 50 connections, and keep them meanwhile.

    :returns: KiB that the code of twsock has allocated for each; and the lines that took most.
    """
    with traced():
        kept = [make() for _ in range(50)]
        ours = tracemalloc.Filter(True, "*/twsock/*")
        found = tracemalloc.take_snapshot().filter_traces([ours]).statistics("lineno")
    size = sum(each.size for each in found) / len(kept) / KIB
    return size, "\n".join(str(each) for each in found[:10])


class BoundsTests(SynchronousTestCase):
    """Bytes of memory."""

    def test_idle_connection_takes_few_objects(self) -> None:
        """KiB for each connection after its handshake, without the objects of Twisted."""
        for kind, settings, most in (
            (OfProtocol, None, 2.0),
            (OfProtocol, DeflateSettings(), 2.2),
            (OfListener, None, 5.5),
            (OfListener, DeflateSettings(), 5.7),
        ):
            make: Any = kind
            first = make(settings)
            # A table of the process may grow while one group is made. Three groups never all pay.
            groups = [_measure_group(partial(make, settings, first)) for _ in range(3)]
            size, lines = min(groups, key=lambda group: group[0])
            self.assertLess(size, most, f"{kind.__name__} {settings}\n{lines}")

    def test_bomb_takes_less_than_twice_its_limit(self) -> None:
        """64 MiB in 64 KiB."""
        compressor = zlib.compressobj(9, wbits=-15)
        bomb = compressor.compress(bytes(64 * MIB)) + compressor.flush(zlib.Z_SYNC_FLUSH)
        frame = client_frame(0xC2, bomb[:-4])
        for kind in KINDS:
            one = kind(DeflateSettings())
            with traced():
                for piece in pieces(frame, READ):
                    one.made.receive(piece)
                peak = tracemalloc.get_traced_memory()[1]
            self.assertLess(peak, 2 * MIB, kind.__name__)
            self.assertEqual(one.made.frames()[-1][1][:2], b"\x03\xf1", kind.__name__)

    def test_peer_that_never_reads_is_bounded(self) -> None:
        """The high water, one read, and the messages above; then the server does not read."""
        for size in (100, 10_000, MIB):
            frame = client_frame(0x82, bytes(size))
            stream = frame * (5 * MIB // size)
            for kind in KINDS:
                one = kind()
                stop_reading(one)
                most = flood(one, stream)
                bound = HIGH_WATER + READ + kind.messages * len(frame)
                self.assertLessEqual(most, bound, f"{kind.__name__} {size=}")
                self.assertEqual(one.made.transport.producerState, "paused", f"{size=}")

    def test_incomplete_messages_of_all_connections_are_bounded(self) -> None:
        """At ``max_buffered`` the connection that holds most is aborted."""
        first = OfProtocol(max_buffered=1000)
        large = OfProtocol(other=first)
        first.made.receive(client_frame(0x02, bytes(300)))
        large.made.receive(client_frame(0x02, bytes(650)))
        self.assertFalse(large.made.is_aborted)
        first.made.receive(client_frame(0x00, bytes(60)))
        self.assertTrue(large.made.is_aborted)
        self.assertFalse(first.made.is_aborted)

    def test_flood_of_pings_is_bounded(self) -> None:
        """Whether or not the peer reads the pongs, and the application receives messages."""
        pings = client_frame(0x89, b"x" * 125) * 8000
        for make in (*KINDS, lambda: OfListener(handler=receive_nothing)):
            for reads in (True, False):
                one = make()
                if not reads:
                    stop_reading(one)
                self.assertLessEqual(flood(one, pings), HIGH_WATER + READ, f"{one} {reads=}")

    def test_application_that_receives_nothing_stops_the_reading(self) -> None:
        """Behind the first message that it has not taken, and pings behind that are not read."""
        one = OfListener(handler=receive_nothing)
        one.made.receive(client_frame(0x81, b"a"))
        self.assertEqual(one.made.transport.producerState, "paused")
        self.assertEqual(one.held, 1)

    def test_fragments_of_one_byte_take_little(self) -> None:
        """All 1,024 of them; and 20,000 if a server allows that many, within 64 MiB."""
        for count, size in ((1024, MIB), (20_000, 64 * MIB)):
            decoder = MessageDecoder(is_server=True, max_message_size=size, max_fragments=count)
            stream = client_frame(0x02, b"x") + client_frame(0x00, b"x") * (count - 2)
            last = client_frame(0x80, b"x")
            with traced():
                ((_, payload, _),) = pull_all(decoder, stream + last, READ)
                peak = tracemalloc.get_traced_memory()[1]
            self.assertEqual(payload, b"x" * count)
            self.assertLess(peak, 5 * READ, f"{count=}")
