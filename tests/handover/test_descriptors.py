"""Packets with descriptors are received whole, and their descriptors are closed."""

from __future__ import annotations

import os
import socket

from twisted.trial.unittest import SynchronousTestCase

from twsock.errors import RemoteProtocolError
from twsock.handover.descriptors import channel_peer, receive_with_descriptors


class DescriptorTests(SynchronousTestCase):
    """`receive_with_descriptors` on one end of a socket pair."""

    def setUp(self) -> None:
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(self.ours.close)
        self.addCleanup(self.theirs.close)

    def test_the_descriptors_are_closed_unless_they_are_removed(self) -> None:
        """A reader removes those that it keeps."""
        descriptor = self.theirs.fileno()
        socket.send_fds(self.theirs, [b"ab"], [descriptor, descriptor])
        with receive_with_descriptors(self.ours, 2, 2) as packet:
            packet.check_whole()
            kept, closed = packet.descriptors
            del packet.descriptors[0]
        self.assertEqual(packet.data, b"ab")
        self.assertFalse(os.get_inheritable(kept))
        os.close(kept)
        self.assertRaises(OSError, os.fstat, closed)

    def test_a_longer_packet_is_not_whole(self) -> None:
        """One byte above the limit is enough."""
        self.theirs.send(b"abc")
        with receive_with_descriptors(self.ours, 2, 2) as packet:
            error = self.assertRaises(RemoteProtocolError, packet.check_whole)
        self.assertEqual(str(error), "a packet has more than 2 bytes")

    def test_a_packet_with_more_descriptors_is_not_whole(self) -> None:
        """The kernel closes those above the limit."""
        socket.send_fds(self.theirs, [b"a"], [self.theirs.fileno()] * 4)
        with receive_with_descriptors(self.ours, 2, 1) as packet:
            error = self.assertRaises(RemoteProtocolError, packet.check_whole)
        self.assertIn("a descriptor was lost", str(error))

    def test_the_end_has_no_bytes(self) -> None:
        """The peer has closed its end."""
        self.theirs.close()
        with receive_with_descriptors(self.ours, 2, 2) as packet:
            self.assertEqual((packet.data, packet.descriptors), (b"", []))

    def test_the_peer_is_known(self) -> None:
        """The kernel reports its process id and its user."""
        self.assertEqual(channel_peer(self.ours), (os.getpid(), os.geteuid()))
