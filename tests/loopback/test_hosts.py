"""
Datagrams between hosts: claims about sockets, services and the command that `lo` cannot show.

Each host is a network namespace. Each program runs in its own process.
"""

from __future__ import annotations

import re
import signal
import sys
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.loopback.networks import Child, Host, hosts, needs_hosts, needs_netem
from twsock.wire.datagrams import MAX_SEGMENTS

PORT = "22113"

GROUP, GROUP6 = "224.3.0.5", "ff15::5"

#: Seconds for what the kernel does in the background, many times what it takes.
PATIENCE = 120

#: How many datagrams the command sends on a bad network.
COUNT = 300

#: The beginning and the end of each program below.
_BEGIN = """
import socket, sys
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twsock import DatagramSocket, SocketError
from twsock.protocols import DatagramEcho
from twsock.datagram.port import listen_datagrams

def say(*words):
    print(*words, flush=True)

async def refusal(sending):
    try:
        await sending
    except SocketError as error:
        return error.status.name
    return "sent"
"""
_END = """
react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
"""

#: Receives from a group, and prints source, destination and data. Arguments: group.
_MEMBER = """
async def main(reactor):
    async with DatagramSocket(reactor) as member:
        member.control.multicast_only = True
        member.multicast_group_changed.add(
            lambda _, change: say("lost" if change.is_lost else "heard again")
        )
        await member.bind_service_name("22113", "eth0")
        member.join_multicast_group(sys.argv[1])
        say("ready")
        async for heard in member:
            say("heard", heard.remote_address, heard.remote_port, heard.local_address,
                heard.data.decode())
"""

#: Sends one datagram to a group, and prints its own port. Arguments: group, text.
_SPEAKER = """
async def main(reactor):
    async with DatagramSocket(reactor) as speaker:
        speaker.control.multicast_only = True
        await speaker.bind_service_name("", "eth0")
        stream = await speaker.get_output_stream(sys.argv[1], 22113)
        await stream.write(sys.argv[2].encode())
        say(speaker.information.local_port)
"""

#: Sends to a host that refuses, and again after a line of input. Arguments: host.
_REFUSED = """
async def main(reactor):
    async with DatagramSocket(reactor) as asking:
        await asking.connect(sys.argv[1], 22113)
        await asking.output_stream.write(b"anybody there?")
        message = await asking.receive(timeout=20)
        try:
            say("heard", message.data_reader)
        except SocketError as error:
            say("refused", error.status.name, message.remote_address, message.remote_port)
        sys.stdin.readline()
        await asking.output_stream.write(b"and now?")
        message = await asking.receive(timeout=20)
        say("heard", message.data_reader.read_string(message.data_reader.unconsumed_buffer_length))
"""

#: Sends to an unreachable host with each call, and then to a peer. Arguments: unreachable host,
#: host of the peer.
_NO_WAY = """
async def main(reactor):
    nowhere, peer = ((host, 22113) for host in sys.argv[1:])
    async with DatagramSocket(reactor) as asking:
        say(await refusal(asking.connect(*nowhere)))
        say(await refusal(asking.send_to(b"lost", nowhere)))
        stream = await asking.get_output_stream(*nowhere)
        say(await refusal(stream.write(b"lost")))
        await asking.send_to(b"Hello", peer)
        data, source = await asking.receive_from(timeout=20)
        say(data.decode(), source[0])
"""

#: Sends to a missing host, and again after a line of input. Arguments: host.
_NOBODY = """
async def main(reactor):
    async with DatagramSocket(reactor) as asking:
        await asking.connect(sys.argv[1], 22113)
        say(await refusal(asking.output_stream.write(b"anybody there?")))
        sys.stdin.readline()
        await asking.output_stream.write(b"and now?")
        message = await asking.receive(timeout=20)
        say("heard", message.data.decode())
"""

#: Answers every datagram. Arguments: address to bind.
_ECHO = """
async def main(reactor):
    listen_datagrams(reactor, DatagramEcho(), 22113, sys.argv[1])
    say("ready")
    await Deferred()
"""

#: Sends to each address, and prints the source of the answer. Without twsock. Arguments: addresses.
_ASK = """
import socket, sys
for address in sys.argv[1:]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        asking.settimeout(60)
        asking.sendto(b"Hello", (address, 22113))
        data, source = asking.recvfrom(100)
        print(data.decode(), source[0], source[1])
"""

