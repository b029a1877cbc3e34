"""
The command: ``python -m benchmarks.stream``; options → **rounds** → tables and JSON.

Goes through rounds, cases and servers, so that all servers take turns; `benchmarks.processes`
starts and measures, `benchmarks.report` adds up. The method is in the docstring of `benchmarks`.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.cases import CASES
from benchmarks.idle import SPARE_DESCRIPTORS, measure_idle
from benchmarks.kernel import cpu_source, describe_machine, raise_descriptor_limit, two_cores
from benchmarks.processes import ServerError, measure, start
from benchmarks.report import IdleReport, LoadReport
from benchmarks.servers import IDLE_SERVERS, SERVERS, Server
from benchmarks.tables import Table

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write what the command line asks for."""
    parser = _make_parser()
    options = parser.parse_args(argv)
    if sys.platform != "linux":
        parser.exit(1, "benchmarks.stream: epoll and /proc are needed, which are Linux's\n")
    # So that being told to end takes the same way out as Ctrl-C: through every `finally`.
    signal.signal(signal.SIGTERM, _leave)
    try:
        _run(options)
    except (ServerError, OSError) as error:
        parser.exit(1, f"benchmarks.stream: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "benchmarks.stream: stopped\n")


def _run(options: argparse.Namespace) -> None:
    keys = options.servers or (IDLE_SERVERS if options.idle else tuple(SERVERS))
    skipped = {key: why for key in keys if (why := SERVERS[key].why_not()) is not None}
    servers = [SERVERS[key] for key in keys if key not in skipped]
    report: IdleReport | LoadReport
    if options.idle:
        report, method = _measure_idle(servers, options.idle)
    else:
        report, method = _measure_load(servers, options)
    machine = describe_machine()
    notes = [
        *(f"Skipped: {SERVERS[key].title}, as {why}." for key, why in skipped.items()),
        report.legend(),
        f"Method: {method}.",
        "Machine: " + ", ".join(f"{name} {value}" for name, value in machine.items()) + ".",
    ]
    tables = report.tables()
    print("\n\n".join([*(table.to_text() for table in tables), "\n".join(notes)]))
    if options.markdown is not None:
        options.markdown.write_text(_to_markdown(tables, notes), encoding="utf-8")
    if options.json is not None:
        document: dict[str, Any] = {
            "machine": machine,
            "method": method,
            "skipped": skipped,
            **report.to_json(),
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _measure_load(servers: Sequence[Server], options: argparse.Namespace) -> tuple[LoadReport, str]:
    cores = two_cores()
    server_core, client_core = cores or (None, None)
    # A client that never sleeps would starve a server on the same core.
    sleeps = options.client_sleeps or cores is None
    report = LoadReport()
    for number in range(1, options.rounds + 1):
        with ExitStack() as stack:
            running = [stack.enter_context(start(server, server_core)) for server in servers]
            for case in options.cases:
                _progress(f"round {number} of {options.rounds}, case {case}")
                for each in running:
                    measurement = measure(
                        each, CASES[case], options.seconds, core=client_core, sleeps=sleeps
                    )
                    report.add(each.server.key, case, measurement)
    _progress("")
    method = (
        f"medians of {options.rounds} rounds, in each {options.seconds:g} s for a server and case"
        f"; {'not pinned, as there is one core' if cores is None else 'pinned to a core each'}"
        f"; client {'sleeps' if sleeps else 'never sleeps'}; CPU time from {cpu_source()}"
    )
    return report, method


def _measure_idle(servers: Sequence[Server], count: int) -> tuple[IdleReport, str]:
    raise_descriptor_limit(count + SPARE_DESCRIPTORS)
    costs = {}
    for server in servers:
        _progress(f"{count} connections to {server.title}")
        costs[server.key] = measure_idle(server, count)
    _progress("")
    return IdleReport(costs), f"growth over {count:,} connections to each server, one run"


def _to_markdown(tables: Sequence[Table], notes: Sequence[str]) -> str:
    paragraphs = [*(table.to_markdown() for table in tables), *notes]
    return "\n\n".join(paragraphs) + "\n"


def _progress(text: str) -> None:
    """Replace the last line of a terminal; a file gets nothing."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _leave(number: int, _frame: object) -> NoReturn:
    sys.exit(128 + number)


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.stream",
        description="Compare what an echoed frame costs a server: processor time, rate, memory.",
        epilog="Servers: " + ", ".join(SERVERS) + ".",
    )
    add = parser.add_argument
    add("--rounds", type=_positive, default=3, metavar="N", help="medians of so many (default 3)")
    add(
        "--seconds",
        type=float,
        default=0.6,
        metavar="S",
        help="of load for each server, case and round (default 0.6)",
    )
    add("--cases", type=_some_of(CASES), default=tuple(CASES), metavar="A,B,C,D,E")
    add("--servers", type=_some_of(SERVERS), metavar="NAME,...", help="default: all of them")
    add("--idle", type=_positive, metavar="N", help="measure the memory of N idle connections")
    add(
        "--client-sleeps",
        action="store_true",
        help="let the client sleep while it waits, so that servers pay for waking it",
    )
    add("--json", type=Path, metavar="FILE", help="write all figures there")
    add("--markdown", type=Path, metavar="FILE", help="write the tables there")
    return parser


def _some_of(known: Collection[str]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return names

    return parse


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


if __name__ == "__main__":
    main()
