"""
Follows events through the modules of twsock: which of its modules are called, in which order.

`benchmarks.paths` runs this program, and defines the figures. Each path is one event of the stock
reactor, from its wake-up until the answer is with the kernel. The delayed calls that the event left
for the next turn are followed, too. A profile hook counts each call of a Python function. The
client is in the same process but is not followed. For each path the program prints the calls in
twsock, the calls in all code, and the modules.
"""

from __future__ import annotations

import gc
import json
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any, Final

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.interfaces import IProtocolFactory

import twsock.protocols
from benchmarks.certificate import temporary_certificate
from benchmarks.connections import FRAME, STALLED, connect, encode_frame
from benchmarks.processes import MeasurementError
from benchmarks.programs.serving import BACKLOG, HOST, import_first
from benchmarks.programs.twsock_frames import Answer
from benchmarks.segmentation import LARGEST_RUN, receive_run, receive_runs, send_run
from benchmarks.tls_client import TlsClient, make_client_context
from twsock import StreamSocketListener, StreamSocketListenerConnectionReceivedEventArgs
from twsock.protocols import DatagramEcho, FrameEchoFactory, StreamServerFactory, UpgradeToSsl
from twsock.tls import Certificate, ServerOptions, ServerTls

__all__ = [
    "follow_datagrams",
    "follow_frames",
    "follow_socket",
    "follow_upgraded",
    "follow_websocket",
    "main",
]

#: The calls of one event in twsock and in all code, and the modules in their order.
Followed = tuple[int, int, tuple[str, ...]]
#: The name of a path, and its calls and modules.
Named = tuple[str, Followed]

_PACKAGE: Final = str(Path(twsock.__file__).parent) + "/"
#: How many events come first and are not followed: they fill caches.
_WARM_UP: Final = 16
#: How many events are followed. The most common result counts, since a datagram port reads once
#: more at some wake-ups.
_FOLLOWED: Final = 9
#: The request of a WebSocket (:rfc:`6455`, section 1.3).
_REQUEST: Final = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_MASK_SIZE: Final = 4
#: A binary message of 64 zeros from a client.
_MASKED_FRAME: Final = b"\x82\xc0" + bytes(_MASK_SIZE + 64)
#: Bytes that a `twsock.StreamSocket` reads, and writes in four pieces.
_READ: Final = 64


class _Hook:
    """Counts the calls of Python functions while it is the profile function."""

    def __init__(self) -> None:
        self._own = self._all = 0
        self._modules: list[str] = []

    def __call__(self, frame: FrameType, event: str, _argument: object) -> None:
        if event != "call":
            return
        self._all += 1
        file = frame.f_code.co_filename
        if file.startswith(_PACKAGE):
            self._own += 1
            module = file[len(_PACKAGE) :].removesuffix(".py").replace("/", ".")
            if self._modules[-1:] != [module]:
                self._modules.append(module)

    @property
    def followed(self) -> Followed:
        return self._own, self._all, tuple(self._modules)


def _follow(reactor: Any, send: Callable[[], object], receive: Callable[[], object]) -> Followed:
    """
    Follow the event that the client's bytes cause.

    :param send: sends the bytes that cause one event.
    :param receive: receives the answer.
    """
    results: Counter[Followed] = Counter()
    for number in range(_WARM_UP + _FOLLOWED):
        send()
        hook = _Hook()
        sys.setprofile(hook)
        reactor.doIteration(STALLED)
        reactor.runUntilCurrent()  # The delayed calls that the event left for the next turn.
        sys.setprofile(None)
        receive()
        if number >= _WARM_UP:
            results[hook.followed] += 1
    return results.most_common(1)[0][0]


def _settle(reactor: Any) -> None:
    """Handle all pending events, in five turns of the reactor."""
    for _ in range(5):
        reactor.iterate(0.01)


def _receive_frame(receive_into: Callable[[memoryview], int]) -> None:
    """
    Receive the echo of `FRAME`.

    :raises MeasurementError: when the answer differs from `FRAME`.
    """
    buffer = memoryview(bytearray(LARGEST_RUN))
    size = receive_into(buffer)
    if buffer[:size] != FRAME:
        raise MeasurementError("the answer is not the frame that was sent")


def _serve(reactor: Any, factory: IProtocolFactory) -> socket.socket:
    """Serve a protocol, and connect to it."""
    port = reactor.listenTCP(0, factory, BACKLOG, HOST)
    connection = connect(port.getHost().port)
    _settle(reactor)
    return connection


def follow_frames(reactor: Any) -> Iterator[Named]:
    """Frames that are echoed in plaintext: as a run, and by a handler of each."""
    factories = {
        "frame": FrameEchoFactory(reactor),
        "handler": StreamServerFactory(reactor, Answer),
    }
    for name, factory in factories.items():
        yield name, _follow_frame(reactor, factory)


