r"""
Output of the commands: messages → **lines on standard output**; notes and a bar on standard error.

Standard output has the conversation and nothing else; with ``--quiet`` it has the responses only.
`rich` draws the bar and the tables, on a terminal and where it is installed. Otherwise there is no
bar, and a table is plain lines.

A server may send anything, and a terminal obeys what it is sent: it can be made to rename its
window, to type, or to hide earlier lines. So characters that a terminal would act on are written as
escapes such as ``\x1b``, and so are bytes that are not UTF-8.
"""

from __future__ import annotations

import codecs
import errno
import math
import os
import sys
import time
import unicodedata
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, BinaryIO, Final, TextIO

from twsock.errors import SocketError, SocketErrorStatus

__all__ = [
    "EXIT_BROKEN_PIPE",
    "EXIT_FAILED",
    "EXIT_SIGNAL",
    "EXIT_USAGE",
    "LONG_RUN",
    "MAX_SAMPLES",
    "CommandError",
    "Output",
    "ProgressBar",
    "Responder",
    "RoundTrips",
    "UsageError",
    "describe_lost",
    "escape",
    "no_answer",
    "open_bar",
    "open_output",
    "open_stream",
]

#: The exit status when something went wrong.
EXIT_FAILED: Final = 1
#: The exit status for a wrong command line, as in argparse.
EXIT_USAGE: Final = 2
#: A shell adds this to the number of the signal that ended a program.
EXIT_SIGNAL: Final = 128
#: 128 + SIGPIPE: the status of a program whose output nobody reads any more.
EXIT_BROKEN_PIPE: Final = 141

#: Number of messages from which on a run has a bar: fewer are done before anybody has looked.
LONG_RUN: Final = 100

#: Seconds between two updates of the bar.
_REDRAW_INTERVAL: Final = 0.1

#: How many round trip times are kept for the median, 512 KiB. When there are more, every second one
#: is dropped, and from then on half as many are kept: those kept are spread over the whole run.
MAX_SAMPLES: Final = 65_536

#: Categories of Unicode that are never shown as they are: controls, invisible formatting (which can
#: reverse the order of the text around it), lone surrogates, separators of lines and paragraphs.
_HIDDEN: Final = {"Cc", "Cf", "Cs", "Zl", "Zp"}

#: Zero-width joiners are formatting too, but scripts and emoji are spelled with them.
_JOINERS: Final = "\u200c\u200d"


class CommandError(Exception):
    """
    The command ends here.

    :param line: what is printed after the name of the program; empty to print nothing.
    :param details: lines below it, for reasons that do not fit one line.
    """

    def __init__(
        self, line: str, exit_code: int = EXIT_FAILED, *, details: Sequence[str] = ()
    ) -> None:
        super().__init__(line)
        self.line = line
        self.details = tuple(details)
        self.exit_code = exit_code


class UsageError(CommandError):
    """The command line asks for something that is impossible, whatever the server does."""

    def __init__(self, line: str) -> None:
        super().__init__(line, EXIT_USAGE)


def no_answer(line: str) -> str:
    """Return what an error line says about a wait that took too long."""
    return SocketError(line, status=SocketErrorStatus.CONNECTION_TIMED_OUT).summary


def escape(message: bytes | str, keep: str = "") -> str:
    """
    Make a message fit for a terminal: one line, without a character that a terminal acts on.

    :param keep: characters that stay as they are, such as line ends.
    """
    text = message if isinstance(message, str) else message.decode(errors="backslashreplace")
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in _HIDDEN and character not in _JOINERS + keep
        else character
        for character in text
    )


@dataclass
class RoundTrips:
    """
    Round trip times, in seconds.

    :ivar count: how many were added.
    """

    max_samples: int = MAX_SAMPLES
    count: int = 0
    shortest: float = math.inf
    longest: float = 0.0
    _samples: array[float] = field(default_factory=lambda: array("d"))
    _stride: int = 1

    def add(self, seconds: float) -> None:
        """Count one message that came back."""
        if self.count % self._stride == 0:
            self._samples.append(seconds)
            if len(self._samples) >= self.max_samples:
                self._samples = self._samples[::2]
                self._stride *= 2
        self.count += 1
        self.shortest = min(self.shortest, seconds)
        self.longest = max(self.longest, seconds)

    @property
    def milliseconds(self) -> tuple[str, ...]:
        """Shortest, median and longest time in milliseconds; empty if none was added."""
        if not self.count:
            return ()
        ordered, middle = sorted(self._samples), len(self._samples) // 2
        median = (ordered[middle] + ordered[~middle]) / 2
        return tuple(f"{time * 1000:.2f}" for time in (self.shortest, median, self.longest))

    @property
    def summary(self) -> str:
        """All three in one phrase; empty if none was added."""
        times = "/".join(self.milliseconds)
        return f"round trip min/median/max {times} ms" if times else ""


