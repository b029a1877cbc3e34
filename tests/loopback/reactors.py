"""
One test on every reactor, with a peer in a thread that knows nothing of Twisted.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from twisted.internet import asyncioreactor, default
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.test.reactormixins import ReactorBuilder
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from tests import THOROUGH
from twsock.protocols import StreamProtocol, StreamServerFactory

if TYPE_CHECKING:

    class _ReactorBuilder(ReactorBuilder, SynchronousTestCase):
        """What a builder becomes once it has made its test cases."""

else:
    _ReactorBuilder = ReactorBuilder

#: Every reactor of this platform, ours among them.
REACTORS = [
    "twisted.internet.selectreactor.SelectReactor",
    "twisted.internet.pollreactor.PollReactor",
    "twisted.internet.epollreactor.EPollReactor",
    "tests.loopback.reactors.AsyncioSelectorReactor",
    "twsock.reactor.LeanEpollReactor",
]

#: Where variants of a claim run: in the daily profile, on what Twisted chooses on this platform.
VARIANT_REACTORS: Final = [
    name for name in REACTORS if THOROUGH or name.startswith(f"{default.install.__module__}.")
]

#: Seconds after which a test is stopped: only one that hangs, as a busy machine may be slow.
PATIENCE: Final = 120

Peer = Callable[[tuple[str, int]], None]

_Test = TypeVar("_Test", bound=Callable[..., None])


def on_every_reactor(test: _Test) -> _Test:
    """Mark a claim whose variants are the other tests of its class: it runs on every reactor."""
    test.is_on_every_reactor = True  # type: ignore[attr-defined]
    return test


class AsyncioSelectorReactor(asyncioreactor.AsyncioSelectorReactor):
    """Twisted's, with a loop of its own, that Twisted would leave open."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        super().__init__(self.loop)


class ClosingBuilder(_ReactorBuilder):
    """
    Builds reactors that leave nothing open.

    :cvar has_variants: whether only what is marked with `on_every_reactor` runs on every reactor,
        and the rest of the class on `VARIANT_REACTORS`.
    """

    has_variants: ClassVar[bool] = False
    _variants: ClassVar[dict[str, Callable[..., None]]] = {}

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if cls.has_variants:
            cls._variants = {**cls._variants, **_take_variants(cls)}

    @override
    @classmethod
    def makeTestCaseClasses(cls) -> dict[str, Any]:
        made: dict[str, Any] = super().makeTestCaseClasses()
        for reactor, case in zip(cls._reactors, made.values(), strict=True):
            if reactor in VARIANT_REACTORS:
                for name, test in cls._variants.items():
                    setattr(case, name, test)
        return made

    @override
    def buildReactor(self) -> Any:
        built: list[Any] = []
        # Cleanups run from the last to the first: Twisted's own needs the loop.
        self.addCleanup(lambda: [reactor.loop.close() for reactor in built])
        reactor: Any = super().buildReactor()
        if isinstance(reactor, AsyncioSelectorReactor):
            built.append(reactor)
        return reactor


def _take_variants(cls: type) -> dict[str, Callable[..., None]]:
    """Take the variants out of a class: trial runs every test that a class or its bases define."""
    variants = {
        name: test
        for name, test in vars(cls).items()
        if name.startswith("test_") and not hasattr(test, "is_on_every_reactor")
    }
    for name in variants:
        delattr(cls, name)
    return variants


class EveryReactor(ClosingBuilder):
    """
    Makes a test case for each reactor, ours among them.

    A reactor that cannot be imported on this platform is left out by Twisted, with its reason.
    """

    _reactors = REACTORS

    #: Makes the factory of a protocol.
    make_factory: ClassVar[Callable[..., StreamServerFactory]] = StreamServerFactory

    def serve(
        self,
        protocol: type[StreamProtocol],
        peer: Peer,
        make_endpoint: Callable[[Any], Any] | None = None,
        **limits: Any,
    ) -> StreamServerFactory:
        """
        Serve a protocol until the peer has returned and every connection is gone.

        :param peer: called in a thread with the address to connect to, on a UNIX socket with its
            path and 0; what it raises fails the test.
        :param make_endpoint: where to listen; None for TCP on a free port of 127.0.0.1.
        """
        reactor = self.buildReactor()
        factory = type(self).make_factory(reactor, protocol, **limits)
        problems: list[BaseException] = []
        ports: list[Any] = []
        threads: list[threading.Thread] = []

        def run(address: tuple[str, int]) -> None:
            try:
                peer(address)
            except BaseException as problem:  # noqa: BLE001 - handed to the test, which fails
                problems.append(problem)
            reactor.callFromThread(stop)

        def stop() -> None:
            # The reactor does not close a port that is paused, as one is at the limit.
            stopping = factory.drain(5.0)
            stopping.addCallback(lambda _: ports[0].stopListening())
            stopping.addCallback(lambda _: reactor.stop())

        def listening(port: Any) -> None:
            ports.append(port)
            host = port.getHost()
            address = (host.host, host.port) if hasattr(host, "host") else (host.name, 0)
            threads.append(threading.Thread(target=run, args=(address,), daemon=True))
            threads[0].start()

        endpoint = (make_endpoint or _any_port)(reactor)
        factory.listen(endpoint).addCallback(listening)
        self.runReactor(reactor, timeout=PATIENCE)
        # The last call from the thread wakes the reactor, which must not be closed by then.
        threads[0].join()
        if problems:
            raise problems[0]
        return factory


def _any_port(reactor: Any) -> TCP4ServerEndpoint:
    return TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")


def connect(address: tuple[str, int]) -> socket.socket:
    """Connect a plain socket that never waits for ever."""
    return socket.create_connection(address, timeout=PATIENCE)


def receive_all(connection: socket.socket) -> bytes:
    """Read until the other end's FIN."""
    received = bytearray()
    while chunk := connection.recv(1 << 20):
        received += chunk
    return bytes(received)


def receive_exactly(connection: socket.socket, count: int) -> bytes:
    """Read a number of bytes; fewer only at the other end's FIN."""
    received = bytearray()
    while len(received) < count and (chunk := connection.recv(count - len(received))):
        received += chunk
    return bytes(received)
