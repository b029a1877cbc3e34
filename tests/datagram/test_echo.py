"""A `DatagramEcho` answers its peers, and causes neither loops nor floods."""

from __future__ import annotations

import errno
from collections import deque
from typing import Any

from hypothesis import given
from hypothesis.strategies import integers, lists, sampled_from, tuples
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.datagram.fake_ports import (
    HOST,
    PORT,
    Address,
    PlainPort,
    RunPort,
    log_lines,
)
from twsock.datagram.echo import is_loop_risk
from twsock.datagram.protocol import EchoCounters
from twsock.datagram.runs import Run
from twsock.errors import BusyError, ClosedError, SocketError
from twsock.protocols import DatagramEcho, RateLimit

PEER = ("192.0.2.1", 4000)

#: An address of this machine that is not the one of the ports.
ALIAS = "127.0.0.2"

#: Settings of an echo.
SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"answer_any_port": True},
    {"reply_port": 1336},
    {"reply_port": 1336, "answer_any_port": True},
)


def connected(port: PlainPort, **settings: Any) -> DatagramEcho:
    """Create an echo on a port."""
    echo = DatagramEcho(**settings)
    echo.makeConnection(port)
    return echo


def answers_to(source: Address, destination: str = "", **settings: Any) -> int:
    """
    Send a request from this source to an echo on either kind of port; return the number of answers.
    """
    counts = set()
    for port in (PlainPort(), RunPort()):
        echo = connected(port, **settings)
        echo.run_received(Run(b"abc", 1, source, destination))
        counts.add(len(port.written))
        assert echo.counters.answered + echo.counters.loop_risk == 3
    # A port of Twisted has no runs: it got all three as one datagram.
    return {frozenset({0}): 0, frozenset({1, 3}): 3}[frozenset(counts)]


class AnswerTests(SynchronousTestCase):
    """Content and destination of answers."""

    def test_a_run_is_answered_in_one_call(self) -> None:
        """The run is not split."""
        port = RunPort()
        echo, run = connected(port), Run(b"aabbc", 2, PEER)
        echo.run_received(run)
        self.assertEqual(port.replies, [(run, None)])
        self.assertEqual(echo.counters, EchoCounters(received=3, answered=3))

    def test_an_answer_goes_to_the_reply_port(self) -> None:
        """It goes to the host of the sender, in one call."""
        port = RunPort()
        run = Run(b"aabbc", 2, PEER)
        connected(port, reply_port=1336).run_received(run)
        self.assertEqual(port.replies, [(run, 1336)])

    def test_an_echo_answers_on_a_port_of_twisted(self) -> None:
        """The answer goes to the source, or to its host at the reply port."""
        for reply_port, expected in ((None, PEER), (1336, ("192.0.2.1", 1336))):
            port = PlainPort()
            echo = connected(port, reply_port=reply_port)
            echo.datagramReceived(b"Hello, World!", PEER)
            self.assertEqual(port.written, [(b"Hello, World!", expected)], (reply_port, expected))
            self.assertEqual(
                echo.counters, EchoCounters(received=1, answered=1), (reply_port, expected)
            )

    def test_an_empty_datagram_is_answered(self) -> None:
        """The answer is empty."""
        for port in (PlainPort(), RunPort()):
            connected(port).run_received(Run(b"", 0, PEER))
            self.assertEqual(port.written, [(b"", PEER)], port)

    def test_a_truncated_datagram_is_not_answered(self) -> None:
        """It has its own count; the next datagram is answered."""
        port = RunPort()
        echo = connected(port)
        echo.run_received(Run(b"beginning", 9, PEER, is_truncated=True))
        self.assertEqual(port.written, [])
        echo.run_received(Run(b"whole", 5, PEER))
        self.assertEqual(port.written, [(b"whole", PEER)])
        self.assertEqual(echo.counters, EchoCounters(received=2, answered=1, truncated=1))

    def test_a_reply_port_out_of_bounds_is_refused(self) -> None:
        """1 and 65,535 are accepted."""
        for wrong in (-1, 0, 65_536):
            self.assertRaises(ValueError, DatagramEcho, reply_port=wrong)
        for right in (1, 65_535):
            self.assertEqual(DatagramEcho(reply_port=right).counters, EchoCounters(), right)


