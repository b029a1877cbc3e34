"""A message tells its datagram and addresses, or raises what happened instead."""

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
    """A whole datagram."""

    def test_a_reader_has_all_of_it(self) -> None:
        """Nothing need be loaded."""
        reader = message().data_reader
        self.assertEqual(reader.unconsumed_buffer_length, 5)
        self.assertEqual(reader.read_string(5), "Hello")

    def test_the_reader_is_the_same_each_time(self) -> None:
        """The sample asks it for the length, then again for the text."""
        received = message()
        length = received.data_reader.unconsumed_buffer_length
        self.assertEqual(received.data_reader.read_string(length), "Hello")
        self.assertEqual(received.data_reader.unconsumed_buffer_length, 0)
        self.assertEqual(received.data, b"Hello")

    def test_a_stream_has_all_of_it(self) -> None:
        """It is read as any input stream, and ends with the datagram; no read waits."""
        stream = message(b"one\r\ntwo").get_data_stream()
        self.assertEqual(self.successResultOf(stream.receive_until(b"\r\n", 10)), b"one")
        self.assertEqual(self.successResultOf(stream.read(10)), b"two")
        self.assertEqual(self.successResultOf(stream.read(10, timeout=1)), b"")
        self.failureResultOf(stream.receive_exactly(1, timeout=1), EndOfStreamError)

    def test_a_reader_can_load_from_the_stream(self) -> None:
        """As the older guide has it: a reader of its own, around the stream."""
        reader = DataReader(message().get_data_stream())
        self.assertEqual(self.successResultOf(reader.load(100)), 5)
        self.assertEqual(reader.read_string(5), "Hello")
        self.assertEqual(self.successResultOf(reader.load(1)), 0)

    def test_the_stream_is_the_same_each_time_and_apart_from_the_reader(self) -> None:
        """What was read from the one is still in the other."""
        received = message()
        self.assertEqual(self.successResultOf(received.get_data_stream().read(4)), b"Hell")
        self.assertEqual(self.successResultOf(received.get_data_stream().read(4)), b"o")
        self.assertEqual(received.data_reader.read_string(5), "Hello")

    def test_a_closed_stream_is_read_no_more(self) -> None:
        """The datagram itself is there all the same."""
        received = message()
        self.successResultOf(received.get_data_stream().close())
        self.failureResultOf(received.get_data_stream().read(1), ClosedError)
        self.assertEqual(received.data, b"Hello")

    def test_an_empty_one_has_an_empty_stream(self) -> None:
        """At its end from the start."""
        stream = message(b"").get_data_stream()
        self.assertEqual(self.successResultOf(stream.receive_some()), b"")

    def test_an_empty_one_has_an_empty_reader(self) -> None:
        """It is no error."""
        received = message(b"")
        self.assertEqual(received.data_reader.unconsumed_buffer_length, 0)
        self.assertEqual((received.data, received.error), (b"", None))

    def test_the_addresses_are_names_and_text(self) -> None:
        """As in WinRT; ``address`` has the sender as Python's sockets do."""
        received = message()
        self.assertEqual(received.remote_address, HostName("192.0.2.1"))
        self.assertEqual(received.remote_port, "22112")
        self.assertEqual(received.local_address, HostName("192.0.2.9"))
        self.assertEqual(received.address, ("192.0.2.1", 22112))

    def test_a_link_local_sender_keeps_its_zone(self) -> None:
        """An answer finds its way."""
        self.assertEqual(message(host="fe80::1%2").remote_address, HostName("fe80::1%2"))

    def test_where_the_system_is_silent_there_is_no_local_address(self) -> None:
        """None, not an empty name, which there is not."""
        self.assertIsNone(message(destination="").local_address)


class ErrorTests(SynchronousTestCase):
    """What is told in the place of a datagram."""

    def assert_like(self, stored: SocketError, raised: SocketError) -> None:
        """It says the same, and is another: one that was raised holds frames."""
        self.assertEqual((str(raised), raised.status), (str(stored), stored.status))
        self.assertIs(type(raised), type(stored))
        self.assertIsNot(raised, stored)

    def test_a_refusal_raises_when_it_is_read(self) -> None:
        """With status ``CONNECTION_RESET_BY_PEER``, each time."""
        refused = message(b"", error=REFUSED)
        for _ in range(2):
            for name in ("data_reader", "data"):
                self.assert_like(REFUSED, self.assertRaises(SocketError, getattr, refused, name))
            self.assert_like(REFUSED, self.assertRaises(SocketError, refused.get_data_stream))
        self.assertFalse(refused.is_truncated)
        self.assertEqual(refused.remote_port, "22112")

    def test_one_that_was_too_long_is_not_given_as_whole(self) -> None:
        """It is flagged, reading it raises, and its beginning has a name of its own."""
        truncated = message(b"He", error=TOO_LONG)
        self.assertTrue(truncated.is_truncated)
        error = self.assertRaises(SocketError, getattr, truncated, "data_reader")
        self.assert_like(TOO_LONG, error)
        self.assertEqual(truncated.beginning, b"He")

    def test_a_whole_one_is_not_truncated(self) -> None:
        """Its beginning is all of it."""
        self.assertFalse(message().is_truncated)
        self.assertEqual(message().beginning, b"Hello")
