"""A `MulticastEcho` answers its senders or its group, and causes no loops."""

from __future__ import annotations

import socket
from typing import Any

from hypothesis import given
from hypothesis.strategies import integers, lists, sampled_from
from twisted.trial.unittest import SynchronousTestCase

from tests.datagram.fake_ports import Address, PlainPort, log_lines
from twsock.datagram.network.interfaces import Interface
from twsock.datagram.network.membership import Membership, MembershipChange
from twsock.datagram.protocol import EchoCounters
from twsock.datagram.runs import Run
from twsock.datagram.udp_socket import DatagramOptions
from twsock.errors import SocketError, SocketErrorStatus
from twsock.protocols import MulticastEcho, ReplyTo

GROUP, GROUP_PORT = "224.3.0.5", 22113
PEER = ("192.0.2.1", 4000)
LOOPBACK = Interface("lo", 1)


class FakePort(PlainPort):
    """
    A port that takes runs.

    :ivar runs: sent bytes, with segment size and address.
    """

    def __init__(self, protocol: Any, host: str = "0.0.0.0", port: int = GROUP_PORT) -> None:
        super().__init__(host, port)
        self.protocol = protocol
        self.runs: list[tuple[bytes, int, Address]] = []
        self.memberships = [Membership(GROUP, LOOPBACK)]
        self.socket_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.is_full = self.is_paused = False
        self.is_open = True

    def send_run(self, data: bytes, segment_size: int, address: Address) -> None:
        self._fail()
        self.runs.append((data, segment_size, address))

    def fail_run(self, count: int, address: Address) -> None:
        """Fail a run that was accepted."""
        self.protocol.send_failed(SocketError("no"), address, count)

    def pauseProducing(self) -> None:
        self.is_paused = True

    def resumeProducing(self) -> None:
        self.is_paused = False

    def stopListening(self) -> None:
        self.is_open = False
        self.protocol.doStop()


class Member:
    """
    An echo on a fake port.

    :ivar reply_ports: the reply ports that it has opened.
    :ivar asked: their arguments.
    :ivar refusal: the error of the next reply port.
    :ivar last_refusal: the error of all later reply ports.
    """

    def __init__(self, reply: ReplyTo, host: str = "0.0.0.0") -> None:
        self.reply_ports: list[FakePort] = []
        self.asked: list[tuple[int, str, DatagramOptions]] = []
        self.refusal: BaseException | None = None
        self.last_refusal: BaseException | None = None
        self.echo = MulticastEcho(object(), reply=reply, open_port=self._open)
        self.port = FakePort(self.echo, host)

    def start(self) -> Member:
        """Start to listen."""
        self.echo.makeConnection(self.port)
        return self

    def receive(
        self, source: Address = PEER, data: bytes = b"abcde", interface: int = LOOPBACK.index
    ) -> None:
        """Receive datagrams of two bytes that were sent to the group."""
        self.echo.run_received(Run(data, 2, source, GROUP, interface))

    def _open(
        self, reactor: object, protocol: Any, port: int, host: str, options: DatagramOptions
    ) -> FakePort:
        refusal, self.refusal = self.refusal, self.last_refusal
        self.asked.append((port, host, options))
        if refusal is not None:
            raise SocketError.from_exception(refusal)
        opened = FakePort(protocol, "127.0.0.1", 40_000)
        self.reply_ports.append(opened)
        protocol.makeConnection(opened)
        return opened


