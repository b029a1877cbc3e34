"""A command line becomes checked values, or one line that says what is wrong with it."""

from __future__ import annotations

import contextlib
import io
import itertools
import re
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from twsock.cli.arguments import (
    EchoArguments,
    InitArguments,
    RestartArguments,
    parse_certificates,
    parse_echo,
    parse_restart,
)
from twsock.cli.output import UsageError
from twsock.protocols import UpgradeStyle
from twsock.services.security import LEVELS
from twsock.tls.development import KeyKind


def parse(*words: str) -> EchoArguments:
    """Read what stands behind ``twsock echo``."""
    return parse_echo(words)


def values(arguments: EchoArguments) -> dict[str, object]:
    """Return all values, the defaults among them."""
    return {name: getattr(arguments, name) for name in EchoArguments.__annotations__}


def expected(*texts: bytes, **given: object) -> dict[str, object]:
    """Return the values of ``twsock echo tcp:h:1`` with some of them given."""
    return values(EchoArguments(endpoint="tcp:h:1", texts=texts, **given))


class OrderTests(SynchronousTestCase):
    """Options and arguments come in any order."""

    def test_any_order_means_the_same(self) -> None:
        """Options before, between and after the arguments give the same values."""
        wanted = expected(b"one", b"two", count=3, quiet=True)
        for order in itertools.permutations(
            (["--count", "3"], ["--quiet"], ["tcp:h:1"], ["one", "two"])
        ):
            words = [word for part in order for word in part]
            if words.index("tcp:h:1") < words.index("one"):
                self.assertEqual(values(parse(*words)), wanted, words)

    def test_an_option_may_stand_between_two_texts(self) -> None:
        """The texts keep their order around it."""
        arguments = parse("tcp:h:1", "one", "--count=3", "two")
        self.assertEqual(arguments.texts, (b"one", b"two"))
        self.assertEqual(arguments.count, 3)

    def test_after_two_dashes_everything_is_an_argument(self) -> None:
        """A text may begin with a dash there, the endpoint may stand there, and ``--`` again."""
        arguments = parse("--quiet", "--", "tcp:h:1", "--count", "-x", "--", "-")
        self.assertEqual(values(arguments), expected(b"--count", b"-x", b"--", b"-", quiet=True))

    def test_two_dashes_at_the_end_add_nothing(self) -> None:
        """Scripts may always write them."""
        self.assertEqual(values(parse("tcp:h:1", "--")), expected())

    def test_an_empty_text_is_a_message(self) -> None:
        """So is one with blanks, and one that is a dash."""
        arguments = parse("tcp:h:1", "", " ", "-")
        self.assertEqual(arguments.texts, (b"", b" ", b"-"))


