"""Leaks of a test: descriptors, delayed calls, readers, and Deferreds that will never fire."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

__all__ = ["Leaks", "freeze_objects"]

_DESCRIPTORS = Path("/proc/self/fd")

#: The number of objects above which freezing pays: modules, and what trial, hypothesis and earlier
#: tests keep. Each test looks at all objects three times.
_MANY = 4_000

#: The number of open descriptors above which frozen objects are freed; ``select`` takes 1,024.
_MANY_DESCRIPTORS = 200


def freeze_objects() -> None:
    """
    Exclude the objects that exist from stocks and collections, if they are many.

    Called before a test makes its reactor. A reactor that is frozen, such as that of the test
    before, is not freed, and its descriptors stay open; when they are many, it is freed after all.
    """
    if len(_descriptors()) > _MANY_DESCRIPTORS:
        gc.unfreeze()
    gc.collect()
    if len(gc.get_objects()) > _MANY:
        gc.freeze()


class Leaks:
    """
    Compares the resources that exist now with those that existed when this was made.

    The garbage collector is off meanwhile: it would free a Deferred that can't fire any more, and
    hide it.
    """

    def __init__(self, reactor: Any) -> None:
        gc.collect()
        gc.disable()
        self._reactor = reactor
        self._before = self._take_stock()

    def found(self) -> list[str]:
        """Return the names of all resources that exist now and did not before."""
        now = self._take_stock()
        gc.enable()
        return [
            f"{kind}: {thing}"
            for kind, things in now.items()
            for key, thing in things.items()
            if key not in self._before[kind]
        ]

    def _take_stock(self) -> dict[str, dict[object, str]]:
        reactor = self._reactor
        return {
            "file descriptor": _descriptors(),
            "delayed call": {id(call): str(call) for call in reactor.getDelayedCalls()},
            "reader": {id(reader): str(reader) for reader in reactor.getReaders()},
            "writer": {id(writer): str(writer) for writer in reactor.getWriters()},
            "unfired Deferred": {
                id(thing): str(thing)
                for thing in gc.get_objects()
                # `isinstance` of an abstract class is much slower, over all objects.
                if Deferred in type(thing).__mro__ and not thing.called and not _is_of_trial(thing)
            },
        }


def _is_of_trial(deferred: Any) -> bool:
    """
    Return whether a worker of ``trial -j`` owns the Deferred: a log event on its way to trial.
    """
    # Twisted 25.5 renamed it; the old name warns.
    steps = vars(deferred).get("_callbacks") or vars(deferred).get("callbacks", ())
    return any(callback.__module__ == "twisted.protocols.amp" for (callback, *_), _ in steps)


def _descriptors() -> dict[object, str]:
    """Return the open descriptors, if the system lists them."""
    found: dict[object, str] = {}
    if not _DESCRIPTORS.exists():
        return found
    # These calls take a third of the time of pathlib's.
    for name in os.listdir(_DESCRIPTORS):  # noqa: PTH208
        try:
            target = os.readlink(f"{_DESCRIPTORS}/{name}")  # noqa: PTH115
        except FileNotFoundError:
            continue  # The descriptor with which the folder is read.
        # Twisted keeps one of these in reserve, from the first listener on.
        if target != os.devnull:
            found[name] = f"{name} -> {target}"
    return found
