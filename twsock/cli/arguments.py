"""
The command line: words → **checked values** → `twsock.cli.main`.

Each command has a parser of its own, and options may stand before, between and after its arguments.
Nothing here imports Twisted: neither ``--help`` nor a wrong command line needs a reactor.
"""

from __future__ import annotations

import argparse
import itertools
import math
import re
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

from typing_extensions import override

from twsock.cli.output import UsageError, open_output
from twsock.names import HostName, HostNameType
from twsock.wire.datagrams import MAX_IPV4_DATAGRAM, MAX_IPV6_DATAGRAM
from twsock.wire.frames import DEFAULT_MAX_PAYLOAD, MAX_UINT32
from twsock.wire.lines import DEFAULT_MAX_LINE

__all__ = ["EchoArguments", "InitArguments", "parse_certificates", "parse_echo"]

_ECHO_HELP: Final = f"""\
usage: twsock echo [OPTION ...] ENDPOINT [TEXT ...]

Send each TEXT to an echo server, and compare the answer with it.

arguments:
  ENDPOINT            HOST:PORT or tcp:HOST:PORT, also tcp:[::1]:PORT, or any
                      client endpoint string of Twisted, such as
                      unix:/run/echo.sock;
                      udp:HOST:PORT for datagrams to one peer;
                      multicast:GROUP:PORT[:interface=NAME][:ttl=N] for
                      datagrams to a group; NAME is the name, index or address
                      of the interface (default: lo), N the largest number of
                      hops (default: 1)
  TEXT                one message; without a TEXT, each line of standard input
                      is one message. Put a TEXT that begins with a dash
                      after --

options:
  --framing FORMAT    uint32: 4-byte big-endian length, then bytes (default);
                      line: text ended by CRLF
  --raw               no messages: send the bytes of standard input, and write
                      the received bytes to standard output
  --count N           send each TEXT N times, and print the round trips at the
                      end (default: 1)
  --size BYTES        generate messages of that size, instead of a TEXT;
                      datagrams are numbered
  --interval SECONDS  time between two sends (default: 0: send when the last
                      answer has arrived). On a connection, the next send also
                      waits for a late answer; datagrams do not wait
  --timeout SECONDS   limit for the connection, and for each answer (default:
                      10, with udp: 2, with multicast: 1). With multicast the
                      command waits that long for the answers of all members
  --max-frame BYTES   largest message (default: {DEFAULT_MAX_PAYLOAD}, with line {DEFAULT_MAX_LINE})
  --quiet             write only the responses, one per line
  -h, --help          show this help message and exit

TLS:
  --tls               TLS from the first byte
  --upgrade[=HOW]     TLS in mid-connection: --upgrade or --upgrade=direct
                      begins the handshake at once; --upgrade=command first
                      sends STARTTLS and waits for OK
  --ca FILE           trust the authorities in FILE (PEM), and no others
                      (default: those of this machine)
  --name HOST         host that the server's certificate must name (default:
                      HOST in tcp:HOST:PORT)
  --client-certificate FILE
                      certificate to send if the server requests one (PEM or
                      PKCS#12, with the key)
  --level VERSION     highest version offered: tls12 or tls13; the lowest is
                      TLS 1.2 (default: the highest that OpenSSL supports)
  --show-certificate  show the server's certificate on standard error, also if
                      it is refused

Options can be before, between and after the arguments.

With --tls or --upgrade no TEXT is sent before the server's certificate has been
verified, and a connection never continues in plaintext.

The next message is sent when the answer to the last has arrived. Control
characters, and bytes that are not UTF-8, are written as escapes. Responses are
written byte for byte only with --quiet, and not to a terminal.

With --raw the command sends and receives at the same time. At the end of the
input it closes its sending side. It ends when the server closes the connection,
or when nothing has arrived for --timeout seconds after the end of the input.

Each datagram is one TEXT and nothing else. The next is sent when the last was
answered, or after --timeout; with --interval it is sent on time in any case.
All members of a group may answer; each is listed with its figures. Datagrams
with --size begin with a number (8 bytes, big-endian), so that losses and
duplicates are counted exactly.

exit status:
  0    every answer is equal to its message; with --raw, the connection ended
       in order
  1    something failed, was lost or changed; standard error has one line with
       the error, and one more for each reason why a certificate is refused
  2    the command line is wrong
  130  ended by Ctrl-C, with the figures so far

examples:
  twsock echo localhost:1337 "Hello, World!"
  twsock echo tcp:127.0.0.1:1337 --count 1000 --quiet ping > /dev/null
  twsock echo unix:/run/echo.sock --framing line < messages.txt
  twsock echo tcp:localhost:1337 "Hello, World!" --upgrade --ca authority.pem
  printf 'GET / HTTP/1.0\\r\\n\\r\\n' | twsock echo localhost:8000 --raw
  twsock echo udp:127.0.0.1:1337 --size 1200 --count 1000 --interval 0.001
  twsock echo multicast:224.3.0.5:22113 Hello
"""