class GuardTests(SynchronousTestCase):
    """Sources that are not answered."""

    def test_source_port_0_is_not_answered(self) -> None:
        """No socket has port 0. No setting changes that."""
        for settings in SETTINGS:
            self.assertEqual(answers_to(("192.0.2.1", 0), **settings), 0, settings)

    def test_a_group_is_not_answered(self) -> None:
        """Each member would receive the answer."""
        groups = ("224.0.0.1", "224.3.0.5", "239.255.255.255", "ff02::1", "ff3e::4321:1234")
        for settings in SETTINGS:
            for group in groups:
                self.assertEqual(answers_to((group, 4000), **settings), 0, group)

    def test_broadcast_and_unspecified_addresses_are_not_answered(self) -> None:
        """No host has these addresses."""
        for settings in SETTINGS:
            for address in ("255.255.255.255", "0.0.0.0", "::"):
                self.assertEqual(answers_to((address, 4000), **settings), 0, address)

    def test_an_ipv4_mapped_source_counts_as_ipv4(self) -> None:
        """A Twisted port of both families reports the prefix ``::ffff:`` (:rfc:`4291`)."""
        for host in ("224.0.0.1", "255.255.255.255", "0.0.0.0"):
            self.assertEqual(answers_to((f"::ffff:{host}", 4000)), 0, host)
        for host, count in ((HOST, 0), ("192.0.2.1", 3)):
            answers = answers_to((f"::ffff:{host}", PORT), answer_any_port=True)
            self.assertEqual(answers, count, host)

    def test_addresses_next_to_the_refused_ones_are_answered(self) -> None:
        """No other address is refused."""
        for host in ("223.255.255.255", "240.0.0.1", "22.4.0.1", "23.9.0.1", "2.24.0.1", "fe80::1"):
            self.assertEqual(answers_to((host, 4000)), 3, host)
        for port in (1, PORT - 1, PORT + 1, 65_535):
            self.assertEqual(answers_to(("192.0.2.1", port)), 3, port)

    def test_a_source_with_its_own_port_is_not_answered(self) -> None:
        """On no host, since it may be another echo."""
        for host in ("192.0.2.1", HOST, ALIAS, "2001:db8::1"):
            for reply_port in (None, 1336):
                self.assertEqual(answers_to((host, PORT), reply_port=reply_port), 0, host)

    def test_a_source_with_its_own_port_is_answered_if_allowed(self) -> None:
        """Only on another host."""
        self.assertEqual(answers_to(("192.0.2.1", PORT), answer_any_port=True), 3)
        self.assertEqual(answers_to((HOST, PORT), answer_any_port=True), 0)

    def test_a_reply_port_equal_to_its_own_port_is_not_answered(self) -> None:
        """Otherwise the reply port would bypass the check of the source port."""
        for host in ("192.0.2.1", HOST):
            self.assertEqual(answers_to((host, 4000), reply_port=PORT), 0, host)
        for host, count in (("192.0.2.1", 3), (HOST, 0)):
            answers = answers_to((host, 4000), reply_port=PORT, answer_any_port=True)
            self.assertEqual(answers, count, (host, count))

    def test_an_unanswered_run_counts_all_its_datagrams(self) -> None:
        """As an answered run does."""
        echo = connected(RunPort())
        echo.run_received(Run(b"abcde", 2, ("192.0.2.1", 0)))
        self.assertEqual(echo.counters, EchoCounters(received=3, loop_risk=3))


