"""
The command: ``python -m benchmarks.handshakes``; options → **rounds** → tables and JSON.

Goes through rounds and servers, so that all servers take turns; `benchmarks.handshaking` and
`benchmarks.pending` measure. It runs on Linux, over loopback only, for less than a minute. All
servers show the same certificate, with a P-256 key, and speak TLS 1.3.

Full and resumed handshakes are counted for each second of the server's processor time, at one
connection after the other. A resumed one takes up the last ticket of the one before it; that the
server did take it up is counted too. Then a number of silent handshakes is left pending, and an
established connection's round trip is compared with what it took before. On a virtual machine
round trips may take twice as long for a while, whatever the server does: believe such a ratio only
when several rounds agree on it.

Each part of a round has its own process of the server, so none pays for what another left behind.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

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
from benchmarks.handshake_report import HandshakeReport
from benchmarks.handshaking import measure_handshakes
from benchmarks.idle import SPARE_DESCRIPTORS
from benchmarks.kernel import cpu_source, describe_machine, raise_descriptor_limit, two_cores
from benchmarks.pending import measure_pending
from benchmarks.processes import ServerError, start
from benchmarks.secure import describe_tls, make_client_context
from benchmarks.servers import TLS_SERVERS, Server

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write what the command line asks for."""
    parser = _make_parser()
    options = parser.parse_args(argv)
    if sys.platform != "linux":
        parser.exit(1, "benchmarks.handshakes: /proc is needed, which is Linux's\n")
    end_in_order()
    try:
        _run(options)
    except (ServerError, OSError) as error:
        parser.exit(1, f"benchmarks.handshakes: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "benchmarks.handshakes: stopped\n")


def _run(options: argparse.Namespace) -> None:
    servers, skipped = choose(options.servers)
    raise_descriptor_limit(options.pending + SPARE_DESCRIPTORS)
    machine = describe_machine() | describe_tls()
    cores = two_cores()
    server_core, client_core = cores or (None, None)
    if client_core is not None:
        os.sched_setaffinity(0, {client_core})
    report = HandshakeReport()
    with temporary_certificate() as certificate:
        for number in range(1, options.rounds + 1):
            for server in servers:
                show_progress(f"round {number} of {options.rounds}, {server.title}")
                _measure(server, server_core, certificate, options, report)
    show_progress("")
    method = (
        f"medians of {options.rounds} rounds, in each {options.handshakes} handshakes of each kind"
        f" and {options.round_trips} round trips"
        f"; {'not pinned, as there is one core' if cores is None else 'pinned to a core each'}"
        f"; client {'sleeps' if cores is None else 'never sleeps'}; CPU time from {cpu_source()}"
    )
    publish(report, method, machine=machine, skipped=skipped, options=options)


def _measure(
    server: Server,
    core: int | None,
    certificate: Path,
    options: argparse.Namespace,
    report: HandshakeReport,
) -> None:
    """Measure one server once."""
    # A client that never sleeps would starve a server on the same core.
    sleeps = core is None
    context = make_client_context(certificate)
    count = options.handshakes
    with start(server, core, certificate=certificate) as running:
        full = measure_handshakes(running, context, count, resumes=False, sleeps=sleeps)
    with start(server, core, certificate=certificate) as running:
        resumed = measure_handshakes(running, context, count, resumes=True, sleeps=sleeps)
    with start(server, core, certificate=certificate) as running:
        pending = measure_pending(
            running, context, options.pending, options.round_trips, sleeps=sleeps
        )
    report.add(server.key, full, resumed, pending)


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.handshakes",
        description="Compare what TLS handshakes cost a server, and those who are connected to it.",
        epilog=f"Servers: {', '.join(TLS_SERVERS)}.",
    )
    add = parser.add_argument
    add("--rounds", type=positive, default=3, metavar="N", help="medians of so many (default 3)")
    add(
        "--handshakes",
        type=positive,
        default=300,
        metavar="N",
        help="of each kind, for each server and round (default 300)",
    )
    add(
        "--pending",
        type=positive,
        default=1000,
        metavar="N",
        help="silent handshakes beside the established connection (default 1000)",
    )
    add(
        "--round-trips",
        type=positive,
        default=2000,
        metavar="N",
        help="on the established connection, before and beside them (default 2000)",
    )
    add("--servers", type=some_of(TLS_SERVERS), default=TLS_SERVERS, metavar="NAME,...")
    add_outputs(parser)
    return parser


if __name__ == "__main__":
    main()
