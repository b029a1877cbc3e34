"""
The command line: words → **checked values** → `twsock.cli.command`.

Here is which commands, options and arguments there are; how they are read is in
`twsock.cli.parser`.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from twsock.cli.datagram_target import is_datagram_endpoint
from twsock.cli.failure import UsageError
from twsock.cli.parser import CommandParser, host, seconds, seconds_above_zero, whole_number
from twsock.cli.security import SecurityArguments
from twsock.protocols import UpgradeStyle
from twsock.tls import SocketProtectionLevel
from twsock.tls.development import LOOPBACK_NAMES, KeyKind
from twsock.wire import DEFAULT_MAX_LINE, DEFAULT_MAX_PAYLOAD
from twsock.wire.datagrams import MAX_IPV4_DATAGRAM, MAX_IPV6_DATAGRAM
from twsock.wire.frames import MAX_UINT32

__all__ = ["EchoArguments", "InitArguments", "parse_arguments"]

#: The formats, and the largest message of each unless told otherwise.
_MAX_FRAMES: Final = {"uint32": DEFAULT_MAX_PAYLOAD, "line": DEFAULT_MAX_LINE}

_STYLES: Final = tuple(style.value for style in UpgradeStyle)

#: Highest versions that can be asked for; without, the highest that there is.
_LEVELS: Final = {
    "tls12": SocketProtectionLevel.TLS12,
    "tls13": SocketProtectionLevel.TLS13,
}

#: What is of use only on a connection that becomes secure.
_ONLY_SECURE: Final = ("ca", "name", "client-certificate", "level", "show-certificate")

#: What is of use only on a connection.
_ONLY_STREAMS: Final = ("tls", "upgrade", *_ONLY_SECURE, "framing", "max-frame")

#: Seconds for an answer, unless told otherwise. A stream may have to look a name up, connect and
#: repeat what got lost; of a group every answer is waited for that long.
_TIMEOUTS: Final = {"udp": 2.0, "multicast": 1.0}
_STREAM_TIMEOUT: Final = 10.0

_ECHO_DESCRIPTION: Final = """\
Send each TEXT to an echo server, and check that it comes back.

arguments:
  ENDPOINT            tcp:HOST:PORT, also tcp:[::1]:PORT, or any client
                      endpoint string of Twisted, such as unix:/run/echo.sock;
                      udp:HOST:PORT for datagrams to one peer;
                      multicast:GROUP:PORT[:interface=NAME][:ttl=N] for those
                      to a group, by the interface with that name, index or
                      address (default: lo), N hops far (default: 1)
  TEXT                what to send, one message each; without any, each line
                      of standard input is one message. A TEXT that begins
                      with a dash stands after --
"""

_ECHO_EPILOG: Final = """\
Options may stand before, between and after the arguments.

With --tls or --upgrade no TEXT is sent before the server's certificate has been
verified, and a connection never goes on in plaintext.

Messages go one after the other: the next is sent when the last has come back.
Control characters are shown escaped, and so are bytes that are not UTF-8. Only
with --quiet, and when standard output is not a terminal, responses are written
byte for byte.

Each datagram is one TEXT and nothing else. The next is sent when one answer to
the last has come back, or none within --timeout; with --interval at its time,
whatever came back. All members of a group may answer, and each one is listed
with its figures. Those with --size begin with a number (8 bytes, big-endian),
so that losses, duplicates and changes of order are told exactly. An answer that
comes after --timeout is late, and no loss.

exit status:
  0    every message came back as it was sent
  1    something failed, was lost, or came back changed; standard error has one
       line that says what, and one more for each reason why a certificate is
       refused
  2    the command line is wrong
  130  ended by Ctrl-C

examples:
  twsock echo tcp:127.0.0.1:1337 "Hello, World!"
  twsock echo tcp:127.0.0.1:1337 --count 1000 --quiet ping > /dev/null
  twsock echo unix:/run/echo.sock --framing line < messages.txt
  twsock echo tcp:localhost:1337 "Hello, World!" --upgrade --ca authority.pem
  twsock echo udp:127.0.0.1:1337 --size 1200 --count 1000 --interval 0.001
  twsock echo multicast:224.3.0.5:22113 Hello