class ValueTests(SynchronousTestCase):
    """Values are what they should be."""

    def test_defaults_are_those_of_the_documentation(self) -> None:
        """Nothing given: frames, once, at once, ten seconds."""
        arguments = parse("tcp:h:1", "grüße")
        self.assertEqual(values(arguments), expected("grüße".encode()))
        self.assertEqual(
            (arguments.framing, arguments.count, arguments.interval, arguments.timeout),
            ("uint32", 1, 0.0, 10.0),
        )
        self.assertEqual((arguments.quiet, arguments.max_frame), (False, 16_777_216))

    def test_lines_have_a_limit_of_their_own(self) -> None:
        """The limit follows the format, unless it is given."""
        words = ["tcp:h:1", "--framing", "line"]
        self.assertEqual(parse(*words).max_frame, 65_536)
        self.assertEqual(parse(*words, "--max-frame", "7").max_frame, 7)

    def test_a_locale_without_unicode_does_not_matter(self) -> None:
        """Bytes that Python could not decode are taken as they were typed, if they are UTF-8."""
        typed = "☺".encode().decode("ascii", "surrogateescape")
        self.assertEqual(parse("tcp:h:1", typed).texts, ("☺".encode(),))

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
            ("-x",): "there is no option -x (put a TEXT that begins with a dash after --)",
            ("\udcff",): "TEXT '\\udcff' is not UTF-8",
            ("a\nb", "--framing", "line"): "TEXT 'a\\nb' is more than one line",
            ("four", "--max-frame", "3"): "a TEXT has 4 bytes, --max-frame is 3",
            ("--size", "-1"): "argument --size: takes a whole number, 0 to 4294967295, not '-1'",
            ("--size", "4", "--max-frame", "3"): "--size is 4 bytes, --max-frame is 3",
            ("--size", "4", "a"): "--size generates the messages, and takes no TEXT",
        }.items():
            error = self.assertRaises(UsageError, parse, "tcp:h:1", *words)
            self.assertIn(line, error.line, f"{words=}, {line=}: {error.line}")
            self.assertNotIn("\n", error.line, f"{words=}: {error.line!r}")
            self.assertEqual(error.exit_code, 2, f"{words=}")


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
            self.assertEqual(parse(endpoint).timeout, timeout, f"{endpoint=}")
            self.assertEqual(parse(endpoint, "--timeout", "7").timeout, 7.0, f"{endpoint=}")

    def test_generated_messages_are_as_many_as_asked_for(self) -> None:
        """Each of them is sent once; a text is sent again and again."""
        arguments = parse("udp:h:1", "--size", "100", "--count", "9")
        self.assertEqual((arguments.size, arguments.count, arguments.repeats), (100, 9, 1))
        arguments = parse("udp:h:1", "a", "--count", "9")
        self.assertEqual((arguments.size, arguments.count, arguments.repeats), (None, 9, 9))

    def test_a_datagram_has_its_own_limit(self) -> None:
        """What IPv6 carries for a text, and what both carry for a size."""
        arguments = parse("udp:h:1", "a" * 65_527)
        self.assertEqual((len(arguments.texts[0]), arguments.max_frame), (65_527, 65_527))
        self.assertEqual(parse("udp:h:1", "--size", "65507").size, 65_507)
        for words, line in (
            (("a" * 65_528,), "a TEXT has 65528 bytes, a datagram has at most 65527"),
            (("--size", "65508"), "--size is 65508 bytes, a datagram has at most 65507"),
        ):
            error = self.assertRaises(UsageError, parse, "udp:h:1", *words)
            self.assertIn(line, error.line, f"{words=}, {line=}: {error.line}")

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
                error = self.assertRaises(UsageError, parse, endpoint, "a", *words)
                self.assertEqual(
                    error.line,
                    f"--{name} needs a connection, and {kind}: has none; see twsock echo --help",
                    f"{words=}, {name=}, {endpoint=}",
                )