#: Answers one datagram, to the remote address of its message. No arguments.
_ANSWERING_SOCKET = """
async def main(reactor):
    async with DatagramSocket(reactor) as answering:
        await answering.bind_service_name("22113")
        say("ready")
        message = await answering.receive()
        say("heard", message.remote_address, message.local_address)
        await answering.send_to(message.data, message.address)
"""

#: Prints the length and the first byte of each datagram, until an empty one arrives. Without
#: twsock. Arguments: family.
_RECEIVE = """
import socket, sys
SO_RCVBUFFORCE = 33
udp = socket.socket(getattr(socket, sys.argv[1]), socket.SOCK_DGRAM)
udp.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 23)
udp.bind(("", 22113))
print("ready", flush=True)
while data := udp.recv(65535):
    print("heard", len(data), data[:4].decode() if len(set(data[4:])) < 2 else "mixed", flush=True)
print("end", flush=True)
"""

#: Sends datagrams of these sizes in a batch, and then an empty one. Arguments: host, whether
#: fragments are allowed, sizes.
_SIZES = """
async def main(reactor):
    async with DatagramSocket(reactor) as sender:
        sender.control.dont_fragment = sys.argv[2] == "whole"
        await sender.connect(sys.argv[1], 22113)
        sizes = [int(size) for size in sys.argv[3:]]
        writes = [sender.output_stream.write(b"data".ljust(size, b"-")) for size in sizes]
        for size, write in zip(sizes, writes, strict=True):
            say(size, await refusal(write))
        await sender.output_stream.write(b"")
"""

#: Sends datagrams of one size in a batch, and then an empty one. Arguments: host, how many, size.
_BATCH = """
async def main(reactor):
    host, count, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    async with DatagramSocket(reactor) as sender:
        await sender.connect(host, 22113)
        for number in range(count):
            sender.output_stream.write(b"%04d" % number + b"-" * (size - 4))
        await sender.output_stream.flush()
        await sender.output_stream.write(b"")
"""

#: ``twistd``. Arguments: those of ``twistd``.
_TWISTD = """
import sys
from twisted.scripts.twistd import run
sys.argv[:1] = ["twistd", "--pidfile=", "-n"]
run()
"""


def start(host: Host, source: str, *arguments: str) -> Child:
    """Start a program and wait until it is ready."""
    child = host.start_python(source, *arguments)
    child.wait_for("ready")
    return child


def whole(source: str) -> str:
    """Return the whole text of a program."""
    return _BEGIN + source + _END


class HostCase(SynchronousTestCase):
    """Programs on hosts."""

    def service(self, host: Host, *arguments: str) -> Child:
        """Start ``twistd`` with a service, and wait until it listens."""
        child = host.start_python(_TWISTD, *arguments)
        while "listening on" not in child.read_line():
            pass
        return child

    def assert_stopped(self, child: Child, pattern: str) -> None:
        """End a service, and check its counts."""
        child.process.send_signal(signal.SIGTERM)
        self.assertEqual(child.wait(), -signal.SIGTERM)
        self.assertNotIn("Traceback", child.printed)
        self.assertRegex(child.printed, f"stopped: {pattern}")

    def echo(self, host: Host, endpoint: str, *arguments: str, status: int = 0) -> str:
        """Run ``twsock echo``; return its output."""
        child = host.start(sys.executable, "-m", "twsock", "echo", endpoint, *arguments)
        self.assertEqual(child.wait(), status, child.printed)
        return child.printed