@dataclass
class Responder:
    """How many requests one responder has answered, and how many of them again."""

    received: int = 0
    duplicates: int = 0
    round_trips: RoundTrips = field(default_factory=RoundTrips)

    def describe(self, sent: int, awaited: int) -> str:
        """
        Return all that in one phrase.

        :param sent: requests so far, among them those that are still awaited.
        """
        counts = [f"{self.received} received", f"{awaited} awaited" if awaited else ""]
        counts.append(describe_lost(sent - awaited - self.received, sent))
        if self.duplicates:
            counts.append(f"{self.duplicates} duplicate{'s' if self.duplicates > 1 else ''}")
        counted = ", ".join(filter(None, counts))
        return "; ".join(filter(None, (counted, self.round_trips.summary)))


def describe_lost(lost: int, sent: int) -> str:
    """Return how many requests have no answer, and the share of them."""
    # Three digits, so that one in a million is not rounded to none.
    return f"{lost} lost ({100 * lost / sent:.3g} %)" if lost > 0 else "0 lost"


@dataclass
class ProgressBar:
    """
    One bar in the last line of a terminal, for long runs.

    :ivar terminal: where it is drawn.
    :ivar total: how many messages there will be; None if unknown.
    :ivar now: returns the time in seconds.
    """

    terminal: TextIO
    total: int | None
    now: Callable[[], float] = time.monotonic
    _done: int = 0
    _next_drawing: float = 0.0
    _drawn: Any = None
    _is_visible: bool = False

    def advance(self) -> None:
        """Count a message, and draw the bar if it is time to."""
        self._done += 1
        now = self.now()
        if (self.total or self._done) < LONG_RUN or now < self._next_drawing:
            return
        self._next_drawing = now + _REDRAW_INTERVAL
        if self._drawn is None:
            self._drawn = self._make()
        if not self._is_visible:
            self._is_visible = True
            self._drawn.start()
        self._drawn.update(self._drawn.task_ids[0], completed=self._done, refresh=True)

    def erase(self) -> None:
        """Remove the bar; it comes back with a later message."""
        if self._is_visible:
            self._is_visible = False
            self._drawn.stop()

    def _make(self) -> Any:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

        progress = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(file=self.terminal),
            # The reactor has the only thread; lines of ours stay out of the way by `erase`.
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        progress.add_task("", total=self.total)
        return progress


