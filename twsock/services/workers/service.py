"""
The service of a parent: endpoints → sockets of all workers → **workers**.

It takes the place of the service that the process would run without ``--workers``: it opens the
same endpoints, and keeps their sockets for the workers. The parent serves no connection itself.
Holds the sockets, until the process stops.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol, Factory
from typing_extensions import override

from twsock.log import TextLogger
from twsock.services.datagram_listening import DatagramListeningService
from twsock.services.listening import ListeningService
from twsock.services.listening_sockets import ListeningSockets
from twsock.services.measurements import Measurement
from twsock.services.start_error import StartError
from twsock.services.workers.parent import STOP_MARGIN, Workers
from twsock.services.workers.process import WorkerProcess
from twsock.services.workers.start import WorkerProgram

__all__ = ["SocketsOfWorkers", "WorkersService"]


class WorkersService(ListeningService):
    """
    Opens the endpoints of a service for its workers, and keeps the workers running.

    :param reactor: starts the processes.
    :param service: what each worker runs; it is not started here. Its endpoints have a
        `BindingReactor`.
    :param tables: the sockets of each worker.
    :param program: starts a worker.
    """

    _log = TextLogger()

    def __init__(
        self,
        reactor: Any,
        service: ListeningService,
        tables: Sequence[ListeningSockets],
        program: WorkerProgram,
    ) -> None:
        super().__init__(reactor, service.endpoints)
        self._is_datagram = isinstance(service, DatagramListeningService)
        self._tables = tables
        self._program = program
        self.drain_timeout = service.drain_timeout + STOP_MARGIN
        self.workers = Workers(reactor, len(tables), self._start_process, service.drain_timeout)

    @property
    @override
    def is_ready(self) -> bool:
        return bool(self.ports) and self.workers.is_ready

    @override
    def listen_on(self, endpoint: Any) -> Deferred[Any]:
        protocol: Any = DatagramProtocol() if self._is_datagram else SocketsOfWorkers()
        listening: Deferred[Any] = endpoint.listen(protocol)
        return listening

    @override
    def measure(self) -> Iterable[Measurement]:
        return self.workers.measure()

    @override
    def refresh(self) -> Deferred[None]:
        return self.workers.refresh()

    @override
    def reload(self) -> bool:
        """Replace the workers; the new ones read all files again."""
        self.workers.replace()
        return True

    @override
    def hurry(self) -> None:
        super().hurry()
        self.workers.hurry()

    @override
    def kill(self) -> None:
        self.workers.kill()

    @override
    async def stop(self) -> None:
        self._log.info(
            "stopping {count} workers within {timeout:g} s",
            count=len(self.workers.pids),
            timeout=self.drain_timeout,
        )
        # First, so that each worker has the last descriptors of its sockets. Before it closes them,
        # it accepts the queued connections.
        await self.close_ports()
        await self.workers.stop()
        self._log.info("stopped: no worker is left")

    # Called by Twisted.

    @override
    def privilegedStartService(self) -> None:
        """
        Open the sockets of all workers.

        :raises StartError: when one cannot be opened, or an endpoint has a socket of another kind.
        """
        super().privilegedStartService()
        problem = self._find_problem()
        if problem is not None:
            self.abandon_ports()
            raise StartError(f"twsock: --workers: {problem}")
        # All tables have the same UNIX paths, and one of them removes each.
        for table in self._tables[1:]:
            table.owns_paths = False
        self.opening = self.workers.wait_until_ready()

    @override
    def startService(self) -> None:
        super().startService()
        self._reactor.callWhenRunning(self._start)

    def _start(self) -> None:
        if self.ports:
            self.workers.start()

    def _find_problem(self) -> str | None:
        """Return why workers cannot have the socket of an endpoint; None if they have all."""
        for description in self.unkept_endpoints(self._tables[0]):
            return f"{description} opens a socket that workers cannot have"
        if len(self.ports) < len(self.descriptions):
            return "an endpoint does not listen at once, so workers cannot have its socket"
        return None

    def _start_process(self, worker: WorkerProcess) -> None:
        self._program.start(self._reactor, worker, self._tables[worker.number - 1].held())


class SocketsOfWorkers(Factory):
    """The factory of a port that accepts no connection; Twisted logs its name."""

    noisy = False
