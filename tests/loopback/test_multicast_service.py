"""A `MulticastService` on `lo` and between hosts, with plain sockets as peers."""

from __future__ import annotations

import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from tests.loopback.contract import OnEveryReactor, turns
from tests.loopback.networks import Child, hosts, needs_hosts
from twsock.datagram.protocol import EchoCounters
from twsock.protocols import ReplyTo
from twsock.services.multicast import MulticastService, multicast_service

GROUP, HOST = "224.3.0.5", "127.0.0.1"

#: How often a reactor goes round until a test gives up: nothing on loopback takes so many.
MOST_TURNS = 2000

#: How often it goes round to see that nothing more comes: a loop would turn at each.
QUIET_TURNS = 50


class MulticastSetup:
    """
    Members of a group on one port, and a plain socket that sends requests and receives.

    :ivar peer: sends to groups on `lo`.
    :ivar watcher: a plain member; it receives from the group, and answers nothing.
    """

    def __init__(self, reactor: Any, replies: Sequence[ReplyTo], options: str = "") -> None:
        self.reactor = reactor
        self.members: list[MulticastService] = []
        self.port = 0
        for reply in replies:
            endpoint = f"multicast:{GROUP}:{self.port}:interface=lo{options}"
            member = multicast_service(reactor, [endpoint], reply=reply)
            member.startService()
            self.members.append(member)
            ((port, _),) = member.opened
            self.port = port.getHost().port
        self.peer = _make_sender((HOST, 0))
        self.watcher = self.make_member()

    def make_member(self) -> socket.socket:
        """Open a plain socket that shares the port."""
        member = _make_sender(("", self.port))
        request = socket.inet_aton(GROUP) + socket.inet_aton(HOST)
        member.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
        return member

    @property
    def counters(self) -> list[EchoCounters]:
        """Return the counters of the members."""
        return [echo.counters for member in self.members for _, echo in member.opened]

    def ask(self, data: bytes, sender: socket.socket | None = None) -> None:
        """Send to the group."""
        (sender or self.peer).sendto(data, (GROUP, self.port))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Run the reactor until a condition is true, and then until no datagram is left."""
        for _ in range(MOST_TURNS):
            if condition():
                break
            await turns(self.reactor, 1)
        else:
            raise AssertionError(f"it never came true: {self.counters}")
        await turns(self.reactor, QUIET_TURNS)

    async def close(self) -> None:
        """Close all."""
        for member in self.members:
            await maybeDeferred(member.stopService)
        self.peer.close()
        self.watcher.close()


def _make_sender(address: tuple[str, int]) -> socket.socket:
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    if not address[0]:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sender.bind(address)
    sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(HOST))
    sender.setblocking(False)
    return sender


def received_by(receiver: socket.socket) -> list[tuple[bytes, tuple[str, int]]]:
    """Receive all waiting datagrams."""
    received = []
    while True:
        try:
            received.append(receiver.recvfrom(65_535))
        except BlockingIOError:
            return received


class MulticastBuilder(OnEveryReactor):
    """Members answer as configured."""

    def meet(
        self,
        replies: Sequence[ReplyTo],
        work: Callable[[MulticastSetup], Awaitable[None]],
        options: str = "",
    ) -> None:
        """Run a test among members."""

        async def run_test(reactor: Any) -> None:
            setup = MulticastSetup(reactor, replies, options)
            try:
                await work(setup)
            finally:
                await setup.close()

        self.conduct(run_test)

    def test_each_member_answers_the_sender(self) -> None:
        """From a port of its own; the group receives the request only."""

        async def work(setup: MulticastSetup) -> None:
            setup.ask(b"Hello")
            await setup.until(lambda: all(one.answered for one in setup.counters))
            answers = received_by(setup.peer)
            self.assertEqual([data for data, _ in answers], [b"Hello"] * 2)
            self.assertEqual(len({source for _, source in answers} - {(HOST, setup.port)}), 2)
            self.assertEqual(len(received_by(setup.watcher)), 1)

        self.meet([ReplyTo.SENDER] * 2, work)

    def test_many_datagrams_are_answered_unchanged(self) -> None:
        """Each once, in order, an empty one too."""

        async def work(setup: MulticastSetup) -> None:
            sent = [b"x" * (number % 7) for number in range(40)]
            for data in sent:
                setup.ask(data)
            await setup.until(lambda: setup.counters[0].answered == len(sent))
            self.assertEqual([data for data, _ in received_by(setup.peer)], sent)

        self.meet([ReplyTo.SENDER], work)

    def test_datagrams_to_a_reply_port_cause_no_loop(self) -> None:
        """They are not answered."""

        async def work(setup: MulticastSetup) -> None:
            setup.ask(b"Hello")
            await setup.until(lambda: bool(setup.counters[0].answered))
            ((_, source),) = received_by(setup.peer)
            setup.peer.sendto(b"again", source)
            setup.ask(b"Hello")
            await setup.until(lambda: setup.counters[0].answered == 2)
            self.assertEqual(len(received_by(setup.peer)), 1)
            self.assertEqual(setup.counters[0].received, 2)

        self.meet([ReplyTo.SENDER], work)

    def test_members_that_answer_the_group_answer_no_answer(self) -> None:
        """One request to two members: three datagrams in all."""

        async def work(setup: MulticastSetup) -> None:
            setup.ask(b"Hello")
            await setup.until(lambda: all(one.from_members == 2 for one in setup.counters))
            self.assertEqual([data for data, _ in received_by(setup.watcher)], [b"Hello"] * 3)
            self.assertEqual(received_by(setup.peer), [])
            expected = EchoCounters(received=3, answered=1, from_members=2)
            self.assertEqual(setup.counters, [expected] * 2)

        self.meet([ReplyTo.GROUP] * 2, work)

    def test_a_request_from_the_port_of_the_group_is_not_answered(self) -> None:
        """It could be an answer."""

        async def work(setup: MulticastSetup) -> None:
            setup.ask(b"Hello", setup.watcher)
            await setup.until(lambda: all(one.from_members == 1 for one in setup.counters))
            self.assertEqual(len(received_by(setup.watcher)), 1)

        self.meet([ReplyTo.GROUP] * 2, work)

    def test_members_of_every_kind_cause_no_loop(self) -> None:
        """Members that answer senders also answer members; they receive from the group only."""

        async def work(setup: MulticastSetup) -> None:
            setup.ask(b"Hello")
            await setup.until(lambda: all(one.received == 2 for one in setup.counters))
            self.assertEqual([one.answered for one in setup.counters], [2, 1, 0])
            self.assertEqual(len(received_by(setup.peer)), 1)
            # A plain member may also receive an answer to the other one: it accepts unicast.
            ports = (setup.peer.getsockname()[1], setup.port)
            received = [source for _, source in received_by(setup.watcher) if source[1] in ports]
            self.assertEqual(len(received), 2)

        self.meet([ReplyTo.SENDER, ReplyTo.GROUP, ReplyTo.OFF], work)

    def test_off_answers_nothing(self) -> None:
        """Datagrams are counted."""

        async def work(setup: MulticastSetup) -> None:
            setup.ask(b"Hello")
            await setup.until(lambda: bool(setup.counters[0].received))
            self.assertEqual(setup.counters, [EchoCounters(received=1)])
            self.assertEqual(received_by(setup.peer), [])

        self.meet([ReplyTo.OFF], work)

    def test_a_datagram_that_is_too_long_is_counted_and_not_answered(self) -> None:
        """One of the largest size is answered."""

        async def work(setup: MulticastSetup) -> None:
            setup.ask(b"12345")
            setup.ask(b"1234")
            await setup.until(lambda: setup.counters[0].received == 2)
            self.assertEqual([data for data, _ in received_by(setup.peer)], [b"1234"])
            self.assertEqual(setup.counters[0].truncated, 1)

        self.meet([ReplyTo.SENDER], work, ":maxDatagram=4")

    def test_unicast_to_the_shared_port_is_dropped(self) -> None:
        """It has its own count."""

        async def work(setup: MulticastSetup) -> None:
            setup.watcher.close()
            setup.peer.sendto(b"Hello", (HOST, setup.port))
            await setup.until(lambda: bool(setup.members[0].count().not_for_a_group))
            self.assertEqual(setup.counters, [EchoCounters()])
            self.assertEqual(received_by(setup.peer), [])

        self.meet([ReplyTo.SENDER], work)


globals().update(MulticastBuilder.makeTestCaseClasses())
del MulticastBuilder


#: ``twistd`` with the service. The first argument is the destination of answers.
_TWISTD = """
import sys
from twisted.scripts.twistd import run
sys.argv[:] = ["twistd", "--pidfile=", "-n", "twsock-multicast", "--reply", sys.argv[1],
               "--endpoint", "multicast:224.3.0.5:22113:interface=eth0"]
