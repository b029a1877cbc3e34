"""
The command: ``python -m benchmarks.stream``; options → **rounds** → tables and JSON.

Goes through rounds, cases and servers, so that all servers take turns; `benchmarks.processes`
starts and measures, `benchmarks.report` adds up. The method is in the docstring of `benchmarks`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.cases import CASES
from benchmarks.certificate import temporary_certificate
from benchmarks.command_line import (
    add_outputs,
    choose,
    end_in_order,
    positive,
    publish,
    show_progress,
    some_of,
)
from benchmarks.idle import SPARE_DESCRIPTORS, measure_idle
from benchmarks.kernel import cpu_source, describe_machine, raise_descriptor_limit, two_cores
from benchmarks.processes import ServerError, measure, start
from benchmarks.report import IdleReport, LoadReport
from benchmarks.secure import describe_tls
from benchmarks.servers import IDLE_SERVERS, SERVERS, TLS_SERVERS, Server

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write what the command line asks for."""
    parser = _make_parser()
    options = parser.parse_args(argv)
    if options.tls and options.idle:
        parser.error("idle connections are measured without TLS")
    plain = [key for key in options.servers or () if key not in TLS_SERVERS]
    if options.tls and plain:
        parser.error(f"no TLS for {', '.join(plain)}, only for {', '.join(TLS_SERVERS)}")
    if sys.platform != "linux":
        parser.exit(1, "benchmarks.stream: epoll and /proc are needed, which are Linux's\n")
    end_in_order()
    try:
        _run(options)
    except (ServerError, OSError) as error:
        parser.exit(1, f"benchmarks.stream: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "benchmarks.stream: stopped\n")


def _run(options: argparse.Namespace) -> None:
    servers, skipped = choose(options.servers or _all_servers(options))
    machine = describe_machine()
    report: IdleReport | LoadReport
    if options.idle:
        report, method = _measure_idle(servers, options.idle)
    elif options.tls:
        with temporary_certificate() as certificate:
            report, method = _measure_load(servers, options, certificate)
        machine |= describe_tls()
    else:
        report, method = _measure_load(servers, options, None)
    publish(report, method, machine=machine, skipped=skipped, options=options)


def _all_servers(options: argparse.Namespace) -> Sequence[str]:
    if options.idle:
        return IDLE_SERVERS
    return TLS_SERVERS if options.tls else tuple(SERVERS)


def _measure_load(
    servers: Sequence[Server], options: argparse.Namespace, certificate: Path | None
) -> tuple[LoadReport, str]:
    cores = two_cores()
    server_core, client_core = cores or (None, None)
    # A client that never sleeps would starve a server on the same core.
    sleeps = options.client_sleeps or cores is None
    report = LoadReport()
    for number in range(1, options.rounds + 1):
        with ExitStack() as stack:
            running = [
                stack.enter_context(start(server, server_core, certificate=certificate))
                for server in servers
            ]
            for case in options.cases:
                show_progress(f"round {number} of {options.rounds}, case {case}")
                for each in running:
                    measurement = measure(
                        each, CASES[case], options.seconds, core=client_core, sleeps=sleeps
                    )
                    report.add(each.server.key, case, measurement)
    show_progress("")
    method = (
        f"medians of {options.rounds} rounds, in each {options.seconds:g} s for a server and case"
        f"; {'plaintext' if certificate is None else 'TLS 1.3'}"
        f"; {'not pinned, as there is one core' if cores is None else 'pinned to a core each'}"
        f"; client {'sleeps' if sleeps else 'never sleeps'}; CPU time from {cpu_source()}"
    )
    return report, method


def _measure_idle(servers: Sequence[Server], count: int) -> tuple[IdleReport, str]:
    raise_descriptor_limit(count + SPARE_DESCRIPTORS)
    costs = {}
    for server in servers:
        show_progress(f"{count} connections to {server.title}")
        costs[server.key] = measure_idle(server, count)
    show_progress("")
    return IdleReport(costs), f"growth over {count:,} connections to each server, one run"


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.stream",
        description="Compare what an echoed frame costs a server: processor time, rate, memory.",
        epilog=f"Servers: {', '.join(SERVERS)}. Over TLS: {', '.join(TLS_SERVERS)}.",
    )
    add = parser.add_argument
    add("--rounds", type=positive, default=3, metavar="N", help="medians of so many (default 3)")
    add(
        "--seconds",
        type=float,
        default=0.6,
        metavar="S",
        help="of load for each server, case and round (default 0.6)",
    )
    add("--cases", type=some_of(CASES), default=tuple(CASES), metavar="A,B,C,D,E")
    add("--servers", type=some_of(SERVERS), metavar="NAME,...", help="default: all of them")
    add("--tls", action="store_true", help="over TLS 1.3, with a certificate made for the run")
    add("--idle", type=positive, metavar="N", help="measure the memory of N idle connections")
    add(
        "--client-sleeps",
        action="store_true",
        help="let the client sleep while it waits, so that servers pay for waking it",
    )
    add_outputs(parser)
    return parser


if __name__ == "__main__":
    main()
