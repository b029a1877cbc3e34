"""A port that stops does not reset the peers that the kernel has queued for it."""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.endpoints import TCP4ServerEndpoint, UNIXServerEndpoint
from twisted.internet.task import deferLater

from tests.loopback.contract import OnEveryReactor, turns
from tests.loopback.reactors import connect as connect_plain
from tests.sockets.test_listener import echo, listen
from twsock import StreamSocketListener
from twsock.protocols import FrameEchoFactory, LineEchoFactory
from twsock.wire import encode_frame

FRAME = encode_frame(b"x")


def queue(address: Any, count: int, question: bytes = b"x") -> list[socket.socket]:
    """Connect and send, while the reactor has no turn: all of it waits in the kernel."""
    peers = []
    for _ in range(count):
        if isinstance(address, str):
            peer = socket.socket(socket.AF_UNIX)
            peer.settimeout(10)
            peer.connect(address)
        else:
            peer = connect_plain(address)
        peer.sendall(question)
        peers.append(peer)
    return peers


async def read_all(reactor: Any, peer: socket.socket) -> bytes | None:
    """Read to the end, with turns of the reactor in between; None for a reset."""
    received = b""
    peer.setblocking(False)
    while True:
        try:
            chunk = peer.recv(1 << 16)
        except BlockingIOError:
            await deferLater(reactor, 0.01)
            continue
        except ConnectionError:
            return None
        if not chunk:
            return received
        received += chunk


async def finish(reactor: Any, peers: list[socket.socket]) -> list[bytes | None]:
    """Read what each peer gets, and close it."""
    answers = []
    for peer in peers:
        answers.append(await read_all(reactor, peer))
        peer.close()
    return answers


def port_of(listener: StreamSocketListener) -> tuple[str, int]:
    return "127.0.0.1", int(listener.information.local_port)


class ListenerTests(OnEveryReactor):
    """`StreamSocketListener`, with handlers and without."""

    def test_what_is_queued_is_answered_within_the_drain(self) -> None:
        """Of both families, and on a UNIX socket."""

        async def work(reactor: Any) -> None:
            for host in ("127.0.0.1", "::1") if socket.has_ipv6 else ("127.0.0.1",):
                listener = StreamSocketListener(reactor)
                listener.connection_received.add(echo)
                await listener.bind_endpoint(host, "")
                peers = queue((host, int(listener.information.local_port)), 5)
                closing = listener.close_all(5)
                self.assertEqual(await finish(reactor, peers), [b"x"] * 5)
                self.assertEqual(await closing, 0)
            with tempfile.TemporaryDirectory() as folder:
                path = str(Path(folder, "socket"))
                listener = StreamSocketListener(reactor)
                listener.connection_received.add(echo)
                await listener.listen(UNIXServerEndpoint(reactor, path))
                peers = queue(path, 5)
                closing = listener.close_all(5)
                self.assertEqual(await finish(reactor, peers), [b"x"] * 5)
                self.assertEqual(await closing, 0)

        self.conduct(work)

    def test_a_limit_on_connections_is_kept(self) -> None:
        """Those for which there is no room are reset, and their number is bounded by the queue."""

        async def work(reactor: Any) -> None:
            listener = await listen(reactor, echo, max_connections=2)
            peers = queue(port_of(listener), 5)
            closing = listener.close_all(5)
            await turns(reactor)
            self.assertEqual(len(listener), 2)
            self.assertEqual(await finish(reactor, peers), [b"x"] * 2 + [None] * 3)
            self.assertEqual(await closing, 0)

        self.conduct(work)

    def test_closing_alone_gives_handlers_what_is_queued(self) -> None:
        """These connections stay, as all that were accepted do."""

        async def work(reactor: Any) -> None:
            listener = await listen(reactor, echo)
            peers = queue(port_of(listener), 3)
            await listener.close()
            self.assertEqual(len(listener), 3)
            for peer in peers:
                peer.shutdown(socket.SHUT_WR)
            self.assertEqual(await finish(reactor, peers), [b"x"] * 3)

        self.conduct(work)

    def test_without_a_handler_nobody_would_take_them(self) -> None:
        """They are reset, as those that were accepted and not taken."""

        async def work(reactor: Any) -> None:
            listener = await listen(reactor)
            peers = queue(port_of(listener), 3)
            await listener.close()
            self.assertEqual(len(listener), 0)
            self.assertEqual(await finish(reactor, peers), [None] * 3)

        self.conduct(work)


class FactoryTests(OnEveryReactor):
    """Protocol classes, as the services have them: the port stops, then the factory is drained."""

    def test_what_is_queued_is_answered_within_the_drain(self) -> None:
        """Frames and lines."""

        async def work(reactor: Any) -> None:
            for make, question, answer in (
                (FrameEchoFactory, FRAME * 2, FRAME * 2),
                (LineEchoFactory, b"x\n", b"x\r\n"),
            ):
                factory = make(reactor)
                port: Any = await factory.listen(any_port(reactor))
                peers = queue(("127.0.0.1", port.getHost().port), 5, question)
                await port.stopListening()
                draining = factory.drain(5)
                self.assertEqual(await finish(reactor, peers), [answer] * 5)
                self.assertEqual(await draining, 0)

        self.conduct(work)

    def test_a_limit_on_connections_is_kept(self) -> None:
        """Those for which there is no room are reset."""

        async def work(reactor: Any) -> None:
            factory = FrameEchoFactory(reactor, max_connections=2)
            port: Any = await factory.listen(any_port(reactor))
            peers = queue(("127.0.0.1", port.getHost().port), 5, FRAME)
            await port.stopListening()
            self.assertEqual(len(factory.group), 2)
            draining = factory.drain(5)
            self.assertEqual(await finish(reactor, peers), [FRAME] * 2 + [None] * 3)
            self.assertEqual(await draining, 0)

        self.conduct(work)

    def test_after_the_drain_has_begun_nobody_is_accepted(self) -> None:
        """A port that stops only then resets what is queued."""

        async def work(reactor: Any) -> None:
            factory = FrameEchoFactory(reactor)
            port: Any = await factory.listen(any_port(reactor))
            peers = queue(("127.0.0.1", port.getHost().port), 2, FRAME)
            await factory.drain(5)
            await port.stopListening()
            self.assertEqual(await finish(reactor, peers), [None] * 2)

        self.conduct(work)


def any_port(reactor: Any) -> TCP4ServerEndpoint:
    return TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")


for case in (ListenerTests, FactoryTests):
    globals().update(case.makeTestCaseClasses())
del ListenerTests, FactoryTests
