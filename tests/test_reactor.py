"""
The lean reactor passes Twisted's own reactor tests.

Each of Twisted's reactor builders below runs with this reactor only. The tests cover timers and
their order, start and stop, threads, descriptors, TCP, UNIX sockets, UDP, half-close, and the lack
of file descriptors.
"""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Callable
from typing import Any

from twisted.application.reactors import getReactorTypes
from twisted.trial.unittest import SkipTest, SynchronousTestCase

#: Modules with Twisted's builders. Processes, TLS and glib are left out: their tests do not depend
#: on `doPoll`.
_MODULES = ["core", "fdset", "tcp", "threads", "time", "udp", "unix"]


def _left_out(reason: str) -> Callable[[object], None]:
    """Replace a test by a skip."""

    def skip(_case: object) -> None:
        raise SkipTest(reason)

    return skip


#: Tests that do not apply, and the reason.
_LEFT_OUT = {
    # Twisted skips it for its own epoll reactor, by the name of the class.
    "test_lostFileDescriptor": _left_out("epoll forgets a closed descriptor without an event"),
    "test_timeout_add": _left_out("about glib's reactor only"),
    "test_logPrefix": _left_out("the log context per event is what this reactor leaves out"),
    # The abort can meet the end of the connection: then its delayed call is left, which the test
    # does not allow. test_fullWriteBufferAfterByteExchange stays.
    "test_fullWriteBuffer": _left_out("on a busy machine it fails on Twisted's own reactors too"),
}


def _dropping_warnings(builder: Any) -> Callable[[Any], None]:
    """Where warnings are errors, drop the warnings that Twisted's own tests cause."""

    def tear_down(case: Any) -> None:
        builder.tearDown(case)
        if sys.warnoptions:
            gc.collect()
            case.flushWarnings()

    return tear_down


def _with_our_reactor(module: str) -> dict[str, Any]:
    """Build Twisted's test cases of a module for the lean reactor only."""
    found: dict[str, Any] = {}
    name = f"twisted.internet.test.test_{module}"
    contents = vars(importlib.import_module(name))
    for builder in list(contents.values()):
        # Twisted builds a test case for its own epoll reactor.
        if f"{getattr(builder, '__name__', '')}_EPollReactorTests" in contents:
            ours: Any = type(
                f"{module.capitalize()}{builder.__name__}",
                (builder,),
                {
                    "__module__": __name__,
                    "tearDown": _dropping_warnings(builder),
                    "_reactors": ["twsock.reactor.LeanEpollReactor"],
                    **{name: t for name, t in _LEFT_OUT.items() if hasattr(builder, name)},
                },
            )
            found.update(ours.makeTestCaseClasses())
    return found


_cases = {name: case for module in _MODULES for name, case in _with_our_reactor(module).items()}
globals().update(_cases)


class LeanReactorTests(SynchronousTestCase):
    """The parts that differ from Twisted's epoll reactor."""

    def test_twistd_offers_the_reactor(self) -> None:
        """The plugin has the short name ``twsock``."""
        installer: Any = {reactor.shortName: reactor for reactor in getReactorTypes()}["twsock"]
        self.assertEqual(installer.moduleName, "twsock.reactor")

    def test_tests_of_twisted_were_found(self) -> None:
        """An empty list of test cases would mean that Twisted renamed them."""
        for expected in (
            "TimeTestsBuilder",
            "TCPPortTestsBuilder",
            "UNIXTestsBuilder",
            "ReactorFDSetTestsBuilder",
        ):
            self.assertTrue([name for name in _cases if expected in name], expected)
