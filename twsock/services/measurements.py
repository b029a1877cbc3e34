"""
The numbers of running services: counters → **measurements** → exporter.

Connections, ports and registries count in any case. This module reads their counters only when it
is called, so a service without an exporter has no further cost. Measurements of several processes
can be added if they have the same name and labels. Nothing is held.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from typing import Any, Final

from twsock.datagram.protocol import EchoCounters
from twsock.stream.factory import StreamServerFactory
from twsock.stream.histogram import BOUNDS, Histogram

__all__ = ["Kind", "Measurement", "group_by_name", "measure_datagrams", "measure_streams"]


class Kind(enum.Enum):
    """
    Whether a number only grows (``COUNTER``), or is a current state (``GAUGE``).

    A ``HISTOGRAM`` consists of numbers with the suffixes ``_bucket``, ``_count`` and ``_sum``.
    """

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Measurement:
    """
    One number of one service.

    :ivar name: in the form of Prometheus, with the unit and without ``_total``.
    :ivar meaning: one sentence, for the help text of an exporter.
    :ivar labels: names and values; for example the protocol, or the reason of a failure.
    :ivar suffix: follows the name, for the numbers of a histogram; otherwise empty.
    """

    name: str
    meaning: str
    kind: Kind
    labels: Mapping[str, str]
    value: float
    suffix: str = ""


#: Counter of `Counters` → name without the prefix, meaning.
_STREAM_COUNTERS: Final = {
    "accepted": ("connections", "Accepted connections."),
    "refused": ("connections_refused", "Connections refused because of a limit on their number."),
    "messages": ("messages_received", "Whole messages received."),
    "bytes_received": ("received_bytes", "Bytes received, after decryption."),
    "bytes_sent": ("sent_bytes", "Bytes sent or queued, before encryption."),
    "paused": ("output_paused", "Outputs that became full."),
    "upgrades": ("upgrades", "Upgrades to TLS that were completed."),
}

#: Counter of `Counters` → the label ``reason`` of connections that this end ended.
_ENDED: Final = {
    "idle": "idle",
    "violations": "violation",
    "unsent_limit_aborts": "max_unsent",
    "buffer_limit_aborts": "max_buffered",
    "handler_errors": "handler",
}

#: Counter of `EchoCounters` → the label ``reason`` of datagrams that got no answer.
_DROPPED: Final = {
    "from_members": "from_member",
    "loop_risk": "loop_risk",
    "limited": "rate_limit",
    "truncated": "truncated",
    "not_for_a_group": "not_for_a_group",
    "dropped_by_the_kernel": "receive_buffer",
    "failed": "send_failed",
}


def measure_streams(factory: StreamServerFactory) -> Iterator[Measurement]:
    """
    Return the numbers of a server of connections.

    The label ``protocol`` is the name of its protocol class.
    """
    labels = {"protocol": factory.protocol_name}
    counters = asdict(factory.counters)
    for field, (name, meaning) in _STREAM_COUNTERS.items():
        yield _counter(name, meaning, labels, counters[field])
    meaning = "Connections that this end ended early."
    for field, reason in _ENDED.items():
        yield _counter("connections_ended", meaning, {**labels, "reason": reason}, counters[field])
    meaning = "Upgrades to TLS that failed."
    for reason, count in counters["upgrade_failures"].items():
        yield _counter("upgrade_failures", meaning, {**labels, "reason": reason}, count)
    yield from _histogram(
        "handshake_seconds", "Handshakes of upgrades.", labels, factory.counters.handshake_seconds
    )
    yield _gauge("open_connections", "Open connections.", labels, len(factory.group))
    limit = factory.group.buffer_limit
    held = 0 if limit is None else limit.total
    yield _gauge("buffered_bytes", "Bytes received or written that wait.", labels, held)


def measure_datagrams(
    endpoint: str, protocol: str, counters: EchoCounters, port: Any
) -> Iterator[Measurement]:
    """
    Return the numbers of one UDP port.

    :param endpoint: the label of the port, such as ``udp:127.0.0.1:1337``.
    :param protocol: the name of the protocol class.
    :param counters: those of the echo and its port together.
    :param port: may have ``unsent``, the number of bytes in its send queue.
    """
    labels = {"protocol": protocol, "endpoint": endpoint}
    numbers = asdict(counters)
    yield _counter("datagrams_received", "Datagrams received.", labels, counters.received)
    yield _counter("datagrams_answered", "Datagrams answered.", labels, counters.answered)
    meaning = "Datagrams that got no answer."
    for field, reason in _DROPPED.items():
        yield _counter("datagrams_dropped", meaning, {**labels, "reason": reason}, numbers[field])
    unsent = getattr(port, "unsent", 0)
    yield _gauge("buffered_bytes", "Bytes received or written that wait.", labels, unsent)


def group_by_name(measurements: Iterable[Measurement]) -> dict[str, list[Measurement]]:
    """Group measurements by their names, in the order in which each name comes first."""
    groups: dict[str, list[Measurement]] = {}
    for measurement in measurements:
        groups.setdefault(measurement.name, []).append(measurement)
    return groups


def _counter(name: str, meaning: str, labels: Mapping[str, str], value: float) -> Measurement:
    return Measurement(f"twsock_{name}", meaning, Kind.COUNTER, labels, value)


def _gauge(name: str, meaning: str, labels: Mapping[str, str], value: float) -> Measurement:
    return Measurement(f"twsock_{name}", meaning, Kind.GAUGE, labels, value)


def _histogram(
    name: str, meaning: str, labels: Mapping[str, str], histogram: Histogram
) -> Iterator[Measurement]:
    """Return the numbers of a histogram; each bucket includes the smaller ones."""
    measurement = Measurement(f"twsock_{name}", meaning, Kind.HISTOGRAM, labels, 0)
    sums = list(accumulate(histogram.counts))
    for bound, count in zip((*map(str, BOUNDS), "+Inf"), sums, strict=True):
        within = {**labels, "le": bound}
        yield replace(measurement, labels=within, value=count, suffix="_bucket")
    yield replace(measurement, value=sums[-1], suffix="_count")
    yield replace(measurement, value=histogram.total, suffix="_sum")
