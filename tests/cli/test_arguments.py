"""A command line becomes checked values, or one line that says what is wrong with it."""

from __future__ import annotations

import contextlib
import io
import itertools
import os

from twisted.trial.unittest import SynchronousTestCase

from twsock.cli.arguments import EchoArguments, InitArguments, parse_arguments
from twsock.cli.failure import UsageError
from twsock.cli.security import SecurityArguments
from twsock.protocols import UpgradeStyle
from twsock.services.security import LEVELS
from twsock.tls import SocketProtectionLevel


def parse_echo(*words: str) -> EchoArguments:
    """Read what stands behind ``twsock echo``."""
    arguments = parse_arguments(["echo", *words])
    assert isinstance(arguments, EchoArguments)
    return arguments


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
        arguments = parse_echo("tcp:h:1", "one", "--count=3", "two")
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
        arguments = parse_echo("tcp:h:1", "", " ", "-")
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
        words = ["tcp:h:1", "--framing", "line"]
        self.assertEqual(parse_echo(*words).max_frame, 65_536)
        self.assertEqual(parse_echo(*words, "--max-frame", "7").max_frame, 7)

    def test_a_locale_without_unicode_does_not_matter(self) -> None:
        """Bytes that Python could not decode are taken as they were typed, if they are UTF-8."""
        typed = "☺".encode().decode("ascii", "surrogateescape")
        self.assertEqual(parse_echo("tcp:h:1", typed).texts, ("☺".encode(),))

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
            ("--size", "-1"): "argument --size: takes a whole number, 0 to 4294967295, not '-1'",
            ("--size", "4", "--max-frame", "3"): "--size is 4 bytes, --max-frame is 3",
            ("--size", "4", "a"): "--size makes up what is sent, so there is no TEXT with it",
        }.items():
            error = self.assertRaises(UsageError, parse_arguments, ["echo", "tcp:h:1", *words])
            self.assertIn(line, error.line)
            self.assertNotIn("\n", error.line)
            self.assertEqual(error.exit_code, 2)


class DatagramTests(SynchronousTestCase):
    """What the endpoint means for the other words."""

    def test_answers_are_awaited_for_less_time(self) -> None:
        """Those of a group for a second, since all of them are awaited; unless it is given."""
        for endpoint, timeout in (
            ("tcp:h:1", 10.0),
            ("udp:h:1", 2.0),
            ("UDP:h:1", 2.0),
            ("multicast:224.3.0.5:1", 1.0),
        ):
            self.assertEqual(parse_echo(endpoint).timeout, timeout)
            self.assertEqual(parse_echo(endpoint, "--timeout", "7").timeout, 7.0)

    def test_made_up_messages_are_as_many_as_asked_for(self) -> None:
        """Each of them is sent once; a text is sent again and again."""
        arguments = parse_echo("udp:h:1", "--size", "100", "--count", "9")
        self.assertEqual((arguments.size, arguments.count, arguments.repeats), (100, 9, 1))
        arguments = parse_echo("udp:h:1", "a", "--count", "9")
        self.assertEqual((arguments.size, arguments.count, arguments.repeats), (None, 9, 9))

    def test_a_datagram_has_its_own_limit(self) -> None:
        """What IPv6 carries for a text, and what both carry for a size."""
        arguments = parse_echo("udp:h:1", "a" * 65_527)
        self.assertEqual((len(arguments.texts[0]), arguments.max_frame), (65_527, 65_527))
        self.assertEqual(parse_echo("udp:h:1", "--size", "65507").size, 65_507)
        for words, line in (
            (("a" * 65_528,), "a TEXT has 65528 bytes, a datagram has at most 65527"),
            (("--size", "65508"), "--size is 65508 bytes, a datagram has at most 65507"),
        ):
            error = self.assertRaises(UsageError, parse_echo, "udp:h:1", *words)
            self.assertIn(line, error.line)

    def test_what_needs_a_connection_is_refused(self) -> None:
        """By name, whether or not it would make a difference."""
        for words, name in (
            (("--tls",), "tls"),
            (("--upgrade",), "upgrade"),
            (("--upgrade=command",), "upgrade"),
            (("--ca", "a.pem"), "ca"),
            (("--name", "h"), "name"),
            (("--client-certificate", "c.pem"), "client-certificate"),
            (("--level", "tls13"), "level"),
            (("--show-certificate",), "show-certificate"),
            (("--framing", "uint32"), "framing"),
            (("--max-frame", "100"), "max-frame"),
        ):
            for endpoint in ("udp:h:1", "multicast:224.3.0.5:1"):
                kind = endpoint.partition(":")[0]
                error = self.assertRaises(UsageError, parse_echo, endpoint, "a", *words)
                self.assertEqual(
                    error.line,
                    f"--{name} is for connections, which {kind}: does not have; "
                    "see twsock echo --help",
                )


