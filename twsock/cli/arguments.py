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
from pathlib import Path
from typing import Final, NoReturn

from typing_extensions import override

from twsock.cli._help import CERTIFICATES_HELP, ECHO_HELP, RESTART_HELP
from twsock.cli.output import UsageError, open_output
from twsock.names import HostName, HostNameType
from twsock.wire.datagrams import MAX_IPV4_DATAGRAM, MAX_IPV6_DATAGRAM
from twsock.wire.frames import DEFAULT_MAX_PAYLOAD, MAX_UINT32
from twsock.wire.lines import DEFAULT_MAX_LINE

__all__ = [
    "EchoArguments",
    "InitArguments",
    "RestartArguments",
    "parse_certificates",
    "parse_echo",
    "parse_restart",
]

#: The formats, and the largest message of each unless told otherwise.
_MAX_FRAMES: Final = {"uint32": DEFAULT_MAX_PAYLOAD, "line": DEFAULT_MAX_LINE}

#: Kinds of endpoints with datagrams, and seconds for an answer; for a group, all are awaited.
#: A stream may have to look a name up, connect and repeat lost packets.
_TIMEOUTS: Final = {"udp": 2.0, "multicast": 1.0}
_STREAM_TIMEOUT: Final = 10.0

#: Seconds for the start of a process that takes over: it reads certificates, and takes sockets.
_RESTART_TIMEOUT: Final = 30.0

#: How an upgrade begins, the default first.
_STYLES: Final = ("direct", "command")

#: ``HOST:PORT``, which stands for ``tcp:HOST:PORT`` unless the first word is a kind of endpoint.
_HOST_AND_PORT: Final = re.compile(
    r"(?!(?:tcp|udp|multicast|unix|tls|ssl):)(?:\[[^][]*\]|[^][:=\\/]+):[0-9]+", re.IGNORECASE
)

#: The beginning of a URI; those of HTTP are no WebSockets, and are refused with the right scheme.
_URI: Final = re.compile(r"(wss?|https?)://", re.IGNORECASE)

#: Options for connections that become secure, for connections, and for messages.
_ONLY_SECURE: Final = ("ca", "name", "client-certificate", "level", "show-certificate")
_ONLY_STREAMS: Final = ("raw", "tls", "upgrade", *_ONLY_SECURE, "framing", "max-frame")
_ONLY_MESSAGES: Final = ("framing", "max-frame", "count", "size", "interval", "quiet")
#: Options for proxies, for WebSockets, and those that the URI stands for.
_ONLY_PROXIES: Final = ("proxy-credential", "proxy-ca")
_ONLY_WEBSOCKETS: Final = ("binary", "subprotocol", "header", "proxy", *_ONLY_PROXIES)
_NOT_WEBSOCKETS: Final = ("raw", "framing", "tls", "upgrade")


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
    binary: bool = False
    subprotocol: Sequence[str] = ()
    header: Sequence[str] = ()
    proxy: str | None = None
    proxy_credential: str | None = None
    proxy_ca: str | None = None

    @property
    def is_websocket(self) -> bool:
        """Whether the endpoint is a URI, and messages are those of a WebSocket."""
        return _is_uri(self.endpoint)

    @property
    def is_secure(self) -> bool:
        """Whether the connection becomes secure."""
        return self.tls or self.upgrade is not None or _kind_of(self.endpoint) == "wss"

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


class RestartArguments(argparse.Namespace):
    """
    What ``twsock restart`` is to do.

    :ivar control: the path of the control socket.
    :ivar command: the program that is started, and its arguments.
    :ivar timeout: seconds for the restart.
    """

    control: str
    command: Sequence[str]
    timeout: float = _RESTART_TIMEOUT


def parse_echo(words: Sequence[str]) -> EchoArguments:
    """
    Read the words after ``twsock echo``.

    :raises UsageError: with what is wrong.
    :raises SystemExit: with 0, after the help was printed.
    """
    parser = _Parser("twsock echo", ECHO_HELP)
    _add_echo_options(parser.add_argument)
    given, (endpoint, *texts) = parser.read(_complete_upgrade(parser, words), "ENDPOINT", "TEXT")
    if _HOST_AND_PORT.fullmatch(endpoint):
        endpoint = f"tcp:{endpoint}"
    _check_options(parser, given, endpoint, has_texts=bool(texts))
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
    parser = _Parser("twsock certificates", CERTIFICATES_HELP)
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