class Wire:
    """
    A network that delivers datagrams between fake ports.

    :ivar carried: the number of delivered datagrams.
    :ivar others: datagrams to addresses without a port.
    """

    def __init__(self) -> None:
        self._ports: dict[Address, tuple[PlainPort, DatagramEcho]] = {}
        self._under_way: deque[tuple[bytes, Address, Address]] = deque()
        self.carried = 0
        self.others = 0

    def add(self, address: Address, port: PlainPort, echo: DatagramEcho) -> None:
        """Attach a port at an address; a port of all addresses may have several."""
        self._ports[address] = port, echo

    def forge(self, source: Address, destination: Address) -> None:
        """Send a datagram with any source address."""
        self._under_way.append((b"x", source, destination))

    def settle(self, most: int = 200) -> None:
        """
        Deliver all datagrams and the answers to them.

        :raises AssertionError: when there are more than ``most``.
        """
        while self._under_way:
            data, source, destination = self._under_way.popleft()
            if destination not in self._ports:
                self.others += 1
                continue
            self.carried += 1
            if self.carried > most:
                raise AssertionError("it does not end")
            port, echo = self._ports[destination]
            if isinstance(port, RunPort):
                echo.run_received(Run(data, len(data), source, destination[0]))
            else:
                echo.datagramReceived(data, source)
            for answer, address in port.written:
                assert address is not None
                # An answer leaves from the destination of the request.
                self._under_way.append((answer, destination, address))
            port.written.clear()


class LoopTests(SynchronousTestCase):
    """One forged datagram causes no endless exchange."""

    def ask(
        self,
        wildcard: PlainPort,
        source: Address,
        destination: str = HOST,
        **settings: Any,
    ) -> None:
        """Send one datagram to an echo that has its port on two addresses; assert no answer."""
        wire = Wire()
        echo = connected(wildcard, **settings)
        for host in (HOST, ALIAS):
            wire.add((host, PORT), wildcard, echo)
        wire.forge(source, (destination, PORT))
        wire.settle()
        self.assertEqual((wire.carried, wire.others), (1, 0), (source, destination, settings))

    def test_an_echo_never_answers_itself(self) -> None:
        """The echo is bound to one address."""
        for settings in SETTINGS:
            for port in (PlainPort(), RunPort()):
                self.ask(port, (HOST, PORT), **settings)

    def test_an_echo_of_all_addresses_never_answers_itself(self) -> None:
        """From any of its addresses to any other."""
        for settings in SETTINGS:
            for source in (HOST, ALIAS):
                self.ask(RunPort("0.0.0.0"), (source, PORT), **settings)

    def test_an_echo_of_all_addresses_on_a_port_of_twisted_never_answers_itself(self) -> None:
        """Twisted's port does not report the destination address."""
        for settings in SETTINGS:
            for source in (HOST, ALIAS):
                self.ask(PlainPort("0.0.0.0"), (source, PORT), **settings)

    def test_an_echo_never_sends_an_answer_to_itself(self) -> None:
        """The reply port is its own, and the source is another of its addresses."""
        for answers_any in (False, True):
            for port in (PlainPort("0.0.0.0"), RunPort("0.0.0.0")):
                self.ask(port, (HOST, 4000), ALIAS, reply_port=PORT, answer_any_port=answers_any)

    def test_echoes_with_shared_own_ports_do_not_answer_each_other(self) -> None:
        """Their port numbers differ."""
        together: set[int] = set()
        wire = Wire()
        for number in (PORT, PORT + 1):
            port = RunPort(HOST, number)
            wire.add((HOST, number), port, connected(port, own_ports=together))
        wire.forge((HOST, PORT + 1), (HOST, PORT))
        wire.settle()
        self.assertEqual(wire.carried, 1)

    def test_a_broadcast_datagram_is_not_answered(self) -> None:
        """Every host of the network would send an answer."""
        port = RunPort("0.0.0.0")
        echo = connected(port)
        echo.run_received(Run(b"a", 1, PEER, "192.0.2.255", 2, local="192.0.2.9"))
        echo.run_received(Run(b"b", 1, PEER, "192.0.2.9", 2, local="192.0.2.9"))
        self.assertEqual([data for data, _ in port.written], [b"b"])
        self.assertEqual(echo.counters, EchoCounters(received=2, answered=1, loop_risk=1))

    def test_two_echoes_with_one_port_number_do_not_answer_each_other(self) -> None:
        """A datagram forged from one to the other is not answered."""
        for kind in (PlainPort, RunPort):
            wire, echoes = Wire(), []
            for host in (HOST, ALIAS):
                port = kind(host)
                echoes.append(connected(port))
                wire.add((host, PORT), port, echoes[-1])
            wire.forge((HOST, PORT), (ALIAS, PORT))
            wire.settle()
            self.assertEqual(wire.carried, 1, kind)
            self.assertEqual([echo.counters.loop_risk for echo in echoes], [0, 1], kind)

    @given(
        lists(
            tuples(
                sampled_from([HOST, ALIAS, "192.0.2.1"]), sampled_from([0, PORT, PORT + 1, 4000])
            ),
            min_size=1,
            max_size=4,
        ),
        integers(1, 5),
    )
    def test_a_rate_limit_ends_a_loop_between_two_port_numbers(
        self, sources: list[Address], burst: int
    ) -> None:
        """
        Echoes with different port numbers cannot recognise each other; each answers up to its
        limit.
        """
        wire, clock = Wire(), Clock()
        for number in (PORT, PORT + 1):
            port = RunPort(HOST, number)
            limit = RateLimit(rate=1.0, burst=burst)
            echo = connected(port, rate_limit=limit, now=clock.seconds)
            wire.add((HOST, number), port, echo)
        for source in sources:
            wire.forge(source, (HOST, PORT))
        wire.settle()
        self.assertLessEqual(wire.carried, len(sources) + 2 * burst)


