"""
``python -m benchmarks handshakes``: what TLS handshakes cost a server.

Connect → handshake → one echo → close, one connection after the other. The next begins when the
server has closed the last, so that the processor time in between belongs to exactly the handshakes
counted. It includes accepting the connection, echoing one frame of 64 bytes, which proves that the
server has finished its handshake, and closing. A resumed handshake offers the last ticket of the
one before; the resumed ones are counted. All servers send the same certificate, with a P-256 key,
and speak TLS 1.3. Each case has its own process of the server.
"""

from __future__ import annotations

import argparse
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from benchmarks.connections import STALLED, connect, round_trip
from benchmarks.kernel import cpu_time
from benchmarks.processes import MeasurementError, Subject, start
from benchmarks.programs import REFERENCE, TLS_SERVERS
from benchmarks.results import Figure
from benchmarks.rounds import Benchmark, Measure, Setting, positive
from benchmarks.tls_client import TlsClient, make_client_context

__all__ = ["BENCHMARK", "measure_handshakes", "rate_per_second"]

#: Seconds after which a measurement fails.
_LONGEST: Final = 120.0
#: Seconds to wait until a server that has closed a connection sleeps.
_SETTLE: Final = 0.005
#: Handshakes before those that are counted, to warm up; no more of them than are counted.
_WARM_UP: Final = 20


def rate_per_second(count: int, cpu: int) -> float:
    """Return how many there would be in a second; ``cpu`` is in nanoseconds."""
    return count * 1e9 / cpu


def measure_handshakes(
    port: int, pid: int, context: ssl.SSLContext, count: int, *, resumes: bool, sleeps: bool
) -> tuple[dict[str, float], str]:
    """
    Go through handshakes with a server.

    :param resumes: whether each that is counted offers the last ticket of the one before.
    :param sleeps: whether the client sleeps until an echo comes.
    :returns: ``rate``, handshakes for each second of the server's processor time, absent unless all
        that offered a session were resumed; ``resumed``, how many were; and the cipher.
    :raises MeasurementError: when the server does not echo, or all together take too long.
    """
    end = time.monotonic() + _LONGEST
    session: ssl.SSLSession | None = None
    for _ in range(min(count, _WARM_UP)):
        session = _converse(port, context, session if resumes else None, sleeps=sleeps).session
    time.sleep(_SETTLE)
    resumed, cipher = 0, ""
    before = cpu_time(pid)
    for _ in range(count):
        connection = _converse(port, context, session if resumes else None, sleeps=sleeps)
        session, cipher = connection.session, connection.cipher
        resumed += connection.is_resumed
        if time.monotonic() >= end:
            raise MeasurementError(f"no end within {_LONGEST:g} s")
    time.sleep(_SETTLE)
    figures: dict[str, float] = {"resumed": resumed}
    if not resumes or resumed == count:
        figures["rate"] = rate_per_second(count, cpu_time(pid) - before)
    return figures, cipher


def _converse(
    port: int, context: ssl.SSLContext, session: ssl.SSLSession | None, *, sleeps: bool
) -> TlsClient:
    with connect(port) as plain:
        connection = TlsClient(plain, context, session)
        round_trip(connection, sleeps=sleeps)
        connection.end(STALLED)
        return connection


@contextmanager
def _open(subject: Subject, setting: Setting) -> Iterator[Measure]:
    assert setting.certificate is not None
    context = make_client_context(setting.certificate)

    def measure_case(case: str) -> Mapping[str, float]:
        with start(subject, setting.server_core, certificate=setting.certificate) as running:
            figures, cipher = measure_handshakes(
                running.port,
                running.pid,
                context,
                setting.options.handshakes,
                resumes=case == "resumed",
                sleeps=setting.client_sleeps,
            )
        setting.notes[f"Cipher of {subject.title}: {cipher}."] = None
        return figures

    yield measure_case


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--handshakes",
        type=positive,
        default=300,
        metavar="N",
        help="for each server, case and round (default 300)",
    )


BENCHMARK: Final = Benchmark(
    name="handshakes",
    programs=TLS_SERVERS,
    cases={"full": "no session offered", "resumed": "each offers the session of the one before"},
    figures=(
        Figure("rate", "Handshakes for each second of server CPU (more is better)"),
        Figure("resumed", "Handshakes that were resumed", has_ratios=False, is_sum=True),
    ),
    open=_open,
    references=(REFERENCE,),
    is_secure=True,
    add_options=_add_options,
)