def _follow_frame(reactor: Any, factory: IProtocolFactory) -> Followed:
    with _serve(reactor, factory) as connection:
        return _follow(
            reactor,
            lambda: connection.sendall(FRAME),
            lambda: _receive_frame(connection.recv_into),
        )


def follow_upgraded(reactor: Any) -> Iterator[Named]:
    """A frame that is echoed after STARTTLS on the same connection, with TLS 1.3."""
    with temporary_certificate() as pem:
        tls = ServerTls(ServerOptions([Certificate.load(pem)]))
        with _serve(reactor, FrameEchoFactory(reactor, upgrade=UpgradeToSsl(tls))) as connection:
            connection.sendall(encode_frame(b"STARTTLS"))
            _settle(reactor)
            if connection.recv(LARGEST_RUN) != encode_frame(b"OK"):
                raise MeasurementError("the server grants no upgrade")
            client = _shake_hands(reactor, connection, pem)
            frame = memoryview(FRAME)
            yield (
                "upgraded",
                _follow(
                    reactor,
                    lambda: client.send(frame),
                    lambda: _receive_frame(client.receive_into),
                ),
            )


def _shake_hands(reactor: Any, connection: socket.socket, pem: Path) -> TlsClient:
    """Make the handshake in a thread while the reactor answers; read the server's tickets."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        made = pool.submit(TlsClient, connection, make_client_context(pem))
        while not made.done():
            reactor.iterate(0.01)
    _settle(reactor)
    client = made.result()
    try:
        client.receive_into(memoryview(bytearray(LARGEST_RUN)))
    except BlockingIOError:
        pass  # Session tickets contain no data of the application.
    return client


def follow_websocket(reactor: Any) -> Iterator[Named]:
    """A binary message of a WebSocket that is echoed by its handler."""
    if not hasattr(twsock.protocols, "WebSocketEcho"):
        return  # An earlier twsock.
    factory = twsock.protocols.WebSocketFactory(reactor, twsock.protocols.WebSocketEcho)
    with _serve(reactor, factory) as connection:
        connection.sendall(_REQUEST)
        _settle(reactor)
        if not connection.recv(LARGEST_RUN).startswith(b"HTTP/1.1 101 "):
            raise MeasurementError("the server accepts no WebSocket")
        size = len(_MASKED_FRAME) - _MASK_SIZE
        yield (
            "websocket",
            _follow(
                reactor,
                lambda: connection.sendall(_MASKED_FRAME),
                lambda: connection.recv(size, socket.MSG_WAITALL),
            ),
        )


def follow_datagrams(reactor: Any) -> Iterator[Named]:
    """A datagram that is echoed, and a run of 8 where the kernel has runs."""
    ports = import_first("twsock.datagram.port", "twsock.transport.datagrams")
    port = ports.listen_datagrams(reactor, DatagramEcho(), 0, HOST)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect((HOST, port.getHost().port))
        client.settimeout(STALLED)
        buffer = memoryview(bytearray(LARGEST_RUN))
        yield "datagram", _follow(reactor, lambda: client.send(FRAME), lambda: client.recv(100))
        try:
            receive_runs(client)
        except OSError:
            return
        run = FRAME * 8
        yield (
            "run",
            _follow(
                reactor,
                lambda: send_run(client, run, len(FRAME)),
                lambda: receive_run(client, buffer),
            ),
        )


def follow_socket(reactor: Any) -> Iterator[Named]:
    """An accepted `twsock.StreamSocket`: a read that waits, four writes, a flush, the next read."""
    listener = StreamSocketListener(reactor)
    listener.connection_received.add(_write_four_times)
    listener.bind_endpoint(HOST, "")
    with connect(int(listener.information.local_port)) as connection:
        _settle(reactor)
        yield (
            "socket",
            _follow(
                reactor,
                lambda: connection.sendall(bytes(_READ)),
                lambda: connection.recv(_READ, socket.MSG_WAITALL),
            ),
        )


async def _write_four_times(
    _listener: StreamSocketListener, args: StreamSocketListenerConnectionReceivedEventArgs
) -> None:
    received, sent = args.socket.input_stream, args.socket.output_stream
    piece = bytes(_READ // 4)
    while True:
        await received.receive_exactly(_READ)
        for _ in range(4):
            sent.write(piece)
        await sent.flush()


def main(_argv: Sequence[str]) -> None:
    """Print the paths as JSON."""
    gc.disable()  # The hook would count the callbacks that a collection runs.
    reactor = EPollReactor()
    paths = {}
    streams = (follow_frames, follow_upgraded, follow_websocket, follow_socket)
    for follow in (*streams, follow_datagrams):
        paths.update(dict(follow(reactor)))
    print(json.dumps(paths))
