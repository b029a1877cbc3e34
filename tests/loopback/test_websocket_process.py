"""Attacks on ``twistd twsock-websocket``, a real process, which afterwards is as it was before."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests import THOROUGH
from tests.loopback.reactors import connect, receive_all, receive_exactly
from tests.loopback.test_websocket import Address, raw, request, reset
from tests.loopback.test_websocket_attacks import announced, end_of, fragment
from tests.services.processes import PATIENCE, Twistd, twistd
from tests.websocket.connections import KEY, binary, close, ping, text
from twsock.websocket.frames import Opcode, encode_frame

MIB = 1024 * 1024
LOCAL = "tcp:0:interface=127.0.0.1"
OFFER = b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"

#: A program for ``twistd -y``: an echo with coroutines.
LISTENER = """
from twisted.application.service import Application, Service
from twisted.internet import reactor
from twsock import WebSocketListener
from twsock.websocket import DeflateSettings


class Echo(Service):
    def startService(self):
        self.listener = WebSocketListener(reactor, compression=DeflateSettings())
        self.listener.connection_received.add(self.serve)
        self.listener.bind_endpoint("127.0.0.1", "").addCallback(self.announce)

    def announce(self, _):
        print(f"listening on tcp:127.0.0.1:{self.listener.information.local_port} (echo)")

    async def serve(self, _, args):
        async with args.socket as websocket:
            async for message in websocket:
                await websocket.send(message)


application = Application("echo")
Echo().setServiceParent(application)
"""

#: What a flood sends at most. A server that kept it would exceed `MOST_GROWTH` by far.
FLOOD = 32 * MIB
#: What the process may take at any time besides its memory at the beginning. One message, as it
#: arrives, decoded and as an answer, is 3 MiB; its allocator keeps some more.
MOST_GROWTH = 12 * MIB


def memory(pid: int, name: str) -> int:
    """Return ``VmRSS``, or ``VmHWM``, which is the largest that ``VmRSS`` ever was; in bytes."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


def flood(client: socket.socket, data: bytes) -> None:
    """Send, without reading, until the server takes no more or has ended the connection."""
    client.settimeout(0.3)
    with contextlib.suppress(TimeoutError, ConnectionError):
        for _ in range(FLOOD // len(data)):
            client.sendall(data)
    client.settimeout(PATIENCE)


# Each attack opens its connections, ends them, and yields once for each.


def smuggled_requests(address: Address) -> Iterator[None]:
    for field in (
        b"Transfer-Encoding: chunked",
        b"Content-Length: 44",
        b"X: 1\nY: 2",
        b"X: 1\r\n folded",
        b"Host: other.example",
        b"Origin: http://attacker.example",
        b"X: " + b"x" * 17_000,
    ):
        with connect(address) as client:
            client.sendall(request(address)[:-2] + field + b"\r\n\r\nGET /2 HTTP/1.1\r\n\r\n")
            client.shutdown(socket.SHUT_WR)
            received = receive_all(client)
        assert re.match(rb"HTTP/1\.1 4\d\d ", received), field
        assert received.count(b"HTTP/1.1") == 1, field
        yield


def malformed_frames(address: Address) -> Iterator[None]:
    """Tricks with masks, lengths and control frames; each with the code that answers it."""
    first = fragment(b"a", Opcode.TEXT, is_final=False)
    for frames, code in (
        (b"\x81\x01b", 1002),
        (b"\x82\xfe\x00\x01" + KEY + b"x", 1002),
        (encode_frame(Opcode.TEXT, b"\xff", key=KEY), 1007),
        (announced((1 << 63) - 1), 1009),
        (b"\xc1\x81" + KEY + b"x", 1002),
        (first + b"\x09\x80" + KEY, 1002),
        (first + b"\x89\xfe\x00\x7e" + KEY + bytes(126), 1002),
        (first + text("b"), 1002),
        (first + encode_frame(Opcode.CLOSE, b"\x03", key=KEY), 1002),
        (first + fragment(b"", is_final=False) * 2000, 1008),
        (first + fragment(bytes(10_000), is_final=False) * 110, 1009),
    ):
        with raw(address) as client:
            client.sendall(frames)
            client.shutdown(socket.SHUT_WR)
            assert end_of(client)[1] == code, frames[:50]
        yield


def bombs(address: Address) -> Iterator[None]:
    """Many at once: 64 KiB each, which would become 64 MiB."""
    deflater = zlib.compressobj(wbits=-15)
    data = deflater.compress(bytes(64 * MIB)) + deflater.flush(zlib.Z_SYNC_FLUSH)
    bomb = encode_frame(Opcode.BINARY, data[:-4], is_compressed=True, key=KEY)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(address)) for _ in range(10)]
        for client in clients:
            client.sendall(request(address)[:-2] + OFFER + bomb)
        for client in clients:
            client.shutdown(socket.SHUT_WR)
            assert end_of(client)[1] == 1009
            yield


