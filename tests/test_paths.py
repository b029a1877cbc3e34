"""
How many modules an event passes, how many calls it takes, and how long a module is, at most.

The figures are those of ``python -m benchmarks paths`` and ``structure``, which say what they
count. A change that needs more than the maximum needs a reason; one that needs less lowers it.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Final, NamedTuple

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.paths import Passed, follow_paths
from benchmarks.processes import ROOT
from benchmarks.structure import read_package

__all__: list[str] = []


class _Maximum(NamedTuple):
    modules: int
    returns: int
    calls: int


#: Path → its maxima. The aims are at most 5 and 3 for ``frame``, 6 and 4 for
#: ``upgraded``, 6 and 6 for ``run``, 5 and 8 for ``socket``, and no more calls.
_MAXIMA: Final = {
    "frame": _Maximum(4, 0, 7),
    "handler": _Maximum(4, 0, 8),
    "upgraded": _Maximum(6, 0, 15),
    "websocket": _Maximum(5, 3, 11),
    "datagram": _Maximum(5, 4, 25),
    "run": _Maximum(6, 5, 30),
    "socket": _Maximum(5, 2, 33),
}

_LONGEST_MODULE: Final = 500
#: Modules that are longer than the limit; the aim is none.
_LONG_MODULES: Final = {"twsock.wire.values"}


@cache
def _paths() -> dict[str, Passed]:
    return follow_paths()


class PathTests(SynchronousTestCase):
    """One event in twsock, from its wake-up until the answer is with the kernel."""

    if sys.platform != "linux":
        skip = "the paths are followed on Linux"

    def assert_within(self, name: str) -> None:
        """The path needs no more than its maximum."""
        path, most = _paths()[name], _MAXIMA[name]
        needs = _Maximum(path.modules, path.returns, path.calls)
        for figure, needed, allowed in zip(most._fields, needs, most, strict=True):
            self.assertLessEqual(needed, allowed, f"{figure} of {name}: {path.sequence}")

    def test_echoed_frame(self) -> None:
        """The protocol sends runs of frames back."""
        self.assert_within("frame")

    def test_frame_answered_by_a_handler(self) -> None:
        """The protocol has a method that is called for each frame."""
        self.assert_within("handler")

    def test_echoed_frame_after_an_upgrade(self) -> None:
        """The connection has TLS 1.3 after STARTTLS."""
        self.assert_within("upgraded")

    def test_echoed_message_of_a_websocket(self) -> None:
        """The protocol has a method that is called for each message."""
        self.assert_within("websocket")

    def test_echoed_datagram(self) -> None:
        """The datagram arrives and leaves alone."""
        self.assert_within("datagram")

    def test_echoed_run_of_datagrams(self) -> None:
        """The kernel joins 8 datagrams, and splits the answer."""
        if "run" not in _paths():
            self.skipTest("this kernel has no UDP_GRO")
        self.assert_within("run")

    def test_stream_socket(self) -> None:
        """A coroutine waits for bytes, writes four times, flushes, and waits again."""
        self.assert_within("socket")


class ModuleTests(SynchronousTestCase):
    """The modules of twsock."""

    def test_modules_are_short(self) -> None:
        """A module that grows beyond this has more than one subject."""
        modules = read_package(ROOT)
        long = {name for name, module in modules.items() if module.lines > _LONGEST_MODULE}
        self.assertEqual(sorted(long - _LONG_MODULES), [])
