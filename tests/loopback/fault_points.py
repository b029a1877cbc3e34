"""
Lets a process kill or stop itself at a step, in a test: no luck, and no sleep.

A fault has four words: the role, ``before`` or ``after``, the name of an action of the table of the
role, and a signal. The roles are the ``old`` and the ``new`` process of a restart, and the
``parent`` of workers. ``old before OFFER KILL`` kills the old process before it offers its
connections. A number behind the action counts: ``new after KEEP:2 KILL``.

Two further roles are ``giver`` and ``taker`` of a connection, with the packets of the hand-over:
``taker before Accepted KILL``.
"""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable
from typing import Any

from twsock.handover import channel as handover
from twsock.services.restart.new_process import NewProcess
from twsock.services.restart.old_process import OldProcess
from twsock.services.workers.parent import Workers

__all__ = ["install", "statement"]


def statement(fault: str) -> str:
    """Return the statement with which a process installs a fault in itself; empty without one."""
    return f"from tests.loopback.fault_points import install; install({fault!r})" if fault else ""


def install(fault: str) -> None:
    """Install a fault in this process."""
    role, when, action, name = fault.split()
    step, _, count = action.partition(":")
    number = signal.Signals[f"SIG{name}"]
    roles: dict[str, tuple[Any, str, Callable[..., str]]] = {
        "old": (OldProcess, "perform", lambda action: action.name),
        "new": (NewProcess, "perform", lambda action: action.name),
        "parent": (Workers, "perform", lambda action, _place: action.name),
        "giver": (handover._Giving, "start", lambda *_: "Offer"),
        "taker": (handover._Taking, "send", lambda packet: type(packet).__name__),
    }
    holder, method, name_of = roles[role]
    fail = _after(int(count or 1), lambda: os.kill(os.getpid(), number))
    original = getattr(holder, method)

    @functools.wraps(original)
    def wrapped(self: Any, *arguments: Any) -> Any:
        is_hit = name_of(*arguments) == step
        if is_hit and when == "before":
            fail()
        result = original(self, *arguments)
        if is_hit and when == "after":
            fail()
        return result

    setattr(holder, method, wrapped)


def _after(count: int, fail: Callable[[], None]) -> Callable[[], None]:
    left = count

    def call() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            fail()

    return call
