"""
Whether a process is a parent of workers, a worker, or neither: options → **role** → process.

`twsock.services.process` uses the role at each step in which these processes differ. Holds the
start of a worker, or the program of the workers of a parent.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from typing import Any, Final

from twisted.internet.interfaces import IReactorProcess
from twisted.python.usage import UsageError

from twsock.services.listening_sockets import ListeningSockets
from twsock.services.options import count_option
from twsock.services.signals import process_signals
from twsock.services.start_error import StartError
from twsock.services.workers.start import WorkerProgram, WorkerStart, take_worker_start

__all__ = ["MAX_WORKERS", "WorkersRole"]

#: The largest number of workers.
MAX_WORKERS: Final = 1024


class WorkersRole:
    """
    The role of a process.

    :param start: what the parent has passed to a worker; None in other processes.
    :param arguments: the command line of the plugin.

    :ivar count: the number of workers of a parent; None in other processes.
    """

    def __init__(self, start: WorkerStart | None, arguments: tuple[str, ...]) -> None:
        self._start = start
        self._arguments = arguments
        self.count: int | None = None
        self._program: WorkerProgram | None = None

    @classmethod
    def take(cls, environment: MutableMapping[str, str], arguments: tuple[str, ...]) -> WorkersRole:
        """
        Return the role of this process; a parent is known only when its options are parsed.

        :param environment: see `take_worker_start`.
        :raises ValueError: see `take_worker_start`.
        """
        start = take_worker_start(environment)
        if start is not None:
            process_signals.follow_parent()
        return cls(start, arguments)

    @property
    def is_worker(self) -> bool:
        """Whether the process is a worker."""
        return self._start is not None

    def choose(self, options: Any, twistd: Any) -> None:
        """
        Check the option ``--workers``, and set the tables of sockets of a parent or a worker.

        :param options: those of the plugin, a `ProcessOptions`.
        :param twistd: the options of ``twistd``; None if another program runs the service.
        :raises UsageError: when the service, or the program, cannot have workers; when a worker
            lacks a socket of its parent.
        """
        if self._start is not None:
            options.sockets, options.shares_ports = ListeningSockets(checks_paths=False), True
            try:
                options.sockets.inherit(self._start.open_sockets())
            except ValueError as error:
                raise UsageError(str(error)) from error
            return
        self.count = _count_workers(options)
        if self.count is not None and options["control"] is not None:
            raise UsageError("--workers excludes --control: a restart moves no sockets of workers")
        if self.count is not None:
            _check_program(options, twistd)
            self._program = WorkerProgram.of(twistd, self._arguments)
            options.worker_sockets = [
                ListeningSockets(checks_paths=False) for _ in range(self.count)
            ]

    def wrap(self, service: Any, options: Any) -> Any:
        """Return what the process runs: in a parent the workers, otherwise the service itself."""
        if self._start is not None:
            service.logs_ports = False
            service.awaits_first_messages = True
        if self.count is None or self._program is None:
            return service
        from twisted.internet import reactor

        from twsock.services.workers.service import WorkersService

        return WorkersService(reactor, service, options.worker_sockets, self._program)

    def check_sockets(self, sockets: ListeningSockets | None) -> None:
        """
        Check that a worker serves the sockets of its parent, all of them and no others.

        :raises StartError: when it does not.
        """
        if self._start is None or sockets is None:
            return
        unused = sockets.close_unclaimed()
        held = {name for name, _ in sockets.held()}
        different = [*unused, *sorted(held - set(self._start.names))]
        if different:
            raise StartError(f"twsock: this worker and its parent differ in {different[0]}")

    def failed(self, error: Any) -> Any:
        """Report to the parent why a worker cannot start; return the error, to be raised."""
        from twsock.services.workers.link import report_failure

        line = str(error).removeprefix("twsock: ")
        # Python prints a code that is text, and exits with status 1.
        error.code = 1 if report_failure(line) else f"twsock: {line}"
        return error


def _count_workers(options: Any) -> int | None:
    text = options["workers"]
    if text is None:
        return None
    if text == "auto":
        return len(os.sched_getaffinity(0))
    try:
        return count_option(options, "workers", 1, MAX_WORKERS)
    except UsageError as error:
        raise UsageError(f"{error}; or auto") from error


def _check_program(options: Any, twistd: Any) -> None:
    from twisted.internet import reactor

    if options.workers_refused:
        raise UsageError(f"--workers: {options.workers_refused}")
    if twistd is None:
        raise UsageError("--workers needs twistd, which starts the workers")
    if twistd.get("chroot") is not None:
        raise UsageError("--workers excludes twistd's --chroot: workers are programs outside of it")
    if not hasattr(socket, "SO_REUSEPORT") or not IReactorProcess.providedBy(reactor):
        raise UsageError("--workers needs SO_REUSEPORT, and a reactor that starts processes")
