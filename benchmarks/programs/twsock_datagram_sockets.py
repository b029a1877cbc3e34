"""
Echoes datagrams with twsock's awaitable socket, in the ways that docs/datagrams.rst shows.

``event``: a function handles each message. ``coroutine``: a coroutine function handles each
message, and awaits the answer. ``receive``: a loop around ``receive_from``. ``iterate``: ``async
for``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred

from benchmarks.programs.serving import HOST, install, make_parser
from twsock import DatagramSocket, DatagramSocketMessageReceivedEventArgs

__all__ = ["WAYS", "main"]


def _answer(_socket: DatagramSocket, args: DatagramSocketMessageReceivedEventArgs) -> None:
    args.reply(args.data)


async def _answer_and_wait(
    _socket: DatagramSocket, args: DatagramSocketMessageReceivedEventArgs
) -> None:
    await args.reply(args.data)


async def _receive(socket: DatagramSocket) -> None:
    while True:
        data, address = await socket.receive_from()
        await socket.send_to(data, address)


async def _iterate(socket: DatagramSocket) -> None:
    async for message in socket:
        await message.reply(message.data)


def _serve_event(socket: DatagramSocket) -> None:
    socket.message_received.add(_answer)
    socket.bind_endpoint(HOST, "")


def _serve_coroutine(socket: DatagramSocket) -> None:
    socket.message_received.add(_answer_and_wait)
    socket.bind_endpoint(HOST, "")


def _serve_receive(socket: DatagramSocket) -> None:
    socket.bind_endpoint(HOST, "")
    Deferred.fromCoroutine(_receive(socket))


def _serve_iterate(socket: DatagramSocket) -> None:
    socket.bind_endpoint(HOST, "")
    Deferred.fromCoroutine(_iterate(socket))


#: Name → a function that binds a socket and echoes received datagrams.
WAYS: Final[dict[str, Callable[[Any], None]]] = {
    "event": _serve_event,
    "coroutine": _serve_coroutine,
    "receive": _serve_receive,
    "iterate": _serve_iterate,
}


def main(argv: Sequence[str]) -> None:
    """Serve as the command line says."""
    parser = make_parser()
    parser.add_argument("way", choices=WAYS)
    options = parser.parse_args(argv)
    reactor = install(options.reactor)
    socket = DatagramSocket(reactor)
    WAYS[options.way](socket)
    print(socket.information.local_port, flush=True)
    reactor.run()