def parse_restart(words: Sequence[str]) -> RestartArguments:
    """
    Read the words after ``twsock restart``.

    :raises UsageError: when a word is wrong, or COMMAND does not have the same ``--control``.
    :raises SystemExit: with 0, after the help was printed.
    """
    parser = _Parser("twsock restart", RESTART_HELP)
    parser.add_argument("--control")
    parser.add_argument("--timeout", type=_seconds(math.ulp(0.0)), default=_RESTART_TIMEOUT)
    end = words.index("--") if "--" in words else len(words)
    given, found = parser.read(words, "COMMAND", "COMMAND")
    command = list(words[end + 1 :])
    if len(found) > len(command):
        parser.error(f"{found[0]!r} is not an option; put COMMAND after --")
    control = given["control"]
    if not control:
        parser.error("--control PATH is missing")
    arguments = RestartArguments(command=command, **given)
    paths = _control_paths(command)
    if not paths:
        parser.error(f"COMMAND has no --control: add --control {control}, so that it takes over")
    for path in paths:
        if Path(path).resolve() != Path(arguments.control).resolve():
            parser.error(f"COMMAND has --control {path}, not {control}: both must be the same")
    return arguments


def _control_paths(command: Sequence[str]) -> list[str]:
    """Return the values of ``--control`` in a command line."""
    after = [word for option, word in itertools.pairwise(command) if option == "--control"]
    prefix = "--control="
    return [*after, *(word[len(prefix) :] for word in command if word.startswith(prefix))]


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
    for option in ("--ca", "--client-certificate", "--proxy", "--proxy-credential", "--proxy-ca"):
        add(option)
    for option in ("--subprotocol", "--header"):
        add(option, action="append")
    for option in ("--raw", "--quiet", "--tls", "--show-certificate", "--binary"):
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
    parser: _Parser, given: dict[str, object], endpoint: str, *, has_texts: bool
) -> None:
    """Refuse options that exclude each other."""
    kind = _kind_of(endpoint)

    def refuse(names: Sequence[str], reason: str) -> None:
        for name in names:
            if given[name.replace("-", "_")] not in (None, False):
                parser.error(f"--{name} {reason}")

    if kind in _TIMEOUTS:
        refuse(_ONLY_STREAMS, f"needs a connection, and {kind}: has none")
    if _is_uri(endpoint):
        refuse(_NOT_WEBSOCKETS, "is not for WebSockets; TLS is in wss://HOST")
        if kind != "wss":
            refuse(_ONLY_SECURE, "needs TLS: write wss:// instead of ws://")
        proxy = given["proxy"]
        if proxy is None:
            refuse(_ONLY_PROXIES, "needs --proxy URI")
        elif not str(proxy).lower().startswith("https:"):
            refuse(["proxy-ca"], "needs a proxy with TLS: --proxy https://HOST:PORT")
    else:
        refuse(_ONLY_WEBSOCKETS, "is for WebSockets: give an endpoint ws://HOST or wss://HOST")
    if given["tls"]:
        refuse(["upgrade"], "excludes --tls: --tls is TLS from the first byte")
    elif given["upgrade"] is None and kind != "wss":
        refuse(_ONLY_SECURE, "needs --tls or --upgrade")
    if given["raw"]:
        refuse(_ONLY_MESSAGES, "is for messages, and --raw has none")
        if has_texts:
            parser.error("--raw sends the bytes of standard input, and takes no TEXT")
        if given["upgrade"] == "command":
            parser.error("--upgrade=command sends a message, and --raw has none")
    if has_texts and given["size"] is not None:
        parser.error("--size generates the messages, and takes no TEXT")


def _is_uri(endpoint: str) -> bool:
    return _URI.match(endpoint) is not None


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