class SecurityTests(SynchronousTestCase):
    """TLS is asked for by one option, and the others say how."""

    def test_plaintext_unless_asked_for(self) -> None:
        """No other option brings TLS with it."""
        self.assertFalse(parse("tcp:h:1").is_secure)

    def test_each_way_in(self) -> None:
        """TLS from the first byte, or in mid-connection at once, or after a command."""
        for word, tls, upgrade in (
            ("--tls", True, None),
            ("--upgrade", False, "direct"),
            ("--upgrade=direct", False, "direct"),
            ("--upgrade=command", False, "command"),
        ):
            arguments = parse("tcp:h:1", word)
            self.assertEqual((arguments.tls, arguments.upgrade), (tls, upgrade), word)
            self.assertTrue(arguments.is_secure, word)
        self.assertEqual({style.value for style in UpgradeStyle}, {"direct", "command"})

    def test_upgrade_leaves_the_text_alone(self) -> None:
        """Wherever it stands: only a word with ``=`` is its value."""
        for words in (
            ("--upgrade", "tcp:h:1", "text"),
            ("tcp:h:1", "--upgrade", "text"),
            ("tcp:h:1", "text", "--upgrade"),
            ("tcp:h:1", "--upgrade", "--", "text"),
        ):
            arguments = parse(*words)
            self.assertEqual(
                (arguments.endpoint, arguments.texts), ("tcp:h:1", (b"text",)), f"{words=}"
            )
            self.assertEqual(arguments.upgrade, "direct", f"{words=}")

    def test_behind_two_dashes_upgrade_is_a_text(self) -> None:
        """As everything is."""
        arguments = parse("tcp:h:1", "--tls", "--", "--upgrade", "command")
        self.assertEqual(arguments.texts, (b"--upgrade", b"command"))

    def test_how(self) -> None:
        """Files, a name, a level, and whether to show the certificate."""
        arguments = parse(
            *("tcp:h:1", "--tls", "--ca", "a.pem", "--name", "Grüße.example"),
            *("--client-certificate", "c.pem", "--level", "tls12", "--show-certificate"),
        )
        self.assertEqual(
            values(arguments),
            expected(
                tls=True,
                ca="a.pem",
                name="xn--gre-6ka8l.example",
                client_certificate="c.pem",
                level="tls12",
                show_certificate=True,
            ),
        )

    def test_levels_are_those_of_the_services(self) -> None:
        """The two ends of one connection take the same words."""
        for word in LEVELS:
            self.assertEqual(parse("tcp:h:1", "--tls", "--level", word).level, word, f"{word=}")

    def test_what_does_not_go_together(self) -> None:
        """One line that names the option."""
        useless = "needs --tls or --upgrade; see twsock echo --help"
        for words, line in {
            ("--tls", "--upgrade"): "--upgrade excludes --tls: --tls is TLS from the first",
            ("--tls", "--upgrade=command"): "--upgrade excludes --tls: --tls is TLS from",
            ("--ca", "a.pem"): f"--ca {useless}",
            ("--name", "h"): f"--name {useless}",
            ("--client-certificate", "c.pem"): f"--client-certificate {useless}",
            ("--level", "tls13"): f"--level {useless}",
            ("--show-certificate",): f"--show-certificate {useless}",
            (
                "--upgrade",
                "command",
            ): "write --upgrade=command (or",
            ("--upgrade=tls",): "argument --upgrade: invalid choice: 'tls'",
            ("--upgrade=",): "argument --upgrade: invalid choice: ''",
            ("--ca", "--upgrade"): "argument --ca: expected one argument",
            ("--tls", "--level", "tls11"): "argument --level: invalid choice: 'tls11'",
            ("--tls", "--name", ""): "argument --name: '' is not a host name: it is empty",
            ("--tls", "--name", "h:1"): "argument --name: 'h:1' is not a host name",
            ("--tls", "--name", "01:23:45:67:89:ab"): "--name: takes a host or an IP address",
        }.items():
            error = self.assertRaises(UsageError, parse, "tcp:h:1", *words)
            self.assertIn(line, error.line, f"{words=}, {line=}: {error.line}")
            self.assertNotIn("\n", error.line, f"{words=}: {error.line!r}")