class SenderTests(SynchronousTestCase):
    """Answers go to the sender."""

    def test_the_sender_is_answered_from_a_reply_port(self) -> None:
        """A whole run leaves in one call; the shared port sends nothing."""
        member = Member(ReplyTo.SENDER).start()
        member.receive()
        (reply_port,) = member.reply_ports
        self.assertEqual(reply_port.runs, [(b"abcde", 2, PEER)])
        self.assertEqual(member.port.runs, [])
        self.assertEqual(member.echo.counters, EchoCounters(received=3, answered=3))

    def test_a_reply_port_has_the_interface_and_family_of_the_group(self) -> None:
        """It is not shared, and the system chooses its number."""
        for host, wildcard in (("0.0.0.0", ""), ("::", "::")):
            member = Member(ReplyTo.SENDER, host).start()
            ((port, bound, options),) = member.asked
            self.assertEqual((port, bound), (0, wildcard), (host, wildcard))
            self.assertEqual(options.interface, LOOPBACK.index, (host, wildcard))
            self.assertEqual(options.device, "lo", (host, wildcard))
            self.assertFalse(options.multicast_only, (host, wildcard))

    def test_datagrams_to_a_reply_port_are_ignored(self) -> None:
        """The port does not read, so it cannot be part of a loop."""
        member = Member(ReplyTo.SENDER).start()
        (reply_port,) = member.reply_ports
        self.assertTrue(reply_port.is_paused)
        reply_port.protocol.run_received(Run(b"x", 1, PEER, "127.0.0.1"))
        self.assertEqual(reply_port.runs, [])
        self.assertEqual(member.echo.counters, EchoCounters())

    def test_reply_ports_are_closed_with_the_shared_port(self) -> None:
        """Nothing stays open."""
        member = Member(ReplyTo.SENDER).start()
        member.port.stopListening()
        self.assertEqual([reply_port.is_open for reply_port in member.reply_ports], [False])

    def test_without_permission_to_bind_to_an_interface_the_routes_decide(self) -> None:
        """Kernels before Linux 5.7 require root for it."""
        member = Member(ReplyTo.SENDER)
        member.refusal = PermissionError(1, "Operation not permitted")
        member.start().receive()
        self.assertEqual([options.device for _, _, options in member.asked], ["lo", ""])
        self.assertEqual(member.echo.counters.answered, 3)

    def test_a_reply_port_that_cannot_be_opened_fails_the_start(self) -> None:
        """The protocol does not start."""
        member = Member(ReplyTo.SENDER)
        member.refusal = OSError(24, "Too many open files")
        self.assertRaises(SocketError, member.start)

    def test_a_failed_start_leaves_no_reply_port_open(self) -> None:
        """The second interface fails; the reply port of the first is closed."""
        member = Member(ReplyTo.SENDER)
        member.port.memberships.append(Membership(GROUP, Interface("eth0", 2)))
        member.last_refusal = OSError(24, "Too many open files")
        self.assertRaises(SocketError, member.start)
        self.assertEqual([reply_port.is_open for reply_port in member.reply_ports], [False])

    def test_an_interface_joined_later_gets_a_reply_port(self) -> None:
        """The application joins the group itself; the reply port is opened at the first answer."""
        member = Member(ReplyTo.SENDER)
        member.port.memberships = []
        member.start()
        self.assertEqual(member.reply_ports, [])
        member.receive()
        member.receive()
        self.assertEqual([len(reply_port.runs) for reply_port in member.reply_ports], [2])

    def test_after_a_change_of_interfaces_a_new_reply_port_is_opened(self) -> None:
        """The index of the old one may belong to another interface. The change is logged."""
        member = Member(ReplyTo.SENDER).start()
        member.port.is_paused = True
        with log_lines() as lines:
            member.echo.membership_changed(MembershipChange(member.port.memberships[0]))
        member.receive()
        self.assertEqual([reply_port.is_open for reply_port in member.reply_ports], [False, True])
        self.assertEqual(len(member.reply_ports[1].runs), 1)
        self.assertFalse(member.port.is_paused)
        self.assertEqual(lines, [f"joined group {GROUP} on lo again"])

    def test_a_removed_interface_fails_the_answer(self) -> None:
        """The failure is counted and logged in one line."""
        member = Member(ReplyTo.SENDER).start()
        with log_lines() as lines:
            member.receive(interface=2**30)
        self.assertEqual(member.echo.counters, EchoCounters(received=3, failed=3))
        self.assertEqual(len(lines), 1)

    def test_a_full_reply_port_pauses_the_shared_port(self) -> None:
        """Nothing is received until answers can leave again."""
        member = Member(ReplyTo.SENDER).start()
        (reply_port,) = member.reply_ports
        reply_port.is_full = True
        member.receive()
        self.assertTrue(member.port.is_paused)
        reply_port.protocol.output_drained()
        self.assertFalse(member.port.is_paused)

    def test_a_run_that_fails_later_is_counted_as_failed(self) -> None:
        """Its datagrams are no longer counted as answered."""
        member = Member(ReplyTo.SENDER).start()
        member.receive()
        member.receive()
        member.reply_ports[0].fail_run(3, PEER)
        counters = EchoCounters(received=6, answered=3, failed=3)
        self.assertEqual(member.echo.counters, counters)


