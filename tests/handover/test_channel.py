"""A connection moves through a channel, whole or not at all; on every reactor."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import Any, Final

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.loopback.contract import OnEveryReactor, failure_of
from twsock import StreamSocket
from twsock.handover import DetachedConnection
from twsock.handover.channel import HandoverError, give, take
from twsock.handover.records import MAX_STATE, Accepted, Offer, encode_packet
from twsock.protocols import FrameEcho
from twsock.wire import encode_frame

#: Takes connections in another process: the first argument is how it dies, the second its channel.
TAKER = """
import os, signal, socket, sys
from twsock.handover.records import *
channel = socket.socket(fileno=int(sys.argv[2]))
if sys.argv[1] == "before reading":
    os.kill(os.getpid(), signal.SIGKILL)
data, descriptors, _, _ = socket.recv_fds(channel, 256, 8)
if sys.argv[1] == "before the acknowledgement":
    os.kill(os.getpid(), signal.SIGKILL)
connection = socket.socket(fileno=descriptors[0])
state = decode_state(os.pread(descriptors[1], decode_packet(data).state_size, 0))
channel.send(encode_packet(Accepted()))
if sys.argv[1] == "after the acknowledgement":
    os.kill(os.getpid(), signal.SIGKILL)
connection.setblocking(True)
connection.sendall(state.unsent + b"|" + state.unread + connection.recv(100))
"""

#: Gives a connection, and dies before it could read the acknowledgement.
GIVER = """
import fcntl, os, signal, socket, sys
from twsock.handover.records import *
channel, connection = (socket.socket(fileno=int(number)) for number in sys.argv[1:])
state = encode_state(HandoverState(b"in", b"out", b"app"))
memory = os.memfd_create("state", os.MFD_ALLOW_SEALING)
os.write(memory, state)
fcntl.fcntl(memory, fcntl.F_ADD_SEALS, 0x2 | 0x4 | 0x8)
packet = encode_packet(Offer(len(state)))
socket.send_fds(channel, [packet], [connection.fileno(), memory])
os.kill(os.getpid(), signal.SIGKILL)
"""


#: Takes a connection, and dies while the application decides about it.
DECIDING_TAKER = """
import os, signal, socket, sys
from twisted.internet.task import react
from twsock.handover.channel import take
channel = socket.socket(fileno=int(sys.argv[1]))
def accept(detached, application):
    os.kill(os.getpid(), signal.SIGKILL)
react(lambda reactor: take(reactor, channel, accept=accept, timeout=60))
"""

#: Takes a connection, serves it for some turns, and gives it back, once for each two channels.
SERVER = """
import socket, sys
from twisted.internet.task import deferLater, react
from twsock.handover.channel import give, take
from twsock.protocols import FrameEcho
channels = [socket.socket(fileno=int(number)) for number in sys.argv[1:]]
async def serve(reactor):
    for incoming, outgoing in zip(channels[::2], channels[1::2]):
        detached, _ = await take(reactor, incoming, timeout=60)
        server = FrameEcho.from_socket(
            reactor, detached.socket, unread=detached.unread, unsent=detached.unsent
        )
        for _ in range(3):
            await deferLater(reactor, 0)
        await give(reactor, outgoing, server.detach(), timeout=60)