class SecurityTests(SynchronousTestCase):
    """TLS is asked for by one option, and the others say how."""

    def test_plaintext_unless_asked_for(self) -> None:
        """No other option brings TLS with it."""
        self.assertIsNone(parse_echo("tcp:h:1").security)

    def test_each_way_in(self) -> None:
        """TLS from the first byte, or in mid-connection at once, or after a command."""
        for word, style in (
            ("--tls", UpgradeStyle.DIRECT),
            ("--upgrade", UpgradeStyle.DIRECT),
            ("--upgrade=direct", UpgradeStyle.DIRECT),
            ("--upgrade=command", UpgradeStyle.COMMAND),
        ):
            self.assertEqual(parse_echo("tcp:h:1", word).security, SecurityArguments(style))

    def test_upgrade_leaves_the_text_alone(self) -> None:
        """Wherever it stands: only a word with ``=`` is its value."""
        for words in (
            ("--upgrade", "tcp:h:1", "text"),
            ("tcp:h:1", "--upgrade", "text"),
            ("tcp:h:1", "text", "--upgrade"),
            ("tcp:h:1", "--upgrade", "--", "text"),
        ):
            arguments = parse_echo(*words)
            self.assertEqual((arguments.endpoint, arguments.texts), ("tcp:h:1", (b"text",)))
            self.assertEqual(arguments.security, SecurityArguments())

    def test_behind_two_dashes_upgrade_is_a_text(self) -> None:
        """As everything is."""
        arguments = parse_echo("tcp:h:1", "--tls", "--", "--upgrade", "command")
        self.assertEqual(arguments.texts, (b"--upgrade", b"command"))

    def test_how(self) -> None:
        """Files, a name, a level, and whether to show the certificate."""
        arguments = parse_echo(
            *("tcp:h:1", "--tls", "--ca", "a.pem", "--name", "Grüße.example"),
            *("--client-certificate", "c.pem", "--level", "tls12", "--show-certificate"),
        )
        self.assertEqual(
            arguments.security,
            SecurityArguments(
                authorities="a.pem",
                name="xn--gre-6ka8l.example",
                certificate="c.pem",
                level=SocketProtectionLevel.TLS12,
            ),
        )
        self.assertTrue(arguments.shows_certificate)

    def test_levels_are_those_of_the_services(self) -> None:
        """The two ends of one connection take the same words."""
        for word, level in LEVELS.items():
            security = parse_echo("tcp:h:1", "--tls", "--level", word).security
            assert security is not None
            self.assertIs(security.level, level)

    def test_what_does_not_go_together(self) -> None:
        """One line that names the option."""
        useless = "is of use only with --tls or --upgrade; see twsock echo --help"
        for words, line in {
            ("--tls", "--upgrade"): "there is no --upgrade with it",
            ("--tls", "--upgrade=command"): "there is no --upgrade with it",
            ("--ca", "a.pem"): f"--ca {useless}",
            ("--name", "h"): f"--name {useless}",
            ("--client-certificate", "c.pem"): f"--client-certificate {useless}",
            ("--level", "tls13"): f"--level {useless}",
            ("--show-certificate",): f"--show-certificate {useless}",
            (
                "--upgrade",
                "command",
            ): "--upgrade command is --upgrade=command (or",
            ("--upgrade=tls",): "argument --upgrade: invalid choice: 'tls'",
            ("--upgrade=",): "argument --upgrade: invalid choice: ''",
            ("--ca", "--upgrade"): "argument --ca: expected one argument",
            ("--tls", "--level", "tls11"): "argument --level: invalid choice: 'tls11'",
            ("--tls", "--name", ""): "argument --name: '' is no host name: it is empty",
            ("--tls", "--name", "h:1"): "argument --name: 'h:1' is no host name",
            ("--tls", "--name", "01:23:45:67:89:ab"): "--name: takes a host or an IP address",
        }.items():
            error = self.assertRaises(UsageError, parse_echo, "tcp:h:1", *words)
            self.assertIn(line, error.line)
            self.assertNotIn("\n", error.line)


