"""
Messages that nobody typed: a size → **bytes, numbered where they may get lost** → `twsock.cli.echo`
or `twsock.cli.datagram_exchange`.

A numbered message is a counter and filler::

    offset  size  field
    0       8     number of the message from 0, big-endian
    8       n     filler: "abcdefghijklmnopqrstuvwxyz" over and over

One that is shorter than the counter has its low bytes only. One on a stream is all filler, since
nothing gets lost there, and a line has to be text.
"""

from __future__ import annotations

from typing import Final

__all__ = ["MadeTexts", "describe_made", "describe_numbered", "make_numbered"]

_COUNTER_SIZE: Final = 8
_ALPHABET: Final = b"abcdefghijklmnopqrstuvwxyz"


class MadeTexts:
    """
    Messages of one size.

    :param size: in bytes, 0 or more.
    :param total: how many.
    :param is_numbered: whether each has a number of its own.
    """

    def __init__(self, size: int, total: int, *, is_numbered: bool) -> None:
        self.total = total
        self._size = size
        self._is_numbered = is_numbered
        self._made = 0
        self._filler = _make_filler(size)

    async def next_text(self) -> bytes | None:
        """Make the next one; None after the last."""
        if self._made >= self.total:
            return None
        number, self._made = self._made, self._made + 1
        return make_numbered(number, self._size) if self._is_numbered else self._filler


def make_numbered(number: int, size: int) -> bytes:
    """
    Make a message with a number.

    :param number: 0 to 2 ** 64 - 1.
    :param size: of the message, in bytes.
    """
    counter = number.to_bytes(_COUNTER_SIZE, "big")
    if size <= _COUNTER_SIZE:
        return counter[_COUNTER_SIZE - size :]
    return counter + _make_filler(size - _COUNTER_SIZE)


def describe_made(message: bytes) -> str:
    """Say what can be said of a message of a stream."""
    return f"{len(message)} bytes"


def describe_numbered(message: bytes) -> str:
    """Say what can be said of a numbered message; the first one is number 1."""
    if len(message) < _COUNTER_SIZE:
        return describe_made(message)
    number = int.from_bytes(message[:_COUNTER_SIZE], "big") + 1
    return f"number {number}, {len(message)} bytes"


def _make_filler(size: int) -> bytes:
    return (_ALPHABET * (size // len(_ALPHABET) + 1))[:size]
