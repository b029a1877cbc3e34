"""Echoes the messages of WebSocket clients in memory: decodes frames, and encodes answers."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from twsock.websocket.frames import Opcode, encode_frame
from twsock.websocket.messages import MessageDecoder, MessageEncoder

__all__ = ["SHAPES", "WAYS", "Shape", "main", "measure", "reads_of"]

#: Takes received bytes, and returns the bytes of the answers and the number of whole messages.
Echo = Callable[[bytes], tuple[bytes, int]]

#: Bytes of one receive.
_READ: Final = 65_536
#: The figure is the median of this many samples, each of at least this many bytes on the wire.
_SAMPLES: Final = 51
_SAMPLE_SIZE: Final = 200_000

_LIMIT: Final = 1 << 20
_KEY: Final = bytes.fromhex("37fa213d")


class Shape(NamedTuple):
    """Messages that arrive together, on each of some connections."""

    connections: int
    number: int
    size: int
    opcode: Opcode = Opcode.BINARY


#: Case → its messages. The letters are those of the benchmark of servers.
SHAPES: Final = {
    "A": Shape(1, 1, 64),
    "B": Shape(1, 64, 64),
    "T": Shape(1, 64, 64, Opcode.TEXT),
    "C": Shape(50, 16, 64),
    "D": Shape(1, 64, 1024),
    "E": Shape(1, 4, 65_536),
}


def reads_of(shape: Shape) -> list[bytes]:
    """Return what one connection receives, as the reads of a reactor."""
    frame = encode_frame(shape.opcode, b"x" * shape.size, key=_KEY)
    stream = frame * shape.number
    return [stream[at : at + _READ] for at in range(0, len(stream), _READ)]


def echo_with_twsock() -> Echo:
    """Make a connection of `twsock.websocket.messages`."""
    decoder = MessageDecoder(is_server=True, max_message_size=_LIMIT)
    encode = MessageEncoder(is_server=True).encode

    def echo(data: bytes) -> tuple[bytes, int]:
        before = decoder.delivered
        decoder.feed(data)
        answer = b"".join([encode(opcode, payload) for opcode, payload, _ in decoder.messages()])
        return answer, decoder.delivered - before

    return echo


def echo_with_websockets() -> Echo:
    """Make a connection of the Sans-I/O core of ``websockets``."""
    from websockets.frames import Frame
    from websockets.frames import Opcode as TheirOpcode
    from websockets.protocol import Protocol, Side

    protocol = Protocol(Side.SERVER, max_size=_LIMIT)

    def echo(data: bytes) -> tuple[bytes, int]:
        protocol.receive_data(data)
        count = 0
        for frame in protocol.events_received():
            assert isinstance(frame, Frame)
            count += 1
            if frame.opcode is TheirOpcode.TEXT:
                # The core leaves text to its connection.
                protocol.send_text(str(frame.data, "utf-8").encode())
            else:
                protocol.send_binary(frame.data)
        return b"".join(protocol.data_to_send()), count

    return echo


def echo_with_wsproto() -> Echo:
    """Make a connection of ``wsproto``; it returns large messages in pieces."""
    from wsproto import ConnectionType
    from wsproto.connection import Connection
    from wsproto.events import BytesMessage, TextMessage

    connection = Connection(ConnectionType.SERVER)

    def answers(data: bytes) -> Iterator[tuple[bytes, bool]]:
        connection.receive_data(data)
        for event in connection.events():
            assert isinstance(event, (BytesMessage, TextMessage))
            yield connection.send(event), event.message_finished

    def echo(data: bytes) -> tuple[bytes, int]:
        sent = list(answers(data))
        return b"".join([frame for frame, _ in sent]), sum(is_last for _, is_last in sent)

    return echo


#: Name → makes one connection.
WAYS: Final[dict[str, Callable[[], Echo]]] = {
    "twsock": echo_with_twsock,
    "websockets": echo_with_websockets,
    "wsproto": echo_with_wsproto,
}


def measure(way: str, shape: Shape) -> float:
    """
    Echo messages again and again.

    :returns: microseconds of processor time for each message.
    """
    reads = reads_of(shape)
    echoes = [WAYS[way]() for _ in range(shape.connections)]
    per_round = shape.connections * shape.number
    rounds = max(1, _SAMPLE_SIZE // (shape.connections * sum(map(len, reads))))
    spent = []
    for _ in range(_SAMPLES):
        echoed = 0
        began = time.process_time_ns()
        for _ in range(rounds):
            for echo in echoes:
                for data in reads:
                    echoed += echo(data)[1]
        spent.append(time.process_time_ns() - began)
        if echoed != rounds * per_round:
            raise AssertionError(f"{echoed} of {rounds * per_round} messages were echoed")
    return statistics.median(spent) / (rounds * per_round) / 1000


def main(argv: Sequence[str]) -> None:
    """Measure one way in one case; print the figure."""
    way, case = argv
    print(json.dumps({"message": measure(way, SHAPES[case])}))
