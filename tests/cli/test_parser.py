"""Words become options, arguments and checked values."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis.strategies import floats, integers
from twisted.trial.unittest import SynchronousTestCase

from twsock.cli.failure import UsageError
from twsock.cli.parser import CommandParser, host, seconds, seconds_above_zero, whole_number


class CommandParserTests(SynchronousTestCase):
    """Options and arguments in any order."""

    def setUp(self) -> None:
        self.parser = CommandParser(prog="tool")
        self.parser.add_argument("--size", type=int)

    def test_arguments_are_what_no_option_takes(self) -> None:
        """They keep their order."""
        options, arguments = self.parser.split(["a", "--size", "3", "-", "b"], "WORD")
        self.assertEqual((options.size, arguments), (3, ["a", "-", "b"]))

    def test_after_two_dashes_there_are_no_options(self) -> None:
        """Two more are an argument."""
        options, arguments = self.parser.split(["--", "--size", "3", "--"], "WORD")
        self.assertEqual((options.size, arguments), (None, ["--size", "3", "--"]))

    def test_an_unknown_option_is_told(self) -> None:
        """With what to do where it was none; a part of an option's name is none."""
        error = self.assertRaises(UsageError, self.parser.split, ["--siz", "3"], "WORD")
        self.assertEqual(
            error.line,
            "there is no option --siz (a WORD that begins with a dash stands after --); "
            "see tool --help",
        )

    def test_a_command_that_is_not_there(self) -> None:
        """Missing, or unknown."""
        for words, line in (
            ([], "a command is missing; see tool --help"),
            (["go", "on"], "there is no command 'go'; see tool --help"),
        ):
            error = self.assertRaises(UsageError, self.parser.miss_command, words)
            self.assertEqual(error.line, line)


class ValueTests(SynchronousTestCase):
    """Each value is read, or refused with a line that says what is taken."""

    def refuses(self, read: Callable[[str], Any], *words: str) -> None:
        for word in words:
            error = self.assertRaises(argparse.ArgumentTypeError, read, word)
            self.assertIn(repr(word), str(error))

    @given(integers(-5, 15))
    def test_whole_numbers_have_bounds(self, number: int) -> None:
        """Both included."""
        read = whole_number(1, 10)
        if 1 <= number <= 10:
            self.assertEqual(read(str(number)), number)
        else:
            self.refuses(read, str(number))

    def test_a_whole_number_may_have_no_upper_bound(self) -> None:
        """And is nothing else than a whole number."""
        self.assertEqual(whole_number(0)("99999999999999999999"), 99999999999999999999)
        self.refuses(whole_number(0), "-1", "1.5", "", "x")

    @given(floats(min_value=0, exclude_min=True, allow_infinity=False))
    def test_seconds(self, number: float) -> None:
        """Any number above 0, and where that makes sense 0."""
        self.assertEqual(seconds(repr(number)), number)
        self.assertEqual(seconds_above_zero(repr(number)), number)
        self.refuses(seconds_above_zero, "0", "-1", "nan", "inf", "soon")
        self.refuses(seconds, "-1", "nan", "inf", "soon")

    def test_hosts(self) -> None:
        """Names and addresses, in the form for machines."""
        for word, canonical in (
            ("Localhost.", "localhost"),
            ("grüße.example", "xn--gre-6ka8l.example"),
            ("127.0.0.1", "127.0.0.1"),
            ("0:0::1", "::1"),
        ):
            self.assertEqual(host(word), canonical)
        self.refuses(host, "", "a b", "h:1", "[::1]", "01:23:45:67:89:ab", "1.2.3")