def floods(address: Address) -> Iterator[None]:
    """Peers that send and never read: messages, large messages, pings, close frames."""
    for data in (binary(bytes(1000)) * 100, binary(bytes(MIB)), ping(b"x" * 125) * 500):
        with raw(address) as client:
            flood(client, data)
            reset(client)
        yield
    with raw(address) as client:
        client.sendall(close() * 100_000)
        client.shutdown(socket.SHUT_WR)
        assert receive_all(client) == close_answer()
    yield


def close_answer() -> bytes:
    return b"\x88\x02\x03\xe8"


def half_closed(address: Address) -> Iterator[None]:
    """Each answer arrives, and then the end in order: no reset."""
    for head in (b"", request(address)[:50]):
        with connect(address) as client:
            client.sendall(head)
            client.shutdown(socket.SHUT_WR)
            assert receive_all(client) == b""
        yield
    for frames, answer in (
        (b"", b""),
        (text("a") + text("b")[:-1], b"\x81\x01a"),
        (fragment(b"a", Opcode.TEXT, is_final=False), b""),
        (close(), close_answer()),
    ):
        with raw(address) as client:
            client.sendall(frames)
            client.shutdown(socket.SHUT_WR)
            assert receive_all(client) == answer, frames
        yield


def resets(address: Address) -> Iterator[None]:
    """While the handshake runs, and while the WebSocket is open, in a message, and closing."""
    for head in (b"", request(address)[:50], request(address)):
        client = connect(address)
        client.sendall(head)
        reset(client)
        yield
    part = announced(MIB) + bytes(1000)
    for frames in (b"", part, part[:3], binary(bytes(1000)) * 500, close(), b"\xff\xff"):
        with raw(address) as client:
            client.sendall(frames)
            reset(client)
        yield


ATTACKS = (smuggled_requests, malformed_frames, bombs, floods, half_closed, resets)


class ProcessTests(SynchronousTestCase):
    """One process, and all attacks one after the other."""

    if sys.platform != "linux":
        skip = "the memory and the descriptors of a process are read from /proc"

    def echo(self, address: Address, pid: int) -> int:
        """
        Echo as an honest client does; return how many descriptors the server has.

        The server has handled the ends of all earlier connections before it answers.
        """
        with raw(address) as client:
            client.sendall(text("honest"))
            self.assertEqual(receive_exactly(client, 8), b"\x81\x06honest")
            return len(list(Path(f"/proc/{pid}/fd").iterdir()))

    def attack(self, server: Twistd) -> int:
        """
        Carry out all attacks on a process, and check what they leave; then end it.

        :returns: how many connections were made.
        """
        address = "127.0.0.1", server.wait_for_ports()[0]
        pid = server.process.pid
        descriptors = self.echo(address, pid)
        before = memory(pid, "VmRSS")
        connections = 2  # With the last one.
        # Handshakes that are never done occupy the server meanwhile.
        with contextlib.ExitStack() as stack:
            for size in range(20):
                slow = stack.enter_context(connect(address))
                slow.sendall(request(address)[: 5 * size])
                connections += 1
            for attack in ATTACKS:
                connections += sum(1 for _ in attack(address))
        self.assertEqual(self.echo(address, pid), descriptors)
        self.assertLess(memory(pid, "VmHWM") - before, MOST_GROWTH)
        server.terminate()
        self.assertEqual(server.wait(), -signal.SIGTERM)
        self.assertNotIn("Traceback", server.log)
        # One line at most for each connection.
        lines = server.log.splitlines()
        self.assertLess(len(lines), connections + 20)
        self.assertLess(max(map(len, lines)), 400)
        return connections

    def test_attacks_leave_the_process_as_it_was(self) -> None:
        """It still echoes; its memory was bounded, no descriptor is left, and its log is short."""
        with twistd("twsock-websocket", "--endpoint", LOCAL, "--compression") as server:
            connections = self.attack(server)
        self.assertIn(f"stopped: {connections} accepted", server.log)

    def test_attacks_leave_a_listener_as_it_was(self) -> None:
        """The same with `WebSocketListener`: coroutines end with their connections."""
        if not THOROUGH:
            raise SkipTest("a variant, which runs with TWSOCK_TESTS=thorough")
        program = Path(self.mktemp()).absolute()
        program.write_text(LISTENER)
        with twistd("-y", str(program)) as server:
            self.attack(server)
