"""
How a command fails: one line for standard error, rarely more, and an exit status.

Raised anywhere below `twsock.cli.command`, which prints them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

__all__ = ["EXIT_BROKEN_PIPE", "EXIT_FAILED", "EXIT_USAGE", "CommandError", "UsageError"]

#: The exit status when something went wrong.
EXIT_FAILED: Final = 1
#: The exit status when the command was typed wrongly, as argparse has it.
EXIT_USAGE: Final = 2
#: 128 + SIGPIPE: what a shell reports for a program that ends for want of a reader.
EXIT_BROKEN_PIPE: Final = 141


class CommandError(Exception):
    """
    The command ends here.

    :param line: what to print, without the name of the program; empty to print nothing.
    :param details: lines below it, where one cannot say it all.
    """

    def __init__(
        self, line: str, exit_code: int = EXIT_FAILED, *, details: Sequence[str] = ()
    ) -> None:
        super().__init__(line)
        self.line = line
        self.details = tuple(details)
        self.exit_code = exit_code


class UsageError(CommandError):
    """The command line asks for something that cannot be done, whatever the server does."""

    def __init__(self, line: str) -> None:
        super().__init__(line, EXIT_USAGE)
