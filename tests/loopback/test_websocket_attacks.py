"""Attacks on a WebSocket server, carried out by raw peers; docs/attacks.rst lists them."""

from __future__ import annotations

import re
import socket
import struct
import zlib
from typing import Any, ClassVar

from tests.loopback.reactors import connect, receive_all
from tests.loopback.test_websocket import Address, WebSocketBuilder, raw, request
from tests.websocket.connections import KEY, ping, text
from twsock.protocols import WebSocketEcho
from twsock.websocket import CloseCode, DeflateSettings, Request
from twsock.websocket.frames import Opcode, encode_frame

MIB = 1024 * 1024


class Watched(WebSocketEcho):
    """An echo that notes what reaches the application, and the most bytes that it has held."""

    reached: ClassVar[list[str]] = []
    most = 0

    def accept(self, request: Request) -> Any:
        self.reached.append(request.path)

    def text_received(self, text: str) -> None:
        self.reached.append(text)
        super().text_received(text)

    def binary_received(self, data: bytes) -> None:
        self.reached.append(f"{len(data)} bytes")

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        Watched.most = max(Watched.most, self.buffered)


def fragment(payload: bytes, opcode: Opcode = Opcode.CONTINUATION, *, is_final: bool) -> bytes:
    """Return one frame of a message."""
    return encode_frame(opcode, payload, is_final=is_final, key=KEY)


def announced(size: int) -> bytes:
    """Return the header of a binary message and no payload."""
    return b"\x82\xff" + struct.pack("!Q", size) + KEY


def end_of(peer: socket.socket) -> tuple[bytes, int]:
    """Return what arrives in front of the close frame, and the code of that."""
    received = receive_all(peer)
    found = re.fullmatch(rb"(.*?)\x88[\x02-\x7d](..).*", received, re.DOTALL)
    assert found, received
    return found[1], int.from_bytes(found[2], "big")


class AttackBuilder(WebSocketBuilder):
    """Serves the watched echo."""

    def attack(self, peer: Any, **settings: Any) -> list[str]:
        """Serve until an attacker has finished; return what has reached the application."""
        Watched.reached.clear()
        Watched.most = 0
        self.serve(Watched, peer, **settings)
        return Watched.reached

    def assert_refused(self, address: Address, head: bytes, status: int) -> None:
        """The answer to a request is this one, and the connection ends."""
        with connect(address) as client:
            client.sendall(head)
            client.shutdown(socket.SHUT_WR)
            received = receive_all(client)
        self.assertEqual(received.count(b"HTTP/1.1"), 1, head)
        self.assertEqual(received[:13], b"HTTP/1.1 %d " % status, head)


class HandshakeAttacks(AttackBuilder):
    """Requests that are not what they seem."""

    def test_smuggled_request_reaches_nobody(self) -> None:
        """Each field that two parsers could read in two ways is refused, and so is what follows."""
        smuggled = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
        fields = (
            b"Transfer-Encoding: chunked",
            b"Transfer-Encoding:\x0bchunked",
            b"Transfer-Encoding : chunked",
            b"Content-Length: 44",
            b"Content-Length: 0\r\nContent-Length: 44",
            b"Content-Length: +44",
            b"X: 1\nTransfer-Encoding: chunked",
            b"X: 1\rTransfer-Encoding: chunked",
            b"X: 1\r\n Transfer-Encoding: chunked",
            b"Host: example.com",
            b"X\0: 1",
        )

        def peer(address: Address) -> None:
            honest = request(address)
            for field in fields:
                head = honest[:-2] + field + b"\r\n\r\n"
                self.assert_refused(address, head + b"0\r\n\r\n" + smuggled, 400)

        self.assertEqual(self.attack(peer), [])

    def test_second_request_is_no_request(self) -> None:
        """Bytes behind an accepted request are frames, here malformed ones."""

        def peer(address: Address) -> None:
            with connect(address) as client:
                client.sendall(request(address) * 2)
                client.shutdown(socket.SHUT_WR)
                head, code = end_of(client)
            self.assertEqual((head.count(b"HTTP/1.1"), code), (1, CloseCode.PROTOCOL_ERROR))

        self.assertEqual(self.attack(peer), ["/"])

    def test_page_of_another_origin_is_refused(self) -> None:
        """A browser sends the cookies of the visitor, and the origin of the page."""

        def peer(address: Address) -> None:
            for origin in (
                b"https://attacker.example",
                b"null",
                b"http://localhost.attacker.example",
            ):
                head = request(address)[:-2] + b"Cookie: visitor\r\nOrigin: %b\r\n\r\n" % origin
                self.assert_refused(address, head, 403)

        self.assertEqual(self.attack(peer), [])

    def test_rebound_name_is_refused(self) -> None:
        """The page and the Host have the attacker's name, which leads to this machine."""

        def peer(address: Address) -> None:
            for name in (b"attacker.example", b"127.0.0.1.attacker.example", b"localhost.example"):
                host = b"%s:%d" % (name, address[1])
                head = re.sub(rb"Host: \S+", b"Host: " + host, request(address))
                self.assert_refused(address, head[:-2] + b"Origin: http://%b\r\n\r\n" % host, 421)

        self.assertEqual(self.attack(peer), [])


