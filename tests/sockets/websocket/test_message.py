"""Messages are read by handlers."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twsock import (
    MessageWebSocketMessageReceivedEventArgs,
    MessageWebSocketReceiveMode,
    SocketError,
    SocketMessageType,
)


class MessageTests(SynchronousTestCase):
    """The argument of ``message_received``."""

    def test_texts_are_read_as_utf_8(self) -> None:
        """By reader and stream, again and again."""
        args = MessageWebSocketMessageReceivedEventArgs("\u00e9", SocketMessageType.UTF8)
        self.assertEqual(args.data, "\u00e9")
        for _ in range(2):
            self.assertEqual(args.get_data_reader().read_bytes(2), b"\xc3\xa9")
            self.assertEqual(self.successResultOf(args.get_data_stream().read(3)), b"\xc3\xa9")

    def test_errors_are_raised_each_time(self) -> None:
        """Each read raises a copy, which keeps no frames."""
        error = SocketError("lost")
        args = MessageWebSocketMessageReceivedEventArgs(b"", SocketMessageType.BINARY, error=error)
        for read in (lambda: args.data, args.get_data_reader, args.get_data_stream):
            with self.assertRaises(SocketError) as caught:
                read()
            self.assertIsNot(caught.exception, error)
        self.assertIsNone(error.__traceback__)

    def test_names_are_those_of_winrt(self) -> None:
        """W15, W16."""
        self.assertEqual(SocketMessageType.UTF8.documented_name, "Utf8")
        mode = MessageWebSocketReceiveMode.PARTIAL_MESSAGE
        self.assertEqual(mode.documented_name, "PartialMessage")
