"""
What the commands share: numbers and names in their options, a line of progress, what they print.

Used by `benchmarks.stream`, `benchmarks.handshakes`, `benchmarks.datagram` and
`benchmarks.batched_datagrams`.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.servers import SERVERS, Server
from benchmarks.tables import Table

__all__ = [
    "Report",
    "add_outputs",
    "choose",
    "end_in_order",
    "positive",
    "publish",
    "show_progress",
    "some_of",
]


class Report(typing.Protocol):
    """Figures that were measured."""

    def tables(self) -> Sequence[Table]:
        """For people."""

    def legend(self) -> str:
        """What the tables mean."""

    def to_json(self) -> dict[str, Any]:
        """For programs."""


def positive(text: str) -> int:
    """Read an option that is a count."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def some_of(known: Collection[str]) -> Callable[[str], tuple[str, ...]]:
    """Read an option that is a list of names, each given once."""

    def parse(text: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return names

    return parse


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """Let the command line name the files that `publish` writes."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there")


def choose(
    keys: Sequence[str], servers: Mapping[str, Server] = SERVERS
) -> tuple[list[Server], dict[str, str]]:
    """Give those servers that can run here, and say of the others why not."""
    skipped = {key: why for key in keys if (why := servers[key].why_not()) is not None}
    return [servers[key] for key in keys if key not in skipped], skipped


def show_progress(text: str) -> None:
    """Replace the last line of a terminal; a file gets nothing."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def end_in_order() -> None:
    """Let being told to end take the same way out as Ctrl-C: through every ``finally``."""
    signal.signal(signal.SIGTERM, _leave)


def publish(
    report: Report,
    method: str,
    *,
    machine: Mapping[str, str],
    skipped: Mapping[str, str],
    options: argparse.Namespace,
    servers: Mapping[str, Server] = SERVERS,
) -> None:
    """
    Print the tables, and write them where the command line says.

    :param method: how it was measured, in one sentence.
    :param skipped: by server, why it was not.
    :param servers: where those are found.
    """
    notes = [
        *(f"Skipped: {servers[key].title}, as {why}." for key, why in skipped.items()),
        report.legend(),
        f"Method: {method}.",
        "Machine: " + ", ".join(f"{name} {value}" for name, value in machine.items()) + ".",
    ]
    tables = report.tables()
    print("\n\n".join([*(table.to_text() for table in tables), "\n".join(notes)]))
    if options.markdown is not None:
        paragraphs = [*(table.to_markdown() for table in tables), *notes]
        options.markdown.write_text("\n\n".join(paragraphs) + "\n", encoding="utf-8")
    if options.json is not None:
        document = {"machine": machine, "method": method, "skipped": skipped, **report.to_json()}
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _leave(number: int, _frame: object) -> NoReturn:
    sys.exit(128 + number)
