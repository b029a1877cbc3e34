"""Listeners and UDP sockets move between two processes, whole or not at all."""

from __future__ import annotations

import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, ClassVar

from twisted.internet.task import deferLater
from twisted.logger import capturedLogs

from tests import THOROUGH
from tests.loopback.contract import OnEveryReactor, failure_of, turns
from tests.loopback.reactors import REACTORS
from tests.services.processes import why_no_other_user
from tests.services.restart.fakes import no_free_descriptor
from twsock import DatagramSocket, StreamSocket, StreamSocketListener
from twsock.handover import (
    DetachedConnection,
    DetachedDatagramPort,
    DetachedDatagramSocket,
    DetachedListener,
)
from twsock.handover.channel import HandoverError, give, take
from twsock.handover.detached import Detached

HOST = "127.0.0.1"

#: Hand-overs of UDP sockets under traffic, each there and back; in the daily profile fewer.
ROUNDS = 100 if THOROUGH else 5

#: The receive buffer of the UDP sockets, in bytes: room for more than a second of datagrams.
BUFFER = 8 * 1024 * 1024

#: Datagrams in a second.
RATE = 5000

SO_RCVBUFFORCE = 33  # <asm-generic/socket.h>

#: Takes a value, and dies at a step: class, step, channel.
TAKER = """
import os, signal, socket, sys
from twisted.internet.task import react
from twsock import handover
from twsock.handover.channel import take
kind, step, number = sys.argv[1:]
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
if step == "before reading":
    die()
channel = socket.socket(fileno=int(number))
accept = die if step == "while deciding" else None
async def work(reactor):
    await take(reactor, channel, kind=getattr(handover, kind), accept=accept, timeout=60)
    die()
react(work)
"""

#: Gives a value with one socket, and dies at a step: class, step, channel, socket.
GIVER = """
import os, signal, socket, sys
from twisted.internet.task import react
from twsock import handover
from twsock.handover.channel import give
kind, step, channel, number = sys.argv[1:]
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
one = socket.socket(fileno=int(number))
channel = socket.socket(fileno=int(channel))
if kind == "DetachedListener":
    value = handover.DetachedListener((one,))
elif kind == "DetachedDatagramPort":
    value = handover.DetachedDatagramPort(one)
else:
    value = handover.DetachedDatagramSocket((handover.DetachedDatagramPort(one),))
async def work(reactor):
    if step == "before the offer":
        die()
    giving = give(reactor, channel, value, application=b"app", timeout=60)
    if step == "after the offer":
        die()
    await giving
    die()
react(work)
"""

#: Takes a UDP socket, receives for some turns, and gives it back with what it received, for each
#: two channels.
RECEIVER = """
import socket, sys
from twisted.internet.task import deferLater, react
from twsock import DatagramSocket
from twsock.handover import DetachedDatagramSocket
from twsock.handover.channel import give, take
channels = [socket.socket(fileno=int(number)) for number in sys.argv[1:]]
async def serve(reactor):
    for incoming, outgoing in zip(channels[::2], channels[1::2]):
        detached, _ = await take(reactor, incoming, kind=DetachedDatagramSocket, timeout=60)
        made, received = DatagramSocket(reactor), []
        made.message_received.add(lambda _, message: received.append(message.data))
        await made.bind_socket(detached)
        for _ in range(3):
            await deferLater(reactor, 0)
        await give(reactor, outgoing, made.detach(), application=b"".join(received), timeout=60)
react(serve)
"""

#: Sends numbered datagrams at a rate, up to the last number that its input has, until its input
#: ends: port, rate. Prints how many.
SENDER = """
import os, select, socket, struct, sys, time
port, rate = map(int, sys.argv[1:])
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.connect(("127.0.0.1", port))
sent, most, began = 0, 0, time.monotonic()
while True:
    if select.select([0], [], [], 0.002)[0]:
        lines = os.read(0, 65536)
        if not lines:
            break
        most = int(lines.split()[-1])
    due = int((time.monotonic() - began) * rate)
    for sent in range(sent, min(due, most)):
        udp.send(struct.pack("!I", sent))
        sent += 1
print(sent)
"""

