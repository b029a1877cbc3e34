"""A `PacketChannel` sends and receives packets with sockets, and ends."""

from __future__ import annotations

import os
import socket

from twisted.trial.unittest import SynchronousTestCase

from tests.services.restart.fakes import FakeReactor, Peer, count_descriptors
from twsock.errors import LocalProtocolError, RemoteProtocolError
from twsock.restart.records import (
    ConnectionOffer,
    Ready,
    RestartPacket,
    SharedSocket,
    Watch,
    encode_restart,
)
from twsock.services.restart.channel import PacketChannel, receive_packet


class Receiver:
    """Lists what a channel reports; closes sockets and foreign channels."""

    def __init__(self) -> None:
        self.events: list[object] = []

    def packet_received(
        self, channel: PacketChannel, packet: RestartPacket, passed: socket.socket | None
    ) -> None:
        self.events.append(packet)
        if passed is not None:
            self.events.append(passed.getsockname())
            passed.close()

    def foreign_received(self, channel: PacketChannel, reason: str) -> None:
        self.events.append(reason)
        channel.close()

    def channel_ended(self, channel: PacketChannel) -> None:
        self.events.append("end")
        channel.close()


class ChannelTests(SynchronousTestCase):
    """A channel between an object and a peer."""

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.peer = Peer()
        self.addCleanup(self.peer.close)
        self.receiver = Receiver()
        self.channel = PacketChannel(self.reactor, self.peer.theirs, self.receiver)
        self.addCleanup(self.channel.close)
        self.channel.start()
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.addCleanup(self.udp.close)

    def test_packets_arrive_with_their_sockets(self) -> None:
        """The receiver gets a copy of the socket."""
        self.peer.send(SharedSocket("udp:a"), self.udp)
        self.peer.send(Ready())
        self.reactor.turn()
        self.assertEqual(
            self.receiver.events, [SharedSocket("udp:a"), self.udp.getsockname(), Ready()]
        )

    def test_a_sent_socket_is_closed_here(self) -> None:
        """The kernel has a copy."""
        copy = self.udp.dup()
        self.channel.send(ConnectionOffer("FrameEcho"), copy)
        self.assertEqual(copy.fileno(), -1)
        self.assertEqual(self.peer.receive(), ConnectionOffer("FrameEcho"))

    def test_a_packet_that_cannot_be_encoded_closes_its_socket(self) -> None:
        """Nothing is sent."""
        copy = self.udp.dup()
        with self.assertRaises(LocalProtocolError):
            self.channel.send(SharedSocket(""), copy)
        self.assertEqual(copy.fileno(), -1)

    def test_descriptors_in_the_wrong_place_are_refused(self) -> None:
        """None beside a socket, two, or one beside another packet; all of them are closed."""
        before = count_descriptors()
        for packet, passed in (
            (SharedSocket("a"), ()),
            (SharedSocket("a"), (self.udp, self.udp)),
            (Ready(), (self.udp,)),
        ):
            self.peer.send(packet, *passed)
            with self.assertRaisesRegex(RemoteProtocolError, f"^{len(passed)} descriptors beside"):
                receive_packet(self.peer.theirs)
        self.assertEqual(count_descriptors(), before)

    def test_a_descriptor_that_is_no_socket_is_refused(self) -> None:
        """It is closed."""
        read, write = os.pipe()
        self.addCleanup(os.close, read)
        socket.send_fds(self.peer.socket, [encode_restart(SharedSocket("a"))], [write])
        os.close(write)
        with self.assertRaisesRegex(RemoteProtocolError, "not a socket"):
            receive_packet(self.peer.theirs)
        # No copy of the writing end is left.
        self.assertEqual(os.read(read, 1), b"")

    def test_bytes_of_another_format_are_reported(self) -> None:
        """Too long, or without the magic number."""
        self.peer.send(b"x" * 300)
        with self.assertRaisesRegex(RemoteProtocolError, "more than 256 bytes"):
            receive_packet(self.peer.theirs)
        self.peer.send(b"GET / HTTP/1.1")
        self.reactor.turn()
        self.assertEqual(self.receiver.events, ["the packet is not that of a restart of twsock"])

    def test_packets_before_the_end_are_reported_first(self) -> None:
        """Also if the other process died with packets unread, which resets the channel."""
        self.channel.send(Watch())
        self.peer.send(Ready())
        self.peer.socket.close()
        self.reactor.turn()
        self.assertEqual(self.receiver.events, [Ready(), "end"])
        self.assertEqual(self.reactor.readers, set())

    def test_what_does_not_fit_waits(self) -> None:
        """All packets arrive in order; a closed channel sends the rest first."""
        count = 2000
        for number in range(count):
            self.channel.send(SharedSocket(f"{number}"), self.udp.dup())
        self.channel.close()
        self.assertEqual(self.reactor.writers, {self.channel})
        found = []
        while (packet := self.peer.receive()) is not None:
            found.append(packet)
            self.reactor.turn()
        self.assertEqual(found, [SharedSocket(f"{number}") for number in range(count)])
        self.assertEqual((self.reactor.writers, self.reactor.getDelayedCalls()), (set(), []))

    def test_a_closed_channel_does_not_wait_for_ever(self) -> None:
        """A process that reads nothing keeps no descriptor open here."""
        while not self.reactor.writers:
            self.channel.send(Watch())
        self.channel.close()
        self.reactor.advance(5)
        self.assertEqual((self.reactor.writers, self.channel.fileno()), (set(), -1))

    def test_nothing_is_sent_after_the_close(self) -> None:
        """A socket that should be sent is closed."""
        self.channel.close()
        self.channel.close()
        copy = self.udp.dup()
        self.channel.send(SharedSocket("a"), copy)
        self.assertEqual(copy.fileno(), -1)
        self.assertTrue(self.channel.is_closed)
        self.assertIsNone(self.peer.receive())

    def test_the_peer_is_known(self) -> None:
        """Its process and its user, from the kernel."""
        self.assertEqual((self.channel.process, self.channel.user), (os.getpid(), os.geteuid()))
