"""
An epoll reactor for Linux without a log context for each event: ``twistd --reactor=twsock``.

Twisted's epoll reactor sets a log context for each event. Legacy log messages then contain the
name of their connection. The context costs a dictionary copy, a context switch and several calls
per event, more than a read of 64 bytes. This reactor sets none; messages contain the ``system`` of
their logger.

A turn of the loop checks whether a timer, a call from a thread or a stop is due, and calls
Twisted's code for them only then. For an event of input alone it calls ``doRead`` itself.
Everything else is Twisted's. Most of the remaining cost is needed for fairness: the reactor runs
timers between events, and skips events that an earlier event made stale.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from select import EPOLLIN
from typing import Any, Final

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import installReactor
from typing_extensions import override

from twsock.log import TextLogger

__all__ = ["LeanEpollReactor", "install"]

#: Seconds from an error of the loop itself to the next turn. If the kernel refuses to wait for
#: events, each turn fails at once: without a pause the loop would occupy a core and fill the log.
_PAUSE_AFTER_ERROR: Final = 0.1

#: Twisted handles waits of more seconds, since it knows the longest wait that epoll accepts.
_LONG_WAIT: Final = 3600.0


class LeanEpollReactor(EPollReactor):
    """
    Twisted's epoll reactor without a log context for each event.

    :ivar sets_log_context: False; transports then need not keep the prefix of their log messages.
    """

    sets_log_context: Final = False

    _log = TextLogger()

    @override
    def mainLoop(self) -> None:
        """Handle events and timers until the reactor has stopped."""
        while self._started:
            try:
                self._run_turns()
            except BaseException:  # noqa: BLE001 - logged; the main loop of Twisted does the same
                self._log.failure("unexpected error in the main loop")
                time.sleep(_PAUSE_AFTER_ERROR)
        self._log.info("main loop terminated")

    def _run_turns(self) -> None:
        """Handle events and timers until the reactor has stopped, or an error of the loop."""
        while self._started:
            timers = self._pendingTimedCalls
            wait = timers[0].time - self.seconds() if timers else None
            if (
                # A cancelled timer is dropped when it is due, or when the next one is added.
                self._newTimedCalls
                or self.threadCallQueue
                or self._justStopped
                or (wait is not None and not 0 < wait < _LONG_WAIT)
            ):
                self.runUntilCurrent()
                # The last turn does not wait.
                wait = self.timeout() if self.running else 0
            self.doPoll(wait)

    @override
    def doPoll(self, timeout: float | None) -> None:
        """
        Wait for events and handle them.

        :param timeout: the longest wait in seconds; None for no limit.
        """
        selectables = self._selectables
        # A signal does not end this wait early: Python resumes it after the handler (PEP 475).
        # Twisted's signal handlers write to the waker, which is one of the descriptors.
        for fd, event in self._poller.poll(timeout, len(selectables)):
            selectable = selectables.get(fd)
            # An earlier event may have closed it.
            if selectable is None:
                continue
            try:
                is_read = event == EPOLLIN and selectable.fileno() != -1
                reason = selectable.doRead() if is_read else None
            except BaseException as error:  # noqa: BLE001 - logged, and it ends the connection
                self._log.failure("{selectable} failed to read", selectable=str(selectable))
                self._guard(self._disconnectSelectable, selectable, error, False)
                continue
            if not is_read:
                self._guard(self._doReadOrWrite, selectable, fd, event)
            elif reason:
                self._guard(self._disconnectSelectable, selectable, reason, True)

    def _guard(self, method: Callable[..., None], selectable: Any, *arguments: object) -> None:
        """Call a method of Twisted; log an error that a protocol raises at its loss."""
        try:
            method(selectable, *arguments)
        except BaseException:  # noqa: BLE001 - logged; a reactor survives its protocols
            self._log.failure("unhandled error in {selectable}", selectable=str(selectable))

    doIteration = doPoll


def install() -> None:
    """Install this reactor; call it before anything imports ``twisted.internet.reactor``."""
    installReactor(LeanEpollReactor())
