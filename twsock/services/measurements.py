"""
The numbers of running services: counters → **measurements** → exporter.

Connections, ports and registries count in any case. This module reads their counters only when it
is called, so a service without an exporter has no further cost. Measurements of several processes
can be added if they have the same name and labels. Nothing is held.
"""

from __future__ import annotations

import enum
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from typing import Any, Final

from twsock.datagram.protocol import EchoCounters
from twsock.stream.counters import Counters
from twsock.stream.factory import StreamServerFactory
from twsock.stream.histogram import BOUNDS, Histogram
from twsock.stream.listening.buffer_limit import BufferLimit

__all__ = [
    "Kind",
    "Measurement",
    "describe_counts",
    "group_by_name",
    "measure_datagrams",
    "measure_streams",
]


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
    "taken": ("connections_taken", "Connections taken over from another process."),
    "given": ("connections_given", "Connections given to another process."),
    "refused": ("connections_refused", "Connections refused because of a limit on their number."),
    "messages": ("messages_received", "Whole messages received."),
    "messages_sent": ("messages_sent", "Whole messages sent or queued."),
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
    "unanswered_pings": "no_pong",
}

#: Counter of `Counters` with numbers by keys → name without the prefix, label, meaning.
_KEYED_COUNTERS: Final = {
    "upgrade_failures": ("upgrade_failures", "reason", "Upgrades to TLS that failed."),
    "refused_requests": ("websocket_requests_refused", "status", "Requests that were refused."),
    "closes": ("websocket_closes", "code", "WebSockets that ended, by the first close frame."),
}

#: Histogram of `Counters` → meaning.
_HISTOGRAMS: Final = {
    "handshake_seconds": "Handshakes of upgrades.",
    "handler_seconds": "Handlers of messages that had to wait.",
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

    The label ``protocol`` is the name of its protocol class, ``endpoint`` that of a port. The
    connections that no port has accepted have no label ``endpoint``.
    """
    group = factory.group
    by_endpoint = group.by_endpoint()
    if len(by_endpoint) > 1 and not group.counters.accepted and not group.counters.taken:
        del by_endpoint[""]
    buffered = _buffered(group.buffer_limit)
    now = group.clock.seconds()
    for endpoint, counters in by_endpoint.items():
        labels = {"protocol": factory.protocol_name}
        if endpoint:
            labels["endpoint"] = endpoint
        yield from _measure_counters(labels, counters, now)
        held = buffered.get(id(counters), 0)
        yield _gauge("buffered_bytes", "Bytes received or written that wait.", labels, held)


def _buffered(limit: BufferLimit | None) -> dict[int, int]:
    """Return the bytes that connections hold, by the identity of their counters."""
    sums: dict[int, int] = {}
    for holder, size in () if limit is None else limit.sizes():
        key = id(holder.counters)
        sums[key] = sums.get(key, 0) + size
    return sums


def _measure_counters(
    labels: dict[str, str], counters: Counters, now: float
) -> Iterator[Measurement]:
    for field, (name, meaning) in _STREAM_COUNTERS.items():
        yield _counter(name, meaning, labels, getattr(counters, field))
    meaning = "Connections that this end ended early."
    for field, reason in _ENDED.items():
        ended = getattr(counters, field)
        yield _counter("connections_ended", meaning, {**labels, "reason": reason}, ended)
    for field, (name, label, meaning) in _KEYED_COUNTERS.items():
        for key, count in getattr(counters, field).items():
            yield _counter(name, meaning, {**labels, label: str(key)}, count)
    for field, meaning in _HISTOGRAMS.items():
        yield from _histogram(field, meaning, labels, getattr(counters, field))
    meaning = "Seconds of all full outputs together."
    yield _counter("output_paused_seconds", meaning, labels, counters.seconds_full(now))
    yield _gauge("full_outputs", "Outputs that are full now.", labels, counters.full)
    is_open = counters.accepted + counters.taken - counters.ended
    yield _gauge("open_connections", "Open connections.", labels, is_open)


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


def describe_counts(counts: Iterable[tuple[str, int]], always: Container[str]) -> str:
    """
    Return counts as text for a log line, such as ``2 accepted, 1 handler errors``.

    :param counts: pairs of a name and a number, in the order of the text.
    :param always: names whose count is in the text although it is 0. Any other 0 is left out.
    """
    shown = ((name, number) for name, number in counts if number or name in always)
    return ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in shown)
