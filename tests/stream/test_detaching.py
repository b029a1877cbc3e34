"""A protocol lets go of its socket; on every reactor in tests/loopback/test_handover.py."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.stream.connections import Connected, FrameRecorder
from tests.stream.test_transport import KernelCase
from twsock.errors import ClosedError, LocalProtocolError
from twsock.protocols import FrameProtocol
from twsock.stream.protocol import Handled
from twsock.wire import encode_frame


class Answering(FrameProtocol):
    """Has a handler that waits, or one that detaches the connection."""

    def __init__(self) -> None:
        self.waits: Deferred[None] = Deferred()
        self.refusal: LocalProtocolError | None = None
        self.losses: list[object] = []

    def frame_received(self, payload: bytes) -> Handled:
        if payload == b"wait":
            return self.waits
        try:
            self.detach()
        except LocalProtocolError as error:
            self.refusal = error
        return None

    def connection_lost(self, error: object) -> None:
        self.losses.append(error)


class DetachingTests(KernelCase):
    """``detach()`` of a protocol over a plain socket."""

    def setUp(self) -> None:
        super().setUp()
        self.connect(Answering())

    def connect(self, protocol: Any) -> None:
        """Give the transport to a protocol."""
        self.owner_protocol = self.descriptor.protocol = protocol
        protocol.makeConnection(self.descriptor)

    def detach(self) -> Any:
        """Detach the protocol; the test closes the socket."""
        detached = self.owner_protocol.detach()
        self.addCleanup(detached.close)
        return detached

    def test_a_partial_message_is_unread(self) -> None:
        """The bytes of its header belong to it."""
        partial = encode_frame(b"half a message")[:9]
        self.owner_protocol.dataReceived(partial[:2])
        self.owner_protocol.dataReceived(partial[2:])
        self.assertEqual(self.detach().unread, partial)

    def test_bytes_that_the_kernel_did_not_take_are_unsent(self) -> None:
        """What the peer reads and what is unsent are all bytes, in order, once."""
        payload = bytes(range(256)) * 4096
        for _ in range(8):
            self.owner_protocol.send_frame(payload)
        self.owner_protocol.transport.write(b"the end")
        unsent = self.detach().unsent
        received = bytearray()
        while len(received) + len(unsent) < 8 * len(encode_frame(payload)) + 7:
            received += self.peer.recv(1 << 20)
        self.assertEqual(bytes(received) + unsent, encode_frame(payload) * 8 + b"the end")
        self.assertRaises(BlockingIOError, self.peer.recv, 1)

    def test_the_protocol_is_closed_afterwards(self) -> None:
        """The loss is reported once, as an end in order, and no timer or watch is left."""
        self.owner_protocol.send_frame(bytes(1 << 23))
        self.detach()
        self.assertEqual(self.owner_protocol.losses, [None])
        self.assertFalse(self.owner_protocol.is_open)
        self.assertRaises(ClosedError, self.owner_protocol.send_frame, b"late")
        self.assertRaises(ClosedError, self.owner_protocol.detach)
        self.successResultOf(self.owner_protocol.close())
        self.assertEqual((self.reactor.readers, self.reactor.writers), (set(), set()))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_a_waiting_handler_keeps_the_connection(self) -> None:
        """Its message would be answered by nobody."""
        self.owner_protocol.dataReceived(encode_frame(b"wait"))
        self.assertRaisesRegex(LocalProtocolError, "a handler runs", self.owner_protocol.detach)
        self.owner_protocol.waits.callback(None)
        self.detach()

    def test_a_handler_cannot_detach_its_own_connection(self) -> None:
        """The messages that follow are being handled."""
        self.owner_protocol.dataReceived(encode_frame(b"go"))
        self.assertIn("a handler runs", str(self.owner_protocol.refusal))
        self.assertTrue(self.owner_protocol.is_open)

    def test_a_direction_that_has_ended_keeps_the_connection(self) -> None:
        """The next owner would not know it."""
        self.owner_protocol.dataReceived(encode_frame(b"wait"))
        self.owner_protocol.readConnectionLost()
        self.owner_protocol.waits = Deferred()
        self.assertRaises(LocalProtocolError, self.owner_protocol.detach)

    def test_a_producer_of_the_application_keeps_the_connection(self) -> None:
        """It would write to the transport later."""
        self.descriptor.registerProducer(self, True)
        self.assertRaisesRegex(LocalProtocolError, "producer", self.owner_protocol.detach)
        self.descriptor.unregisterProducer()
        self.detach()

    def test_a_transport_that_the_application_closes_keeps_the_connection(self) -> None:
        """Its close is under way below this class."""
        self.descriptor.loseConnection()
        self.assertRaisesRegex(LocalProtocolError, "was closed", self.owner_protocol.detach)

    def test_a_transport_in_memory_has_no_socket(self) -> None:
        """Nor has one of a TLS endpoint, whose bytes are not those on the wire."""
        connected = Connected(FrameRecorder)
        self.assertRaisesRegex(LocalProtocolError, "not a plain socket", connected.protocol.detach)
