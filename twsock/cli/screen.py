r"""
What the user sees: messages → **lines on standard output**, and the bar among them.

What was asked for besides, such as a certificate, goes to standard error, for standard output to
have nothing but the conversation, and with ``--quiet`` the responses.

A server may send anything, and a terminal obeys what it is sent: it can be made to rename its
window, to type, or to hide what came before. So characters that a terminal would act on are written
as escapes such as ``\x1b``, and so are bytes that are not UTF-8.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import BinaryIO, Final, TextIO

from twsock.cli.failure import EXIT_BROKEN_PIPE, CommandError
from twsock.cli.progress import Progress

__all__ = ["Screen", "escape"]

#: Categories of Unicode that are never shown as they are: controls, invisible formatting (which can
#: reverse the order of what stands around it), lone surrogates, separators of lines and paragraphs.
_HIDDEN: Final = {"Cc", "Cf", "Cs", "Zl", "Zp"}

#: Zero-width joiners are formatting too, but scripts and emoji are spelled with them.
_JOINERS: Final = "\u200c\u200d"


def escape(message: bytes) -> str:
    """Make a message fit for a terminal: one line, without a character that acts on it."""
    text = message.decode(errors="backslashreplace")
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in _HIDDEN and character not in _JOINERS
        else character
        for character in text
    )


class Screen:
    """
    Standard output.

    :param output: where lines go, unbuffered or not: each line is flushed.
    :param encoding: of the text written; what it cannot hold is escaped.
    :param is_terminal: whether a person looks at it.
    :param quiet: whether to write nothing but responses.
    :param progress: the bar, if there is one.
    :param notes: standard error; None where it is closed.
    :param describe: what to say of a message instead of showing it, for those that nobody typed.
    """

    def __init__(
        self,
        output: BinaryIO,
        *,
        encoding: str = "utf-8",
        is_terminal: bool = False,
        quiet: bool = False,
        progress: Progress | None = None,
        notes: TextIO | None = None,
        describe: Callable[[bytes], str] | None = None,
    ) -> None:
        self._output = output
        self._encoding = encoding
        self._is_terminal = is_terminal
        self._quiet = quiet
        self._progress = progress
        self._notes = notes
        self._describe = describe

    def say(self, line: str) -> None:
        """
        Write a line, unless all but the responses is unwanted.

        :raises CommandError: when standard output takes no more.
        """
        if not self._quiet:
            self._write(self._encode(line))

    def note(self, *lines: str) -> None:
        """Write lines that were asked for besides the conversation, quiet or not."""
        if self._notes is not None:
            # It has escapes for what its encoding cannot hold, as Python opens it.
            print(*lines, sep="\n", file=self._notes, flush=True)

    def show_request(self, message: bytes) -> None:
        """Tell what was sent."""
        self.say(f"client sent the request: {self.quote(message)}")

    def show_response(self, message: bytes, how: str = "client received the response") -> None:
        """
        Tell what came back: byte for byte where only that is wanted, and not by a terminal.

        :param how: by whom, or when.
        """
        if not self._quiet:
            self.say(f"{how}: {self.quote(message)}")
        elif self._describe is not None:
            self._write(self._encode(self._describe(message)))
        elif self._is_terminal:
            self._write(self._encode(escape(message)))
        else:
            self._write(message)

    def quote(self, message: bytes) -> str:
        """Make what a line says of a message."""
        return f'"{escape(message)}"' if self._describe is None else self._describe(message)

    def advance(self) -> None:
        """Move the bar by one message."""
        if self._progress is not None:
            self._progress.advance()

    def end_progress(self) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.erase()

    def _encode(self, line: str) -> bytes:
        return line.encode(self._encoding, "backslashreplace")

    def _write(self, line: bytes) -> None:
        if self._is_terminal:
            self.end_progress()
        try:
            self._output.write(line + b"\n")
            self._output.flush()
        except BrokenPipeError as error:
            # Whoever read has seen enough, as in `| head -1`: nothing to tell.
            raise CommandError("", EXIT_BROKEN_PIPE) from error
        except OSError as error:
            raise CommandError(f"cannot write to standard output: {error.strerror}") from error
