"""
Signals of the process, for the services that run in it: signal → **service**.

SIGHUP never ends the process: each service reads its files again. The first SIGTERM or SIGINT
stops the reactor, as in Twisted; the second ends the drain at once. Without this module, Twisted
logs ``ReactorNotRunning`` with a traceback at the second signal, and continues to drain.

The previous handlers are restored when no service runs. This module does nothing outside the main
thread, since Python allows no signal handlers there.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import typing
from collections.abc import Iterator
from typing import Any, Final

from twsock.log import TextLogger
from twsock.services.notify import notify_ready, notify_reloading

__all__ = ["SignalReceiver", "hold_signals", "process_signals"]

_STOPPING: Final = (signal.SIGTERM, signal.SIGINT)

_HELD: Final = (*_STOPPING, signal.SIGHUP)


@contextlib.contextmanager
def hold_signals() -> Iterator[None]:
    """
    Block the signals that this module handles, for processes that are started meanwhile.

    A started process inherits the blocked signals. It unblocks them once it has handlers. Before,
    SIGINT would end it with a traceback of the module that Python loads at that moment.
    """
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


class SignalReceiver(typing.Protocol):
    """What a service does on a signal."""

    def reload(self) -> bool:
        """Read files again; return whether this service has any."""

    def hurry(self) -> None:
        """End a running stop at once; a later stop then ends at once too."""

    def kill(self) -> None:
        """End other processes that this service has started; this one ends now."""


class _ProcessSignals:
    """The handlers of SIGHUP, SIGTERM and SIGINT, installed while a service runs."""

    _log = TextLogger()

    def __init__(self) -> None:
        self._receivers: list[SignalReceiver] = []
        self._reactor: Any = None
        self._watched: Any = None
        self._previous: dict[int, Any] = {}
        self._stops = 0
        self._has_parent = False

    def follow_parent(self) -> None:
        """
        Ignore SIGTERM and SIGINT from now on: the process is a worker, which its parent stops.

        A terminal sends SIGINT to the parent and its workers, and systemd sends SIGTERM to both. A
        worker would take the later command of its parent for a second signal, and abort its
        connections. `hold_signals` of the parent covers the time before, until the reactor runs.
        """
        self._has_parent = True
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def hurry(self) -> None:
        """End a running or later stop of all services at once."""
        for receiver in list(self._receivers):
            receiver.hurry()

    def add(self, reactor: Any, receiver: SignalReceiver) -> None:
        """Pass signals to a service that starts; its reactor need not run yet."""
        if threading.current_thread() is not threading.main_thread():
            return
        if not self._receivers:
            self._reactor = reactor
            self._stops = 0
            self._previous[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._hang_up)
            # SIGTERM and SIGINT later: the reactor installs its own handlers when it begins to run.
            reactor.callWhenRunning(self._take_over)
        self._receivers.append(receiver)

    def discard(self, receiver: SignalReceiver) -> None:
        """Remove a service that has stopped; after the last one, restore the handlers."""
        if receiver not in self._receivers:
            return
        self._receivers.remove(receiver)
        if self._receivers or self._stops:
            # While the process stops, the handlers stay installed for a further signal.
            return
        ours = (self._hang_up, self._stop)
        for number, previous in self._previous.items():
            if signal.getsignal(number) in ours:
                signal.signal(number, previous)
        self._previous.clear()

    def _take_over(self) -> None:
        if not self._receivers:
            return
        for number in _STOPPING:
            handler = signal.getsignal(number)
            # A handler that is not the reactor's belongs to the application.
            if getattr(handler, "__self__", None) is self._reactor:
                self._previous[number] = handler
                signal.signal(number, self._stop)
        if self._has_parent:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)
        if self._watched is not self._reactor:
            self._watched = self._reactor
            self._reactor.addSystemEventTrigger("before", "shutdown", self._begin_shutdown)

    def _begin_shutdown(self) -> None:
        # If the application stopped the reactor itself, the first signal already means "at once".
        if self._receivers:
            self._stops = max(self._stops, 1)

    # Called by Python between any two instructions, so they only schedule the work.

    def _hang_up(self, number: int, frame: Any) -> None:
        self._reactor.callFromThread(self._reload)
        previous = self._previous.get(number)
        if callable(previous):
            previous(number, frame)

    def _stop(self, number: int, frame: Any) -> None:
        if self._has_parent:
            return
        self._stops += 1
        if self._stops == 1:
            self._previous[number](number, frame)
        elif self._stops == 2:
            self._reactor.callFromThread(self._hurry, number)
        else:
            for receiver in self._receivers:
                receiver.kill()
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _reload(self) -> None:
        notify_reloading()
        try:
            reloaded = [receiver.reload() for receiver in self._receivers]
        finally:
            notify_ready()
        if not any(reloaded):
            self._log.info("SIGHUP: no service here has certificates to read again")

    def _hurry(self, number: int) -> None:
        self._log.warn("{name} again: ending at once", name=signal.Signals(number).name)
        self.hurry()


#: One for the process, since a process has one handler for each signal.
process_signals: Final = _ProcessSignals()
