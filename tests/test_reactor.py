"""
The lean reactor passes Twisted's own tests of a reactor.

Each of Twisted's reactor builders below is run with our reactor in place of its list: timers and
their order, starting and stopping, threads, descriptors, TCP, UNIX sockets, UDP, half-close, and
running out of file descriptors.
"""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Callable
from typing import Any

from twisted.application.reactors import getReactorTypes
from twisted.trial.unittest import SkipTest, SynchronousTestCase

#: Where Twisted keeps its builders. Processes, TLS and glib are left out: nothing there depends on
#: how a poll is turned into calls.
_MODULES = ["core", "fdset", "tcp", "threads", "time", "udp", "unix"]


def _left_out(reason: str) -> Callable[[object], None]:
    """Put a skip in the place of a test."""

    def skip(_case: object) -> None:
        raise SkipTest(reason)

    return skip


#: What does not apply, and why.
_LEFT_OUT = {
    # Twisted leaves it out for its own epoll reactor, which it knows by its class name.
    "test_lostFileDescriptor": _left_out("epoll forgets a closed descriptor without an event"),
    "test_timeout_add": _left_out("about glib's reactor only"),
    "test_logPrefix": _left_out("the log context per event is what this reactor leaves out"),
}


def _dropping_warnings(builder: Any) -> Callable[[Any], None]:
    """Drop, where warnings are errors, those of what Twisted's own tests do or leave open."""

    def tear_down(case: Any) -> None:
        builder.tearDown(case)
        if sys.warnoptions:
            gc.collect()
            case.flushWarnings()

    return tear_down


def _with_our_reactor(module: str) -> dict[str, Any]:
    """Make Twisted's test cases of a module again, for our reactor only."""
    found: dict[str, Any] = {}
    name = f"twisted.internet.test.test_{module}"
    contents = vars(importlib.import_module(name))
    for builder in list(contents.values()):
        # What Twisted itself makes a test case of, for its own epoll reactor.
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
    """What is ours about it."""

    def test_twistd_can_choose_it(self) -> None:
        """The plugin offers it under its short name."""
        installer: Any = {reactor.shortName: reactor for reactor in getReactorTypes()}["twsock"]
        self.assertEqual(installer.moduleName, "twsock.reactor")

    def test_twisteds_tests_were_found(self) -> None:
        """The list above is not empty because something was renamed."""
        for expected in (
            "TimeTestsBuilder",
            "TCPPortTestsBuilder",
            "UNIXTestsBuilder",
            "ReactorFDSetTestsBuilder",
        ):
            self.assertTrue([name for name in _cases if expected in name], expected)
