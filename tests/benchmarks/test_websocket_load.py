"""Tests of `benchmarks.websocket_load` and `benchmarks.websocket_client`, over loopback."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.processes import MeasurementError
from benchmarks.stream_load import Repeated
from benchmarks.websocket_client import Frame, compress, decompress, encode, read_frame
from benchmarks.websocket_load import WebSocketCase, WebSocketLoad, make_payloads
from twsock.websocket.frames import Opcode, encode_frame
from twsock.websocket.messages import MessageDecoder

_RESPONSE = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


class RepeatedTests(SynchronousTestCase):
    """Messages of different sizes repeat."""

    def test_offsets_and_counts_are_inverse(self) -> None:
        """A message counts with its last byte."""
        repeated = Repeated([b"a", b"bbb", b"cc"], window=4)
        for number in range(9):
            offset = repeated.offset(number)
            self.assertEqual(repeated.count(offset), number, number)
            self.assertEqual(repeated.count(offset - 1), number - 1, number)

    def test_stream_has_a_window_behind_the_period(self) -> None:
        """So that each window is one slice."""
        repeated = Repeated([b"a", b"bbb", b"cc"], window=4)
        self.assertEqual(repeated.stream[: repeated.period], b"abbbcc")
        self.assertGreaterEqual(len(repeated.stream), repeated.period + repeated.offset(4))


class FormatTests(SynchronousTestCase):
    """The client's own frames, beside the decoder of twsock."""

    def test_frames_are_those_of_a_client(self) -> None:
        """With each form of the length."""
        for size in (0, 125, 126, 65_535, 65_536):
            decoder = MessageDecoder(is_server=True, max_message_size=1 << 20)
            payload = bytes(range(256)) * (size // 256) + bytes(size % 256)
            decoder.feed(encode(Opcode.BINARY, payload))
            self.assertEqual(list(decoder.messages()), [(Opcode.BINARY, payload, True)], size)

    def test_frames_of_a_server_are_read(self) -> None:
        """With each form of the length."""
        here, there = socket.socketpair()
        with here, there:
            for size in (0, 125, 126, 65_535, 65_536):
                wire = encode_frame(Opcode.TEXT, b"x" * size)
                here.sendall(wire)
                self.assertEqual(read_frame(there), Frame(0x81, b"x" * size, wire), size)

    def test_compression_is_undone(self) -> None:
        """A message is complete without the bytes that end it."""
        self.assertEqual(decompress(compress(b"abc" * 100)), b"abc" * 100)

    def test_payloads_have_the_size_of_the_case(self) -> None:
        """Texts are UTF-8."""
        for is_text in (False, True):
            case = WebSocketCase(payload=64, window=8, is_text=is_text)
            payloads = make_payloads(case)
            self.assertEqual({len(payload) for payload in payloads}, {64}, f"{is_text=}")
            self.assertGreater(len(set(payloads)), 1, f"{is_text=}")
            if is_text:
                b"".join(payloads).decode()


class LoadTests(SynchronousTestCase):
    """Answers are compared with the messages."""

    def start_load(self, answer: Callable[[bytes, int], bytes]) -> WebSocketLoad:
        """
        A load on a server.

        :param answer: returns the frame that answers a payload; the number counts them.
        """
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)

        def serve() -> None:
            for _ in range(2):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(10_000)
                    connection.sendall(_RESPONSE)
                    decoder = MessageDecoder(is_server=True, max_message_size=100)
                    while data := connection.recv(1000):
                        decoder.feed(data)
                        for _, payload, _ in decoder.messages():
                            assert isinstance(payload, bytes)
                            connection.sendall(answer(payload, decoder.delivered))

        server = threading.Thread(target=serve)
        server.start()
        self.addCleanup(server.join)
        port = listener.getsockname()[1]
        try:
            load = WebSocketLoad(port, WebSocketCase(payload=64, window=8), sleeps=True)
        except MeasurementError:
            socket.create_connection(("127.0.0.1", port)).close()
            raise
        self.addCleanup(load.close)
        return load

    def test_echo_is_counted(self) -> None:
        """At least the first window comes back, and a second run continues."""
        load = self.start_load(lambda payload, _: encode_frame(Opcode.BINARY, payload))
        for run in range(2):
            self.assertGreaterEqual(load.run(0.01), 8, run)

    def test_other_answer_is_refused(self) -> None:
        """Before anything is measured."""
        with self.assertRaisesRegex(MeasurementError, "differs"):
            self.start_load(lambda payload, _: encode_frame(Opcode.TEXT, payload))

    def test_later_difference_is_refused(self) -> None:
        """Each byte is compared."""
        load = self.start_load(
            lambda payload, count: encode_frame(
                Opcode.BINARY, payload if count < 20 else payload[:-1] + b"?"
            )
        )
        with self.assertRaisesRegex(MeasurementError, "differs"):
            load.run(1)
