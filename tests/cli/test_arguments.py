"""A command line becomes checked values, or one line that says what is wrong with it."""

from __future__ import annotations

import contextlib
import io
import itertools
import os

from twisted.trial.unittest import SynchronousTestCase

from twsock.cli.arguments import EchoArguments, parse_arguments
from twsock.cli.failure import UsageError


class OrderTests(SynchronousTestCase):
    """Options and arguments come in any order."""

    def test_any_order_means_the_same(self) -> None:
        """Options before, between and after the arguments give the same values."""
        expected = EchoArguments("tcp:h:1", (b"one", b"two"), count=3, quiet=True)
        for order in itertools.permutations(
            (["--count", "3"], ["--quiet"], ["tcp:h:1"], ["one", "two"])
        ):
            words = [word for part in order for word in part]
            if words.index("tcp:h:1") < words.index("one"):
                self.assertEqual(parse_arguments(["echo", *words]), expected, words)

    def test_an_option_may_stand_between_two_texts(self) -> None:
        """The texts keep their order around it."""
        arguments = parse_arguments(["echo", "tcp:h:1", "one", "--count=3", "two"])
        self.assertEqual(arguments.texts, (b"one", b"two"))
        self.assertEqual(arguments.count, 3)

    def test_after_two_dashes_everything_is_an_argument(self) -> None:
        """A text may begin with a dash there, the endpoint may stand there, and ``--`` again."""
        arguments = parse_arguments(
            ["echo", "--quiet", "--", "tcp:h:1", "--count", "-x", "--", "-"]
        )
        self.assertEqual(
            arguments, EchoArguments("tcp:h:1", (b"--count", b"-x", b"--", b"-"), quiet=True)
        )

    def test_two_dashes_at_the_end_add_nothing(self) -> None:
        """Scripts may always write them."""
        self.assertEqual(parse_arguments(["echo", "tcp:h:1", "--"]), EchoArguments("tcp:h:1"))

    def test_an_empty_text_is_a_message(self) -> None:
        """So is one with blanks, and one that is a dash."""
        arguments = parse_arguments(["echo", "tcp:h:1", "", " ", "-"])
        self.assertEqual(arguments.texts, (b"", b" ", b"-"))


class ValueTests(SynchronousTestCase):
    """Values are what they should be."""

    def test_defaults_are_those_of_the_documentation(self) -> None:
        """Nothing given: frames, once, at once, ten seconds."""
        arguments = parse_arguments(["echo", "tcp:h:1", "grüße"])
        self.assertEqual(
            arguments,
            EchoArguments(
                "tcp:h:1", ("grüße".encode(),), "uint32", 1, 0.0, 10.0, False, 16_777_216
            ),
        )

    def test_lines_have_a_limit_of_their_own(self) -> None:
        """The limit follows the format, unless it is given."""
        words = ["echo", "tcp:h:1", "--framing", "line"]
        self.assertEqual(parse_arguments(words).max_frame, 65_536)
        self.assertEqual(parse_arguments([*words, "--max-frame", "7"]).max_frame, 7)

    def test_a_locale_without_unicode_does_not_matter(self) -> None:
        """Bytes that Python could not decode are taken as they were typed, if they are UTF-8."""
        typed = "☺".encode().decode("ascii", "surrogateescape")
        self.assertEqual(parse_arguments(["echo", "tcp:h:1", typed]).texts, ("☺".encode(),))

    def test_each_mistake_gets_its_line(self) -> None:
        """The line names the option or the text, and what it takes."""
        for words, line in {
            ("--count", "0"): "argument --count: takes a whole number, 1 or more, not '0'",
            ("--count", "many"): "argument --count: takes a whole number, 1 or more, not 'many'",
            ("--count",): "argument --count: expected one argument",
            ("--interval", "-1"): "argument --interval: takes seconds, 0 or more, not '-1'",
            ("--interval", "nan"): "argument --interval: takes seconds, 0 or more, not 'nan'",
            ("--timeout", "0"): "argument --timeout: takes seconds, above 0, not '0'",
            ("--timeout", "inf"): "argument --timeout: takes seconds, above 0, not 'inf'",
            ("--timeout", "soon"): "argument --timeout: takes seconds, above 0, not 'soon'",
            ("--max-frame", "4294967296"): "--max-frame: takes a whole number, 0 to 4294967295",
            ("--framing", "xml"): "argument --framing: invalid choice: 'xml'",
            ("--coun", "3"): "there is no option --coun",
            ("-x",): "there is no option -x (a TEXT that begins with a dash stands after --)",
            ("\udcff",): "TEXT '\\udcff' is not UTF-8",
            ("a\nb", "--framing", "line"): "TEXT 'a\\nb' is more than one line",
            ("four", "--max-frame", "3"): "a TEXT has 4 bytes, --max-frame is 3",
        }.items():
            error = self.assertRaises(UsageError, parse_arguments, ["echo", "tcp:h:1", *words])
            self.assertIn(line, error.line)
            self.assertNotIn("\n", error.line)
            self.assertEqual(error.exit_code, 2)


class CommandTests(SynchronousTestCase):
    """What stands before the arguments."""

    def test_a_missing_word_is_named(self) -> None:
        """Neither a command nor an endpoint can be left out, and a command must be known."""
        for words, line in (
            ([], "a command is missing; see twsock --help"),
            (["ping"], "there is no command 'ping'; see twsock --help"),
            (["--count", "echo"], "there is no command '--count'; see twsock --help"),
            (["echo"], "ENDPOINT is missing; see twsock echo --help"),
            (["echo", "--quiet"], "ENDPOINT is missing; see twsock echo --help"),
        ):
            error = self.assertRaises(UsageError, parse_arguments, words)
            self.assertEqual(error.line, line)

    def test_help_and_version_end_in_order(self) -> None:
        """They are printed on standard output, wherever they stand, with exit status 0."""
        for words, part in (
            (["--version"], "twsock "),
            (["--help"], "commands:\n  echo "),
            (["echo", "--help"], "twsock echo [OPTION ...] ENDPOINT [TEXT ...]"),
            (["echo", "tcp:h:1", "-h"], "--timeout SECONDS"),
        ):
            with contextlib.redirect_stdout(io.StringIO()) as output:
                ended = self.assertRaises(SystemExit, parse_arguments, words)
            self.assertEqual(ended.code, 0)
            self.assertIn(part, output.getvalue())

    def test_help_fits_a_terminal(self) -> None:
        """No line is wider than 80 columns."""
        self.patch(os, "environ", {**os.environ, "COLUMNS": "80"})
        for words in (["--help"], ["echo", "--help"]):
            with contextlib.redirect_stdout(io.StringIO()) as output:
                self.assertRaises(SystemExit, parse_arguments, words)
            self.assertTrue(all(len(line) <= 80 for line in output.getvalue().splitlines()))