_CERTIFICATES_HELP: Final = """\
usage: twsock certificates init [OPTION ...] DIR

Make an authority, a server's and a client's certificate, to test TLS.

arguments:
  DIR            folder for the files; it is empty, or does not exist

options:
  --name HOST    host or address that the server's certificate names; can be
                 given several times (default: localhost, 127.0.0.1, ::1)
  --key KIND     kind of the keys: ecdsa (default), or rsa for peers that do
                 not support ecdsa, such as old .NET
  -h, --help     show this help message and exit

The certificates are valid for a year. Only you can read the keys. The key of
the authority is not stored, so nobody can issue more certificates with it.

exit status:
  0    DIR has authority.pem, server.pem and client.pem
  1    something failed; standard error has one line with the error
  2    the command line is wrong
"""

#: The formats, and the largest message of each unless told otherwise.
_MAX_FRAMES: Final = {"uint32": DEFAULT_MAX_PAYLOAD, "line": DEFAULT_MAX_LINE}

#: Kinds of endpoints with datagrams, and seconds for an answer; for a group, all are awaited.
#: A stream may have to look a name up, connect and repeat lost packets.
_TIMEOUTS: Final = {"udp": 2.0, "multicast": 1.0}
_STREAM_TIMEOUT: Final = 10.0

#: How an upgrade begins, the default first.
_STYLES: Final = ("direct", "command")

#: ``HOST:PORT``, which stands for ``tcp:HOST:PORT`` unless the first word is a kind of endpoint.
_HOST_AND_PORT: Final = re.compile(
    r"(?!(?:tcp|udp|multicast|unix|tls|ssl):)(?:\[[^][]*\]|[^][:=\\/]+):[0-9]+", re.IGNORECASE
)

#: Options for connections that become secure, for connections, and for messages.
_ONLY_SECURE: Final = ("ca", "name", "client-certificate", "level", "show-certificate")
_ONLY_STREAMS: Final = ("raw", "tls", "upgrade", *_ONLY_SECURE, "framing", "max-frame")
_ONLY_MESSAGES: Final = ("framing", "max-frame", "count", "size", "interval", "quiet")


class EchoArguments(argparse.Namespace):
    """
    What ``twsock echo`` is to do; ``--ca FILE`` is the attribute ``ca``, and so on.

    :ivar texts: the messages, as UTF-8; none if they are on standard input.
    :ivar size: bytes of each message, where they are generated; None for texts.
    :ivar upgrade: how an upgrade begins; None without ``--upgrade``.
    """

    endpoint: str
    texts: Sequence[bytes] = ()
    framing: str = "uint32"
    raw: bool = False
    count: int = 1
    size: int | None = None
    interval: float = 0.0
    timeout: float = _STREAM_TIMEOUT
    max_frame: int = DEFAULT_MAX_PAYLOAD
    quiet: bool = False
    tls: bool = False
    upgrade: str | None = None
    ca: str | None = None
    name: str | None = None
    client_certificate: str | None = None
    level: str | None = None
    show_certificate: bool = False

    @property
    def is_secure(self) -> bool:
        """Whether the connection becomes secure."""
        return self.tls or self.upgrade is not None

    @property
    def has_datagrams(self) -> bool:
        """Whether messages are datagrams, and not parts of a stream."""
        return _kind_of(self.endpoint) in _TIMEOUTS

    @property
    def repeats(self) -> int:
        """How many times each message is sent; there are enough of the generated ones."""
        return self.count if self.size is None else 1


