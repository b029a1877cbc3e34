"""
Members of groups that run other programs exchange datagrams with twsock.

Every peer is a ``socat`` in its own process.
"""

from __future__ import annotations

import re
import shutil
import signal
import sys
from collections.abc import Callable

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.loopback.networks import Child, hosts, needs_hosts, start_program

GROUP, GROUP6, LOOPBACK = "224.3.0.5", "ff15::5", "127.0.0.1"

#: For tests on hosts of their own, where every port is free.
PORT = "22113"

#: Shares a port, and sends each line of input to a group. Arguments: group, port, interface.
_SPEAKER = """
import sys
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twsock import DatagramSocket

group, port, interface = sys.argv[1:]

async def main(reactor):
    async with DatagramSocket(reactor) as speaker:
        speaker.control.multicast_only = True
        await speaker.bind_service_name(port, interface)
        print("bound", speaker.information.local_port, flush=True)
        stream = await speaker.get_output_stream(group, speaker.information.local_port)
        await stream.write(sys.stdin.readline().encode())

react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
"""

#: ``twistd`` with the service. Arguments: destination of answers, group and port, interface.
_TWISTD = """
import sys
from twisted.scripts.twistd import run
reply, group, interface = sys.argv[1:]
sys.argv[:] = ["twistd", "--pidfile=", "-n", "twsock-multicast", "--reply", reply,
               "--endpoint", f"multicast:{group}:interface={interface}"]
run()
"""

#: Starts a program.
Start = Callable[..., Child]


def socat(start: Start, *addresses: str) -> Child:
    """Start a ``socat``, and wait until it has joined its group."""
    program = shutil.which("socat")
    if program is None:
        raise SkipTest("socat is not installed")
    child = start(program, "-d", "-d", *addresses)
    while "starting data transfer loop" not in child.read_line():
        pass
    return child


def read_data(child: Child) -> str:
    """Read the next line that is not a log line."""
    while " socat[" in (line := child.read_line()):
        pass
    return line


def member(start: Start, port: str) -> Child:
    """Join the group on `lo`, where sockets of twsock share the port already."""
    address = f"UDP4-RECV:{port},ip-add-membership={GROUP}:{LOOPBACK},reuseaddr"
    return socat(start, "-u", address, "-")


class SocatTests(SynchronousTestCase):
    """``socat`` receives and is answered."""

    def start(self, *command: str) -> Child:
        """Start a program on this machine."""
        child = Child(start_program(command))
        self.addCleanup(child.end)
        return child

    def service(self, start: Start, reply: str, group: str, interface: str) -> tuple[Child, str]:
        """Start the service; return its port."""
        child = start(sys.executable, "-c", _TWISTD, reply, group, interface)
        while not (found := re.search(r"listening on multicast:.*?:(\d+):", child.read_line())):
            pass
        return child, found[1]

    def assert_stopped(self, child: Child, pattern: str) -> None:
        """End the service, and check its counts."""
        child.process.send_signal(signal.SIGTERM)
        child.wait()
        self.assertRegex(child.printed, f"stopped: {pattern}")

    def test_a_socat_member_receives_from_the_group(self) -> None:
        """On the port that it shares."""
        speaker = self.start(sys.executable, "-c", _SPEAKER, GROUP, "", "lo")
        hearing = member(self.start, speaker.wait_for("bound"))
        speaker.say("Hello")
        hearing.wait_for("Hello")

    def test_a_request_of_socat_is_answered(self) -> None:
        """To the sender, by default."""
        service, port = self.service(self.start, "sender", f"{GROUP}:0", "lo")
        address = f"UDP4-DATAGRAM:{GROUP}:{port},ip-multicast-if={LOOPBACK}"
        asking = socat(self.start, "-", address)
        for word in ("Hello", "again"):
            asking.say(word)
            asking.wait_for(word)
        self.assert_stopped(service, "2 received, 2 answered")

    def test_answers_to_the_group_reach_its_members(self) -> None:
        """After the request; no member answers them."""
        service, port = self.service(self.start, "group", f"{GROUP}:0", "lo")
        hearing = member(self.start, port)
        address = f"UDP4-DATAGRAM:{GROUP}:{port},ip-multicast-if={LOOPBACK}"
        asking = socat(self.start, "-", address)
        for word in ("Hello", "again"):
            asking.say(word)
            self.assertEqual([read_data(hearing) for _ in range(2)], [word] * 2, word)
        # The service may end before it receives its own last answer.
        self.assert_stopped(service, "[34] received, 2 answered, [12] from members")

    @needs_hosts
    def test_a_socat_member_receives_from_an_ipv6_group(self) -> None:
        """On another host."""
        with hosts(2) as (one, other):
            join = f"ipv6-join-group=[{GROUP6}]:{other.interface}"
            hearing = socat(other.start, "-u", f"UDP6-RECV:{PORT},{join}", "-")
            speaker = one.start_python(_SPEAKER, GROUP6, PORT, one.interface)
            speaker.say("Hello")
            hearing.wait_for("Hello")

    @needs_hosts
    def test_a_request_of_socat_to_an_ipv6_group_is_answered(self) -> None:
        """From another host."""
        with hosts(2) as (one, other):
            group = GROUP6.replace(":", "\\:") + f":{PORT}"
            service, _ = self.service(one.start, "sender", group, one.interface)
            address = f"UDP6-DATAGRAM:[{GROUP6}]:{PORT},so-bindtodevice={other.interface}"
            asking = socat(other.start, "-", address)
            asking.say("Hello")
            asking.wait_for("Hello")
            self.assert_stopped(service, "1 received, 1 answered")
