"""Offers: what is sent arrives, and nothing of a wrong offer is used."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack

from twisted.trial.unittest import SynchronousTestCase

from twsock.errors import LocalProtocolError, RemoteProtocolError
from twsock.handover import (
    DatagramState,
    DetachedConnection,
    DetachedDatagramPort,
    DetachedDatagramSocket,
    DetachedListener,
    UnreadDatagram,
)
from twsock.handover.detached import Detached
from twsock.handover.offering import MOST_DESCRIPTORS, kind_of, open_offer, send_offer
from twsock.handover.records import KINDS, Offer, SocketKind, decode_packet

_STATE = DatagramState(True, unread=(UnreadDatagram(b"in", ("127.0.0.1", 9)),))


class OfferTests(SynchronousTestCase):
    """`send_offer` and `open_offer`."""

    def setUp(self) -> None:
        self.stack = ExitStack()
        self.addCleanup(self.stack.close)
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.here, self.there = map(self.stack.enter_context, pair)

    def keep(self, made: socket.socket) -> socket.socket:
        """Close a socket at the end of the test."""
        return self.stack.enter_context(made)

    def udp(self, host: str = "127.0.0.1") -> socket.socket:
        """Bind a UDP socket."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        made = self.keep(socket.socket(family, socket.SOCK_DGRAM))
        made.bind((host, 0))
        return made

    def stream(self) -> socket.socket:
        """Connect a stream socket."""
        near, far = socket.socketpair()
        self.keep(far)
        return self.keep(near)

    def listening(self) -> socket.socket:
        """Listen."""
        return self.keep(socket.create_server(("127.0.0.1", 0)))

    def receive(self) -> tuple[Offer, list[int]]:
        """Return the offer that was sent, and its descriptors."""
        data, descriptors, _, _ = socket.recv_fds(self.there, 256, MOST_DESCRIPTORS)
        offer = decode_packet(data)
        assert isinstance(offer, Offer)
        return offer, descriptors

    def refuse(self, offered: Detached, kind: SocketKind | None = None) -> str:
        """Return why an offer is refused; all its descriptors are still open then."""
        send_offer(self.here, offered, b"")
        offer, descriptors = self.receive()
        before = list(descriptors)
        reason = ""
        try:
            open_offer(offer, descriptors, kind or offer.kind)
        except RemoteProtocolError as error:
            reason = str(error)
        self.assertEqual(descriptors, before)
        for one in descriptors:
            os.close(one)  # Fails if it was closed before.
        return reason

    def test_each_kind_arrives(self) -> None:
        """With its sockets and its state."""
        both = tuple(DetachedDatagramPort(self.udp(host), _STATE) for host in ("127.0.0.1", "::1"))
        for value in (
            DetachedConnection(self.stream(), b"in", b"out"),
            DetachedListener((self.listening(), self.listening())),
            DetachedDatagramPort(self.udp(), _STATE),
            DetachedDatagramSocket(both, 1),
        ):
            send_offer(self.here, value, b"app")
            offer, descriptors = self.receive()
            taken, application = open_offer(offer, descriptors, kind_of(type(value)))
            self.assertEqual(application, b"app")
            self.assertEqual(len(descriptors), 1, "only the state is left")
            os.close(descriptors[0])
            self.assertEqual(names_of(taken), names_of(value))
            for one in sockets_of(taken):
                self.assertFalse(os.get_blocking(one.fileno()))
            taken.close()

    def test_another_kind_is_refused(self) -> None:
        """The taker has asked for one kind."""
        reason = self.refuse(DetachedConnection(self.stream()), KINDS[1])
        self.assertEqual(reason, "a connection was offered, not a listener")
        self.assertRaises(ValueError, kind_of, int)

    def test_a_socket_of_another_kind_is_refused(self) -> None:
        """It would fail later, at its first use."""
        for value in (
            DetachedConnection(self.listening()),
            DetachedConnection(self.udp()),
            DetachedListener((self.listening(), self.stream())),
            DetachedDatagramPort(self.stream()),
        ):
            self.assertIn("is not that of a", self.refuse(value))
        two = (DetachedDatagramPort(self.udp()), DetachedDatagramPort(self.udp()))
        self.assertIn("the same address family", self.refuse(DetachedDatagramSocket(two)))

    def test_a_state_that_is_not_sealed_is_refused(self) -> None:
        """The giver could change it while it is read."""
        send_offer(self.here, DetachedConnection(self.stream(), b"in"), b"")
        offer, descriptors = self.receive()
        *sockets, sealed = descriptors
        for flags in (0, os.MFD_ALLOW_SEALING):
            memory = os.memfd_create("state", flags)
            os.write(memory, os.pread(sealed, 1000, 0))
            with self.assertRaisesRegex(RemoteProtocolError, "the state is not sealed"):
                open_offer(offer, [*sockets, memory], offer.kind)
            os.close(memory)
        for one in descriptors:
            os.close(one)

    def test_too_many_sockets_are_not_offered(self) -> None:
        """Nor is none."""
        for count in (0, 8):
            listener = DetachedListener((self.here,) * count)
            with self.assertRaisesRegex(LocalProtocolError, f"1 to 7 sockets, not {count}"):
                send_offer(self.here, listener, b"")

    def test_all_descriptors_of_an_offer_are_received(self) -> None:
        """Those of the kind with the most sockets, with its state and one that is too many."""
        self.assertEqual(MOST_DESCRIPTORS, max(kind.most_sockets for kind in KINDS) + 2)


def sockets_of(value: Detached) -> tuple[socket.socket, ...]:
    """Return the sockets of a value."""
    if isinstance(value, DetachedListener):
        return value.sockets
    if isinstance(value, DetachedDatagramSocket):
        return tuple(port.socket for port in value.ports)
    return (value.socket,)


def names_of(value: Detached) -> object:
    """Return the addresses of the sockets of a value, and everything else."""
    if isinstance(value, DetachedConnection):
        return value.socket.getsockname(), value.unread, value.unsent
    if isinstance(value, DetachedListener):
        return [one.getsockname() for one in value.sockets]
    if isinstance(value, DetachedDatagramPort):
        return value.socket.getsockname(), value.state
    return value.adapter, [names_of(port) for port in value.ports]