@dataclass
class Output:
    """
    Standard output.

    :ivar stream: where lines go, unbuffered or not: each line is flushed. A write may be partial.
    :ivar encoding: of the text written; characters outside it are escaped.
    :ivar is_terminal: whether a person looks at it.
    :ivar quiet: whether to write nothing but responses.
    :ivar bar: the progress bar, if there is one.
    :ivar notes: standard error; None if it is closed.
    :ivar describe: says something about a message in its place, for messages that nobody typed.
    """

    stream: BinaryIO
    encoding: str = "utf-8"
    is_terminal: bool = False
    quiet: bool = False
    bar: ProgressBar | None = None
    notes: TextIO | None = None
    describe: Callable[[bytes], str] | None = None

    def __post_init__(self) -> None:
        self._text = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def say(self, line: str) -> None:
        """
        Write a line, unless only responses are wanted.

        :raises CommandError: when standard output takes no more.
        """
        if not self.quiet:
            self._write(self._encode(line) + b"\n")

    def say_table(
        self, headers: Sequence[str], rows: Sequence[Sequence[str]], lines: Sequence[str]
    ) -> None:
        """Write a table on a terminal that has room for it, elsewhere lines that say the same."""
        drawn = _draw_table(headers, rows) if self.is_terminal and not self.quiet else None
        for line in lines if drawn is None else drawn:
            self.say(line)

    def note(self, *lines: str) -> None:
        """Write lines on standard error, quiet or not."""
        if self.notes is not None:
            self.erase_bar()
            # Standard error escapes what its encoding lacks, as Python opens it.
            print(*lines, sep="\n", file=self.notes, flush=True)

    def show_request(self, message: bytes) -> None:
        """Write that a message was sent."""
        self.say(f"client sent the request: {self.quote(message)}")

    def show_response(self, message: bytes, how: str = "client received the response") -> None:
        """
        Write a message that came back: byte for byte with ``--quiet``, except on a terminal.

        :param how: begins the line; it says who sent it.
        """
        if not self.quiet:
            self.say(f"{how}: {self.quote(message)}")
            return
        if self.describe is not None or self.is_terminal:
            shown = escape(message) if self.describe is None else self.describe(message)
            message = self._encode(shown)
        self._write(message + b"\n")

    def write_bytes(self, data: bytes) -> None:
        """
        Write bytes as they are; on a terminal, characters that it acts on are escaped.

        May be called in another thread.
        """
        if self.is_terminal:
            # A line end may be CRLF; alone, a CR would hide what is before it.
            text = self._text.decode(data).replace("\r\n", "\n")
            data = self._encode(escape(text, keep="\n\t"))
        self._write(data)

    def quote(self, message: bytes) -> str:
        """Return what a line says about a message."""
        return f'"{escape(message)}"' if self.describe is None else self.describe(message)

    def advance(self) -> None:
        """Move the bar by one message."""
        if self.bar is not None:
            self.bar.advance()

    def erase_bar(self) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.bar.erase()

    def _encode(self, text: str) -> bytes:
        return text.encode(self.encoding, "backslashreplace")

    def _write(self, data: bytes) -> None:
        if self.is_terminal:
            self.erase_bar()
        left = memoryview(data)
        try:
            while left:
                written = self.stream.write(left)
                if written is None:  # By a stream that somebody has made non-blocking.
                    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
                left = left[written:]
            self.stream.flush()
        except BrokenPipeError as error:
            # The reader has seen enough, as in `| head -1`: no message.
            raise CommandError("", EXIT_BROKEN_PIPE) from error
        except OSError as error:
            raise CommandError(f"cannot write to standard output: {error.strerror}") from error


def open_output(**settings: Any) -> Output:
    """
    Make the output of this process.

    :param settings: fields of `Output`.
    :raises CommandError: when standard output is closed.
    """
    output: Any = open_stream(sys.stdout, "output")
    # Without a buffer: a thread that writes into one has its lock, which the end needs.
    stream = getattr(output.buffer, "raw", output.buffer)
    return Output(stream, output.encoding, output.isatty(), notes=sys.stderr, **settings)


def open_stream(stream: IO[str] | None, name: str) -> IO[str]:
    """
    Return a standard stream.

    :raises CommandError: when it was closed when the process began: Python has None for it then.
    """
    if stream is None:
        raise CommandError(f"standard {name} is closed")
    return stream


def open_bar(total: int | None) -> ProgressBar | None:
    """
    Make a bar where a person can see it, and is not typing into it.

    :param total: how many messages there will be; None if unknown.
    """
    terminal = sys.stderr
    if terminal is None or not terminal.isatty() or os.environ.get("TERM") == "dumb":
        return None
    if (total is None and sys.stdin.isatty()) or not _has_rich():
        return None
    return ProgressBar(terminal, total)


def _has_rich() -> bool:
    try:
        import rich  # noqa: F401
    except ImportError:
        return False
    return True


def _draw_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str] | None:
    if not _has_rich():
        return None
    from rich.console import Console
    from rich.table import Table

    table = Table(*headers, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    # A name such as [fe80::1%lo] is no markup.
    console = Console(file=sys.stdout, markup=False, emoji=False, highlight=False)
    columns = zip(headers, *rows, strict=True)
    # Between two columns are two spaces. A narrower terminal would show a part of each figure.
    if sum(2 + max(map(len, column)) for column in columns) - 2 > console.width:
        return None
    with console.capture() as captured:
        console.print(table)
    return captured.get().splitlines()