class WebSocketTests(SynchronousTestCase):
    """A URI is the endpoint of a WebSocket."""

    def test_the_scheme_decides_on_tls(self) -> None:
        """In upper or lower case."""
        for uri, is_secure in (("ws://h:1/", False), ("wss://h/a?b", True), ("WSS://h", True)):
            arguments = parse(uri)
            self.assertTrue(arguments.is_websocket, f"{uri=}")
            self.assertEqual(arguments.is_secure, is_secure, f"{uri=}")
            self.assertEqual(arguments.endpoint, uri, f"{uri=}")
            self.assertFalse(arguments.has_datagrams, f"{uri=}")

    def test_other_endpoints_are_none(self) -> None:
        """A host may be named as a scheme is."""
        for word in ("tcp:h:1", "ws:1", "unix://run/echo.sock", "udp:h:1"):
            self.assertFalse(parse(word).is_websocket, f"{word=}")

    def test_options_stand_in_any_order(self) -> None:
        """Each subprotocol and header field has an option of its own."""
        parts = (
            ["--binary"],
            ["--subprotocol", "a", "--subprotocol=b"],
            ["--header", "Origin: https://h"],
            ["ws://h/"],
            ["one", "two"],
        )
        wanted = EchoArguments(
            endpoint="ws://h/",
            texts=(b"one", b"two"),
            binary=True,
            subprotocol=["a", "b"],
            header=["Origin: https://h"],
        )
        for order in itertools.permutations(parts):
            words = [word for part in order for word in part]
            if words.index("ws://h/") < words.index("one"):
                self.assertEqual(values(parse(*words)), values(wanted), words)

    def test_what_does_not_go_together(self) -> None:
        """One line that names the option, and says what to write."""
        foreign = "is not for WebSockets; TLS is in wss://HOST"
        needs_tls = "needs TLS: write wss:// instead of ws://"
        for words, line in (
            (("ws://h", "--tls"), f"--tls {foreign}"),
            (("ws://h", "--upgrade"), f"--upgrade {foreign}"),
            (("ws://h", "--framing", "line"), f"--framing {foreign}"),
            (("ws://h", "--raw"), f"--raw {foreign}"),
            (("wss://h", "--tls"), f"--tls {foreign}"),
            (("ws://h", "--name", "h"), f"--name {needs_tls}"),
            (("ws://h", "--level", "tls12"), f"--level {needs_tls}"),
            (("ws://h", "--ca", "a.pem"), f"--ca {needs_tls}"),
            (("ws://h", "--client-certificate", "a.pem"), f"--client-certificate {needs_tls}"),
            (("ws://h", "--show-certificate"), f"--show-certificate {needs_tls}"),
            (("tcp:h:1", "--binary"), "--binary is for WebSockets: give an endpoint ws://HOST"),
            (("udp:h:1", "--header", "A: b"), "--header is for WebSockets"),
            (("tcp:h:1", "--subprotocol", "a"), "--subprotocol is for WebSockets"),
            (("tcp:h:1", "--proxy", "http://h:1"), "--proxy is for WebSockets"),
            (("ws://h", "--proxy-credential", "a"), "--proxy-credential needs --proxy URI"),
            (("ws://h", "--proxy-ca", "a"), "--proxy-ca needs --proxy URI"),
            (("ws://h", "--proxy", "http://h:1", "--proxy-ca", "a"), "--proxy-ca needs a proxy"),
        ):
            error = self.assertRaises(UsageError, parse, *words)
            self.assertIn(line, error.line, f"{words=}")
            self.assertNotIn("\n", error.line, f"{words=}")

    def test_the_largest_message_is_that_of_frames(self) -> None:
        """16 MiB, unless it is given."""
        self.assertEqual(parse("ws://h").max_frame, 16_777_216)
        self.assertEqual(parse("ws://h", "--max-frame", "7").max_frame, 7)


class RawTests(SynchronousTestCase):
    """Bytes instead of messages."""

    def test_only_responses_are_written(self) -> None:
        """Standard output is for the bytes of the server alone."""
        arguments = parse("tcp:h:1", "--raw", "--tls", "--timeout", "3")
        self.assertEqual((arguments.raw, arguments.quiet, arguments.tls), (True, True, True))

    def test_messages_do_not_go_with_it(self) -> None:
        """One line that names the option."""
        for words, line in (
            (("--framing", "line"), "--framing is for messages, and --raw has none"),
            (("--max-frame", "1"), "--max-frame is for messages"),
            (("--count", "2"), "--count is for messages"),
            (("--size", "2"), "--size is for messages"),
            (("--interval", "2"), "--interval is for messages"),
            (("--quiet",), "--quiet is for messages"),
            (("a",), "--raw sends the bytes of standard input, and takes no TEXT"),
            (("--upgrade=command",), "--upgrade=command sends a message"),
        ):
            error = self.assertRaises(UsageError, parse, "tcp:h:1", "--raw", *words)
            self.assertIn(line, error.line, f"{words=}, {line=}: {error.line}")


