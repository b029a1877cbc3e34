"""
Moves connections between two servers while their peer sends frames and reads the echoes.

It starts both servers, is the peer itself, and compares each byte. One command is one measurement,
printed as JSON. Each server is a process with a control socket, on which it gets connections and is
told to give all of them to the other one.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any, Final, NoReturn

from benchmarks.commands import end_in_order
from benchmarks.connections import STALLED
from benchmarks.kernel import SPARE_DESCRIPTORS, raise_descriptor_limit
from benchmarks.processes import MeasurementError
from benchmarks.programs.serving import HOST, install

__all__ = ["TRAFFIC", "Peer", "Traffic", "main"]

#: The longest command or answer on a control socket, in bytes.
_PACKET: Final = 256
#: Answers that a peer waits for before each move and after it.
_STRETCH: Final = 20


@dataclass(frozen=True, slots=True)
class Traffic:
    """
    What is under way on a connection.

    :ivar payload: of each frame, in bytes.
    :ivar window: frames that are sent and not answered.
    """

    payload: int
    window: int


#: What a single connection carries while it moves.
TRAFFIC: Final = {"small": Traffic(64, 8), "large": Traffic(64 * 1024, 4)}


class Peer:
    """
    Keeps frames under way on a connection.

    :raises MeasurementError: when another byte comes back than was sent.
    """

    def __init__(self, connection: socket.socket, traffic: Traffic) -> None:
        self._connection = connection
        size = traffic.payload.to_bytes(4, "big")
        self._frame = size + os.urandom(traffic.payload)
        self._window = len(self._frame) * traffic.window
        self._unsent = b""
        self._awaited = bytearray()
        #: When bytes arrived last, in seconds.
        self.last = 0.0

    def exchange(self, is_done: Callable[[int], bool], also: socket.socket | None = None) -> float:
        """
        Send and receive.

        :param is_done: called with the number of frames that have come back; whether to stop.
        :param also: a socket that ends a wait, too.
        :returns: the longest time without an answer, in seconds.
        """
        longest, received = 0.0, 0
        self.last = time.perf_counter()
        while not is_done(received // len(self._frame)):
            self.send()
            waiting = [self._connection] if also is None else [self._connection, also]
            writing = [self._connection] if self._unsent else []
            readable, _, _ = select.select(waiting, writing, [], STALLED)
            if self._connection in readable:
                received += self._receive()
                now = time.perf_counter()
                longest, self.last = max(longest, now - self.last), now
            elif time.perf_counter() - self.last > STALLED:
                raise MeasurementError(f"no answer within {STALLED:g} s")
        return longest

    def send(self) -> None:
        """Send frames until the window is full, as far as the kernel takes them."""
        while len(self._awaited) + len(self._frame) <= self._window:
            self._awaited += self._frame
            self._unsent += self._frame
        if self._unsent:
            try:
                self._unsent = self._unsent[self._connection.send(self._unsent) :]
            except BlockingIOError:
                return

    def _receive(self) -> int:
        data = self._connection.recv(1 << 20)
        if not data or not self._awaited.startswith(data):
            raise MeasurementError("a byte was lost, doubled or changed")
        del self._awaited[: len(data)]
        return len(data)


class _Server:
    """One of the two servers, as the peer sees it."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control

    def adopt(self, connection: socket.socket) -> None:
        """Let the server serve a connection."""
        socket.send_fds(self.control, [b"adopt"], [connection.fileno()])
        self.answer()

    def command(self, name: str) -> None:
        """Send a command, whose result `answer` returns."""
        self.control.send(name.encode())

    def answer(self) -> Any:
        """Return the result of a command."""
        data = self.control.recv(_PACKET)
        if not data:
            raise MeasurementError("a server has ended")
        return json.loads(data)

    def cpu(self) -> float:
        """Return the seconds of processor time that the server has taken."""
        self.command("cpu")
        return float(self.answer())


@contextmanager
def _start_servers(reactor: str) -> Iterator[tuple[_Server, _Server]]:
    """Run both servers for as long as the block."""
    with ExitStack() as stack:
        link = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        servers = []
        for end in link:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            process = os.fork()
            if not process:
                _be_server(reactor, theirs, end, [ours, *(one for one in link if one is not end)])
            stack.callback(os.waitpid, process, 0)
            stack.callback(os.kill, process, signal.SIGKILL)
            theirs.close()
            servers.append(_Server(stack.enter_context(ours)))
        for end in link:
            end.close()
        yield servers[0], servers[1]


def _be_server(
    reactor: str, control: socket.socket, link: socket.socket, others: Sequence[socket.socket]
) -> NoReturn:
    try:
        for other in others:
            other.close()
        _serve(install(reactor), control, link)
    finally:
        os._exit(1)


