"""
Source of the messages: **arguments, standard input, or a size** → conversation.

Standard input is read when the next message is wanted, a piece at a time, so neither a large file
nor an endless pipe is ever held: in memory are one piece and one unfinished line within the limit.

A generated message on a stream is filler. A datagram that is generated has a number, so that losses
and duplicates are counted exactly; one that is shorter than the number has its low bytes only::

    offset  size  field
    0       8     number of the message from 0, big-endian
    8       n     filler: "abcdefghijklmnopqrstuvwxyz" over and over
"""

from __future__ import annotations

import os
import sys
import typing
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from twisted.internet.defer import Deferred

from twsock.cli.arguments import EchoArguments
from twsock.cli.output import CommandError, Output, open_bar, open_output, open_stream
from twsock.cli.resolver import in_thread
from twsock.wire import LineDecoder, LineTooLongError

__all__ = [
    "InputLines",
    "ListedTexts",
    "Texts",
    "describe_generated",
    "find_texts",
    "generate_texts",
    "open_echo_output",
    "read_input",
]

#: One read of standard input, in bytes.
_READ_SIZE: Final = 64 * 1024

_COUNTER_SIZE: Final = 8
_ALPHABET: Final = b"abcdefghijklmnopqrstuvwxyz"


class Texts(typing.Protocol):
    """The messages to send, one after the other."""

    @property
    def total(self) -> int | None:
        """How many there are; None if unknown."""

    async def next_text(self) -> bytes | None:
        """Wait for the next one; None after the last."""


class ListedTexts:
    """
    Messages that are known.

    :param total: how many there are.
    """

    def __init__(self, total: int, texts: Iterable[bytes]) -> None:
        self.total = total
        self._texts = iter(texts)

    async def next_text(self) -> bytes | None:
        """Return the next one; None after the last."""
        return next(self._texts, None)


def generate_texts(size: int, total: int, *, is_numbered: bool) -> Iterator[bytes]:
    """
    Make messages of one size.

    :param size: in bytes, 0 or more.
    :param is_numbered: whether each begins with its number.
    """
    filler = (_ALPHABET * (size // len(_ALPHABET) + 1))[:size]
    for number in range(total):
        counter = number.to_bytes(_COUNTER_SIZE, "big")
        if not is_numbered:
            yield filler
        elif size > _COUNTER_SIZE:
            yield (counter + filler)[:size]
        else:
            yield counter[_COUNTER_SIZE - size :]


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
                data = await self._read()
                decoder.feed(data)
                self._has_ended = not data
        except LineTooLongError as error:
            raise CommandError(
                f"line {number} of standard input is longer than {self._limit}, {error.limit} bytes"
            ) from error
        if line is not None:
            _check_utf8(line, number)
        return line


def find_texts(reactor: Any, arguments: EchoArguments) -> Texts:
    """
    Return the messages that a command line asks for.

    :raises CommandError: when they are on standard input, which is closed.
    """
    if arguments.size is not None:
        total, is_numbered = arguments.count, arguments.has_datagrams
        texts = generate_texts(arguments.size, total, is_numbered=is_numbered)
        return ListedTexts(total, texts)
    if arguments.texts:
        return ListedTexts(len(arguments.texts), arguments.texts)
    limit = "a datagram" if arguments.has_datagrams else "--max-frame"
    return InputLines(read_input(reactor), arguments.max_frame, limit)


def read_input(reactor: Any) -> Callable[[], Deferred[bytes]]:
    """
    Return what reads the next piece of standard input, ``b""`` at its end.

    A read that fails, fails with `CommandError`.

    :raises CommandError: when standard input is closed.
    """
    # Not `sys.stdin.read`: a thread waiting in there holds a lock that Python wants at its end.
    source = open_stream(sys.stdin, "input").fileno()

    def read() -> bytes:
        try:
            return os.read(source, _READ_SIZE)
        except OSError as error:
            raise CommandError(f"cannot read standard input: {error.strerror}") from error

    return lambda: in_thread(reactor, read)


def open_echo_output(arguments: EchoArguments, texts: Texts) -> Output:
    """Make the output for messages; it does not show the bytes of generated ones."""
    describe = None if arguments.size is None else describe_generated(arguments.has_datagrams)
    total = None if texts.total is None else texts.total * arguments.repeats
    return open_output(quiet=arguments.quiet, describe=describe, bar=open_bar(total))


def describe_generated(is_numbered: bool) -> Callable[[bytes], str]:
    """Return a function that describes a generated message; the first one is number 1."""

    def describe(message: bytes) -> str:
        size = f"{len(message)} bytes"
        if not is_numbered or len(message) < _COUNTER_SIZE:
            return size
        return f"number {int.from_bytes(message[:_COUNTER_SIZE], 'big') + 1}, {size}"

    return describe


def _check_utf8(line: bytes, number: int) -> None:
    try:
        line.decode()
    except UnicodeDecodeError as error:
        raise CommandError(
            f"line {number} of standard input is not UTF-8: "
            f"{error.reason} at byte {error.start + 1}"
        ) from error