class CertificatesTests(SynchronousTestCase):
    """``twsock certificates init``."""

    def test_a_folder_is_enough(self) -> None:
        """The certificate is for this machine then."""
        self.assertEqual(
            parse_arguments(["certificates", "init", "folder"]),
            InitArguments("folder", ("localhost", "127.0.0.1", "::1")),
        )

    def test_names_take_the_place_of_those(self) -> None:
        """Before the folder and behind it, each as it is written in a certificate."""
        arguments = parse_arguments(
            ["certificates", "init", "--name", "A.example", "folder", "--name=0:0::1"]
        )
        self.assertEqual(arguments, InitArguments("folder", ("a.example", "::1")))

    def test_a_folder_may_begin_with_a_dash(self) -> None:
        """After two of them."""
        arguments = parse_arguments(["certificates", "init", "--", "-x"])
        self.assertEqual(arguments, InitArguments("-x"))

    def test_each_mistake_gets_its_line(self) -> None:
        """With where to read on."""
        for words, line in (
            ([], "a command is missing; see twsock certificates --help"),
            (["make"], "there is no command 'make'; see twsock certificates --help"),
            (["init"], "DIR is missing; see twsock certificates init --help"),
            (["init", ""], "DIR is missing; see twsock certificates init --help"),
            (["init", "a", "b"], "there is one DIR, and no place for 'b'"),
            (["init", "-x"], "there is no option -x (a DIR that begins with a dash"),
            (["init", "a", "--name", "a b"], "argument --name: 'a b' is no host name"),
            (["init", "a", "--name"], "argument --name: expected one argument"),
            (["init", "a", "--key", "dsa"], "argument --key: invalid choice: 'dsa'"),
        ):
            error = self.assertRaises(UsageError, parse_arguments, ["certificates", *words])
            self.assertIn(line, error.line)
            self.assertNotIn("\n", error.line)


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
            (["certificates", "--help"], "commands:\n  init "),
            (["certificates", "init", "--help"], "certificates init [OPTION ...] DIR"),
        ):
            with contextlib.redirect_stdout(io.StringIO()) as output:
                ended = self.assertRaises(SystemExit, parse_arguments, words)
            self.assertEqual(ended.code, 0)
            self.assertIn(part, output.getvalue())

    def test_help_fits_a_terminal(self) -> None:
        """No line is wider than 80 columns."""
        self.patch(os, "environ", {**os.environ, "COLUMNS": "80"})
        for words in (
            ["--help"],
            ["echo", "--help"],
            ["certificates", "--help"],
            ["certificates", "init", "--help"],
        ):
            with contextlib.redirect_stdout(io.StringIO()) as output:
                self.assertRaises(SystemExit, parse_arguments, words)
            self.assertTrue(all(len(line) <= 80 for line in output.getvalue().splitlines()))