react(serve)
"""

#: Hand-overs of the connection under traffic.
HANDOVERS: Final = 200


def start(program: str, arguments: list[str], channels: list[int]) -> subprocess.Popen[bytes]:
    """Run a program that inherits these descriptors, whose numbers are its last arguments."""
    numbers = [str(number) for number in channels]
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments, *numbers], pass_fds=channels
    )


def frame(number: int) -> bytes:
    """Return one of many frames of different sizes and bytes."""
    return encode_frame(number.to_bytes(4, "big") * (number * 7919 % 4001))


def channel_pair() -> tuple[socket.socket, socket.socket]:
    """Make both ends of a channel."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class ChannelTests(OnEveryReactor):
    """`give` and `take`."""

    def test_a_connection_moves_with_its_bytes(self) -> None:
        """The giver has no copy afterwards, and nothing is left open."""

        async def work(reactor: Any) -> None:
            near, far = socket.socketpair()
            here, there = channel_pair()
            giving = give(
                reactor, here, DetachedConnection(near, b"in", b"out"), application=b"app"
            )
            detached, application = await take(reactor, there)
            await giving
            self.assertEqual(near.fileno(), -1)
            self.assertEqual((detached.unread, detached.unsent), (b"in", b"out"))
            self.assertEqual(application, b"app")
            with far, detached.socket as taken:
                taken.send(b"moved")
                self.assertEqual(far.recv(9), b"moved")

        self.conduct(work)

    def test_what_is_no_offer_is_refused(self) -> None:
        """One line is logged, nothing is taken, and every descriptor that came is closed."""

        async def work(reactor: Any) -> None:
            near, far = socket.socketpair()
            offer = encode_packet(Offer(0))
            for name, data, descriptors in (
                ("a foreign program", b"GET / HTTP/1.1", [near.fileno()]),
                ("another version", b"TWHO\x07\x01", [near.fileno()]),
                ("too long", b"TWHO\x02\x03" + bytes(300), []),
                ("no descriptor", offer, []),
                ("one descriptor", offer, [near.fileno()]),
                ("three descriptors", offer, [near.fileno()] * 3),
                ("more than are read", offer, [near.fileno()] * 20),
                ("not a file in memory", offer, [near.fileno(), far.fileno()]),
                ("too long a state", encode_packet(Offer(MAX_STATE))[:-8] + b"\xff" * 8, []),
                ("an answer without an offer", encode_packet(Accepted()), []),
            ):
                here, there = channel_pair()
                with here, capturedLogs() as events:
                    taking = take(reactor, there)
                    socket.send_fds(here, [data], descriptors)
                    error = await failure_of(taking)
                    self.assertIsInstance(error, HandoverError, name)
                    self.assertTrue(here.recv(256).startswith(b"TWHO\x02\x03"), name)
                expected = 0 if name == "an answer without an offer" else 1
                self.assertEqual(len(events), expected, name)
            near.close()
            far.close()

        self.conduct(work)

    def test_a_giver_keeps_what_is_not_acknowledged(self) -> None:
        """A refusal, the end of the channel, the deadline and a cancel leave it as it was."""

        async def work(reactor: Any) -> None:
            near, far = socket.socketpair()
            detached = DetachedConnection(near)
            for name in ("refusal", "end", "deadline", "cancel"):
                here, there = channel_pair()
                giving = give(reactor, here, detached, timeout=0.05)
                if name == "refusal":
                    there.send(b"TWHO\x02\x03full")
                elif name == "end":
                    there.close()
                elif name == "cancel":
                    giving.cancel()
                error = await failure_of(giving)
                self.assertIsInstance(error, HandoverError, name)
                there.close()
            near.send(b"kept")
            self.assertEqual(far.recv(9), b"kept")
            near.close()
            far.close()

        self.conduct(work)

    def test_an_acknowledgement_behind_a_reset_counts(self) -> None:
        """The taker has died with the offer unread, after it had acknowledged it."""

        async def work(reactor: Any) -> None:
            near, far = socket.socketpair()
            here, there = channel_pair()
            giving = give(reactor, here, DetachedConnection(near))
            there.send(encode_packet(Accepted()))
            there.close()
            await giving
            self.assertEqual((near.fileno(), far.recv(1)), (-1, b""))
            far.close()

        self.conduct(work)

    def test_a_withdrawn_offer_is_not_taken(self) -> None:
        """The acknowledgement cannot be sent, and the taker reads that the giver goes on."""

        async def work(reactor: Any) -> None:
            near, far = socket.socketpair()
            here, there = channel_pair()
            giving = give(reactor, here, DetachedConnection(near))
            giving.cancel()
            self.assertIsInstance(await failure_of(giving), HandoverError)
            error = await failure_of(take(reactor, there))
            self.assertIn("withdrew", str(error))
            near.send(b"kept")
            self.assertEqual(far.recv(9), b"kept")
            near.close()
            far.close()

        self.conduct(work)

    def test_a_killed_taker_leaves_the_connection_until_it_has_acknowledged(self) -> None:
        """Killed with SIGKILL at each step; the connection ends only with its owner."""

        async def work(reactor: Any) -> None:
            for where, is_given in (
                ("before reading", False),
                ("before the acknowledgement", False),
                ("after the acknowledgement", True),
                ("never", True),
            ):
                near, far = socket.socketpair()
                here, there = channel_pair()
                giving = give(reactor, here, DetachedConnection(near, b"in", b"out"), timeout=60)
                with there, start(TAKER, [where], [there.fileno()]) as taker:
                    far.send(b"put")
                    there.close()
                    if is_given:
                        await giving
                    else:
                        self.assertIsInstance(await failure_of(giving), HandoverError, where)
                    while taker.poll() is None:
                        await deferLater(reactor, 0.01)
                if is_given:
                    self.assertEqual(near.fileno(), -1, where)
                    if where == "never":
                        self.assertEqual(far.recv(99), b"out|input", where)
                else:
                    near.send(b"kept")
                    self.assertEqual(far.recv(9), b"kept", where)
                near.close()
                far.close()

        self.conduct(work)

    def test_the_application_accepts_before_the_acknowledgement(self) -> None:
        """Its result is in the value, and the giver still has its copy meanwhile."""

        async def work(reactor: Any) -> None:
            near, far = socket.socketpair()
            here, there = channel_pair()
            giving = give(reactor, here, DetachedConnection(near, b"in"), application=b"app")

            def accept(detached: DetachedConnection, application: bytes) -> tuple[bytes, bytes]:
                self.assertFalse(giving.called)
                return detached.unread, application

            detached, result = await take(reactor, there, accept=accept)
            await giving
            self.assertEqual(result, (b"in", b"app"))
            detached.close()
            far.close()

        self.conduct(work)

    def test_what_the_application_cannot_continue_stays_with_the_giver(self) -> None:
        """The reason reaches both sides in one line, and the copy of the taker is closed."""

        async def work(reactor: Any) -> None:
            near, far = socket.socketpair()
            here, there = channel_pair()
            giving, seen = give(reactor, here, DetachedConnection(near)), []

            def accept(detached: DetachedConnection, _application: bytes) -> None:
                seen.append(detached)
                raise ValueError("no such\nservice")

            with capturedLogs() as events:
                error = await failure_of(take(reactor, there, accept=accept))
            self.assertIsInstance(error, HandoverError)
            self.assertIsInstance(error.__cause__, ValueError)
            self.assertEqual([one["reason"] for one in events], ["no such service"])
            refusal = await failure_of(giving)
            self.assertIn("no such service", str(refusal))
            self.assertEqual(seen[0].socket.fileno(), -1)
            near.send(b"kept")
            self.assertEqual(far.recv(9), b"kept")
            near.close()
            far.close()

        self.conduct(work)

    def test_a_take_that_is_cancelled_by_its_application_takes_nothing(self) -> None:
        """The offer is refused; an error after that changes nothing."""

        async def work(reactor: Any) -> None:
            for must_raise in (False, True):
                await self.cancel_in_accept(reactor, must_raise=must_raise)

        self.conduct(work)

    async def cancel_in_accept(self, reactor: Any, *, must_raise: bool) -> None:
        near, far = socket.socketpair()
        here, there = channel_pair()
        giving, seen = give(reactor, here, DetachedConnection(near)), []

        def accept(detached: DetachedConnection, _application: bytes) -> None:
            seen.append(detached)
            taking.cancel()
            if must_raise:
                raise ValueError("late")

        taking = take(reactor, there, accept=accept)
        self.assertIn("cancelled", str(await failure_of(taking)), must_raise)
        self.assertIn("cancelled", str(await failure_of(giving)), must_raise)
        self.assertEqual(seen[0].socket.fileno(), -1, must_raise)
        near.close()
        far.close()

    def test_a_withdrawal_during_the_decision_counts(self) -> None:
        """The acknowledgement cannot be sent, and the result of the application is dropped."""

        async def work(reactor: Any) -> None:
            near, far = socket.socketpair()
            here, there = channel_pair()
            giving, seen = give(reactor, here, DetachedConnection(near)), []

            def accept(detached: DetachedConnection, _application: bytes) -> None:
                seen.append(detached)
                giving.cancel()

            error = await failure_of(take(reactor, there, accept=accept))
            self.assertIn("withdrew", str(error))
            self.assertIsInstance(await failure_of(giving), HandoverError)
            self.assertEqual(seen[0].socket.fileno(), -1)
            near.send(b"kept")
            self.assertEqual(far.recv(9), b"kept")
            near.close()
            far.close()

        self.conduct(work)

    def test_a_taker_killed_during_the_decision_leaves_the_connection(self) -> None:
        """Nothing was acknowledged."""

        async def work(reactor: Any) -> None:
            near, far = socket.socketpair()
            here, there = channel_pair()
            giving = give(reactor, here, DetachedConnection(near), timeout=60)
            with there, start(DECIDING_TAKER, [], [there.fileno()]) as taker:
                there.close()
                self.assertIsInstance(await failure_of(giving), HandoverError)
                while taker.poll() is None:
                    await deferLater(reactor, 0.01)
            near.send(b"kept")
            self.assertEqual(far.recv(9), b"kept")
            near.close()
            far.close()

        self.conduct(work)

    def test_no_byte_is_lost_or_doubled_in_200_hand_overs_under_traffic(self) -> None:
        """Between two processes, with frames of any size under way in both directions."""

        async def work(reactor: Any) -> None:
            peer, server, echoed = await self.exchange(reactor)
            self.assertGreater(echoed, 0)
            await peer.close()
            await server.close()
            await peer.wait_closed()

        self.conduct(work)

    async def exchange(self, reactor: Any) -> tuple[StreamSocket, FrameEcho, int]:
        """Move an echo to another process and back; return peer, echo and the echoed frames."""
        near, far = socket.socketpair()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
        peer, moves = StreamSocket.from_socket(reactor, far), 0
        pairs = [channel_pair() for _ in range(HANDOVERS)]
        child = start(SERVER, [], [there.fileno() for _, there in pairs])
        for _, there in pairs:
            there.close()
        server = FrameEcho.from_socket(reactor, near)
        sent = echoed = 0

        async def receive() -> None:
            nonlocal echoed
            while moves < HANDOVERS or echoed < sent:
                expected = frame(echoed)
                got = await peer.input_stream.receive_exactly(len(expected))
                self.assertEqual(got, expected)
                echoed += 1

        async def send() -> None:
            nonlocal sent
            while moves < HANDOVERS:
                sent += 1
                await peer.output_stream.write(frame(sent - 1))
                await deferLater(reactor, 0)

        traffic = [ensureDeferred(receive()), ensureDeferred(send())]
        with child:
            for (outgoing, _), (incoming, _) in zip(pairs[::2], pairs[1::2], strict=True):
                await give(reactor, outgoing, server.detach(), timeout=60)
                detached, _ = await take(reactor, incoming, timeout=60)
                server = FrameEcho.from_socket(
                    reactor, detached.socket, unread=detached.unread, unsent=detached.unsent
                )
                await deferLater(reactor, 0)
                moves += 2
            await traffic[1]
            await peer.output_stream.write(frame(sent))
            sent += 1
            await traffic[0]
            while child.poll() is None:
                await deferLater(reactor, 0.01)
        self.assertEqual(child.returncode, 0)
        return peer, server, echoed

    def test_the_connection_of_a_killed_giver_lives_on(self) -> None:
        """The acknowledgement cannot be sent, and nothing says that the giver goes on."""

        async def work(reactor: Any) -> None:
            near, far = socket.socketpair()
            here, there = channel_pair()
            numbers = [here.fileno(), near.fileno()]
            with start(GIVER, [], numbers) as giver:
                here.close()
                near.close()
                while giver.poll() is None:
                    await deferLater(reactor, 0.01)
            detached, application = await take(reactor, there)
            self.assertEqual((detached.unread, application), (b"in", b"app"))
            detached.socket.send(b"alive")
            self.assertEqual(far.recv(9), b"alive")
            detached.close()
            far.close()

        self.conduct(work)


class RefusalTests(SynchronousTestCase):
    """What is wrong before anything is sent."""

    def test_a_channel_of_another_kind_is_an_error(self) -> None:
        """So is a timeout that has passed."""
        here, there = socket.socketpair()
        with here, there:
            self.assertRaises(ValueError, take, None, here)
            self.assertRaises(ValueError, give, None, here, DetachedConnection(there))
        here, there = channel_pair()
        with here, there:
            self.assertRaises(ValueError, take, None, here, timeout=0)

    def test_a_state_above_the_limit_is_not_offered(self) -> None:
        """The connection stays as it is."""
        near, far = socket.socketpair()
        here, there = channel_pair()
        with near, far, there:
            detached = DetachedConnection(near, bytes(MAX_STATE))
            self.failureResultOf(give(None, here, detached), HandoverError)
            self.assertNotEqual(near.fileno(), -1)


globals().update(ChannelTests.makeTestCaseClasses())
