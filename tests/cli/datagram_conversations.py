"""One run of datagrams in memory, and peers that are not ours, for these tests."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from twsock.cli.arguments import EchoArguments
from twsock.cli.datagram_echo import echo_datagrams
from twsock.cli.datagram_target import parse_target
from twsock.cli.failure import CommandError
from twsock.cli.made_texts import MadeTexts, describe_numbered
from twsock.cli.screen import Screen
from twsock.cli.texts import GivenTexts, Texts
from twsock.datagram.udp_socket import DatagramOptions
from twsock.errors import SocketError, SocketErrorStatus

PEER = ("192.0.2.1", 7)
GROUP = ("224.3.0.5", 22113)


class FakeResolver:
    """
    Knows what the test knows.

    :param addresses: of every name; None for one that never tells.
    :ivar scope: the scope id of those of IPv6.
    """

    def __init__(self, addresses: Sequence[str] | None) -> None:
        self.addresses = addresses
        self.asked: list[str] = []
        self.cancelled = 0
        self.scope = 0

    def resolveHostName(self, receiver: Any, name: str, **_: Any) -> FakeResolver:
        self.asked.append(name)
        receiver.resolutionBegan(self)
        for host in self.addresses or ():
            address: Any = IPv4Address("UDP", host, 0)
            if ":" in host:
                address = IPv6Address("UDP", host, 0, 0, self.scope)
            receiver.addressResolved(address)
        if self.addresses is not None:
            receiver.resolutionComplete()
        return self

    def cancel(self) -> None:
        self.cancelled += 1


class FakeReactor(Clock):
    """
    Time, and names.

    :ivar delays: of all that was to be called later.
    """

    def __init__(self, addresses: Sequence[str] | None = ()) -> None:
        super().__init__()
        self.nameResolver = FakeResolver(addresses)
        self.delays: list[float] = []

    @override
    def callLater(self, delay: float, *args: Any, **kwargs: Any) -> Any:
        self.delays.append(delay)
        return super().callLater(delay, *args, **kwargs)


class FakePort:
    """
    A port without a socket.

    :ivar sent: what was sent, and where to.
    :ivar peer: what it is connected to.
    :ivar groups: what it has joined.
    :ivar error: what becomes of a send; None where it works.
    """

    def __init__(
        self,
        protocol: Any,
        port: int,
        interface: str,
        options: DatagramOptions,
        *,
        unreachable: Sequence[str] = (),
    ) -> None:
        self.protocol = protocol
        self.port = port
        self.interface = interface
        self.options = options
        self.sent: list[tuple[bytes, Any]] = []
        self.peer: tuple[str, int] | None = None
        self.groups: list[str] = []
        self.is_full = False
        self.is_open = True
        self.error: SocketError | None = None
        self._unreachable = unreachable

    def connect(self, host: str, port: int) -> None:
        if host in self._unreachable:
            raise SocketError("no way", status=SocketErrorStatus.NETWORK_IS_UNREACHABLE)
        self.peer = (host, port)

    def send(self, data: bytes, address: Any = None) -> None:
        assert self.is_open
        if self.error is not None:
            raise self.error
        self.sent.append((data, address))

    def join_group(self, group: str, interface: object) -> None:
        self.groups.append(group)

    def stopListening(self) -> Deferred[None]:
        self.is_open = False
        return succeed(None)


class DatagramConversation:
    """
    The command against peers that the test plays.

    :param addresses: of the host, where the endpoint has a name.
    :param unreachable: addresses to which there is no way.
    :param taken: ports that somebody else has.
    """

    def __init__(
        self,
        *messages: bytes,
        endpoint: str = "udp:192.0.2.1:7",
        texts: Texts | None = None,
        addresses: Sequence[str] | None = (),
        unreachable: Sequence[str] = (),
        taken: Sequence[int] = (),
        **settings: Any,
    ) -> None:
        self.clock = FakeReactor(addresses)
        self.output = io.BytesIO()
        self.notes = io.StringIO()
        self.ports: list[FakePort] = []
        settings.setdefault("timeout", 2.0)
        arguments = EchoArguments(endpoint=endpoint, texts=messages, **settings)
        if arguments.size is not None:
            texts = MadeTexts(arguments.size, arguments.count, is_numbered=True)

        def open_port(protocol: Any, port: int, interface: str, options: DatagramOptions) -> Any:
            if port in taken:
                raise SocketError("taken", status=SocketErrorStatus.ADDRESS_ALREADY_IN_USE)
            self.ports.append(FakePort(protocol, port, interface, options, unreachable=unreachable))
            return self.ports[-1]

        screen = Screen(
            self.output,
            quiet=arguments.quiet,
            notes=self.notes,
            describe=None if arguments.size is None else describe_numbered,
        )
        self.done: Deferred[None] = ensureDeferred(
            echo_datagrams(
                self.clock,
                parse_target(endpoint),
                arguments,
                texts or GivenTexts(messages),
                screen,
                self.clock.seconds,
                open_port,
            )
        )

    def sent(self, port: int = -1) -> list[bytes]:
        """Take what was sent since the last call."""
        sent = self.ports[port].sent
        self.ports[port].sent = []
        return [data for data, _ in sent]

    def receive(self, *messages: bytes, source: Any = PEER, port: int = -1) -> None:
        """Let datagrams come to a port, of several the last one."""
        for message in messages:
            self.ports[port].protocol.datagram_received(message, source)

    def refuse(self, port: int = -1) -> None:
        """Let somebody tell that nobody listens."""
        self.ports[port].protocol.refused(
            SocketError("nobody", status=SocketErrorStatus.CONNECTION_RESET_BY_PEER)
        )

    @property
    def lines(self) -> list[str]:
        """What is on standard output."""
        return self.output.getvalue().decode().splitlines()

    def ends(self, case: SynchronousTestCase) -> None:
        """Make sure that all went well, and nothing is left."""
        case.successResultOf(self.done)
        self._check_closed(case)

    def fails(self, case: SynchronousTestCase) -> str:
        """Give the line for standard error, and make sure that nothing is left."""
        error = case.failureResultOf(self.done, CommandError).value
        self._check_closed(case)
        return str(error.line)

    def _check_closed(self, case: SynchronousTestCase) -> None:
        case.assertFalse([port for port in self.ports if port.is_open])
        case.assertEqual(self.clock.getDelayedCalls(), [])


@contextlib.contextmanager
def serve_datagrams(
    handle: Callable[[socket.socket, int, bytes, Any], None],
) -> Iterator[str]:
    """
    Run a peer on a plain socket.

    :param handle: called with the socket, the number of each datagram from 0, its bytes and source.
    :returns: the ENDPOINT.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as served:
        served.bind(("127.0.0.1", 0))
        with running(served, handle):
            yield f"udp:127.0.0.1:{served.getsockname()[1]}"


@contextlib.contextmanager
def running(
    served: socket.socket, handle: Callable[[socket.socket, int, bytes, Any], None]
) -> Iterator[None]:
    """Let a thread handle what comes to a socket."""
    ended = threading.Event()
    # Nothing else would wake it in the end: one that is shared may not even get what is sent to it.
    served.settimeout(0.05)

    def run() -> None:
        number = 0
        while not ended.is_set():
            try:
                message, source = served.recvfrom(65535)
            except TimeoutError:
                continue
            handle(served, number, message, source)
            number += 1

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def echo_datagram(served: socket.socket, _number: int, message: bytes, source: Any) -> None:
    """Answer each datagram with itself."""
    served.sendto(message, source)
