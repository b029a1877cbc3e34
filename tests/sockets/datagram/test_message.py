"""A message has a datagram and its addresses, or raises an error in its place."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twsock import (
    ClosedError,
    DatagramSocketMessageReceivedEventArgs,
    DataReader,
    EndOfStreamError,
    HostName,
    SocketError,
    SocketErrorStatus,
)
from twsock.datagram.runs import Run
from twsock.ip.zones import with_zone
from twsock.sockets.datagram.message import SenderAddresses

TOO_LONG = SocketError("too long", status=SocketErrorStatus.MESSAGE_TOO_LONG)
REFUSED = SocketError("refused", status=SocketErrorStatus.CONNECTION_RESET_BY_PEER)


def message(
    data: bytes = b"Hello",
    host: str = "192.0.2.1",
    destination: str = "192.0.2.9",
    error: SocketError | None = None,
) -> DatagramSocketMessageReceivedEventArgs:
    return DatagramSocketMessageReceivedEventArgs(data, (host, 22112), destination, error)


class DatagramTests(SynchronousTestCase):
    """A complete datagram."""

    def test_a_reader_has_the_whole_datagram(self) -> None:
        """Without a load."""
        reader = message().data_reader
        self.assertEqual(reader.unconsumed_buffer_length, 5)
        self.assertEqual(reader.read_string(5), "Hello")

    def test_every_access_returns_the_same_reader(self) -> None:
        """The sample reads the length from it, then the text."""
        received = message()
        length = received.data_reader.unconsumed_buffer_length
        self.assertEqual(received.data_reader.read_string(length), "Hello")
        self.assertEqual(received.data_reader.unconsumed_buffer_length, 0)
        self.assertEqual(received.data, b"Hello")

    def test_an_input_stream_has_the_whole_datagram(self) -> None:
        """It is read as any input stream, and ends with the datagram; no read waits."""
        stream = message(b"one\r\ntwo").get_data_stream()
        self.assertEqual(self.successResultOf(stream.receive_until(b"\r\n", 10)), b"one")
        self.assertEqual(self.successResultOf(stream.read(10)), b"two")
        self.assertEqual(self.successResultOf(stream.read(10, timeout=1)), b"")
        self.failureResultOf(stream.receive_exactly(1, timeout=1), EndOfStreamError)

    def test_a_reader_can_load_from_the_stream(self) -> None:
        """A reader of the application, around the stream, as in the older guide."""
        reader = DataReader(message().get_data_stream())
        self.assertEqual(self.successResultOf(reader.load(100)), 5)
        self.assertEqual(reader.read_string(5), "Hello")
        self.assertEqual(self.successResultOf(reader.load(1)), 0)

    def test_stream_and_reader_each_have_the_whole_datagram(self) -> None:
        """Reading one takes nothing from the other."""
        received = message()
        self.assertEqual(self.successResultOf(received.get_data_stream().read(4)), b"Hell")
        self.assertEqual(self.successResultOf(received.get_data_stream().read(4)), b"o")
        self.assertEqual(received.data_reader.read_string(5), "Hello")

    def test_a_closed_stream_cannot_be_read(self) -> None:
        """The datagram itself is still available."""
        received = message()
        self.successResultOf(received.get_data_stream().close())
        self.failureResultOf(received.get_data_stream().read(1), ClosedError)
        self.assertEqual(received.data, b"Hello")

    def test_an_empty_datagram_has_an_empty_stream(self) -> None:
        """It is at its end from the start."""
        stream = message(b"").get_data_stream()
        self.assertEqual(self.successResultOf(stream.receive_some()), b"")

    def test_an_empty_datagram_has_an_empty_reader(self) -> None:
        """It is no error."""
        received = message(b"")
        self.assertEqual(received.data_reader.unconsumed_buffer_length, 0)
        self.assertEqual((received.data, received.error), (b"", None))

    def test_addresses_are_host_names_and_ports_are_text(self) -> None:
        """As in WinRT; ``address`` is the sender as in sockets of Python."""
        received = message()
        self.assertEqual(received.remote_address, HostName("192.0.2.1"))
        self.assertEqual(received.remote_port, "22112")
        self.assertEqual(received.local_address, HostName("192.0.2.9"))
        self.assertEqual(received.address, ("192.0.2.1", 22112))

    def test_a_link_local_sender_keeps_its_zone(self) -> None:
        """So an answer can reach it."""
        self.assertEqual(message(host="fe80::1%2").remote_address, HostName("fe80::1%2"))

    def test_an_unknown_local_address_is_none(self) -> None:
        """Not an empty host name, which would be invalid."""
        self.assertIsNone(message(destination="").local_address)


class AddressTests(SynchronousTestCase):
    """The addresses of a run."""

    def test_datagrams_of_one_peer_share_an_address(self) -> None:
        """With the addresses of the run, without its bytes."""
        runs = [
            Run(data, 5, ("192.0.2.1", 9), "192.0.2.9", 3, local="192.0.2.9")
            for data in (b"first", b"later")
        ]
        (address, destination), again = map(SenderAddresses().find, runs)
        self.assertEqual((address, destination), (("192.0.2.1", 9), "192.0.2.9"))
        self.assertIs(again[0], address)
        run = address.run
        self.assertEqual((run.data, run.source, run.interface), (b"", ("192.0.2.1", 9), 3))
        self.assertEqual((run.destination, run.local), ("192.0.2.9", "192.0.2.9"))

    def test_another_destination_is_another_address(self) -> None:
        """An answer leaves from the address that its datagram was sent to."""
        addresses = SenderAddresses()
        to_one, to_other = [
            addresses.find(Run(b"x", 1, ("192.0.2.1", 9), destination))[0]
            for destination in ("192.0.2.9", "192.0.2.10")
        ]
        self.assertEqual(to_one, to_other)
        self.assertEqual(to_other.run.destination, "192.0.2.10")

    def test_at_most_1024_senders_are_remembered(self) -> None:
        """With one sender more, the addresses of all are made again."""
        addresses = SenderAddresses()
        runs = [Run(b"x", 1, ("192.0.2.1", port), "192.0.2.9") for port in range(1, 1026)]
        made = [addresses.find(run)[0] for run in runs]
        self.assertIs(addresses.find(runs[-1])[0], made[-1])
        self.assertIsNot(addresses.find(runs[0])[0], made[0])

    def test_an_address_with_a_zone_is_not_shared(self) -> None:
        """The index of an interface may change."""
        addresses = SenderAddresses()
        for source, destination in (
            (("fe80::1", 9, 0, 1), "fe80::2"),
            (("2001:db8::1", 9, 0, 0), "ff02::2"),
        ):
            run = Run(b"x", 1, source, destination, 1)
            (address, name), again = addresses.find(run), addresses.find(run)
            self.assertIsNot(address, again[0], source)
            self.assertEqual(name, with_zone(destination, 1), source)


class ErrorTests(SynchronousTestCase):
    """A message with an error."""

    def assert_like(self, stored: SocketError, raised: SocketError) -> None:
        """Check that the raised error is an equal copy: a raised error holds frames."""
        self.assertEqual((str(raised), raised.status), (str(stored), stored.status))
        self.assertIs(type(raised), type(stored))
        self.assertIsNot(raised, stored)

    def test_reading_a_refusal_raises(self) -> None:
        """With status ``CONNECTION_RESET_BY_PEER``, each time."""
        refused = message(b"", error=REFUSED)
        for _ in range(2):
            for name in ("data_reader", "data"):
                self.assert_like(REFUSED, self.assertRaises(SocketError, getattr, refused, name))
            self.assert_like(REFUSED, self.assertRaises(SocketError, refused.get_data_stream))
        self.assertFalse(refused.is_truncated)
        self.assertEqual(refused.remote_port, "22112")

    def test_reading_a_truncated_datagram_raises(self) -> None:
        """It is flagged; ``beginning`` has its received part."""
        truncated = message(b"He", error=TOO_LONG)
        self.assertTrue(truncated.is_truncated)
        error = self.assertRaises(SocketError, getattr, truncated, "data_reader")
        self.assert_like(TOO_LONG, error)
        self.assertEqual(truncated.beginning, b"He")

    def test_a_whole_datagram_is_not_truncated(self) -> None:
        """Its beginning is all of it."""
        self.assertFalse(message().is_truncated)
        self.assertEqual(message().beginning, b"Hello")
