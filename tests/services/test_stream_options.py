"""The options that all services of stream connections have."""

from __future__ import annotations

from typing import Any

from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from twsock.services.stream_options import StreamServiceOptions


class Options(StreamServiceOptions):
    """The options of a service without a format."""

    checked = 0

    def opt_endpoint(self, description: str) -> None:
        """Add an endpoint."""
        self["endpoints"].append(description)

    def check_format(self) -> None:
        self.checked += 1


class OptionsTests(SynchronousTestCase):
    """Each mistake is one line that names the option."""

    def parse(self, *arguments: str) -> Any:
        """Parse a command line."""
        options = Options()
        options.parseOptions(list(arguments))
        return options

    def test_format_is_checked_once(self) -> None:
        """Before the endpoints."""
        self.assertEqual(self.parse().checked, 1)

    def test_numbers_are_read(self) -> None:
        """Limits of connections and times."""
        words = ["--max-connections", "3", "--max-buffered", "9", "--drain-timeout", "1.5"]
        options = self.parse(*words, "--max-connections-per-address", "2")
        self.assertEqual((options["max-connections"], options["max-buffered"]), (3, 9))
        self.assertEqual(options["max-connections-per-address"], 2)
        self.assertEqual(options["drain-timeout"], 1.5)

    def test_mistakes_name_their_options(self) -> None:
        """Numbers out of bounds, wrong endpoints, and proxies without an endpoint for them."""
        for words in (
            ("--max-connections", "0"),
            ("--max-connections-per-address", "x"),
            ("--max-buffered", "0"),
            ("--drain-timeout", "-1"),
            ("--socket-mode", "rw"),
            ("--endpoint", "carrier-pigeon:1"),
            ("--proxy-from", "127.0.0.1"),
            ("--key", "file"),
        ):
            error = self.assertRaises(UsageError, self.parse, *words)
            self.assertIn(words[0], str(error), str(words))