class EndpointTests(SynchronousTestCase):
    """``HOST:PORT`` is enough."""

    def test_a_host_and_a_port_are_tcp(self) -> None:
        """Whatever the host looks like."""
        for word in ("localhost:1337", "127.0.0.1:1", "[::1]:1337", "my_host:0", "[fe80::1%lo]:1"):
            self.assertEqual(parse(word).endpoint, f"tcp:{word}", f"{word=}")

    def test_other_endpoints_stay_as_they_are(self) -> None:
        """A kind is no host, and a port is a number."""
        for word in ("tcp:1337", "unix:1337", "UDP:1", "tls:h:1", "localhost", "h:http", "a:b:1"):
            self.assertEqual(parse(word).endpoint, word, f"{word=}")


class CertificatesTests(SynchronousTestCase):
    """``twsock certificates init``."""

    def parse(self, *words: str) -> InitArguments:
        return parse_certificates(words)

    def test_a_folder_is_enough(self) -> None:
        """The certificate is for this machine then."""
        arguments = self.parse("init", "folder")
        self.assertEqual((arguments.directory, arguments.name), ("folder", None))
        self.assertEqual(arguments.key, "ecdsa")

    def test_names_take_the_place_of_those(self) -> None:
        """Before the folder and behind it, each as it is written in a certificate."""
        arguments = self.parse("init", "--name", "A.example", "folder", "--name=0:0::1")
        self.assertEqual((arguments.directory, arguments.name), ("folder", ["a.example", "::1"]))

    def test_a_folder_may_begin_with_a_dash(self) -> None:
        """After two of them."""
        self.assertEqual(self.parse("init", "--", "-x").directory, "-x")

    def test_keys_are_those_that_can_be_made(self) -> None:
        """Each has its word."""
        for kind in KeyKind:
            self.assertEqual(
                self.parse("init", "a", "--key", kind.value).key, kind.value, f"{kind=}"
            )

    def test_each_mistake_gets_its_line(self) -> None:
        """With where to read on."""
        for words, line in (
            ([], "init is missing; see twsock certificates --help"),
            (["make"], "there is no command 'make'; see twsock certificates --help"),
            (["init"], "DIR is missing; see twsock certificates --help"),
            (["init", ""], "DIR is missing; see twsock certificates --help"),
            (["init", "a", "b"], "too many arguments: 'b'; give one DIR"),
            (["init", "-x"], "there is no option -x (put a DIR that begins with a dash"),
            (["init", "a", "--name", "a b"], "argument --name: 'a b' is not a host name"),
            (["init", "a", "--name"], "argument --name: expected one argument"),
            (["init", "a", "--key", "dsa"], "argument --key: invalid choice: 'dsa'"),
        ):
            error = self.assertRaises(UsageError, self.parse, *words)
            self.assertIn(line, error.line, f"{words=}, {line=}: {error.line}")
            self.assertNotIn("\n", error.line, f"{words=}: {error.line!r}")


