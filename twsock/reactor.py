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

If the next timer is more than a second away, such as that of an idle timeout, a wait for events has
no timeout: an `_Alarm` ends the wait. A timeout costs a twentieth of an echo at each wait.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import math
import os
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

#: Waits of more seconds than this have an alarm. Setting the alarm costs as much as some timeouts.
_FAR: Final = 1.0

#: A flag of ``timerfd_settime``: the time is one of the clock, not a number of seconds from now.
_TFD_TIMER_ABSTIME: Final = 1


class _Alarm:
    """
    A timer of the kernel (timerfd) that ends a wait for events, as a descriptor of the reactor.

    If the reactor's timer is cancelled after the alarm was set, the alarm ends a wait for nothing.
    An alarm is never late.

    :param watch: called once with the alarm, when the alarm has a descriptor.
    :ivar time: when the alarm ends a wait, in seconds on the clock of the reactor; infinite while
        it is not set.
    """

    def __init__(self, watch: Callable[[_Alarm], None]) -> None:
        self.time = math.inf
        self._watch = watch
        self._descriptor = -1
        self._is_missing = False

    def ring_by(self, when: float) -> bool:
        """End a wait at this time or earlier; return False if the system has no such timer."""
        if when >= self.time or self._is_missing:
            return not self._is_missing
        try:
            # Seconds and nanoseconds of the interval (0: the timer fires once), and of the time.
            setting = (ctypes.c_long * 4)(0, 0, int(when), int(when % 1 * 1e9))
            _call("timerfd_settime", self._descriptor, _TFD_TIMER_ABSTIME, setting, None)
        except (AttributeError, OSError):
            self._is_missing = True
            return False
        self.time = when
        return True

    def open(self) -> None:
        """Make the timer, if the system has one. The reactor calls this once."""
        # ``ReactorBase.seconds`` is this clock, too. The flags have the values of those of open(2).
        flags = os.O_NONBLOCK | os.O_CLOEXEC
        try:
            self._descriptor = _call("timerfd_create", time.CLOCK_REALTIME, flags)
        except (AttributeError, OSError):
            self._is_missing = True
        else:
            self._watch(self)

    # Called by Twisted.

    def fileno(self) -> int:
        return self._descriptor

    def logPrefix(self) -> str:
        return "alarm"

    def doRead(self) -> None:
        self.time = math.inf
        with contextlib.suppress(BlockingIOError):  # The clock was set.
            os.read(self._descriptor, 8)

    def connectionLost(self, _reason: object) -> None:
        self.time = math.inf
        self._is_missing = True
        os.close(self._descriptor)
        self._descriptor = -1


def _call(name: str, *arguments: Any) -> int:
    """
    Call a function of the C library. Since Python 3.13 the module ``os`` has these functions.

    :raises AttributeError: if the library does not have it.
    :raises OSError: if the call fails; also on 32-bit machines, where times have another size.
    """
    if ctypes.sizeof(ctypes.c_long) != 8:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    result: int = getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


class LeanEpollReactor(EPollReactor):
    """
    Twisted's epoll reactor without a log context for each event.

    :ivar sets_log_context: False. So transports need not store the prefix of their log messages.
    """

    sets_log_context: Final = False

    _log = TextLogger()

    def __init__(self) -> None:
        super().__init__()
        self._alarm = _Alarm(self._watch_alarm)
        self._alarm.open()

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

    def _watch_alarm(self, alarm: _Alarm) -> None:
        self._internalReaders.add(alarm)
        self.addReader(alarm)

    def _run_turns(self) -> None:
        """Handle events and timers until the reactor has stopped, or an error of the loop."""
        alarm = self._alarm
        while self._started:
            timers = self._pendingTimedCalls
            wait = None
            if timers and timers[0].time < alarm.time:
                wait = timers[0].time - self.seconds()
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
            if wait is not None and wait > _FAR and alarm.ring_by(self._pendingTimedCalls[0].time):
                wait = None
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
