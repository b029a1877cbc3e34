"""A `DatagramEcho` on real ports of twsock and of Twisted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred

from tests.datagram.fake_ports import log_lines
from tests.loopback.contract import OnEveryReactor, turns
from twsock.datagram.port import listen_datagrams
from twsock.datagram.protocol import EchoCounters
from twsock.datagram.runs import Run
from twsock.datagram.udp_socket import DatagramOptions
from twsock.protocols import DatagramEcho, DatagramProtocol, RateLimit

HOST, ALIAS = "127.0.0.1", "127.0.0.2"

#: Bytes of a receive buffer: room for all that these tests send at once.
AMPLE = 2 * 1024 * 1024

#: Turns of the reactor for a possible loop; a port of Twisted reads 32 datagrams in each.
LARGE = bytes(8000)

#: How often a reactor goes round until a test gives up: nothing on loopback takes so many.
MOST_TURNS = 2000


class Client(DatagramProtocol):
    """Records received datagrams, and waits for more."""

    def __init__(self) -> None:
        self.received: list[tuple[bytes, Any]] = []
        self._wanted = 0
        self._waiter: Deferred[None] | None = None

    def datagram_received(self, data: bytes, source: Any) -> None:
        self.received.append((data, source))
        if self._waiter is not None and len(self.received) >= self._wanted:
            waiter, self._waiter = self._waiter, None
            waiter.callback(None)

    def wait_for(self, count: int) -> Deferred[None]:
        """Wait until so many datagrams have arrived."""
        waiter: Deferred[None] = Deferred()
        if len(self.received) >= count:
            waiter.callback(None)
        else:
            self._wanted, self._waiter = count, waiter
        return waiter


class Ports:
    """
    Ports of one reactor, closed together.

    :param is_plain: whether they are ports of Twisted.
    """

    def __init__(self, reactor: Any, *, is_plain: bool) -> None:
        self.reactor = reactor
        self._is_plain = is_plain
        self._ports: list[Any] = []

    def open(
        self,
        protocol: DatagramProtocol,
        host: str = HOST,
        port: int = 0,
        **options: Any,
    ) -> Any:
        """Open a port; options are for ports of twsock only."""
        if self._is_plain:
            opened = self.reactor.listenUDP(port, protocol, interface=host)
        else:
            asked = DatagramOptions(receive_buffer=AMPLE, **options)
            opened = listen_datagrams(self.reactor, protocol, port, host, asked)
        self._ports.append(opened)
        return opened

    async def until(self, condition: Callable[[], bool]) -> None:
        """Run the reactor until a condition is true."""
        for _ in range(MOST_TURNS):
            if condition():
                return
            await turns(self.reactor, 1)
        raise AssertionError("it never came true")

    async def settle(self, echo: DatagramEcho) -> EchoCounters:
        """Send an echo one datagram, run the reactor for a while, and return the counters."""
        await self.until(lambda: echo.counters != EchoCounters())
        await turns(self.reactor, 20)
        return echo.counters

    async def close(self) -> None:
        """Close all."""
        for port in self._ports:
            await maybeDeferred(port.stopListening)


def address_of(port: Any) -> tuple[str, int]:
    """Return the address to send to; for a port of all addresses the first of this machine."""
    where = port.getHost()
    return (HOST if where.host == "0.0.0.0" else where.host), where.port


Work = Callable[[Ports], Awaitable[None]]


class EchoBuilder(OnEveryReactor):
    """Claims about ports of either kind, or about ports of twsock only."""

    def meet(self, work: Work, *, kinds: tuple[bool, ...] = (False,)) -> None:
        """Run a test with ports; ``kinds`` are whether they are Twisted's."""

        async def all_kinds(reactor: Any) -> None:
            for is_plain in kinds:
                ports = Ports(reactor, is_plain=is_plain)
                try:
                    await work(ports)
                finally:
                    await ports.close()

        self.conduct(all_kinds)

    def test_the_source_is_answered(self) -> None:
        """Datagrams come back unchanged, an empty one too."""

        async def work(ports: Ports) -> None:
            echo, client = DatagramEcho(), Client()
            server = address_of(ports.open(echo))
            ports.open(client)
            sent = [b"Hello, World!", b"", bytes(8000), b"\r\n"]
            for data in sent:
                client.send(data, server)
            await client.wait_for(len(sent))
            self.assertEqual(client.received, [(data, server) for data in sent])
            self.assertEqual(echo.counters, EchoCounters(received=4, answered=4))

        self.meet(work, kinds=(False, True))

    def test_the_guides_exchange(self) -> None:
        """
        The request comes from a third socket. The answer goes to its address, at the fixed port
        that the client is bound to.
        """

        async def work(ports: Ports) -> None:
            client, third = Client(), Client()
            fixed = address_of(ports.open(client))[1]
            ports.open(third)
            server = address_of(ports.open(DatagramEcho(reply_port=fixed)))
            third.send(b"Hello, World!\r\n", server)
            await client.wait_for(1)
            await turns(ports.reactor)
            self.assertEqual(client.received, [(b"Hello, World!\r\n", server)])
            self.assertEqual(third.received, [])

        self.meet(work, kinds=(False, True))

    def test_a_run_comes_back_as_the_same_datagrams(self) -> None:
        """The last one is shorter."""

        async def work(ports: Ports) -> None:
            echo, client = DatagramEcho(), Client()
            server = address_of(ports.open(echo))
            data = b"".join(b"%100d" % number for number in range(40)) + b"end"
            ports.open(client).send_run(data, 100, server)
            await client.wait_for(41)
            self.assertEqual([len(data) for data, _ in client.received], [100] * 40 + [3])
            self.assertEqual(b"".join(data for data, _ in client.received), data)
            self.assertEqual(echo.counters, EchoCounters(received=41, answered=41))

        self.meet(work)

    def test_answers_leave_from_the_address_of_the_request(self) -> None:
        """The echo is bound to all addresses."""

        async def work(ports: Ports) -> None:
            client = Client()
            port = ports.open(DatagramEcho(), "0.0.0.0").getHost().port
            ports.open(client)
            for number, host in enumerate((HOST, ALIAS, "127.9.9.9"), 1):
                client.send(host.encode(), (host, port))
                await client.wait_for(number)
                self.assertEqual(client.received[-1], (host.encode(), (host, port)), (number, host))

        self.meet(work)

    def test_ipv6_is_answered(self) -> None:
        """At the source, or at the reply port of its host."""

        async def work(ports: Ports) -> None:
            client, third = Client(), Client()
            fixed = ports.open(client, "::1").getHost().port
            ports.open(third, "::1")
            for reply_port, asking in ((None, client), (fixed, third)):
                server = ports.open(DatagramEcho(reply_port=reply_port), "::1").getHost()
                asking.send(b"Hello", ("::1", server.port))
                await client.wait_for(1)
                ((data, source),) = client.received
                self.assertEqual(
                    (data, *source[:2]), (b"Hello", "::1", server.port), (reply_port, asking)
                )
                client.received.clear()

        self.meet(work)

    def test_a_truncated_datagram_is_not_answered(self) -> None:
        """It is counted; the datagrams around it are answered."""

        async def work(ports: Ports) -> None:
            echo, client = DatagramEcho(), Client()
            port = ports.open(echo, max_datagram=10)
            ports.open(client)
            for size in (10, 11, 9, 60_000, 1):
                client.send(bytes(size), address_of(port))
            await client.wait_for(3)
            self.assertEqual([len(data) for data, _ in client.received], [10, 9, 1])
            self.assertEqual(echo.counters, EchoCounters(received=5, answered=3, truncated=2))
            self.assertEqual(port.counters.truncated, 2)

        self.meet(work)

    def test_an_echo_answers_everything_under_load(self) -> None:
        """More datagrams wait than the send queue holds. The next one is answered too."""

        async def work(ports: Ports) -> None:
            echo, client = DatagramEcho(), Client()
            server = address_of(ports.open(echo))
            ports.open(client)
            # Small datagrams raise its read budget, large ones fill its send queue.
            sizes = [1] * 40 + [40_000] * 5
            for number in range(1, 4):
                for size in sizes:
                    client.send(bytes(size), server)
                await client.wait_for(len(sizes) * number)
            self.assertEqual([len(data) for data, _ in client.received], sizes * 3)
            self.assertEqual(echo.counters, EchoCounters(received=135, answered=135))

        self.meet(work)

    def test_an_echo_never_answers_itself(self) -> None:
        """On one address or on all, with any setting: its own port sends to it."""

        async def work(ports: Ports) -> None:
            for host in (HOST, "0.0.0.0"):
                for answers_any in (False, True):
                    echo = DatagramEcho(answer_any_port=answers_any)
                    echo.send(LARGE, address_of(ports.open(echo, host)))
                    self.assertEqual(
                        await ports.settle(echo), EchoCounters(received=1, loop_risk=1), answers_any
                    )

        self.meet(work, kinds=(False, True))

    def test_an_echo_does_not_answer_another_of_its_own_addresses(self) -> None:
        """The system chooses the source address of what it sends there."""

        async def work(ports: Ports) -> None:
            echo = DatagramEcho(answer_any_port=True)
            port = ports.open(echo, "0.0.0.0").getHost().port
            echo.send(LARGE, (ALIAS, port))
            self.assertEqual(await ports.settle(echo), EchoCounters(received=1, loop_risk=1))

        self.meet(work, kinds=(False, True))

    def test_two_echoes_with_one_port_number_do_not_answer_each_other(self) -> None:
        """A datagram from one to the other, as an attacker could forge it, gets no answer."""

        async def work(ports: Ports) -> None:
            here, there = DatagramEcho(), DatagramEcho()
            server = address_of(ports.open(here))
            ports.open(there, ALIAS, server[1])
            there.send(b"x", server)
            self.assertEqual(await ports.settle(here), EchoCounters(received=1, loop_risk=1))
            self.assertEqual(there.counters, EchoCounters())

        self.meet(work, kinds=(False, True))

    def test_a_rate_limit_ends_a_loop_between_two_echoes(self) -> None:
        """
        They have different port numbers and cannot recognise each other. Each answers up to its
        limit.
        """

        async def work(ports: Ports) -> None:
            echoes = [
                DatagramEcho(rate_limit=RateLimit(rate=1.0, burst=5), now=lambda: 0.0)
                for _ in range(2)
            ]
            here, there = (address_of(ports.open(echo)) for echo in echoes)
            self.assertNotEqual(here, there)
            echoes[1].send(b"x", here)
            await ports.until(lambda: any(echo.counters.limited for echo in echoes))
            await turns(ports.reactor, 20)
            counters = [echo.counters for echo in echoes]
            self.assertEqual([c.answered for c in counters], [5, 5])
            self.assertEqual(sum(c.limited for c in counters), 1)

        self.meet(work, kinds=(False, True))

    def test_other_peers_are_answered_while_one_is_limited(self) -> None:
        """A peer is an address."""

        async def work(ports: Ports) -> None:
            limit = RateLimit(rate=1.0, burst=3)
            echo = DatagramEcho(rate_limit=limit, now=lambda: 0.0)
            greedy, modest = Client(), Client()
            server = address_of(ports.open(echo))
            ports.open(greedy)
            ports.open(modest, ALIAS)
            for _ in range(10):
                greedy.send(b"x", server)
            await ports.until(lambda: echo.counters.limited == 7)
            modest.send(b"y", server)
            await modest.wait_for(1)
            await turns(ports.reactor)
            self.assertEqual((len(greedy.received), len(modest.received)), (3, 1))
            self.assertEqual(echo.counters, EchoCounters(received=11, answered=4, limited=7))

        self.meet(work, kinds=(False, True))

    def test_an_answer_that_cannot_be_sent_is_counted(self) -> None:
        """Each datagram of the run; the log has one line, and the echo goes on."""

        async def work(ports: Ports) -> None:
            echo, client = DatagramEcho(), Client()
            port = ports.open(echo, broadcast=False)
            ports.open(client)
            with log_lines() as lines:
                echo.run_received(Run(b"abc", 1, ("127.255.255.255", 4000)))
            self.assertEqual(len([line for line in lines if "cannot send" in line]), 1)
            self.assertEqual(port.counters.failed, 3)
            self.assertEqual(echo.counters.failed, 3)
            client.send(b"next", address_of(port))
            await client.wait_for(1)

        self.meet(work)

    def test_a_stopped_port_logs_no_error(self) -> None:
        """Although datagrams wait in its buffer."""

        async def work(ports: Ports) -> None:
            echo, client = DatagramEcho(), Client()
            port = ports.open(echo)
            ports.open(client)
            for _ in range(10):
                client.send(b"x", address_of(port))
            await maybeDeferred(port.stopListening)
            await turns(ports.reactor, 20)
            self.assertEqual(self.flushLoggedErrors(), [])
            self.assertEqual(len(client.received), echo.counters.answered)

        self.meet(work, kinds=(False, True))


globals().update(EchoBuilder.makeTestCaseClasses())
del EchoBuilder
