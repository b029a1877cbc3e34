"""Other programs exchange frames, values and lines with twsock."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.threads import deferToThreadPool
from twisted.trial.unittest import SkipTest

from tests.loopback.contract import OnEveryReactor
from tests.loopback.reactors import connect, receive_exactly
from twsock import ByteOrder, DataReader, DataWriter, StreamSocketListener

T = TypeVar("T")


async def echo_lines(_listener: StreamSocketListener, args: Any) -> None:
    """Send lines back until the peer ends."""
    async with args.socket as accepted:
        while True:
            line = await accepted.input_stream.receive_until(b"\r\n", 1000)
            await accepted.output_stream.send_all(line + b"\r\n")


async def echo_frames(_listener: StreamSocketListener, args: Any) -> None:
    """Send frames back until the peer ends."""
    async with args.socket as accepted:
        reader, writer = DataReader(accepted.input_stream), DataWriter(accepted.output_stream)
        while await reader.load(4) == 4:
            size = reader.read_uint32()
            if await reader.load(size) == size:
                writer.write_uint32(size)
                writer.write_buffer(reader.read_buffer(size))
                await writer.store()


async def add_up(_listener: StreamSocketListener, args: Any) -> None:
    """Answer the values of a .NET ``BinaryWriter`` with values for a ``BinaryReader``."""
    async with args.socket as accepted:
        reader, writer = DataReader(accepted.input_stream), DataWriter(accepted.output_stream)
        reader.byte_order = writer.byte_order = ByteOrder.LITTLE_ENDIAN
        await reader.load(4 + 8 + 1 + 2)
        total = reader.read_int32() + reader.read_double()
        negated = not reader.read_boolean()
        short = reader.read_uint16()
        writer.write_double(total)
        writer.write_boolean(negated)
        writer.write_uint16(short)
        await writer.store()


class Peers(OnEveryReactor):
    """Peers in a thread or a process of their own."""

    _reactors = ["twisted.internet.epollreactor.EPollReactor"]

    def ask(self, handler: Any, peer: Callable[[tuple[str, int]], T]) -> T:
        """Serve one peer; return what it received."""
        said: list[T] = []

        async def work(reactor: Any) -> None:
            listener = StreamSocketListener(reactor)
            listener.connection_received.add(handler)
            await listener.bind_endpoint("127.0.0.1", "")
            address = "127.0.0.1", int(listener.information.local_port)
            pool = reactor.getThreadPool()
            said.append(await deferToThreadPool(reactor, pool, peer, address))
            await listener.close_all(5)

        self.conduct(work)
        return said[0]

    def test_frames_of_a_dotnet_client_come_back(self) -> None:
        """It writes ``IPAddress.HostToNetworkOrder`` of the length before the bytes."""
        texts = ["Hello, World!", "", "Grüße", "x" * 70_000]

        def peer(address: tuple[str, int]) -> list[str]:
            answers = []
            with connect(address) as connection:
                for text in texts:
                    raw = text.encode()
                    connection.sendall(struct.pack(">i", len(raw)) + raw)
                for _ in texts:
                    (size,) = struct.unpack(">i", receive_exactly(connection, 4))
                    answers.append(receive_exactly(connection, size).decode())
            return answers

        self.assertEqual(self.ask(echo_frames, peer), texts)

    def test_values_of_a_dotnet_client_are_answered(self) -> None:
        """``BinaryWriter`` and ``BinaryReader`` are little-endian."""

        def peer(address: tuple[str, int]) -> tuple[Any, ...]:
            with connect(address) as connection:
                connection.sendall(struct.pack("<id?H", -7, 0.5, True, 1337))
                return struct.unpack("<d?H", receive_exactly(connection, 11))

        self.assertEqual(self.ask(add_up, peer), (-6.5, False, 1337))

    def socat(self, handler: Any, request: bytes) -> bytes:
        """Let socat send bytes; return what it receives until the server ends."""
        program = shutil.which("socat")
        if program is None:
            raise SkipTest("socat is not installed")

        def peer(address: tuple[str, int]) -> bytes:
            ran = subprocess.run(
                [program, "-t", "5", "-", f"TCP:{address[0]}:{address[1]}"],
                input=request,
                capture_output=True,
                timeout=20,
                check=True,
            )
            return ran.stdout

        return self.ask(handler, peer)

    def test_lines_of_socat_come_back(self) -> None:
        """It ends its output, and receives every answer first."""
        lines = b"Hello, World!\r\n\r\nand again\r\n"
        self.assertEqual(self.socat(echo_lines, lines), lines)

    def test_frames_of_socat_come_back(self) -> None:
        """The same, with length prefixes."""
        frames = b"\0\0\0\x0dHello, World!\0\0\0\0\0\0\0\3abc"
        self.assertEqual(self.socat(echo_frames, frames), frames)


globals().update(Peers.makeTestCaseClasses())
del Peers