class InitArguments(argparse.Namespace):
    """
    What ``twsock certificates init`` is to do.

    :ivar name: hosts that the server's certificate is for; None for those of this machine.
    :ivar key: the kind of all keys, ``ecdsa`` or ``rsa``.
    """

    directory: str
    name: Sequence[str] | None = None
    key: str = "ecdsa"


def parse_echo(words: Sequence[str]) -> EchoArguments:
    """
    Read the words after ``twsock echo``.

    :raises UsageError: with what is wrong.
    :raises SystemExit: with 0, after the help was printed.
    """
    parser = _Parser("twsock echo", _ECHO_HELP)
    _add_echo_options(parser.add_argument)
    given, (endpoint, *texts) = parser.read(_complete_upgrade(parser, words), "ENDPOINT", "TEXT")
    if _HOST_AND_PORT.fullmatch(endpoint):
        endpoint = f"tcp:{endpoint}"
    _check_options(parser, given, _kind_of(endpoint), has_texts=bool(texts))
    given = {name: value for name, value in given.items() if value is not None}
    arguments = EchoArguments(endpoint=endpoint, **given)
    arguments.quiet = arguments.quiet or arguments.raw
    if "timeout" not in given:
        arguments.timeout = _TIMEOUTS.get(_kind_of(endpoint), _STREAM_TIMEOUT)
    if "max_frame" not in given:
        arguments.max_frame = _MAX_FRAMES[arguments.framing]
    limit = "--max-frame is"
    if arguments.has_datagrams:
        arguments.max_frame, limit = MAX_IPV6_DATAGRAM, "a datagram has at most"
    # Each generated datagram fits both IPv4 and IPv6.
    largest = MAX_IPV4_DATAGRAM if arguments.has_datagrams else arguments.max_frame
    if (arguments.size or 0) > largest:
        parser.error(f"--size is {arguments.size} bytes, {limit} {largest}")
    arguments.texts = tuple(_check_text(text, arguments, limit) for text in texts)
    return arguments


def parse_certificates(words: Sequence[str]) -> InitArguments:
    """
    Read the words after ``twsock certificates``.

    :raises UsageError: with what is wrong.
    :raises SystemExit: with 0, after the help was printed.
    """
    parser = _Parser("twsock certificates", _CERTIFICATES_HELP)
    parser.add_argument("--name", type=_host, action="append")
    parser.add_argument("--key", choices=("ecdsa", "rsa"), default=InitArguments.key)
    given, (command, *folders) = parser.read(words, "init", "DIR")
    if command != "init":
        parser.error(f"there is no command {command!r}")
    if not folders or not folders[0]:
        parser.error("DIR is missing")
    if len(folders) > 1:
        parser.error(f"too many arguments: {folders[1]!r}; give one DIR")
    return InitArguments(directory=folders[0], **given)


