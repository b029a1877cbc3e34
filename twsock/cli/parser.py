"""
What argparse does not do: words → **options, arguments, checked values** → `twsock.cli.arguments`.

Options may stand before, between and after the arguments, which argparse does not do below a
command. So its parser knows options only here, and what it leaves over are the arguments.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from typing import NoReturn

from typing_extensions import override

from twsock.cli.failure import UsageError
from twsock.names import HostName, HostNameType

__all__ = ["CommandParser", "host", "seconds", "seconds_above_zero", "whole_number"]


class CommandParser(argparse.ArgumentParser):
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

    def miss_command(self, words: Sequence[str]) -> NoReturn:
        """Give the help if that is asked for, otherwise say that there is no such command."""
        _, rest = self.parse_known_args(words[:1])
        self.error(f"there is no command {rest[0]!r}" if rest else "a command is missing")

    def split(self, words: list[str], text: str) -> tuple[argparse.Namespace, list[str]]:
        """
        Tell options from arguments, which may stand in any order.

        :param text: what may begin with a dash if it stands after ``--``.
        """
        end = words.index("--") if "--" in words else len(words)
        options, arguments = self.parse_known_args(words[:end])
        for word in arguments:
            if word.startswith("-") and word != "-":
                self.error(
                    f"there is no option {word} (a {text} that begins with a dash stands after --)"
                )
        return options, arguments + words[end + 1 :]


def whole_number(minimum: int, maximum: int | None = None) -> Callable[[str], int]:
    """Give a reader of whole numbers, both bounds included."""
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


def seconds(word: str) -> float:
    """Read seconds, 0 or more."""
    number = _number(word)
    if not (math.isfinite(number) and number >= 0):
        raise argparse.ArgumentTypeError(f"takes seconds, 0 or more, not {word!r}")
    return number


def seconds_above_zero(word: str) -> float:
    """Read seconds, above 0."""
    number = _number(word)
    if not (math.isfinite(number) and number > 0):
        raise argparse.ArgumentTypeError(f"takes seconds, above 0, not {word!r}")
    return number


def host(word: str) -> str:
    """Read a host name or an IP address; give its canonical form."""
    try:
        name = HostName(word)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if name.type is HostNameType.BLUETOOTH:
        raise argparse.ArgumentTypeError(f"takes a host or an IP address, not {word!r}")
    return name.canonical_name


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return math.nan