class GroupTests(HostCase):
    """Groups, as sockets and services receive from them on other hosts."""

    @needs_hosts
    def test_a_multicast_datagram_has_source_and_destination(self) -> None:
        """The address and port of the other host, and the group; in both families."""
        with hosts(2) as (one, other):
            for group, address in ((GROUP, one.address), (GROUP6, one.address6)):
                member = start(other, whole(_MEMBER), group)
                port = one.run_python(whole(_SPEAKER), group, "Hello").strip()
                self.assertEqual(
                    member.read_line(), f"heard {address} {port} {group} Hello", (group, address)
                )
                member.end()

    @needs_hosts
    def test_an_ipv6_membership_survives_an_interface_that_was_down(self) -> None:
        """Without another join, and without an event."""
        with hosts(2) as (one, other):
            member = start(other, whole(_MEMBER), GROUP6)
            other.set_down()
            other.set_up()
            one.run_python(whole(_SPEAKER), GROUP6, "afterwards")
            self.assertTrue(member.read_line().endswith(f"{GROUP6} afterwards"), member.printed)

    @needs_hosts
    def test_an_ipv6_group_is_joined_again_on_a_new_interface(self) -> None:
        """Loss and return are events."""
        with hosts(2) as (one, other):
            member = start(other, whole(_MEMBER), GROUP6)
            other.unplug()
            self.assertEqual(member.read_line(), "lost")
            other.plug()
            self.assertEqual(member.read_line(), "heard again")
            one.run_python(whole(_SPEAKER), GROUP6, "afterwards")
            self.assertTrue(member.read_line().endswith(f"{GROUP6} afterwards"), member.printed)

    @needs_hosts
    def test_members_that_answer_the_group_answer_each_request_once(self) -> None:
        """The command shares a member's port. No member answers an answer."""
        with hosts(2) as made:
            endpoint = f"multicast:{GROUP}:{PORT}:interface=eth0"
            service = ("twsock-multicast", "--reply", "group", "--endpoint", endpoint)
            members = [self.service(host, *service) for host in made]
            printed = self.echo(made[0], endpoint, "--count", "5", "Hello")
            self.assertIn("5 sent, 5 answered by 2, 0 lost", printed)
            self.assertNotIn("duplicate", printed)
            for host in made:
                self.assertIn(f"{host.address}:{PORT}: 5 received, 0 lost", printed, host)
            # A member that answers this has received everything before.
            self.echo(made[0], endpoint, "end")
            for member in members:
                self.assert_stopped(member, "1[678] received, 6 answered, 1[012] from members")

    @needs_hosts
    def test_the_command_lists_members_that_answer_the_sender(self) -> None:
        """It runs on a third host. Members receive no answers."""
        with hosts(3) as (asking, *answering):
            endpoint = f"multicast:{GROUP}:{PORT}:interface=eth0"
            members = [self.service(host, "twsock-multicast", "-e", endpoint) for host in answering]
            printed = self.echo(asking, endpoint, "--count", "3", "Hello")
            self.assertIn("3 sent, 3 answered by 2, 0 lost", printed)
            for host in answering:
                self.assertRegex(
                    printed, rf"{re.escape(host.address)}:\d+: 3 received, 0 lost", host
                )
            for member in members:
                self.assert_stopped(member, "3 received, 3 answered\\n")


class RefusalTests(HostCase):
    """ICMP errors of other hosts, and hosts that do not exist."""

    @needs_hosts
    def test_an_icmp_error_of_another_host_is_a_message(self) -> None:
        """Its reader raises. The socket receives from the peer once that listens."""
        with hosts(2) as (one, other):
            for address, listening in ((other.address, "0.0.0.0"), (other.address6, "::")):
                asking = one.start_python(whole(_REFUSED), address)
                refused = f"refused CONNECTION_RESET_BY_PEER {address} {PORT}"
                self.assertEqual(asking.read_line(), refused, (address, listening))
                echo = start(other, whole(_ECHO), listening)
                asking.say("go on")
                self.assertEqual(asking.read_line(), "heard and now?", (address, listening))
                echo.end()

    @needs_hosts
    def test_a_send_without_a_route_fails(self) -> None:
        """At once, in each of the ways; the socket stays usable."""
        with hosts(2) as (one, other):
            one.ip("route", "add", "unreachable", "10.99.0.0/24")
            echo = start(other, whole(_ECHO), "0.0.0.0")
            for nowhere, status in (
                ("10.98.0.1", "NETWORK_IS_UNREACHABLE"),
                ("10.99.0.1", "UNREACHABLE_HOST"),
            ):
                *refused, heard = one.run_python(
                    whole(_NO_WAY), nowhere, other.address
                ).splitlines()
                self.assertEqual(refused, [status] * 3, (nowhere, status))
                self.assertEqual(heard, f"Hello {other.address}", (nowhere, status))
            echo.end()

    @needs_hosts
    def test_a_send_without_an_ipv6_route_fails(self) -> None:
        """As in IPv4."""
        with hosts(2) as (one, other):
            start(other, whole(_ECHO), "::")
            printed = one.run_python(whole(_NO_WAY), "fd99::1", other.address6).splitlines()
            self.assertEqual(printed[:3], ["NETWORK_IS_UNREACHABLE"] * 3)
            self.assertEqual(printed[3:], [f"Hello {other.address6}"])

    @needs_hosts
    def test_a_send_to_a_missing_host_reports_nothing(self) -> None:
        """
        The kernel does not report the failed neighbour lookup. Later the host is received from.
        """
        missing = "10.77.0.99"
        with hosts(2) as (one, other):
            # As the kernel does, without the delay of some seconds.
            settings = ("dev", one.interface, "retrans", "50", "mcast_probes", "1")
            one.ip("ntable", "change", "name", "arp_cache", *settings)
            asking = one.start_python(whole(_NOBODY), missing)
            self.assertEqual(asking.read_line(), "sent")
            deadline = time.monotonic() + PATIENCE
            while "FAILED" not in (shown := one.ip("neighbour", "show", missing)):
                self.assertLess(time.monotonic(), deadline, shown)
            other.ip("address", "add", f"{missing}/24", "dev", other.interface)
            start(other, whole(_ECHO), "")
            asking.say("go on")
            self.assertEqual(asking.read_line(), "heard and now?")


