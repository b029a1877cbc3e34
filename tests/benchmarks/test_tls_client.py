"""Tests of `benchmarks.tls_client`, over loopback."""

from __future__ import annotations

import select
import ssl
import threading

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.certificate import temporary_certificate
from benchmarks.tls_client import TlsClient, encode_client_hello, make_client_context
from tests.benchmarks.tls_peer import TlsPeer, echo

_TIMEOUT = 60.0


def receive(connection: TlsClient, size: int) -> bytes:
    """Take so many bytes, or what there is until the end."""
    buffer = memoryview(bytearray(size))
    filled = 0
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    while filled < size and poll.poll(_TIMEOUT * 1000):
        try:
            taken = connection.receive_into(buffer[filled:])
        except BlockingIOError:
            continue
        if not taken:
            break
        filled += taken
    return buffer[:filled].tobytes()


class TlsClientTests(SynchronousTestCase):
    """TLS with the manners of a socket that does not block."""

    def test_what_is_sent_comes_back(self) -> None:
        """It is encrypted and decrypted."""
        connection = TlsPeer(self, echo).connect()
        self.assertEqual(connection.send(memoryview(b"hello")), 5)
        self.assertEqual(receive(connection, 5), b"hello")

    def test_many_records_come_at_once(self) -> None:
        """They fill the buffer as one piece would."""

        def serve(peer: ssl.SSLSocket) -> None:
            for each in range(100):
                peer.send(bytes([each]))

        connection = TlsPeer(self, serve).connect()
        self.assertEqual(receive(connection, 100), bytes(range(100)))

    def test_receive_without_data_is_no_end(self) -> None:
        """The error is that of a socket."""
        connection = TlsPeer(self, echo).connect()
        connection.send(memoryview(b"x"))
        receive(connection, 1)  # And with it what follows a handshake.
        self.assertRaises(BlockingIOError, connection.receive_into, memoryview(bytearray(1)))

    def test_end_of_the_server_is_0_bytes(self) -> None:
        """As with a socket."""
        self.assertEqual(receive(TlsPeer(self, lambda _peer: None).connect(), 1), b"")

    def test_data_without_room_is_sent_again(self) -> None:
        """It arrives once and in order, however often it is offered."""
        is_reading = threading.Event()

        def serve(peer: ssl.SSLSocket) -> None:
            is_reading.wait(_TIMEOUT)
            echo(peer)

        connection = TlsPeer(self, serve).connect()
        data = bytes(range(256)) * (1 << 15)
        self.assertRaises(BlockingIOError, connection.send, memoryview(data))
        is_reading.set()
        poll = select.poll()
        poll.register(connection, select.POLLIN | select.POLLOUT)
        received = bytearray()
        sent = 0
        while sent < len(data):
            received += self.take(connection)
            poll.poll(_TIMEOUT * 1000)
            try:
                sent += connection.send(memoryview(data)[sent:])
            except BlockingIOError:
                pass
        received += receive(connection, len(data) - len(received))
        self.assertTrue(bytes(received) == data)

    def take(self, connection: TlsClient) -> bytes:
        buffer = memoryview(bytearray(1 << 20))
        try:
            return buffer[: connection.receive_into(buffer)].tobytes()
        except BlockingIOError:
            return b""

    def test_session_is_resumed(self) -> None:
        """The first has none to take up, the second has that of the first."""
        peer = TlsPeer(self, echo)
        first = peer.connect()
        first.send(memoryview(b"x"))
        receive(first, 1)
        first.end(_TIMEOUT)
        second = peer.connect(session=first.session)
        self.assertEqual((first.is_resumed, second.is_resumed), (False, True))

    def test_end_waits_for_the_server(self) -> None:
        """It has seen the end when ours returns."""
        ends = []
        connection = TlsPeer(self, lambda peer: ends.append(peer.recv(1))).connect()
        connection.end(_TIMEOUT)
        self.assertEqual(ends, [b""])

    def test_other_certificate_is_refused(self) -> None:
        """Only the one that was made for the run is trusted."""
        with temporary_certificate() as other:
            context = make_client_context(other)
        self.assertRaises(ssl.SSLCertVerificationError, TlsPeer(self, echo).connect, context)


class EncodeClientHelloTests(SynchronousTestCase):
    """The first message, for a handshake that stops there."""

    def test_it_is_one_record(self) -> None:
        """A type, a version, a count, and as many bytes."""
        with temporary_certificate() as certificate:
            hello = encode_client_hello(make_client_context(certificate))
        self.assertEqual(hello[:2], b"\x16\x03")
        self.assertEqual(len(hello), 5 + int.from_bytes(hello[3:5], "big"))
