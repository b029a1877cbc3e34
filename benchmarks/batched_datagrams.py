"""
The command: ``python -m benchmarks.batched_datagrams``; options → **rounds** → tables and JSON.

What it costs to send a batch of datagrams: on a connected `twsock.DatagramSocket`, with writes that
nobody awaits and one flush, beside a loop in Python around ``socket.send``, and beside twsock's
port without a socket above it. It runs on Linux, over loopback only, for less than a minute.

Goes through rounds, cases and ways, so that all ways take turns. `benchmarks.sending` measures:
each batch has to arrive before the next is sent, and only the sending counts, with the processor
time that the kernel counts for this process. What the kernel does to deliver the datagrams to the
other socket is part of it, for all ways alike; the receiver, on the other core, never sleeps, so
nobody pays for waking it. The last row of the table reminds of the aims.

Then ``strace`` counts the system calls for each batch, where it is installed. Where runs are
refused, it is the kernel that refuses: checksums are off on these sockets, and no run is sent
without; the port is told to send none.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.python.failure import Failure

from benchmarks.batch_report import BatchReport
from benchmarks.command_line import (
    add_outputs,
    end_in_order,
    positive,
    publish,
    show_progress,
    some_of,
)
from benchmarks.datagram_receiver import Receiver, start_receiver
from benchmarks.kernel import describe_machine, two_cores
from benchmarks.sending import SEND_CASES, WAYS, measure_sends
from benchmarks.system_calls import TraceError, count_sends
from twsock.errors import SocketError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write what the command line asks for."""
    parser = _make_parser()
    options = parser.parse_args(argv)
    if sys.platform != "linux":
        parser.exit(1, "benchmarks.batched_datagrams: UDP_SEGMENT is needed, which is Linux's\n")
    end_in_order()
    try:
        _run(options)
    except (OSError, SocketError) as error:
        parser.exit(1, f"benchmarks.batched_datagrams: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "benchmarks.batched_datagrams: stopped\n")


def _run(options: argparse.Namespace) -> None:
    machine = describe_machine()
    cores = two_cores()
    sender_core, receiver_core = cores or (None, None)
    report = BatchReport()
    with start_receiver(receiver_core) as receiver:
        if sender_core is not None:
            os.sched_setaffinity(0, {sender_core})
        _in_reactor(lambda reactor: _measure(reactor, receiver, options, report))
    uncounted = None if options.no_calls else _count_calls(options, report)
    method = (
        f"medians of {options.rounds} rounds, in each {options.batches} batches for a way and case"
        f"; {'not pinned, as there is one core' if cores is None else 'pinned to a core each'}"
        f"; receiver {'sleeps' if cores is None else 'never sleeps'}"
    )
    if uncounted is not None:
        method += f"; system calls not counted: {uncounted}"
    publish(report, method, machine=machine, skipped={}, options=options)


async def _measure(
    reactor: Any, receiver: Receiver, options: argparse.Namespace, report: BatchReport
) -> None:
    for number in range(1, options.rounds + 1):
        for case in options.cases:
            show_progress(f"round {number} of {options.rounds}, case {case}")
            for way in options.ways:
                measurement = await measure_sends(
                    reactor, WAYS[way], SEND_CASES[case], receiver, options.batches
                )
                report.add(way, case, measurement)
    show_progress("")


def _count_calls(options: argparse.Namespace, report: BatchReport) -> TraceError | None:
    """Put the calls into the report, or give why there are none."""
    try:
        for case in options.cases:
            show_progress(f"system calls, case {case}")
            for way in options.ways:
                report.calls[way, case] = count_sends(WAYS[way], SEND_CASES[case])
    except TraceError as error:
        return error
    finally:
        show_progress("")
    return None


def _in_reactor(work: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    """
    Run the reactor until the work is done.

    :raises Exception: what the work raised.
    :raises KeyboardInterrupt: when the reactor was told to stop before that.
    """
    # Not at the top, as the receiver is forked before there is a reactor.
    from twisted.internet import reactor as installed

    reactor: Any = installed
    outcome: list[Failure | None] = []

    def end(result: Failure | None) -> None:
        outcome.append(result)
        # It may have been told before.
        with suppress(ReactorNotRunning):
            reactor.stop()

    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(work(reactor)).addBoth(end))
    reactor.run()
    if not outcome:
        raise KeyboardInterrupt
    if outcome[0] is not None:
        outcome[0].raiseException()


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.batched_datagrams",
        description="Compare what it costs to send a batch of datagrams.",
        epilog=f"Ways: {', '.join(WAYS)}. Cases: {', '.join(SEND_CASES)}.",
    )
    add = parser.add_argument
    add("--rounds", type=positive, default=5, metavar="N", help="medians of so many (default 5)")
    add(
        "--batches",
        type=positive,
        default=500,
        metavar="N",
        help="for each way, case and round (default 500)",
    )
    add("--cases", type=some_of(SEND_CASES), default=tuple(SEND_CASES), metavar="NAME,...")
    add("--ways", type=some_of(WAYS), default=tuple(WAYS), metavar="NAME,...")
    add("--no-calls", action="store_true", help="do not count system calls")
    add_outputs(parser)
    return parser


if __name__ == "__main__":
    main()