class AddressTests(HostCase):
    """Source and destination addresses of answers."""

    @needs_hosts
    def test_a_link_local_peer_is_answered_by_an_echo(self) -> None:
        """The echo has all addresses, and keeps the receiving interface."""
        with hosts(2) as (one, other):
            start(other, whole(_ECHO), "::")
            address = f"{self.of_link(other)}%{one.interface}"
            printed = self.echo(one, f"udp:[{address}]:{PORT}", "--count", "2", "Hello")
            self.assertIn("2 sent, 2 received, 0 lost", printed)

    @needs_hosts
    def test_a_link_local_peer_is_answered_by_a_socket(self) -> None:
        """The socket sends to the remote address of the message."""
        with hosts(2) as (one, other):
            answering = start(other, whole(_ANSWERING_SOCKET))
            asked = f"{self.of_link(other)}%{one.interface}"
            self.assertEqual(one.run_python(_ASK, asked).split()[0], "Hello")
            source, destination = answering.wait_for("heard").split()
            self.assertEqual(source, f"{self.of_link(one)}%{other.interface}")
            self.assertEqual(destination, f"{self.of_link(other)}%{other.interface}")

    @needs_hosts
    def test_an_answer_leaves_from_the_address_of_the_request(self) -> None:
        """The host has two addresses."""
        with hosts(2) as (one, other):
            second, second6 = "10.77.0.50", "fd77::50"
            other.ip("address", "add", f"{second}/24", "dev", other.interface)
            other.ip("address", "add", f"{second6}/64", "dev", other.interface, "nodad")
            echo = start(other, whole(_ECHO), "")
            asked = (other.address, second)
            printed = one.run_python(_ASK, *asked).splitlines()
            self.assertEqual(printed, [f"Hello {address} {PORT}" for address in asked])
            echo.end()
            start(other, whole(_ECHO), "::")
            asked6 = (other.address6, second6)
            printed = one.run_python(_ASK, *asked6).splitlines()
            self.assertEqual(printed, [f"Hello {address} {PORT}" for address in asked6])

    def of_link(self, host: Host) -> str:
        """Return the link-local address of a host."""
        shown = host.ip("-o", "address", "show", "dev", host.interface, "scope", "link")
        return shown.split("inet6 ")[1].split("/")[0]