class GroupTests(SynchronousTestCase):
    """Answers go to the group."""

    def test_the_group_is_answered_from_the_shared_port(self) -> None:
        """A whole run leaves in one call; no other port is opened."""
        member = Member(ReplyTo.GROUP).start()
        member.receive()
        self.assertEqual(member.port.runs, [(b"abcde", 2, (GROUP, GROUP_PORT))])
        self.assertEqual(member.asked, [])

    def test_an_ipv6_group_is_answered_on_the_receiving_interface(self) -> None:
        """Link-local groups need the interface."""
        member = Member(ReplyTo.GROUP, "::").start()
        member.echo.run_received(Run(b"x", 1, ("fe80::1", 4000, 0, 7), "ff02::5", 7))
        self.assertEqual(member.port.runs, [(b"x", 1, ("ff02::5", GROUP_PORT, 0, 7))])

    def test_the_port_of_the_group_is_never_answered(self) -> None:
        """From any address: other members send their answers from it."""
        member = Member(ReplyTo.GROUP).start()
        for host in ("192.0.2.1", "127.0.0.1", "10.0.0.1"):
            member.receive((host, GROUP_PORT))
        self.assertEqual(member.port.runs, [])
        self.assertEqual(member.echo.counters, EchoCounters(received=9, from_members=9))

    def test_a_unicast_datagram_is_not_answered(self) -> None:
        """A port that is not shared may receive one."""
        member = Member(ReplyTo.GROUP).start()
        member.echo.run_received(Run(b"x", 1, PEER, "127.0.0.1", 1))
        self.assertEqual(member.echo.counters, EchoCounters(received=1, loop_risk=1))

    def test_a_refused_answer_is_counted(self) -> None:
        """It may be refused at once, or later."""
        member = Member(ReplyTo.GROUP).start()
        member.port.failure = SocketError("no", status=SocketErrorStatus.UNREACHABLE_HOST)
        member.receive()
        member.receive()
        member.port.fail_run(2, (GROUP, GROUP_PORT))
        self.assertEqual(member.echo.counters, EchoCounters(received=6, answered=1, failed=5))

    @given(lists(sampled_from([GROUP_PORT, 4000, 0]), max_size=3), integers(1, 4))
    def test_members_cause_no_loop(self, ports: list[int], count: int) -> None:
        """Each member answers each request once, and no member answers an answer."""
        members = [Member(ReplyTo.GROUP).start() for _ in range(count)]
        on_the_way: list[Address] = [("127.0.0.1", port) for port in ports]
        heard = 0
        while on_the_way:
            source = on_the_way.pop()
            heard += 1
            self.assertLess(heard, 100, f"{source=}, {on_the_way=}")
            for member in members:
                member.receive(source, b"x")
                on_the_way += [("127.0.0.1", GROUP_PORT) for _ in member.port.runs]
                member.port.runs.clear()
        self.assertEqual(heard, len(ports) + ports.count(4000) * count)


class SilenceTests(SynchronousTestCase):
    """Datagrams that are never answered."""

    def test_off_only_counts(self) -> None:
        """No port is opened, and nothing is sent."""
        member = Member(ReplyTo.OFF).start()
        member.receive()
        self.assertEqual((member.asked, member.port.runs), ([], []))
        self.assertEqual(member.echo.counters, EchoCounters(received=3))

    def test_sources_that_could_cause_a_loop_are_not_answered(self) -> None:
        """Port 0, multicast, broadcast and unspecified addresses."""
        for reply in (ReplyTo.SENDER, ReplyTo.GROUP):
            member = Member(reply).start()
            for source in (
                ("192.0.2.1", 0),
                (GROUP, 4000),
                ("255.255.255.255", 4000),
                ("0.0.0.0", 4000),
                ("ff02::1", 4000, 0, 0),
                ("::", 4000, 0, 0),
            ):
                member.receive(source)
            self.assertEqual(
                [reply_port.runs for reply_port in member.reply_ports if reply_port.runs], [], reply
            )
            self.assertEqual(member.port.runs, [], reply)
            self.assertEqual(member.echo.counters, EchoCounters(received=18, loop_risk=18), reply)

    def test_a_truncated_datagram_is_not_answered(self) -> None:
        """It is counted, and logged in one line."""
        for reply in ReplyTo:
            member = Member(reply).start()
            with log_lines() as lines:
                member.echo.run_received(Run(b"ab", 2, PEER, GROUP, 1, True))
            self.assertEqual(member.echo.counters, EchoCounters(received=1, truncated=1), reply)
            self.assertEqual(len(lines), 1, reply)
