"""
The command: ``python -m benchmarks.datagram``; options → **rounds** → tables and JSON.

What an echoed datagram costs a server, beside Twisted's `DatagramProtocol`, asyncio, uvloop and C.
Goes through rounds, cases and servers, so that all servers take turns; `benchmarks.processes`
starts and measures, `benchmarks.datagram_report` adds up. It runs on Linux, over loopback only, for
about two minutes. Cores, meters and medians are as in the docstring of `benchmarks`.

The cases
    A: one datagram of 64 bytes in flight. B: 32 of 100 bytes; C: 32 of 1,200. The client sends 32
    together, waits until all are back, and sends the next ones; each has other contents, and what
    comes back is compared. The kernel hands several over as one only when they were sent in one
    call, so B and C are such runs; in B-single and C-single the client makes a call for each.

The load
    One client process with a plain socket, which takes runs in one call, as it has to be cheap
    beside the servers. What has not come back a second after the last answer counts as lost. The
    buffers of both sockets are the kernel's defaults; 32 datagrams fit in them many times.

The figures
    The server sleeps between one window and the next, so each window also pays for one wake-up. Of
    the aims, 1.0 with one in flight, and 0.1 and 0.4 with 32 in flight as a run, each beside the
    server that the table names, the last row reminds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack

from benchmarks.command_line import (
    add_outputs,
    choose,
    end_in_order,
    positive,
    publish,
    show_progress,
    some_of,
)
from benchmarks.datagram_cases import DATAGRAM_CASES
from benchmarks.datagram_report import DatagramReport
from benchmarks.kernel import cpu_source, describe_machine, two_cores
from benchmarks.processes import ServerError, measure_datagrams, start
from benchmarks.servers import DATAGRAM_SERVERS, DEFAULT_DATAGRAM_SERVERS, Server

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write what the command line asks for."""
    parser = _make_parser()
    options = parser.parse_args(argv)
    if sys.platform != "linux":
        parser.exit(1, "benchmarks.datagram: UDP_SEGMENT and /proc are needed, which are Linux's\n")
    end_in_order()
    try:
        _run(options)
    except (ServerError, OSError) as error:
        parser.exit(1, f"benchmarks.datagram: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "benchmarks.datagram: stopped\n")


def _run(options: argparse.Namespace) -> None:
    servers, skipped = choose(options.servers, DATAGRAM_SERVERS)
    report, method = _measure(servers, options)
    publish(
        report,
        method,
        machine=describe_machine(),
        skipped=skipped,
        options=options,
        servers=DATAGRAM_SERVERS,
    )


def _measure(servers: Sequence[Server], options: argparse.Namespace) -> tuple[DatagramReport, str]:
    cores = two_cores()
    server_core, client_core = cores or (None, None)
    # A client that never sleeps would starve a server on the same core.
    sleeps = options.client_sleeps or cores is None
    report = DatagramReport()
    for number in range(1, options.rounds + 1):
        with ExitStack() as stack:
            running = [stack.enter_context(start(server, server_core)) for server in servers]
            for case in options.cases:
                show_progress(f"round {number} of {options.rounds}, case {case}")
                for each in running:
                    measurement = measure_datagrams(
                        each, DATAGRAM_CASES[case], options.seconds, core=client_core, sleeps=sleeps
                    )
                    report.add(each.server.key, case, measurement)
    show_progress("")
    method = (
        f"medians of {options.rounds} rounds, in each {options.seconds:g} s for a server and case"
        f"; {'not pinned, as there is one core' if cores is None else 'pinned to a core each'}"
        f"; client {'sleeps' if sleeps else 'never sleeps'}; CPU time from {cpu_source()}"
    )
    return report, method


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.datagram",
        description="Compare what an echoed datagram costs a server in processor time.",
        epilog=f"Servers: {', '.join(DATAGRAM_SERVERS)}.",
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
    add(
        "--cases",
        type=some_of(DATAGRAM_CASES),
        default=tuple(DATAGRAM_CASES),
        metavar="NAME,...",
        help=f"of {', '.join(DATAGRAM_CASES)} (default: all of them)",
    )
    add(
        "--servers",
        type=some_of(DATAGRAM_SERVERS),
        default=DEFAULT_DATAGRAM_SERVERS,
        metavar="NAME,...",
        help="default: all but echo-plain",
    )
    add(
        "--client-sleeps",
        action="store_true",
        help="let the client sleep while it waits, so that servers pay for waking it",
    )
    add_outputs(parser)
    return parser


if __name__ == "__main__":
    main()