class RateLimitTests(SynchronousTestCase):
    """Answers for each peer are limited."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.port = RunPort()
        limit = RateLimit(rate=2.0, burst=5)
        self.echo = connected(self.port, rate_limit=limit, now=self.clock.seconds)

    def ask(self, count: int, source: Address = PEER) -> int:
        """Send a run; return the number of answers."""
        before = len(self.port.written)
        self.echo.run_received(Run(bytes(range(count)), 1, source))
        return len(self.port.written) - before

    def test_a_peer_gets_the_burst_and_then_the_rate(self) -> None:
        """The rate is two a second."""
        self.assertEqual([self.ask(1) for _ in range(7)], [1, 1, 1, 1, 1, 0, 0])
        self.clock.advance(0.5)
        self.assertEqual([self.ask(1), self.ask(1)], [1, 0])
        self.clock.advance(2.0)
        self.assertEqual(self.ask(9), 4)
        self.assertEqual(self.echo.counters, EchoCounters(received=18, answered=10, limited=8))

    def test_a_run_above_the_limit_is_answered_in_part(self) -> None:
        """Its first datagrams are answered in one call."""
        source = ("fe80::1", 4000, 0, 7)
        self.echo.run_received(Run(b"aabbccddeeffg", 2, source, "fe80::2", 7))
        ((run, _),) = self.port.replies
        self.assertEqual(run.datagrams(), [b"aa", b"bb", b"cc", b"dd", b"ee"])
        self.assertEqual((run.source, run.destination, run.interface), (source, "fe80::2", 7))
        self.assertEqual(self.echo.counters, EchoCounters(received=7, answered=5, limited=2))

    def test_another_peer_has_its_own_limit(self) -> None:
        """The first peer has used up its tokens."""
        self.assertEqual(self.ask(9), 5)
        self.assertEqual(self.ask(9, ("192.0.2.2", 4000)), 5)
        self.assertEqual(self.ask(9), 0)

    def test_another_port_of_a_host_shares_its_limit(self) -> None:
        """A host can use any number of ports."""
        self.assertEqual(sum(self.ask(1, ("192.0.2.1", 4000 + n)) for n in range(20)), 5)

    def test_refused_sources_take_no_tokens(self) -> None:
        """Otherwise forged datagrams could use up the tokens of a peer."""
        self.assertEqual(self.ask(5, ("192.0.2.1", 0)), 0)
        self.echo.run_received(Run(b"beginning", 9, PEER, is_truncated=True))
        self.assertEqual(self.ask(9), 5)

    @given(lists(tuples(integers(0, 2000), integers(1, 64)), max_size=20))
    def test_every_datagram_is_counted_once(self, runs: list[tuple[int, int]]) -> None:
        """As answered or as limited."""
        clock, port = Clock(), RunPort()
        limit = RateLimit(rate=2.0, burst=5)
        echo = connected(port, rate_limit=limit, now=clock.seconds)
        for pause, count in runs:
            clock.advance(pause / 1000)
            echo.run_received(Run(bytes(count), 1, PEER))
        self.assertEqual(echo.counters.answered, len(port.written))
        total = echo.counters.answered + echo.counters.limited
        self.assertEqual(total, sum(count for _, count in runs))


class PressureTests(SynchronousTestCase):
    """Answers that cannot be sent yet."""

    def test_a_full_port_is_paused_until_it_drains(self) -> None:
        """New requests wait in the kernel."""
        port = RunPort()
        echo = connected(port)
        echo.run_received(Run(b"x", 1, PEER))
        self.assertFalse(port.is_paused)
        port.is_full = True
        echo.run_received(Run(b"x", 1, PEER))
        self.assertTrue(port.is_paused)
        port.is_full = False
        echo.output_drained()
        self.assertFalse(port.is_paused)
        self.assertEqual(echo.counters, EchoCounters(received=2, answered=2))


class FailureTests(SynchronousTestCase):
    """Answers that cannot be sent."""

    def check_failure(self, port: PlainPort, failure: Exception) -> None:
        """One answer fails and is logged; the next one is sent."""
        port.failure = failure
        echo = connected(port)
        with log_lines() as lines:
            echo.run_received(Run(b"abc", 3, PEER))
        self.assertEqual(len(lines), 1)
        self.assertIn(str(failure), lines[0])
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertEqual(echo.counters, EchoCounters(received=1, failed=1))
        echo.run_received(Run(b"abc", 3, PEER))
        self.assertEqual(echo.counters, EchoCounters(received=2, answered=1, failed=1))

    def test_an_echo_survives_a_full_or_closed_port(self) -> None:
        """The send raises `BusyError` or `ClosedError`."""
        for failure in (BusyError("too much waits"), ClosedError("this port was closed")):
            self.check_failure(RunPort(), failure)

    def test_an_echo_survives_an_error_of_the_system(self) -> None:
        """A port of Twisted raises the OSError."""
        self.check_failure(PlainPort(), OSError(errno.EPERM, "Operation not permitted"))

    def test_an_answer_that_fails_later_is_counted_as_failed(self) -> None:
        """The port reports it with `send_failed`."""
        echo = connected(RunPort())
        with log_lines() as lines:
            echo.send_failed(SocketError("no way leads there"), PEER, 1)
        self.assertEqual(lines, ["no way leads there"])
        self.assertEqual(echo.counters.failed, 1)

    def test_a_closed_echo_does_not_answer(self) -> None:
        """A subclass that closed the port may still pass on a run."""
        for port in (PlainPort(), RunPort()):
            echo = connected(port)
            echo.doStop()
            echo.run_received(Run(b"abc", 3, PEER))
            echo.output_drained()
            self.assertEqual(port.written, [], port)
            self.assertEqual(echo.counters.answered, 0, port)


class LoopRiskTests(SynchronousTestCase):
    """Datagrams of some sources are never answered."""

    def test_sources_that_no_host_sends_from_are_a_risk(self) -> None:
        """Port 0; an unspecified, broadcast or group address, also if IPv4-mapped."""
        for host in (
            "0.0.0.0",
            "::",
            "255.255.255.255",
            "224.0.0.1",
            "ff02::1",
            "::ffff:224.0.0.1",
        ):
            self.assertTrue(is_loop_risk((host, 7001)), host)
        self.assertTrue(is_loop_risk(("192.0.2.1", 0)))

    def test_a_host_with_a_port_is_no_risk(self) -> None:
        """Unicast addresses of both families are answered."""
        for source in (PEER, ("fe80::1", 7001, 0, 3), ("::ffff:192.0.2.1", 7001)):
            self.assertFalse(is_loop_risk(source), source)