"""

_DESCRIPTION: Final = """\
Talk to the services of twsock.

commands:
  echo          send messages to an echo server, and check that they come back
  certificates  make certificates to try TLS out with
"""

_EPILOG: Final = """\
"twsock COMMAND --help" describes a command.

The servers are run by twistd: "twistd --pidfile= -n twsock" starts them all,
and "twistd --help" lists them one by one.
"""

_CERTIFICATES_DESCRIPTION: Final = """\
Make certificates.

commands:
  init        make an authority, a server's and a client's certificate
"""

_CERTIFICATES_EPILOG: Final = """\
"twsock certificates COMMAND --help" describes a command.
"""

_INIT_DESCRIPTION: Final = """\
Make an authority, a server's and a client's certificate to try TLS out with.

arguments:
  DIR                 where they go: a folder that is empty, or not there yet
"""

_INIT_EPILOG: Final = """\
They are valid for a year. The keys can be read by you only; that of the
authority is not kept, so nobody can issue more certificates with it.

exit status:
  0    DIR has authority.pem, server.pem and client.pem
  1    something failed; standard error has one line that says what
  2    the command line is wrong
"""


@dataclass(frozen=True, slots=True)
class EchoArguments:
    """
    What ``twsock echo`` was asked to do.

    :ivar texts: the messages, as UTF-8; none where standard input has them.
    :ivar framing: ``uint32`` or ``line``.
    :ivar count: how many times each message is sent, 1 or more.
    :ivar interval: seconds from one send to the next, 0 or more.
    :ivar timeout: seconds for the connection, and for each answer; above 0.
    :ivar quiet: whether to write nothing but the responses.
    :ivar max_frame: largest message, in bytes.
    :ivar size: bytes of each message, where they are to be made up; None for texts.
    :ivar security: how the connection becomes secure; None for plaintext.
    :ivar shows_certificate: whether to show the server's certificate.
    """

    endpoint: str
    texts: tuple[bytes, ...] = ()
    framing: str = "uint32"
    count: int = 1
    interval: float = 0.0
    timeout: float = 10.0
    quiet: bool = False
    max_frame: int = DEFAULT_MAX_PAYLOAD
    security: SecurityArguments | None = None
    shows_certificate: bool = False
    size: int | None = None

    @property
    def has_datagrams(self) -> bool:
        """Whether messages are datagrams, and not parts of a stream."""
        return is_datagram_endpoint(self.endpoint)

    @property
    def repeats(self) -> int:
        """How many times each message is sent; of those that are made up, there are enough."""
        return self.count if self.size is None else 1


@dataclass(frozen=True, slots=True)
class InitArguments:
    """
    What ``twsock certificates init`` was asked to do.

    :ivar names: whom the server's certificate is for, one or more.
    :ivar key: the kind of all keys.
    """

    directory: str
    names: tuple[str, ...] = LOOPBACK_NAMES
    key: KeyKind = KeyKind.ECDSA


def parse_arguments(words: Sequence[str]) -> EchoArguments | InitArguments:
    """
    Read a command line.

    :param words: what follows the name of the program.
    :raises UsageError: naming what is wrong with it.
    :raises SystemExit: with 0, when it asked for help or the version, which are printed by then.
    """
    if words[:1] == ["echo"]:
        return _parse_echo(list(words[1:]))
    if words[:1] == ["certificates"]:
        return _parse_certificates(list(words[1:]))
    parser = CommandParser(
        prog="twsock",
        usage="twsock [--help] [--version] COMMAND ...",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"twsock {_find_version()}")
    return parser.miss_command(words)


def _parse_echo(words: list[str]) -> EchoArguments:
    parser = _make_echo_parser()
    options, arguments = parser.split(_complete_upgrade(parser, words), "TEXT")
    if not arguments:
        parser.error("ENDPOINT is missing")
    endpoint, *texts = arguments
    kind = endpoint.partition(":")[0].lower()
    has_datagrams = is_datagram_endpoint(endpoint)
    if has_datagrams:
        _check_datagram_options(parser, options, kind)
    if texts and options.size is not None:
        parser.error("--size makes up what is sent, so there is no TEXT with it")
    framing = options.framing or "uint32"
    limit = _find_limit(options, framing, has_datagrams=has_datagrams)
    # Of those made up, each fits, by IPv4 as by IPv6.
    most = MAX_IPV4_DATAGRAM if has_datagrams else limit.size
    if options.size is not None and options.size > most:
        parser.error(f"--size is {options.size} bytes, {limit.name} {most}")
    return EchoArguments(
        endpoint=endpoint,
        texts=tuple(_check_text(text, framing, limit) for text in texts),
        framing=framing,
        count=options.count,
        interval=options.interval,
        timeout=options.timeout or _TIMEOUTS.get(kind, _STREAM_TIMEOUT),
        quiet=options.quiet,
        max_frame=limit.size,
        security=_read_security(parser, options),
        shows_certificate=options.show_certificate,
        size=options.size,
    )


@dataclass(frozen=True, slots=True)
class _Limit:
    """The largest message, in bytes, and what makes it so."""

    size: int
    name: str


def _find_limit(options: argparse.Namespace, framing: str, *, has_datagrams: bool) -> _Limit:
    if has_datagrams:
        return _Limit(MAX_IPV6_DATAGRAM, "a datagram has at most")
    size = _MAX_FRAMES[framing] if options.max_frame is None else options.max_frame
    return _Limit(size, "--max-frame is")


def _check_datagram_options(parser: CommandParser, options: argparse.Namespace, kind: str) -> None:
    for name in _ONLY_STREAMS:
        if getattr(options, name.replace("-", "_")) not in (None, False):
            parser.error(f"--{name} is for connections, which {kind}: does not have")


def _complete_upgrade(parser: CommandParser, words: list[str]) -> list[str]:
    """Give ``--upgrade`` its default: argparse would take the TEXT behind it for its value."""
    end = words.index("--") if "--" in words else len(words)
    for word, following in itertools.pairwise(words[:end]):
        if word == "--upgrade" and following in _STYLES:
            parser.error(f"--upgrade {following} is --upgrade={following} (or a TEXT, after --)")
    whole = f"--upgrade={UpgradeStyle.DIRECT.value}"
    return [whole if word == "--upgrade" else word for word in words[:end]] + words[end:]


def _read_security(parser: CommandParser, options: argparse.Namespace) -> SecurityArguments | None:
    if options.tls and options.upgrade is not None:
        parser.error("--tls is TLS from the first byte, so there is no --upgrade with it")
    if not options.tls and options.upgrade is None:
        for name in _ONLY_SECURE:
            if getattr(options, name.replace("-", "_")) not in (None, False):
                parser.error(f"--{name} is of use only with --tls or --upgrade")
        return None
    return SecurityArguments(
        style=UpgradeStyle.DIRECT if options.tls else UpgradeStyle(options.upgrade),
        authorities=options.ca,
        name=options.name,
        certificate=options.client_certificate,
        level=SocketProtectionLevel.SSL if options.level is None else _LEVELS[options.level],
    )


def _make_echo_parser() -> CommandParser:
    parser = CommandParser(
        prog="twsock echo",
        usage="twsock echo [OPTION ...] ENDPOINT [TEXT ...]",
        description=_ECHO_DESCRIPTION,
        epilog=_ECHO_EPILOG,
    )
    add = parser.add_argument
    add(
        "--framing",
        choices=list(_MAX_FRAMES),
        help="4-byte big-endian length, then bytes; or text ended by CRLF (default: uint32)",
    )
    add(
        "--count",
        metavar="N",
        type=whole_number(1),
        default=1,
        help="send each TEXT N times, and tell the round trips at the end (default: 1)",
    )
    add(
        "--size",
        metavar="BYTES",
        type=whole_number(0, MAX_UINT32),
        help="make up a message of that size, instead of a TEXT; datagrams are numbered",
    )
    add(
        "--interval",
        metavar="SECONDS",
        type=seconds,
        default=0.0,
        help="from one send to the next; an answer that takes longer is awaited, unless datagrams "
        "are sent (default: 0, which awaits each answer)",
    )
    add(
        "--timeout",
        metavar="SECONDS",
        type=seconds_above_zero,
        help="for the connection, and for each answer (default: 10, with udp: 2, with "
        "multicast: 1, for which all answers are awaited)",
    )
    add(
        "--max-frame",
        metavar="BYTES",
        type=whole_number(0, MAX_UINT32),
        help=f"largest message (default: {DEFAULT_MAX_PAYLOAD}, with line {DEFAULT_MAX_LINE})",
    )
    add("--quiet", action="store_true", help="write only the responses, one per line")
    _add_security(parser.add_argument_group("TLS"))
    return parser


def _add_security(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--tls", action="store_true", help="TLS from the first byte")
    # Its value is never apart from it, see `_complete_upgrade`.
    add(
        "--upgrade",
        metavar="",
        choices=_STYLES,
        help="TLS in mid-connection: --upgrade or --upgrade=direct begins the handshake at once, "
        "--upgrade=command sends STARTTLS and waits for OK before",
    )
    add(
        "--ca",
        metavar="FILE",
        help="trust the authorities in FILE (PEM), and no others (default: those of this machine)",
    )
    add(
        "--name",
        metavar="HOST",
        type=host,
        help="whom the server's certificate has to be for (default: HOST in tcp:HOST:PORT)",
    )
    add(
        "--client-certificate",
        metavar="FILE",
        help="identify this end, if the server asks for that (PEM or PKCS#12, with the key)",
    )
    add(
        "--level",
        choices=list(_LEVELS),
        help="highest version offered; TLS 1.2 is the lowest (default: the highest there is)",
    )
    add(
        "--show-certificate",
        action="store_true",
        help="show the server's certificate on standard error, also if it is refused",
    )


def _parse_certificates(words: list[str]) -> InitArguments:
    if words[:1] == ["init"]:
        return _parse_init(words[1:])
    parser = CommandParser(
        prog="twsock certificates",
        usage="twsock certificates [--help] COMMAND ...",
        description=_CERTIFICATES_DESCRIPTION,
        epilog=_CERTIFICATES_EPILOG,
    )
    return parser.miss_command(words)


def _parse_init(words: list[str]) -> InitArguments:
    parser = CommandParser(
        prog="twsock certificates init",
        usage="twsock certificates init [OPTION ...] DIR",
        description=_INIT_DESCRIPTION,
        epilog=_INIT_EPILOG,
    )
    parser.add_argument(
        "--name",
        metavar="HOST",
        type=host,
        action="append",
        help="host or address that the server's certificate is for; "
        f"may be given several times (default: {', '.join(LOOPBACK_NAMES)})",
    )
    parser.add_argument(
        "--key",
        choices=[kind.value for kind in KeyKind],
        default=KeyKind.ECDSA.value,
        help="kind of the keys: ecdsa, or rsa for peers that know nothing else, "
        "such as old .NET (default: ecdsa)",
    )
    options, arguments = parser.split(words, "DIR")
    if not arguments or not arguments[0]:
        parser.error("DIR is missing")
    if len(arguments) > 1:
        parser.error(f"there is one DIR, and no place for {arguments[1]!r}")
    names = tuple(options.name or LOOPBACK_NAMES)
    return InitArguments(arguments[0], names, KeyKind(options.key))


def _check_text(text: str, framing: str, limit: _Limit) -> bytes:
    """Encode a text, provided that it can be sent as one message and come back."""
    encoded = _encode(text)
    if framing == "line" and b"\n" in encoded:
        raise UsageError(f"TEXT {text!r} is more than one line: --framing line cannot send it")
    if len(encoded) > limit.size:
        raise UsageError(f"a TEXT has {len(encoded)} bytes, {limit.name} {limit.size}")
    return encoded


def _encode(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        # Python keeps the bytes that its locale cannot decode as lone surrogates: these are they.
        encoded = os.fsencode(text)
    try:
        encoded.decode()
    except UnicodeDecodeError:
        raise UsageError(f"TEXT {text!r} is not UTF-8") from None
    return encoded


def _find_version() -> str:
    try:
        return version("twsock")
    except PackageNotFoundError:
        return "(run from a folder where it is not installed)"
