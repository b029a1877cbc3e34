"""
The command line: words → **checked values** → `twsock.cli.echo`.

Options may stand before, between and after the arguments, which argparse does not do below a
command. So the parser here knows options only, and what it leaves over are the arguments.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Final, NoReturn

from typing_extensions import override

from twsock.cli.failure import UsageError
from twsock.wire import DEFAULT_MAX_LINE, DEFAULT_MAX_PAYLOAD
from twsock.wire.frames import MAX_UINT32

__all__ = ["EchoArguments", "parse_arguments"]

#: The formats, and the largest message of each unless told otherwise.
_MAX_FRAMES: Final = {"uint32": DEFAULT_MAX_PAYLOAD, "line": DEFAULT_MAX_LINE}

_ECHO_DESCRIPTION: Final = """\
Send each TEXT to an echo server, and check that it comes back.

arguments:
  ENDPOINT            tcp:HOST:PORT, also tcp:[::1]:PORT, or any client
                      endpoint string of Twisted, such as unix:/run/echo.sock
  TEXT                what to send, one message each; without any, each line
                      of standard input is one message. A TEXT that begins
                      with a dash stands after --
"""

_ECHO_EPILOG: Final = """\
Options may stand before, between and after the arguments.

Messages go one after the other: the next is sent when the last has come back.
Control characters are shown escaped, and so are bytes that are not UTF-8. Only
with --quiet, and when standard output is not a terminal, responses are written
byte for byte.

exit status:
  0    every message came back as it was sent
  1    something failed; standard error has one line that says what
  2    the command line is wrong
  130  ended by Ctrl-C

examples:
  twsock echo tcp:127.0.0.1:1337 "Hello, World!"
  twsock echo tcp:127.0.0.1:1337 --count 1000 --quiet ping > /dev/null
  twsock echo unix:/run/echo.sock --framing line < messages.txt
"""

_DESCRIPTION: Final = """\
Talk to the services of twsock.

commands:
  echo        send messages to an echo server, and check that they come back
"""

_EPILOG: Final = """\
"twsock COMMAND --help" describes a command.

The servers are run by twistd: "twistd --pidfile= -n twsock" starts them all,
and "twistd --help" lists them one by one.
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
    """

    endpoint: str
    texts: tuple[bytes, ...] = ()
    framing: str = "uint32"
    count: int = 1
    interval: float = 0.0
    timeout: float = 10.0
    quiet: bool = False
    max_frame: int = DEFAULT_MAX_PAYLOAD


def parse_arguments(words: Sequence[str]) -> EchoArguments:
    """
    Read a command line.

    :param words: what follows the name of the program.
    :raises UsageError: naming what is wrong with it.
    :raises SystemExit: with 0, when it asked for help or the version, which are printed by then.
    """
    if words[:1] == ["echo"]:
        return _parse_echo(list(words[1:]))
    parser = _Parser(
        prog="twsock",
        usage="twsock [--help] [--version] COMMAND ...",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"twsock {_find_version()}")
    _, rest = parser.parse_known_args(words[:1])
    problem = f"there is no command {rest[0]!r}" if rest else "a command is missing"
    return parser.error(problem)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def __init__(self, **texts: str) -> None:
        super().__init__(
            **texts,  # type: ignore[arg-type]
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    @override
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def _parse_echo(words: list[str]) -> EchoArguments:
    parser = _make_echo_parser()
    end = words.index("--") if "--" in words else len(words)
    options, arguments = parser.parse_known_args(words[:end])
    for word in arguments:
        if word.startswith("-") and word != "-":
            parser.error(
                f"there is no option {word} (a TEXT that begins with a dash stands after --)"
            )
    arguments += words[end + 1 :]
    if not arguments:
        parser.error("ENDPOINT is missing")
    endpoint, *texts = arguments
    max_frame = _MAX_FRAMES[options.framing] if options.max_frame is None else options.max_frame
    return EchoArguments(
        endpoint=endpoint,
        texts=tuple(_check_text(text, options.framing, max_frame) for text in texts),
        framing=options.framing,
        count=options.count,
        interval=options.interval,
        timeout=options.timeout,
        quiet=options.quiet,
        max_frame=max_frame,
    )


def _make_echo_parser() -> _Parser:
    parser = _Parser(
        prog="twsock echo",
        usage="twsock echo [OPTION ...] ENDPOINT [TEXT ...]",
        description=_ECHO_DESCRIPTION,
        epilog=_ECHO_EPILOG,
    )
    add = parser.add_argument
    add(
        "--framing",
        choices=list(_MAX_FRAMES),
        default="uint32",
        help="4-byte big-endian length, then bytes; or text ended by CRLF (default: uint32)",
    )
    add(
        "--count",
        metavar="N",
        type=_whole_number(1),
        default=1,
        help="send each TEXT N times, and tell the round trips at the end (default: 1)",
    )
    add(
        "--interval",
        metavar="SECONDS",
        type=_seconds,
        default=0.0,
        help="from one send to the next; an answer that takes longer is awaited (default: 0)",
    )
    add(
        "--timeout",
        metavar="SECONDS",
        type=_seconds_above_zero,
        default=10.0,
        help="for the connection, and for each answer (default: 10)",
    )
    add(
        "--max-frame",
        metavar="BYTES",
        type=_whole_number(0, MAX_UINT32),
        help=f"largest message (default: {DEFAULT_MAX_PAYLOAD}, with line {DEFAULT_MAX_LINE})",
    )
    add("--quiet", action="store_true", help="write only the responses, one per line")
    return parser


def _check_text(text: str, framing: str, max_frame: int) -> bytes:
    """Encode a text, provided that it can be sent as one message and come back."""
    encoded = _encode(text)
    if framing == "line" and b"\n" in encoded:
        raise UsageError(f"TEXT {text!r} is more than one line: --framing line cannot send it")
    if len(encoded) > max_frame:
        raise UsageError(f"a TEXT has {len(encoded)} bytes, --max-frame is {max_frame}")
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


def _whole_number(minimum: int, maximum: int | None = None) -> Callable[[str], int]:
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


def _seconds(word: str) -> float:
    seconds = _number(word)
    if not (math.isfinite(seconds) and seconds >= 0):
        raise argparse.ArgumentTypeError(f"takes seconds, 0 or more, not {word!r}")
    return seconds


def _seconds_above_zero(word: str) -> float:
    seconds = _number(word)
    if not (math.isfinite(seconds) and seconds > 0):
        raise argparse.ArgumentTypeError(f"takes seconds, above 0, not {word!r}")
    return seconds


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return math.nan


def _find_version() -> str:
    try:
        return version("twsock")
    except PackageNotFoundError:
        return "(run from a folder where it is not installed)"
