"""
``python -m benchmarks sending``: what it costs to send a batch of datagrams.

Compares writes that nobody awaits and one flush on a connected `twsock.DatagramSocket`, twsock's
port without a socket above it, and a loop in Python around ``socket.send``. The senders are
processes (`benchmarks.programs.datagram_sender`) and measure themselves. There is no client:
nobody waits for the datagrams, so nobody pays for waking a receiver.

Where runs are refused, the kernel refuses them: checksums are off on these sockets, and no run is
sent without; the port is told to send none.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from benchmarks.processes import Subject, run_program
from benchmarks.programs import SENDERS
from benchmarks.results import Figure
from benchmarks.rounds import Benchmark, Measure, Setting, positive

__all__ = ["BENCHMARK", "CASES", "MARK", "SendCase"]

#: The first bytes of the datagrams that count.
MARK: Final = b"datagram"


@dataclass(frozen=True, slots=True)
class SendCase:
    """
    What is sent in one batch.

    :ivar sizes: of the datagrams, in bytes.
    :ivar is_refused: whether the kernel refuses to send runs.
    """

    title: str
    sizes: tuple[int, ...]
    is_refused: bool = False

    def make(self, mark: bytes) -> list[bytes]:
        """Make a batch of which each datagram begins with the mark."""
        return [mark.ljust(size, b".") for size in self.sizes]


CASES: Final = {
    "small": SendCase("64 x 100 B", (100,) * 64),
    # As many as one call takes: 64,800 bytes of 65,507.
    "large": SendCase("54 x 1200 B", (1200,) * 54),
    # Each longer than the one before, so that no two of them make a run.
    "unequal": SendCase("64 of 69 to 132 B, none equal", tuple(range(69, 133))),
    "refused": SendCase("64 x 100 B, runs refused", (100,) * 64, is_refused=True),
}


@contextmanager
def _open(subject: Subject, setting: Setting) -> Iterator[Measure]:
    def measure_case(case: str) -> Mapping[str, float]:
        return run_program(subject, setting.server_core, case, str(setting.options.batches))

    yield measure_case


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--batches",
        type=positive,
        default=500,
        metavar="N",
        help="for each way, case and round (default 500)",
    )


BENCHMARK: Final = Benchmark(
    name="sending",
    programs=SENDERS,
    cases={key: case.title for key, case in CASES.items()},
    figures=(
        Figure("cpu", "Sender CPU per datagram in µs"),
        Figure("lost", "Datagrams lost, to be 0", has_ratios=False, is_sum=True),
    ),
    open=_open,
    references=("loop",),
    rounds=5,
    add_options=_add_options,
)
