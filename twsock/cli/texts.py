"""
Where the messages come from: **arguments or standard input** → `twsock.cli.echo` or
`twsock.cli.datagram_exchange`. Those that nobody typed are in `twsock.cli.made_texts`.

Standard input is read when the next message is wanted, a piece at a time, so neither a large file
nor an endless pipe is ever held: in memory are one piece and one unfinished line within the limit.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred

from twsock.cli.failure import CommandError
from twsock.wire import LineDecoder, LineTooLongError

__all__ = ["GivenTexts", "InputLines", "Texts"]


class Texts(typing.Protocol):
    """The messages to send, one after the other."""

    @property
    def total(self) -> int | None:
        """How many there are; None where nobody can know."""

    async def next_text(self) -> bytes | None:
        """Wait for the next one; None after the last."""


class GivenTexts:
    """The messages from the command line."""

    def __init__(self, texts: Sequence[bytes]) -> None:
        self.total = len(texts)
        self._texts = iter(texts)

    async def next_text(self) -> bytes | None:
        """Give the next one; None after the last."""
        return next(self._texts, None)


class InputLines:
    """
    The lines of standard input, without their endings, CRLF or LF.

    :param read: reads the next bytes, ``b""`` at the end.
    :param max_line: longest line, in bytes, without its ending.
    :param limit: whose limit that is.
    """

    total = None

    def __init__(
        self, read: Callable[[], Deferred[bytes]], max_line: int, limit: str = "--max-frame"
    ) -> None:
        self._read = read
        self._limit = limit
        self._decoder = LineDecoder(max_line)
        self._has_ended = False

    async def next_text(self) -> bytes | None:
        """
        Wait for the next line. The last one counts without an ending too.

        :returns: valid UTF-8; None after the last line.
        :raises CommandError: when the line is not UTF-8 or too long, or the input cannot be read.
        """
        decoder = self._decoder
        number = decoder.delivered + 1
        try:
            while (line := decoder.next_line()) is None:
                if self._has_ended:
                    line = decoder.take_buffered() or None
                    break
                self._take(await self._read())
        except LineTooLongError as error:
            raise CommandError(
                f"line {number} of standard input is longer than {self._limit}, {error.limit} bytes"
            ) from error
        except OSError as error:
            raise CommandError(f"cannot read standard input: {error.strerror}") from error
        if line is not None:
            _check_utf8(line, number)
        return line

    def _take(self, data: bytes) -> None:
        if data:
            self._decoder.feed(data)
        else:
            self._has_ended = True


def _check_utf8(line: bytes, number: int) -> None:
    try:
        line.decode()
    except UnicodeDecodeError as error:
        raise CommandError(
            f"line {number} of standard input is not UTF-8: "
            f"{error.reason} at byte {error.start + 1}"
        ) from error
