"""
The numbers of all workers of a slot: reports → **sums** → measurements. No I/O.

A worker counts from 0, so a sum over the running workers would fall when one ends. The counters and
histograms of ended workers stay in the sums; their gauges, such as open connections, are dropped.
Holds the last report of each running worker, and one number for each name and labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from twsock.services.measurements import Kind, Measurement

__all__ = ["WorkerTotals"]

#: Name, suffix, and sorted labels.
_Key = tuple[str, str, tuple[tuple[str, str], ...]]


class WorkerTotals:
    """
    The sums of one slot.

    :param worker: the value of the label ``worker``.
    """

    __slots__ = ("_ended", "_running", "_worker")

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._ended: dict[_Key, Measurement] = {}
        self._running: dict[int, dict[_Key, Measurement]] = {}

    def update(self, process: int, values: Iterable[Measurement]) -> None:
        """
        Store a report of a running worker, in place of its last one.

        :param process: its process id.
        """
        self._running[process] = {_key(value): value for value in values}

    def end(self, process: int) -> None:
        """Add the counters of an ended worker to the sums."""
        last = self._running.pop(process, {})
        _add(self._ended, (value for value in last.values() if value.kind is not Kind.GAUGE))

    def measure(self) -> Iterator[Measurement]:
        """Return the sums; a counter is never less than in an earlier call."""
        sums = dict(self._ended)
        for values in self._running.values():
            _add(sums, values.values())
        for value in sums.values():
            yield replace(value, labels={**value.labels, "worker": self._worker})


def _key(value: Measurement) -> _Key:
    return value.name, value.suffix, tuple(sorted(value.labels.items()))


def _add(sums: dict[_Key, Measurement], values: Iterable[Measurement]) -> None:
    for value in values:
        key = _key(value)
        known = sums.get(key)
        sums[key] = value if known is None else replace(value, value=known.value + value.value)