class FrameAttacks(AttackBuilder):
    """Frames that no library sends."""

    def assert_closed(
        self, address: Address, frames: bytes, code: int, answer: bytes = b""
    ) -> None:
        """The answer to frames is this one, and a close frame with this code."""
        with raw(address) as client:
            client.sendall(frames)
            client.shutdown(socket.SHUT_WR)
            self.assertEqual(end_of(client), (answer, code), frames[:50])

    def test_frame_without_a_mask_is_refused(self) -> None:
        """Its payload is not delivered, and the message before it is."""

        def peer(address: Address) -> None:
            frames = text("a") + b"\x81\x01b" + text("c")
            self.assert_closed(address, frames, CloseCode.PROTOCOL_ERROR, b"\x81\x01a")

        self.assertEqual(self.attack(peer), ["/", "a"])

    def test_announced_size_takes_no_memory(self) -> None:
        """The limit is looked at in the header, also in that of a later fragment."""

        def peer(address: Address) -> None:
            too_big = CloseCode.MESSAGE_TOO_BIG
            self.assert_closed(address, announced(MIB + 1), too_big)
            self.assert_closed(address, announced((1 << 63) - 1), too_big)
            self.assert_closed(address, announced(1 << 63), CloseCode.PROTOCOL_ERROR)
            first = fragment(bytes(1000), Opcode.BINARY, is_final=False)
            later = b"\x80" + announced(MIB - 999)[1:]
            self.assert_closed(address, first + later, too_big)

        self.assertEqual(self.attack(peer), ["/"] * 4)
        self.assertLess(Watched.most, 10_000)

    def test_message_without_an_end_is_refused(self) -> None:
        """Empty fragments are counted, and the sizes of all others are added."""
        first = fragment(b"", Opcode.BINARY, is_final=False)

        def peer(address: Address) -> None:
            empty = fragment(b"", is_final=False)
            self.assert_closed(address, first + empty * 5000, CloseCode.POLICY_VIOLATION)
            large = fragment(bytes(10_000), is_final=False)
            self.assert_closed(address, first + large * 300, CloseCode.MESSAGE_TOO_BIG)

        self.assertEqual(self.attack(peer), ["/"] * 2)
        self.assertLess(Watched.most, MIB + 2 * 128_000)

    def test_bomb_is_stopped_at_the_limit(self) -> None:
        """64 KiB that would become 64 MiB; also in two fragments."""
        deflater = zlib.compressobj(wbits=-15)
        data = deflater.compress(bytes(64 * MIB)) + deflater.flush(zlib.Z_SYNC_FLUSH)
        bomb = data[:-4]
        halves = encode_frame(
            Opcode.BINARY, bomb[:1000], is_final=False, is_compressed=True, key=KEY
        ) + fragment(bomb[1000:], is_final=True)

        def peer(address: Address) -> None:
            offer = b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
            for frames in (encode_frame(Opcode.BINARY, bomb, is_compressed=True, key=KEY), halves):
                with connect(address) as client:
                    client.sendall(request(address)[:-2] + offer + frames)
                    client.shutdown(socket.SHUT_WR)
                    head, code = end_of(client)
                self.assertIn(b"permessage-deflate", head)
                self.assertEqual(code, CloseCode.MESSAGE_TOO_BIG)

        self.assertEqual(self.attack(peer, compression=DeflateSettings()), ["/"] * 2)

    def test_control_frames_within_a_message_are_handled(self) -> None:
        """A ping is answered in front of the message, and a close frame ends it."""
        first = fragment(b"a", Opcode.TEXT, is_final=False)
        rest = fragment(b"b", is_final=True)

        def peer(address: Address) -> None:
            frames = (
                first + ping(b"p") * 3 + rest + first + fragment(b"", Opcode.CLOSE, is_final=True)
            )
            with raw(address) as client:
                client.sendall(frames)
                client.shutdown(socket.SHUT_WR)
                self.assertEqual(receive_all(client), b"\x8a\x01p" * 3 + b"\x81\x02ab\x88\x00")

        self.assertEqual(self.attack(peer), ["/", "ab"])

    def test_malformed_control_frames_within_a_message_are_refused(self) -> None:
        """In fragments, too long, compressed, of an unknown kind; a message within a message."""
        first = fragment(b"a", Opcode.TEXT, is_final=False)
        attacks = (
            b"\x09\x80" + KEY,
            b"\x89\xfe\x00\x7e" + KEY + bytes(126),
            b"\xc9\x80" + KEY,
            b"\x8b\x80" + KEY,
            text("b"),
            fragment(b"\x03", Opcode.CLOSE, is_final=True),
            fragment(b"\x03\xee", Opcode.CLOSE, is_final=True),
        )

        def peer(address: Address) -> None:
            for frames in attacks:
                self.assert_closed(address, first + frames, CloseCode.PROTOCOL_ERROR)

        self.assertEqual(self.attack(peer), ["/"] * len(attacks))


for _builder in (HandshakeAttacks, FrameAttacks):
    globals().update(_builder.makeTestCaseClasses())