#: Takes a listener, serves for some turns, and gives it back, for each two channels.
SERVER = """
import socket, sys
from twisted.internet.task import deferLater, react
from twsock import StreamSocketListener
from twsock.handover import DetachedListener
from twsock.handover.channel import give, take
channels = [socket.socket(fileno=int(number)) for number in sys.argv[1:]]
async def echo(_, args):
    async with args.socket as far:
        await far.output_stream.write(await far.input_stream.receive_exactly(1))
async def serve(reactor):
    owners = []
    for incoming, outgoing in zip(channels[::2], channels[1::2]):
        detached, _ = await take(reactor, incoming, kind=DetachedListener, timeout=60)
        made = StreamSocketListener(reactor)
        made.connection_received.add(echo)
        await made.bind_socket(detached)
        owners.append(made)
        for _ in range(5):
            await deferLater(reactor, 0)
        await give(reactor, outgoing, made.detach(), timeout=60)
    for made in owners:
        await made.close_all(60)
react(serve)
"""

#: Connects, sends a byte and reads it back, in threads, until its input ends: port. Prints how many
#: connections were served, and the errors.
STORM = """
import socket, sys, threading
port, errors, served, is_over = int(sys.argv[1]), [], [0] * 4, threading.Event()
def connect(index):
    while not is_over.is_set():
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=60) as near:
                near.sendall(b"x")
                assert near.recv(1) == b"x", "lost"
                served[index] += 1
        except Exception as error:
            errors.append(repr(error))
threads = [threading.Thread(target=connect, args=(index,)) for index in range(4)]
for thread in threads:
    thread.start()
sys.stdin.read()
is_over.set()
for thread in threads:
    thread.join()
print(sum(served), *errors)
"""

#: A process of another user connects to a path, and prints what it receives: path.
OTHER_USER = """
import os, socket, sys
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
channel.connect(sys.argv[1])
data, descriptors, _, _ = socket.recv_fds(channel, 256, 8)
print(data, descriptors)
"""


