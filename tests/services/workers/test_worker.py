"""A worker's process, as its parent commands it."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ReactorNotRunning
from twisted.trial.unittest import SynchronousTestCase

from tests.services.workers.fake_processes import counted
from twsock.services.workers.worker import WorkerCommands


class Reactor:
    """Can be stopped once."""

    def __init__(self) -> None:
        self.stops = 0

    def stop(self) -> None:
        self.stops += 1
        if self.stops > 1:
            raise ReactorNotRunning


class Service:
    """Has a number."""

    def __init__(self, count: int) -> None:
        self._count = count

    def measure(self) -> list[Any]:
        return [counted(self._count)]


class CommandTests(SynchronousTestCase):
    """What the parent commands."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        services: Any = [Service(3), Service(4)]
        self.commands = WorkerCommands(self.reactor, lambda: services)

    def test_the_numbers_of_all_services_are_measured(self) -> None:
        """One after the other."""
        self.assertEqual([each.value for each in self.commands.measure()], [3, 4])

    def test_a_second_stop_changes_nothing(self) -> None:
        """The end of the parent follows its command."""
        self.commands.stop()
        self.commands.stop()
        self.assertEqual(self.reactor.stops, 2)