def _serve(reactor: Any, control: socket.socket, link: socket.socket) -> None:
    """Serve until the control socket ends."""
    from twisted.internet.defer import Deferred

    from twsock.handover import DetachedConnection
    from twsock.handover.channel import give
    from twsock.protocols import FrameEchoFactory
    from twsock.stream.moving import give_connections, take_connection

    factory = FrameEchoFactory(reactor)

    def offer(detached: DetachedConnection, record: bytes, /) -> Deferred[None]:
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with there:
            socket.send_fds(link, [b"take"], [there.fileno()])
        return give(reactor, here, detached, application=record)

    def say(result: object) -> None:
        control.send(json.dumps(result).encode())

    def obey(data: bytes, descriptors: Sequence[int]) -> None:
        if data == b"adopt":
            factory.resume(DetachedConnection(socket.socket(fileno=descriptors[0])))
            say(None)
        elif data == b"take":
            take_connection(factory, socket.socket(fileno=descriptors[0]))
        elif data == b"give":
            giving = give_connections(factory, offer)
            giving.addCallback(lambda given: say([given.given, given.refused]))
        elif data == b"cpu":
            say(time.process_time())
        else:
            reactor.stop()

    for each in (control, link):
        reactor.addReader(_Commands(each, obey))
    reactor.run()


class _Commands:
    """Reads packets for a reactor."""

    def __init__(
        self, channel: socket.socket, obey: Callable[[bytes, Sequence[int]], None]
    ) -> None:
        self._channel = channel
        self._obey = obey
        self.fileno = channel.fileno
        channel.setblocking(False)

    # Called by Twisted.

    def logPrefix(self) -> str:
        """Return the name for Twisted's log."""
        return "commands"

    def doRead(self) -> None:
        """Carry out one command; its end is an empty packet."""
        data, descriptors, _, _ = socket.recv_fds(self._channel, _PACKET, 1)
        self._obey(data, descriptors)

    def connectionLost(self, _reason: object) -> None:
        """Close the channel: the reactor has stopped."""
        self._channel.close()


def _connect() -> tuple[socket.socket, socket.socket]:
    with socket.create_server((HOST, 0)) as listening:
        peer = socket.create_connection(listening.getsockname())
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return peer, listening.accept()[0]


def _move_one(reactor: str, traffic: Traffic, moves: int) -> dict[str, float]:
    """Move one connection again and again; return its pauses in milliseconds."""
    with _start_servers(reactor) as servers, ExitStack() as stack:
        connection, other = _connect()
        stack.enter_context(connection)
        with other:
            servers[0].adopt(other)
        connection.setblocking(False)
        peer = Peer(connection, traffic)
        pauses, undisturbed = [], []
        for number in range(moves):
            owner = servers[number % 2]
            undisturbed.append(peer.exchange(_STRETCH.__le__))
            owner.command("give")
            pauses.append(_exchange_until_given(peer, owner, 1))
        return {
            "pause": median(pauses) * 1000,
            "slow": quantiles(pauses, n=100)[98] * 1000 if moves > 1 else pauses[0] * 1000,
            "undisturbed": median(undisturbed) * 1000,
        }


def _exchange_until_given(peer: Peer, owner: _Server, connections: int) -> float:
    """Return the longest time without an answer until all connections were given, and after."""
    until: list[int] = []

    def is_done(answers: int) -> bool:
        if not until and select.select([owner.control], [], [], 0)[0]:
            if owner.answer() != [connections, 0]:
                raise MeasurementError("not all connections were given")
            until.append(answers + _STRETCH)
        return bool(until) and answers >= until[0]

    return peer.exchange(is_done, owner.control)


def _move_many(reactor: str, connections: int) -> dict[str, float]:
    """
    Move silent connections, each once, and then one that is busy meanwhile.

    :returns: the processor time of both servers for one connection, the time for all, and the
        longest time without an answer on the busy one.
    """
    raise_descriptor_limit(2 * connections + SPARE_DESCRIPTORS)
    with _start_servers(reactor) as servers, ExitStack() as stack:
        peers = []
        for _ in range(connections):
            peer, other = _connect()
            peers.append(stack.enter_context(peer))
            with other:
                servers[0].adopt(other)
        busy, other = _connect()
        stack.enter_context(busy)
        before, clock = sum(each.cpu() for each in servers), time.perf_counter()
        servers[0].command("give")
        if servers[0].answer() != [connections, 0]:
            raise MeasurementError("not all connections were given")
        passed = time.perf_counter() - clock
        cpu = sum(each.cpu() for each in servers) - before
        # All of them move back, and the busy one is the last.
        with other:
            servers[1].adopt(other)
        busy.setblocking(False)
        traffic = Peer(busy, TRAFFIC["small"])
        traffic.exchange(_STRETCH.__le__)
        servers[1].command("give")
        beside = _exchange_until_given(traffic, servers[1], connections + 1)
        for peer in peers:
            peer.settimeout(STALLED)
            peer.sendall(b"\0\0\0\1x")
            if peer.recv(5, socket.MSG_WAITALL) != b"\0\0\0\1x":
                raise MeasurementError("a connection is not served")
        figures = {"cpu": cpu / connections * 1e6, "all": passed * 1000}
        return {**figures, "beside": beside * 1000}


def main(argv: Sequence[str]) -> None:
    """Measure the case of the command line, and print its figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--reactor", choices=("epoll", "twsock"), default="epoll")
    parser.add_argument("case", choices=(*TRAFFIC, "many"))
    parser.add_argument("count", type=int, help="moves, or connections")
    options = parser.parse_args(argv)
    end_in_order()
    if options.case == "many":
        figures = _move_many(options.reactor, options.count)
    else:
        figures = _move_one(options.reactor, TRAFFIC[options.case], options.count)
    print(json.dumps(figures))
