"""
What a test leaves behind: descriptors, delayed calls, readers, Deferreds that nobody will fire.
"""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

__all__ = ["Leaks"]

_DESCRIPTORS = Path("/proc/self/fd")

#: Objects that are worth to be frozen: modules, and what trial and hypothesis keep of many tests.
_MANY = 30_000


class Leaks:
    """
    Compares what is there now with what was there when this was made.

    The garbage collector rests meanwhile: it would hide a wait that nobody can end any more.
    """

    def __init__(self, reactor: Any) -> None:
        gc.collect()
        if len(gc.get_objects()) > _MANY:
            # What is frozen is neither collected nor listed again. Not at each test: what a test
            # leaves for the collector would then stay open.
            gc.freeze()
        gc.disable()
        self._reactor = reactor
        self._before = self._take_stock()

    def found(self) -> list[str]:
        """Name all that is there now and was not."""
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
                # `isinstance` asks an abstract class, which takes much longer for all there is.
                if Deferred in type(thing).__mro__ and not thing.called and not _is_of_trial(thing)
            },
        }


def _is_of_trial(deferred: Any) -> bool:
    """Return whether a worker of ``trial -j`` waits for it: a log event on its way to trial."""
    # Twisted 25.5 renamed it; the old name warns.
    steps = vars(deferred).get("_callbacks") or vars(deferred).get("callbacks", ())
    return any(callback.__module__ == "twisted.protocols.amp" for (callback, *_), _ in steps)


def _descriptors() -> dict[object, str]:
    """Name the open descriptors, where the system lists them."""
    if not _DESCRIPTORS.exists():
        return {}
    found: dict[object, str] = {}
    for descriptor in _DESCRIPTORS.iterdir():
        try:
            target = str(descriptor.readlink())
            # Twisted keeps one of these in reserve, from the first listener on.
            if target != "/dev/null":
                found[descriptor.name] = f"{descriptor.name} -> {target}"
        except FileNotFoundError:
            pass  # The one with which the folder is read.
    return found