run()
"""

#: Sends a request to the group, and prints the source of the answer.
_ASK = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
    peer.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(sys.argv[1]))
    peer.bind((sys.argv[1], 0))
    peer.settimeout(float(sys.argv[2]))
    peer.sendto(b"Hello", ("224.3.0.5", 22113))
    try:
        data, source = peer.recvfrom(100)
        print(data, source[0])
    except TimeoutError:
        print("silence")
"""

#: Receives so many datagrams from the group, and prints the number of their source hosts.
_WATCH = """
import socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as member:
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        member.setsockopt(socket.SOL_SOCKET, option, 1)
    member.bind(("", 22113))
    request = socket.inet_aton("224.3.0.5") + socket.inet_aton(sys.argv[1])
    member.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
    print("ready")
    print(len({member.recvfrom(100)[1] for _ in range(3)}))
"""


class HostsTests(SynchronousTestCase):
    """Several hosts, whose interfaces can be removed."""

    def read_until(self, child: Child, words: str) -> None:
        """Read the output up to a line that contains these words."""
        while words not in child.read_line():
            pass

    @needs_hosts
    def test_a_new_interface_of_the_same_name_sends_answers(self) -> None:
        """The log has the loss and the return; the new interface has another index."""
        with hosts(2) as (asking, answering):
            member = answering.start_python(_TWISTD, "sender")
            self.read_until(member, "listening on multicast:224.3.0.5:22113:interface=eth0")
            answer = f"b'Hello' {answering.address}"
            self.assertIn(answer, asking.run_python(_ASK, asking.address, "10"))
            answering.unplug()
            self.read_until(member, "lost group 224.3.0.5")
            answering.plug()
            self.read_until(member, "joined group 224.3.0.5 on eth0 again")
            self.assertIn(answer, asking.run_python(_ASK, asking.address, "10"))
            member.process.send_signal(signal.SIGTERM)
            self.assertEqual(member.wait(), -signal.SIGTERM)
            self.assertIn("stopped: 2 received, 2 answered", member.printed)
            self.assertNotIn("Traceback", member.printed)

    @needs_hosts
    def test_two_hosts_that_answer_the_group_cause_no_loop(self) -> None:
        """One request, one answer of each, and no answer to an answer."""
        with hosts(3) as (asking, *answering):
            members = [host.start_python(_TWISTD, "group") for host in answering]
            for member in members:
                self.read_until(member, "listening on")
            watcher = asking.start_python(_WATCH, asking.address)
            self.read_until(watcher, "ready")
            self.assertIn("silence", asking.run_python(_ASK, asking.address, "0.5"))
            self.assertEqual(watcher.read_line(), "3")
            for member in members:
                member.process.send_signal(signal.SIGTERM)
                member.wait()
                self.assertIn(
                    "stopped: 3 received, 1 answered, 2 from members", member.printed, member
                )
