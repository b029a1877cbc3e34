"""
What all benchmarks share: options → **rounds** → `benchmarks.results` → tables and JSON.

A benchmark says which programs it compares, in which cases, and how it measures one of them; the
rest is here. In each round every subject is opened anew, and in each case all of them take turns
in a new random order, so a slow minute of the machine hits all of them and none comes first always.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.certificate import temporary_certificate
from benchmarks.commands import COMMANDS
from benchmarks.kernel import cpu_source, describe_machine, two_cores
from benchmarks.processes import MeasurementError, Program, Subject
from benchmarks.results import Figure, Results
from benchmarks.tls_client import describe_tls

__all__ = ["Benchmark", "Measure", "Setting", "positive", "run", "some_of"]

#: Measures one case, by its key, and returns figures by their names.
Measure = Callable[[str], Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Setting:
    """
    How to measure.

    :ivar server_core: where programs run; None for anywhere.
    :ivar client_core: where clients run; None for anywhere.
    :ivar client_sleeps: whether a client sleeps until something arrives.
    :ivar certificate: what servers show in handshakes; None in plaintext.
    :ivar notes: sentences to print below the tables, each once.
    """

    options: argparse.Namespace
    server_core: int | None
    client_core: int | None
    client_sleeps: bool
    certificate: Path | None = None
    notes: dict[str, None] = field(default_factory=dict)


def _no_options(_parser: argparse.ArgumentParser) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Benchmark:
    """
    One measurement of several programs.

    :ivar cases: by key, what is done, for people.
    :ivar open: prepares a subject for one round.
    :ivar references: keys of the programs that ratios refer to.
    :ivar unasked: keys of programs that run only when ``--servers`` names them.
    :ivar rounds: how many, unless the command line says otherwise.
    :ivar is_secure: whether there is a certificate.
    :ivar add_options: adds options of its own.
    """

    name: str
    programs: Sequence[Program]
    cases: Mapping[str, str]
    figures: Sequence[Figure]
    open: Callable[[Subject, Setting], AbstractContextManager[Measure]]
    references: Sequence[str] = ()
    unasked: Collection[str] = ()
    rounds: int = 3
    is_secure: bool = False
    add_options: Callable[[argparse.ArgumentParser], None] = _no_options


def run(benchmark: Benchmark, argv: Sequence[str] | None = None) -> None:
    """Measure, print, and write the files that the command line asks for."""
    parser = _make_parser(benchmark)
    options = parser.parse_args(argv)
    if sys.platform != "linux":
        parser.exit(1, f"{parser.prog}: epoll, /proc and UDP_SEGMENT are needed, which Linux has\n")
    try:
        subjects, skipped = _choose(benchmark, options)
        with _prepare(benchmark, options) as setting:
            results = _measure(benchmark, subjects, setting)
        notes = [*skipped, *_describe(benchmark, setting)]
        _publish(results, notes, options)
    except (MeasurementError, OSError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")


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


def _checkout(text: str) -> Path:
    path = Path(text).resolve()
    if not path.joinpath("twsock", "__init__.py").exists():
        raise argparse.ArgumentTypeError(f"there is no twsock in {text!r}")
    return path


def _make_parser(benchmark: Benchmark) -> argparse.ArgumentParser:
    keys = [program.key for program in benchmark.programs]
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks {benchmark.name}",
        description=f"Measures {COMMANDS[benchmark.name]}.",
        epilog=f"Servers: {', '.join(keys)}. Cases: {', '.join(benchmark.cases)}.",
    )
    add = parser.add_argument
    rounds = benchmark.rounds
    add("--rounds", type=positive, default=rounds, metavar="N", help=f"default {rounds}")
    add("--servers", type=some_of(keys), metavar="NAME,...", help="what is compared")
    add(
        "--cases", type=some_of(benchmark.cases), default=tuple(benchmark.cases), metavar="NAME,..."
    )
    add(
        "--baseline",
        type=_checkout,
        metavar="PATH",
        help="also run the programs of twsock on the twsock of this other checkout",
    )
    add(
        "--client-sleeps",
        action="store_true",
        help="let the client sleep while it waits, as a real peer does; "
        "by default it asks the kernel again and again",
    )
    add(
        "--references",
        type=some_of(keys),
        default=tuple(benchmark.references),
        metavar="NAME,...",
        help="what ratios refer to",
    )
    add(
        "--spread",
        action="store_true",
        help="print the quartiles of the rounds behind each ratio, from 4 rounds on",
    )
    add("--json", type=Path, metavar="FILE", help="write all figures there")
    add("--markdown", type=Path, metavar="FILE", help="write the tables there")
    benchmark.add_options(parser)
    return parser


def _choose(benchmark: Benchmark, options: argparse.Namespace) -> tuple[list[Subject], list[str]]:
    """Return the subjects that can run here, and a sentence for each program that cannot."""
    programs = {program.key: program for program in benchmark.programs}
    keys = options.servers or [key for key in programs if key not in benchmark.unasked]
    subjects, skipped = [], []
    for program in (programs[key] for key in keys):
        if (reason := program.why_not()) is not None:
            skipped.append(f"Skipped: {program.title}, as {reason}.")
            continue
        subjects.append(Subject(program))
        if options.baseline is not None and program.uses_twsock:
            subjects.append(Subject(program, options.baseline))
    return subjects, skipped


@contextmanager
def _prepare(benchmark: Benchmark, options: argparse.Namespace) -> Iterator[Setting]:
    """Pin this process, which runs the clients, to its core, for as long as the block."""
    cores = two_cores()
    server_core, client_core = cores or (None, None)
    # On a single core a client that never sleeps would starve the server.
    sleeps = options.client_sleeps or cores is None
    before = os.sched_getaffinity(0)
    with ExitStack() as stack:
        certificate = None
        if benchmark.is_secure:
            certificate = stack.enter_context(temporary_certificate())
        if client_core is not None:
            stack.callback(os.sched_setaffinity, 0, before)
            os.sched_setaffinity(0, {client_core})
        yield Setting(options, server_core, client_core, sleeps, certificate)


def _measure(benchmark: Benchmark, subjects: Sequence[Subject], setting: Setting) -> Results:
    options = setting.options
    results = Results(benchmark.figures, options.references, shows_spread=options.spread)
    for number in range(1, options.rounds + 1):
        with ExitStack() as stack:
            measures = {
                subject: stack.enter_context(benchmark.open(subject, setting))
                for subject in subjects
            }
            for case in options.cases:
                _show_progress(f"round {number} of {options.rounds}, case {case}")
                measured = {}
                for subject in random.sample(subjects, len(subjects)):
                    try:
                        measured[subject] = measures[subject](case)
                    except (MeasurementError, OSError) as error:
                        message = f"{subject.title}, case {case}: {error}"
                        raise MeasurementError(message) from error
                # The rows keep the order of the programs.
                for subject in subjects:
                    results.add(subject, case, measured[subject])
    _show_progress("")
    return results


def _describe(benchmark: Benchmark, setting: Setting) -> list[str]:
    """Say what the figures mean, and what they depend on."""
    options = setting.options
    titles = "; ".join(f"{case}: {benchmark.cases[case]}" for case in options.cases)
    pinned = "not pinned, as there is one core"
    if setting.server_core is not None:
        pinned = "program and client on a core each"
    machine = describe_machine() | (describe_tls() if benchmark.is_secure else {})
    sleeps = "sleeps" if setting.client_sleeps else "never sleeps"
    return [
        f"{titles}.",
        *setting.notes,
        f"Method: medians of {options.rounds} rounds; {pinned}; client {sleeps}; {cpu_source()}.",
        "Machine: " + ", ".join(f"{name} {value}" for name, value in machine.items()) + ".",
    ]


def _publish(results: Results, notes: Sequence[str], options: argparse.Namespace) -> None:
    tables = list(results.tables())
    print("\n\n".join([*(table.to_text() for table in tables), "\n".join(notes)]))
    if options.markdown is not None:
        paragraphs = [*(table.to_markdown() for table in tables), *notes]
        options.markdown.write_text("\n\n".join(paragraphs) + "\n", encoding="utf-8")
    if options.json is not None:
        document: dict[str, Any] = {"notes": notes, "servers": results.to_json()}
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _show_progress(text: str) -> None:
    """Replace the last line of a terminal; a file gets nothing."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
