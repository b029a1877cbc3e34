"""
The commands of the parent in a worker: link → **commands** → services.

`twsock.services.process` calls `run_for_parent` once the reactor runs. Nothing is held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from twisted.internet.error import ReactorNotRunning

from twsock.log import TextLogger
from twsock.services.listening import ListeningService
from twsock.services.measurements import Measurement
from twsock.services.signals import process_signals
from twsock.services.workers.link import ParentLink, leave_log_of_parent, link_to_parent

__all__ = ["WorkerCommands", "run_for_parent"]


class WorkerCommands:
    """
    Obeys the parent; see `LinkedService`.

    :param reactor: is stopped.
    :param services: returns the services of the process.
    """

    _log = TextLogger()

    def __init__(self, reactor: Any, services: Callable[[], Iterable[ListeningService]]) -> None:
        self._reactor = reactor
        self._services = services

    def measure(self) -> Iterator[Measurement]:
        """Return the numbers of all services."""
        for service in self._services():
            yield from service.measure()

    def stop(self) -> None:
        """Stop the reactor, which stops the services before; once."""
        with suppress(ReactorNotRunning):
            self._reactor.stop()

    def hurry(self) -> None:
        """End a running or later stop at once."""
        process_signals.hurry()

    def parent_ended(self) -> None:
        """Log nothing more: no process reads the log."""
        leave_log_of_parent()


def run_for_parent(reactor: Any, services: Callable[[], Iterable[ListeningService]]) -> ParentLink:
    """Obey the commands of the parent from now on."""
    return link_to_parent(reactor, WorkerCommands(reactor, services))