def channel_pair() -> tuple[socket.socket, socket.socket]:
    """Make both ends of a channel."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def start(program: str, *arguments: object, descriptors: Any = ()) -> subprocess.Popen[bytes]:
    """Run a program that inherits descriptors, whose numbers are its last arguments."""
    texts = [str(one) for one in (*arguments, *descriptors)]
    return subprocess.Popen(
        [sys.executable, "-c", program, *texts],
        pass_fds=tuple(descriptors),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


async def ended(reactor: Any, process: subprocess.Popen[bytes]) -> None:
    """Wait for the end of a process."""
    while process.poll() is None:
        await deferLater(reactor, 0.01)


def make_socket(kind: type[Detached]) -> socket.socket:
    """Make a socket of a kind."""
    if kind is DetachedListener:
        return socket.create_server((HOST, 0))
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((HOST, 0))
    return udp


def make_value(kind: type[Detached], one: socket.socket) -> Detached:
    """Make a value with one socket."""
    if kind is DetachedListener:
        return DetachedListener((one,))
    port = DetachedDatagramPort(one)
    return port if kind is DetachedDatagramPort else DetachedDatagramSocket((port,))


class HandoverKindsTests(OnEveryReactor):
    """`give` and `take` of listeners and UDP sockets."""

    has_variants: ClassVar[bool] = True
    # The kernel does most, so two reactors are enough: Twisted's default and that of twsock.
    _reactors = REACTORS[2::2]

    kinds: ClassVar[tuple[type[Detached], ...]] = (
        DetachedListener,
        DetachedDatagramPort,
        DetachedDatagramSocket,
    )

    def test_a_killed_taker_leaves_the_sockets_until_it_has_acknowledged(self) -> None:
        """Killed with SIGKILL at each step; what was queued is still there."""

        async def work(reactor: Any) -> None:
            steps = ("before reading", "while deciding", "afterwards")
            for number, step in enumerate(steps):
                for kind in self.kinds if THOROUGH else self.kinds[number : number + 1]:
                    await self.give_to_killed(reactor, kind, step)

        self.conduct(work)

    async def give_to_killed(self, reactor: Any, kind: type[Detached], step: str) -> None:
        one = make_socket(kind)
        address = one.getsockname()
        here, there = channel_pair()
        giving = give(reactor, here, make_value(kind, one), timeout=60)
        with there, start(TAKER, kind.__name__, step, descriptors=[there.fileno()]) as taker:
            there.close()
            if step == "afterwards":
                await giving
            else:
                self.assertIsInstance(await failure_of(giving), HandoverError, step)
            await ended(reactor, taker)
        if step == "afterwards":
            self.assertEqual(one.fileno(), -1, kind)
        else:
            self.assertTrue(await self.serves(reactor, make_value(kind, one), address), kind)

    def test_without_a_free_descriptor_nothing_is_taken(self) -> None:
        """One line is logged, and the giver serves on."""

        async def work(reactor: Any) -> None:
            for kind in self.kinds:
                one = make_socket(kind)
                here, there = channel_pair()
                giving = give(reactor, here, make_value(kind, one), timeout=60)
                with capturedLogs() as events, no_free_descriptor():
                    error = await failure_of(take(reactor, there, kind=kind, timeout=60))
                self.assertIn("a descriptor was lost: none is free", str(error), kind)
                self.assertEqual(len(events), 1, kind)
                self.assertIsInstance(await failure_of(giving), HandoverError, kind)
                value = make_value(kind, one)
                self.assertTrue(await self.serves(reactor, value, one.getsockname()), kind)

        self.conduct(work)

    def test_the_sockets_of_a_killed_giver_live_on(self) -> None:
        """Once they are offered; before, they end with their owner."""

        async def work(reactor: Any) -> None:
            steps = ("before the offer", "after the offer", "afterwards")
            for number, step in enumerate(steps):
                for kind in self.kinds if THOROUGH else self.kinds[number : number + 1]:
                    await self.take_from_killed(reactor, kind, step)

        self.conduct(work)

    async def take_from_killed(self, reactor: Any, kind: type[Detached], step: str) -> None:
        one = make_socket(kind)
        address = one.getsockname()
        here, there = channel_pair()
        descriptors = [there.fileno(), one.fileno()]
        with start(GIVER, kind.__name__, step, descriptors=descriptors) as giver:
            there.close()
            one.close()
            if step != "afterwards":
                await ended(reactor, giver)
            taking: Any = take(reactor, here, kind=kind, timeout=60)
            if step == "before the offer":
                self.assertIsInstance(await failure_of(taking), HandoverError)
            else:
                value, application = await taking
                self.assertEqual(application, b"app")
                await ended(reactor, giver)
                self.assertTrue(await self.serves(reactor, value, address), kind)

    async def serves(self, reactor: Any, value: Any, address: tuple[str, int]) -> bool:
        """Return whether a value can be continued; close it."""
        if isinstance(value, DetachedListener):
            listener = StreamSocketListener.from_socket(reactor, value)
            near = StreamSocket(reactor)
            await near.connect(*address, timeout=60)
            far = await listener.accept(timeout=60)
            await near.abort()
            await far.abort()
            await listener.close()
            return True
        bound = DatagramSocket.from_socket(reactor, value)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.sendto(b"alive", address)
            data, _ = await bound.receive_from(timeout=60)
        await bound.close()
        return data == b"alive"

    def test_a_process_of_another_user_gets_nothing(self) -> None:
        """Neither does it give anything: the check is before the first packet."""
        if (reason := why_no_other_user()) is not None:
            self.skipTest(reason)

        async def work(reactor: Any) -> None:
            with self.listening_for_all() as listening:
                path = listening.getsockname()
                for must_give in (True, False):
                    with start(OTHER_USER, path) as other:
                        while not await deferLater(reactor, 0.01, can_accept, listening):
                            self.assertIsNone(other.poll(), "it has not connected")
                        channel, _ = listening.accept()
                        near, far = socket.socketpair()
                        operation: Any = (
                            give(reactor, channel, DetachedConnection(near))
                            if must_give
                            else take(reactor, channel)
                        )
                        error = await failure_of(operation)
                        self.assertIn("is of user 65534", str(error))
                        await ended(reactor, other)
                        assert other.stdout is not None
                        self.assertEqual(other.stdout.read(), b"b'' []\n")
                        near.close()
                        far.close()

        self.conduct(work)

    def listening_for_all(self) -> socket.socket:
        """Listen on a path that any user may connect to."""
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        folder.chmod(0o755)
        path = folder / "s"
        made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        made.bind(str(path))
        path.chmod(0o666)
        made.listen()
        return made

    def test_no_datagram_is_lost_at_5000_a_second(self) -> None:
        """
        Between two processes, with a receive buffer of 8 MB; none arrives twice.

        A slow machine sends fewer: never more than one second of datagrams, or than the buffer
        takes, are under way.
        """

        async def work(reactor: Any) -> None:
            udp, room = self.udp_with_room()
            made = DatagramSocket.from_socket(reactor, udp)
            pairs = [channel_pair() for _ in range(2 * ROUNDS)]
            receiver = start(RECEIVER, descriptors=[there.fileno() for _, there in pairs])
            for _, there in pairs:
                there.close()
            received: list[int] = []
            number = made.information.local_port
            with receiver, start(SENDER, number, RATE) as sender:
                assert sender.stdin is not None
                for (outgoing, _), (incoming, _) in zip(pairs[::2], pairs[1::2], strict=True):
                    sender.stdin.write(b"%d\n" % (len(received) + room))
                    sender.stdin.flush()
                    data, _ = await made.receive_from(timeout=60)
                    received.append(int.from_bytes(data, "big"))
                    await give(reactor, outgoing, made.detach(), timeout=60)
                    detached, numbers = await take(
                        reactor, incoming, kind=DetachedDatagramSocket, timeout=60
                    )
                    received += [one for (one,) in struct.iter_unpack("!I", numbers)]
                    made = DatagramSocket.from_socket(reactor, detached)
                output, _ = sender.communicate()
                sent = int(output)
                while len(received) < sent and not made.information.dropped:
                    data, _ = await made.receive_from(timeout=60)
                    received.append(int.from_bytes(data, "big"))
                await ended(reactor, receiver)
            self.assertEqual(made.information.dropped, 0)
            self.assertEqual(received, list(range(sent)))
            await made.close()

        self.conduct(work)

    def udp_with_room(self) -> tuple[socket.socket, int]:
        """Make a UDP socket, and return how many small datagrams may be under way to it."""
        udp = make_socket(DetachedDatagramSocket)
        try:
            udp.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        except PermissionError:
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        # Linux counts less than 1,024 bytes for each.
        room = udp.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 1024
        return udp, min(RATE, room)

    def test_no_connection_is_refused_or_reset_in_a_storm(self) -> None:
        """Each is served by the process that accepted it."""

        async def work(reactor: Any) -> None:
            async def echo(_: StreamSocketListener, args: Any) -> None:
                async with args.socket as far:
                    await far.output_stream.write(await far.input_stream.receive_exactly(1))

            owners: list[StreamSocketListener] = []
            made = StreamSocketListener(reactor)
            made.connection_received.add(echo)
            await made.bind_endpoint(HOST, "")
            owners.append(made)
            pairs = [channel_pair() for _ in range(2 * ROUNDS)]
            server = start(SERVER, descriptors=[there.fileno() for _, there in pairs])
            for _, there in pairs:
                there.close()
            with server, start(STORM, made.information.local_port) as storm:
                while not owners[0]:
                    await deferLater(reactor, 0.01)
                for (outgoing, _), (incoming, _) in zip(pairs[::2], pairs[1::2], strict=True):
                    await turns(reactor, 5)
                    await give(reactor, outgoing, owners[-1].detach(), timeout=60)
                    detached, _ = await take(reactor, incoming, kind=DetachedListener, timeout=60)
                    made = StreamSocketListener(reactor)
                    made.connection_received.add(echo)
                    await made.bind_socket(detached)
                    owners.append(made)
                assert storm.stdin is not None
                storm.stdin.close()
                await ended(reactor, storm)
                assert storm.stdout is not None
                served, *errors = storm.stdout.read().decode().split()
                self.assertEqual(errors, [])
                self.assertGreater(int(served), 4)
                await ended(reactor, server)
            for made in owners:
                self.assertEqual(await made.close_all(60), 0)

        self.conduct(work)


def can_accept(listening: socket.socket) -> bool:
    """Return whether a connection waits."""
    return bool(select.select([listening], [], [], 0)[0])


globals().update(HandoverKindsTests.makeTestCaseClasses())