class RestartTests(SynchronousTestCase):
    """``twsock restart``."""

    def test_the_command_is_taken_as_it_is(self) -> None:
        """Its own options, and a second pair of dashes, belong to it."""
        words = ["twistd", "--pidfile=", "x", "--control", "/run/c", "--timeout", "5", "--", "a"]
        arguments = parse_restart(["--control=/run/c", "--timeout", "0.5", "--", *words])
        self.assertEqual((arguments.command, arguments.timeout), (words, 0.5))
        self.assertEqual(parse_restart(["--control", "/run/c", "--", *words]).timeout, 30.0)

    def test_the_same_socket_may_be_written_in_two_ways(self) -> None:
        """In full, or through a link, as /var/run is one."""
        folder = Path(self.mktemp())
        folder.symlink_to(Path.cwd())
        for path in ("c", str(Path("c").absolute()), str(folder / "c")):
            words = ["--control", "c", "--", "a", "--control", path]
            self.assertEqual(parse_restart(words).control, "c", f"{path=}")

    def test_each_mistake_gets_its_line(self) -> None:
        """With where to read on."""
        for words, line in (
            ([], "COMMAND is missing; see twsock restart --help"),
            (["--control", "c"], "COMMAND is missing"),
            (["--control", "c", "--"], "COMMAND is missing"),
            (["--", "a", "--control", "c"], "--control PATH is missing"),
            (["--control", "", "--", "a", "--control", "c"], "--control PATH is missing"),
            (["--control", "c", "twistd"], "'twistd' is not an option; put COMMAND after --"),
            (["--control", "c", "b", "--", "a"], "'b' is not an option; put COMMAND after --"),
            (["--control", "c", "--", "a"], "COMMAND has no --control: add --control c"),
            (["--control", "c", "--", "a", "--control"], "COMMAND has no --control"),
            (["--control", "c", "--", "a", "--control=d"], "COMMAND has --control d, not c"),
            (["--timeout", "0", "--control", "c", "--", "a"], "argument --timeout: takes seconds"),
            (["--check", "--control", "c", "--", "a"], "there is no option --check"),
        ):
            error = self.assertRaises(UsageError, parse_restart, words)
            self.assertIn(line, error.line, f"{words=}, {line=}: {error.line}")
            self.assertNotIn("\n", error.line, f"{words=}: {error.line!r}")


class HelpTests(SynchronousTestCase):
    """What ``--help`` prints."""

    def help_of(self, parse_words: Callable[[list[str]], object], *words: str) -> str:
        written = io.BytesIO()
        with contextlib.redirect_stdout(io.TextIOWrapper(written, "utf-8")) as output:
            ended = self.assertRaises(SystemExit, parse_words, list(words))
            self.assertEqual(ended.code, 0)
            shown = written.getvalue().decode()
        output.detach()
        return shown

    def test_it_is_printed_wherever_it_stands(self) -> None:
        """On standard output, with exit status 0."""
        for parse_words, words, part in (
            (parse_echo, ["--help"], "usage: twsock echo [OPTION ...] ENDPOINT [TEXT ...]\n"),
            (parse_echo, ["tcp:h:1", "-h"], "\n  --timeout SECONDS "),
            (parse_certificates, ["--help"], "\n  --name HOST "),
            (parse_certificates, ["init", "--help"], "certificates init [OPTION ...] DIR"),
            (parse_restart, ["--help"], "\n  --control PATH "),
        ):
            shown = self.help_of(parse_words, *words)
            self.assertIn(part, shown, f"{parse_words=}, {words=}, {part=}: {shown}")

    def test_it_fits_a_terminal(self) -> None:
        """No line is wider than 80 columns."""
        for parse_words in (parse_echo, parse_certificates, parse_restart):
            lines = self.help_of(parse_words, "--help").splitlines()
            self.assertEqual([line for line in lines if len(line) > 80], [], f"{parse_words=}")

    def test_it_has_every_option_and_no_other(self) -> None:
        """It is written by hand."""
        for parse_words, kind, arguments in (
            (parse_echo, EchoArguments, {"endpoint", "texts"}),
            (parse_restart, RestartArguments, {"command"}),
        ):
            shown = self.help_of(parse_words, "--help")
            options = set(re.findall(r"^  (?:-h, )?--([a-z-]+)", shown, re.MULTILINE))
            names = {name.replace("_", "-") for name in kind.__annotations__}
            self.assertEqual(options - {"help"}, names - arguments, f"{kind=}")
