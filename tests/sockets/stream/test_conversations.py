"""Recorded conversations of the samples give the same answers, however the bytes are cut."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.sockets.stream.connected import InMemory
from twsock import ByteOrder, DataReader, DataWriter, StreamSocket, UnicodeEncoding

LITTLE = ByteOrder.LITTLE_ENDIAN


async def echo_lines(socket: StreamSocket) -> None:
    """Send each line back, as the C# page of the guide does."""
    while True:
        line = await socket.input_stream.receive_until(b"\r\n", 100)
        socket.output_stream.write(line + b"\r\n")


def frame_echo(order: ByteOrder, encoding: UnicodeEncoding, unit: int) -> Any:
    """Return a server of texts, each with its number of code units before it."""

    async def serve(socket: StreamSocket) -> None:
        reader, writer = DataReader(socket.input_stream), DataWriter(socket.output_stream)
        reader.byte_order = writer.byte_order = order
        reader.unicode_encoding = writer.unicode_encoding = encoding
        while await reader.load(4) == 4:
            count = reader.read_uint32()
            if await reader.load(count * unit) != count * unit:
                break
            text = reader.read_string(count)
            writer.write_uint32(writer.measure_string(text) // unit)
            writer.write_string(text)
            await writer.store()

    return serve


async def count_texts(socket: StreamSocket) -> None:
    """Receive texts until the peer closes, then send their number, as the sample does."""
    reader = DataReader(socket.input_stream)
    texts = 0
    while await reader.load(4) == 4:
        size = reader.read_uint32()
        if await reader.load(size) != size:
            break
        texts += reader.read_string(size) == "Hello"
    socket.output_stream.write(b"%d" % texts)


class Golden(NamedTuple):
    """Bytes sent to a server, and its answer."""

    server: Callable[[StreamSocket], Coroutine[Deferred[Any], Any, None]]
    request: bytes
    response: bytes


HELLO = b"\0\0\0\5Hello"
WIDE = "Grüße".encode("utf-16-le")

CONVERSATIONS = {
    "C# echo page": Golden(echo_lines, b"Hello, World!\r\n", b"Hello, World!\r\n"),
    "C++ echo page": Golden(
        frame_echo(ByteOrder.BIG_ENDIAN, UnicodeEncoding.UTF8, 1),
        b"\0\0\0\x0dHello, World!" * 2,
        b"\0\0\0\x0dHello, World!" * 2,
    ),
    "StreamSocket sample": Golden(count_texts, HELLO * 3, b"3"),
    "Wi-Fi Direct sample": Golden(
        frame_echo(LITTLE, UnicodeEncoding.UTF8, 1), b"\5\0\0\0Hello", b"\5\0\0\0Hello"
    ),
    "UTF-16": Golden(
        frame_echo(LITTLE, UnicodeEncoding.UTF16_LE, 2),
        b"\5\0\0\0" + WIDE,
        b"\5\0\0\0" + WIDE,
    ),
    "an empty frame": Golden(
        frame_echo(ByteOrder.BIG_ENDIAN, UnicodeEncoding.UTF8, 1), b"\0\0\0\0", b"\0\0\0\0"
    ),
    "half a frame": Golden(count_texts, HELLO + HELLO[:7], b"1"),
}


def converse(golden: Golden, *pieces: bytes) -> bytes:
    """Send a request in pieces, then FIN; return the response."""
    connected = InMemory()
    serving = Deferred.fromCoroutine(golden.server(connected.socket))
    serving.addErrback(lambda _: None)  # The server fails at the end of the stream.
    connected.receive(*pieces)
    connected.end()
    connected.clock.advance(0)
    return connected.sent()


class ConversationTests(SynchronousTestCase):
    """Each conversation, whole and cut."""

    def test_the_whole_conversation_in_one_piece(self) -> None:
        """The server answers it."""
        for name, golden in CONVERSATIONS.items():
            self.assertEqual(converse(golden, golden.request), golden.response, name)

    def test_the_conversation_cut_in_two_at_every_byte(self) -> None:
        """The answer is the same."""
        for name, golden in CONVERSATIONS.items():
            for place in range(1, len(golden.request)):
                pieces = golden.request[:place], golden.request[place:]
                self.assertEqual(converse(golden, *pieces), golden.response, (name, place))

    def test_the_conversation_byte_by_byte(self) -> None:
        """The answer is the same."""
        for name, golden in CONVERSATIONS.items():
            pieces = [bytes([byte]) for byte in golden.request]
            self.assertEqual(converse(golden, *pieces), golden.response, name)