class _Parser(argparse.ArgumentParser):
    """A parser of one command, which reports a mistake in one line."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(prog=name, allow_abbrev=False)
        self.add_argument("words", nargs="*")
        self._text = text

    @override
    def format_help(self) -> str:
        return self._text

    @override
    def print_help(self, file: object = None) -> None:
        # That of argparse ignores a failure to write.
        open_output().say(self._text.removesuffix("\n"))

    @override
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")

    def read(
        self, words: Sequence[str], first: str, other: str
    ) -> tuple[dict[str, object], list[str]]:
        """
        Separate options from arguments, which may stand in any order.

        :param first: the name of the argument that has to be there.
        :param other: the name of those behind it, which may begin with a dash after ``--``.
        :returns: options by name, and arguments, one or more.
        """
        # Cut off here: before the first argument, older releases of argparse drop the `--`.
        end = words.index("--") if "--" in words else len(words)
        options, unknown = self.parse_known_intermixed_args(words[:end])
        if unknown:
            hint = f"(put a {other} that begins with a dash after --)"
            self.error(f"there is no option {unknown[0]} {hint}")
        given = vars(options)
        arguments = [*given.pop("words"), *words[end + 1 :]]
        if not arguments:
            self.error(f"{first} is missing")
        return given, arguments


def _add_echo_options(add: Callable[..., object]) -> None:
    add("--framing", choices=list(_MAX_FRAMES))
    add("--count", type=_whole_number(1))
    add("--size", type=_whole_number(0, MAX_UINT32))
    add("--interval", type=_seconds(0))
    add("--timeout", type=_seconds(math.ulp(0.0)))
    add("--max-frame", type=_whole_number(0, MAX_UINT32))
    # Its value is never apart from it, see `_complete_upgrade`.
    add("--upgrade", choices=_STYLES)
    add("--name", type=_host)
    add("--level", choices=("tls12", "tls13"))
    for option in ("--ca", "--client-certificate"):
        add(option)
    for option in ("--raw", "--quiet", "--tls", "--show-certificate"):
        add(option, action="store_true")


def _complete_upgrade(parser: _Parser, words: Sequence[str]) -> list[str]:
    """Add the default of ``--upgrade``: argparse would take the TEXT behind it for its value."""
    end = words.index("--") if "--" in words else len(words)
    for word, following in itertools.pairwise(words[:end]):
        if word == "--upgrade" and following in _STYLES:
            parser.error(f"write --upgrade={following} (or put {following} after --, as a TEXT)")
    whole = f"--upgrade={_STYLES[0]}"
    return [whole if word == "--upgrade" else word for word in words[:end]] + list(words[end:])


def _check_options(
    parser: _Parser, given: dict[str, object], kind: str, *, has_texts: bool
) -> None:
    """Refuse options that exclude each other."""

    def refuse(names: Sequence[str], reason: str) -> None:
        for name in names:
            if given[name.replace("-", "_")] not in (None, False):
                parser.error(f"--{name} {reason}")

    if kind in _TIMEOUTS:
        refuse(_ONLY_STREAMS, f"needs a connection, and {kind}: has none")
    if given["tls"]:
        refuse(["upgrade"], "excludes --tls: --tls is TLS from the first byte")
    elif given["upgrade"] is None:
        refuse(_ONLY_SECURE, "needs --tls or --upgrade")
    if given["raw"]:
        refuse(_ONLY_MESSAGES, "is for messages, and --raw has none")
        if has_texts:
            parser.error("--raw sends the bytes of standard input, and takes no TEXT")
        if given["upgrade"] == "command":
            parser.error("--upgrade=command sends a message, and --raw has none")
    if has_texts and given["size"] is not None:
        parser.error("--size generates the messages, and takes no TEXT")


def _kind_of(endpoint: str) -> str:
    return endpoint.partition(":")[0].lower()


def _check_text(text: str, arguments: EchoArguments, limit: str) -> bytes:
    """Encode a text; refuse one that cannot be sent as one message and echoed."""
    try:
        # Python keeps the bytes that its locale cannot decode as lone surrogates.
        encoded = text.encode(errors="surrogateescape")
        encoded.decode()
    except UnicodeError:
        raise UsageError(f"TEXT {text!r} is not UTF-8") from None
    if arguments.framing == "line" and b"\n" in encoded:
        raise UsageError(f"TEXT {text!r} is more than one line: --framing line cannot send it")
    if len(encoded) > arguments.max_frame:
        raise UsageError(f"a TEXT has {len(encoded)} bytes, {limit} {arguments.max_frame}")
    return encoded


def _whole_number(minimum: int, maximum: int | None = None) -> Callable[[str], int]:
    """Return a reader of whole numbers, both bounds included."""
    bounds = f"{minimum} or more" if maximum is None else f"{minimum} to {maximum}"

    def read(word: str) -> int:
        try:
            number = int(word)
        except ValueError:
            number = minimum - 1
        if number < minimum or (maximum is not None and number > maximum):
            raise argparse.ArgumentTypeError(f"takes a whole number, {bounds}, not {word!r}")
        return number

    return read


def _seconds(minimum: float) -> Callable[[str], float]:
    """Return a reader of seconds: 0 or more, or above 0."""

    def read(word: str) -> float:
        try:
            number = float(word)
        except ValueError:
            number = math.nan
        if not minimum <= number < math.inf:
            bounds = "above 0" if minimum else "0 or more"
            raise argparse.ArgumentTypeError(f"takes seconds, {bounds}, not {word!r}")
        return number

    return read


def _host(word: str) -> str:
    """Read a host name or an IP address; return its canonical form."""
    try:
        name = HostName(word)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if name.type is HostNameType.BLUETOOTH:
        raise argparse.ArgumentTypeError(f"takes a host or an IP address, not {word!r}")
    return name.canonical_name