class LengthTests(HostCase):
    """A link with an MTU of 1,400 bytes."""

    #: Bytes of the headers of IPv4 and IPv6, with that of UDP.
    headers = {"AF_INET": 20 + 8, "AF_INET6": 40 + 8}

    def shorten(self, *made: Host) -> None:
        for host in made:
            host.ip("link", "set", host.interface, "mtu", "1400")

    @needs_hosts
    def test_a_datagram_above_the_mtu_with_df_fails_alone(self) -> None:
        """It is one byte too long; the next datagrams are sent."""
        with hosts(2) as (one, other):
            self.shorten(one, other)
            for family, address in (("AF_INET", other.address), ("AF_INET6", other.address6)):
                fits = 1400 - self.headers[family]
                receiver = start(other, _RECEIVE, family)
                sent = [str(size) for size in (fits + 1, fits + 1, fits, fits, 2000, 100)]
                printed = one.run_python(whole(_SIZES), address, "whole", *sent).splitlines()
                statuses = ["MESSAGE_TOO_LONG"] * 2 + ["sent"] * 2 + ["MESSAGE_TOO_LONG", "sent"]
                expected = [" ".join(pair) for pair in zip(sent, statuses, strict=True)]
                self.assertEqual(printed, expected, (family, address))
                heard = [f"heard {size} data" for size in (fits, fits, 100)]
                self.assertEqual(self.rest(receiver), heard, (family, address))
                receiver.end()

    @needs_hosts
    def test_datagrams_above_the_mtu_arrive_in_fragments(self) -> None:
        """Without DF."""
        with hosts(2) as (one, other):
            self.shorten(one, other)
            for family, address in (("AF_INET", other.address), ("AF_INET6", other.address6)):
                receiver = start(other, _RECEIVE, family)
                sizes = ("2000", "65507")
                one.run_python(whole(_SIZES), address, "in parts", *sizes)
                self.assertEqual(
                    self.rest(receiver), [f"heard {size} data" for size in sizes], (family, address)
                )
                receiver.end()

    @needs_hosts
    def test_a_batch_above_the_mtu_arrives(self) -> None:
        """The kernel refuses them as a run, so each datagram is sent alone."""
        with hosts(2) as (one, other):
            self.shorten(one, other)
            for family, address in (("AF_INET", other.address), ("AF_INET6", other.address6)):
                for size in ("1300", "2000"):
                    receiver = start(other, _RECEIVE, family)
                    one.run_python(whole(_BATCH), address, "100", size)
                    expected = [f"heard {size} {number:04d}" for number in range(100)]
                    self.assertEqual(sorted(self.rest(receiver)), expected, size)
                    receiver.end()

    def rest(self, receiver: Child) -> list[str]:
        """Read the output of a program to its end."""
        lines = []
        while (line := receiver.read_line()) != "end":
            lines.append(line)
        return lines


class NetworkTests(HostCase):
    """The command reports loss, duplicates and reordering on a bad network."""

    def measure(self, *netem: str, status: int = 0) -> dict[str, int]:
        """Measure answers over a bad network; check the invariants, and return the figures."""
        with hosts(2) as (one, other):
            endpoint = f"udp:{PORT}:interface={other.address}"
            server = self.service(other, "twsock-datagram", "--endpoint", endpoint)
            target = f"udp:{other.address}:{PORT}"
            # Afterwards both know the link-layer address of the other.
            self.echo(one, target, "Hello")
            if netem:
                other.tc("qdisc", "add", "dev", other.interface, "root", "netem", *netem)
            run = ("--size", "200", "--count", str(COUNT), "--interval", "0.001", "--timeout", "1")
            figures = figures_of(self.echo(one, target, *run, status=status))
            # Only answers are lost; the server has sent all of them.
            self.assert_stopped(server, f"{COUNT + 1} received, {COUNT + 1} answered")
        self.assertEqual(figures["sent"], COUNT)
        known = sum(figures[name] for name in ("received", "lost"))
        self.assertEqual(known, COUNT)
        return figures

    @needs_hosts
    def test_a_good_network_loses_nothing(self) -> None:
        """All answers arrive."""
        figures = self.measure()
        self.assertEqual((figures["lost"], figures["duplicate"]), (0, 0))

    @needs_hosts
    @needs_netem
    def test_losses_are_reported(self) -> None:
        """Some datagrams are lost, and some are not."""
        figures = self.measure("loss", "50%", status=1)
        self.assertGreater(figures["lost"], 0)
        self.assertLess(figures["lost"], COUNT)

    @needs_hosts
    @needs_netem
    def test_the_loss_of_all_is_reported(self) -> None:
        """As no answer at all."""
        self.assertEqual(self.measure("loss", "100%", status=1)["lost"], COUNT)

    @needs_hosts
    @needs_netem
    def test_duplicates_are_reported(self) -> None:
        """One of each; the command ends before the duplicates of the last run."""
        figures = self.measure("duplicate", "100%")
        self.assertEqual(figures["lost"], 0)
        self.assertIn(figures["duplicate"], range(COUNT - MAX_SEGMENTS, COUNT + 1))

    @needs_hosts
    @needs_netem
    def test_reordering_is_no_loss(self) -> None:
        """Each second answer overtakes those of the last 20 ms."""
        figures = self.measure("delay", "20ms", "reorder", "100%", "gap", "2")
        self.assertEqual((figures["lost"], figures["duplicate"]), (0, 0))


def figures_of(printed: str) -> dict[str, int]:
    """Parse the line with the numbers of sent, answered and lost datagrams."""
    (line,) = (line for line in printed.splitlines() if " sent, " in line)
    names = ("sent", "received", "lost", "duplicate")
    found = re.findall(rf"(\d+) ({'|'.join(names)})", line)
    return dict.fromkeys(names, 0) | {name: int(number) for number, name in found}
