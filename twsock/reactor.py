"""
An epoll reactor for Linux without a log context for each event: ``twistd --reactor=twsock``.

Twisted's epoll reactor sets a log context for each event. Legacy log messages then contain the
name of their connection. The context costs a dictionary copy, a context switch and several calls
per event, more than a read of 64 bytes. This reactor sets none; messages contain the ``system`` of
their logger.

Everything else is Twisted's. Most of the remaining cost is needed for fairness: the reactor runs
timers between events, and skips events that an earlier event made stale.
"""

from __future__ import annotations

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import installReactor
from typing_extensions import override

from twsock.log import TextLogger

__all__ = ["LeanEpollReactor", "install"]


class LeanEpollReactor(EPollReactor):
    """Twisted's epoll reactor without a log context for each event."""

    _log = TextLogger()

    @override
    def doPoll(self, timeout: float | None) -> None:
        """
        Wait for events and handle them.

        :param timeout: the longest wait in seconds; None for no limit.
        """
        selectables = self._selectables
        # A signal does not end this wait early: Python resumes it after the handler (PEP 475).
        # Twisted's signal handlers write to the waker, which is one of the descriptors.
        events = self._poller.poll(-1 if timeout is None else timeout, len(selectables))
        do_read_or_write = self._doReadOrWrite
        for fd, event in events:
            selectable = selectables.get(fd)
            # An earlier event may have closed it.
            if selectable is None:
                continue
            try:
                do_read_or_write(selectable, fd, event)
            except Exception:  # noqa: BLE001 - logged; a reactor survives its protocols
                # A protocol raised it in `connectionLost`.
                self._log.failure("unhandled error in {selectable}", selectable=str(selectable))

    doIteration = doPoll


def install() -> None:
    """Install this reactor; call it before anything imports ``twisted.internet.reactor``."""
    installReactor(LeanEpollReactor())
