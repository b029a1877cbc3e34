"""Counters of the steps of an operation; the count does not depend on the load of the machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.defer import Deferred

__all__ = ["Count", "count_comparisons", "count_searched_bytes"]

#: Methods of ``bytes`` and ``bytearray`` that read byte by byte until they find something.
_SEARCHES = frozenset({"count", "find", "index", "replace", "rfind", "rindex", "split"})


class Count:
    """A counter."""

    value = 0


@contextmanager
def count_comparisons() -> Iterator[Count]:
    """Count how often one Deferred is compared with another, as a search through a list does."""
    count = Count()

    def is_equal(one: object, other: object) -> bool:
        count.value += 1
        return one is other

    deferred: Any = Deferred
    deferred.__eq__ = is_equal
    try:
        yield count
    finally:
        del deferred.__eq__


@contextmanager
def count_searched_bytes() -> Iterator[Count]:
    """Count the bytes that searches are called with; a byte that is searched twice counts twice."""
    count = Count()

    def note(_frame: object, event: str, called: Any) -> None:
        if event == "c_call" and called.__name__ in _SEARCHES:
            searched = called.__self__
            if isinstance(searched, (bytes, bytearray)):
                count.value += len(searched)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield count
    finally:
        sys.setprofile(before)
