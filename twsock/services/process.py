"""
A service as a process of ``twistd``: `twsock.services.process_options` → **process** → services.

This is the outermost service of each of our plugins. When a service cannot start, it ends the
process with status 1, one line on standard error and no pid file. That holds for daemons as well.

``twistd`` becomes a daemon as follows. The process that the user started forks, and waits on a pipe
for a report from its grandchild. The grandchild writes the pid file, then starts the services. It
removes the file and reports a failure in an ``except Exception``, which a plain ``SystemExit``
skips: the parent would then wait for ever. A report has at most 100 bytes, which is too few for an
endpoint and a reason. So our line is written to the terminal through a duplicate of standard error.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred, DeferredList, ensureDeferred
from twisted.logger import ILogObserver, LogLevel
from typing_extensions import override

from twsock.log import TextLogger
from twsock.services.listening_sockets import ListeningSockets
from twsock.services.notify import process_notifier
from twsock.services.process_log import logs_to_file, process_log_observer
from twsock.services.process_options import ProcessOptions
from twsock.services.start_error import StartError
from twsock.services.twistd_options import hides_errors, options_of_twistd, process_owner

__all__ = ["ProcessService", "in_process"]


class ProcessService(MultiService):
    """
    Contains the services of a process that ``twistd`` runs.

    :param options: the parsed options of the plugin; ``options.parent`` has those of ``twistd``.
    """

    _log = TextLogger()

    def __init__(self, options: ProcessOptions) -> None:
        super().__init__()
        twistd = options_of_twistd(options)
        self._twistd: Any = twistd
        values = dict(options)
        self._workers = options.workers
        self._link: Any = None
        is_worker = self._workers.is_worker
        self._logs_json = twistd is not None and (is_worker or values["log-format"] == "json")
        self._level = LogLevel.levelWithName(values["log-level"])
        # A worker has no page: its parent waits, and serves the numbers of all workers.
        self._drain_delay = 0.0 if is_worker else float(values["drain-delay"])
        self._sockets = options.sockets
        self._page = None if is_worker else self._make_page(options)
        self._restarts = self._make_restarts(options)
        process_notifier.take_environment(os.environ)
        self._terminal: int | None = None
        if twistd is not None and hides_errors(twistd):
            # Standard error may be closed; then no line is printed.
            with contextlib.suppress(OSError):
                self._terminal = os.dup(2)

    # Called by Twisted.

    @override
    def setServiceParent(self, parent: Any) -> None:
        """Join the application and set its log observer; twistd starts logging after this."""
        super().setServiceParent(parent)
        if self._twistd is None or not hasattr(parent, "setComponent"):
            return
        # During a restart, two processes write to the file.
        shares_file = self._restarts is not None and logs_to_file(self._twistd)
        if self._logs_json or self._level is not LogLevel.debug or shares_file:
            observer = process_log_observer(
                self._twistd, logs_json=self._logs_json, level=self._level
            )
            parent.setComponent(ILogObserver, observer)

    def _make_page(self, options: ProcessOptions) -> Any:
        from twsock.services.metrics import listening_services, metrics_service

        return metrics_service(options.page_reactor, options, lambda: listening_services(self))

    def _make_restarts(self, options: ProcessOptions) -> Any:
        if dict(options)["control"] is None or self._workers.is_worker:
            return None
        from twsock.services.restart.process import RestartingProcess

        services, describe = self._all_services, self._describe_ports
        return RestartingProcess(options, services, describe, owner=process_owner(options))

    def _all_services(self) -> list[Any]:
        """Return all services that listen, the page included."""
        from twsock.services.metrics import listening_services

        return [*listening_services(self), *([] if self._page is None else [self._page])]

    @override
    def privilegedStartService(self) -> None:
        """
        Start the services, while the process may still open low ports.

        :raises StartError: when one of them cannot start.
        """
        try:
            if self._restarts is not None:
                self._restarts.take_over()
            if self._page is not None:
                self._page.privilegedStartService()
            super().privilegedStartService()
            self._workers.check_sockets(self._sockets)
            if self._restarts is not None:
                self._restarts.listen()
        except StartError as error:
            if self._restarts is not None:
                self._restarts.abandon(str(error))
            if self._page is not None:
                self._page.abandon_ports()
            if self._sockets is not None:
                self._sockets.close()
            if self._twistd is not None and hides_errors(self._twistd):
                self._report_error(error)
            if self._workers.is_worker:
                raise self._workers.failed(error) from error
            raise

    def _report_error(self, error: StartError) -> None:
        """
        Report on the terminal why the process cannot start.

        A daemon does so before twistd reports to the parent process.
        """
        if self._terminal is not None:
            os.write(self._terminal, f"{error}\n".encode(errors="backslashreplace"))
        self._log.critical("{line}", line=str(error))
        # Python prints no more than the status then.
        error.code = 1
        # twistd would remove it too, but only when its parent may have ended.
        if self._twistd["pidfile"]:
            Path(self._twistd["pidfile"]).unlink(missing_ok=True)
            self._twistd["pidfile"] = ""

    @override
    def startService(self) -> None:
        if self._page is not None:
            self._page.startService()
        super().startService()
        if self._terminal is not None:
            # Nothing is reported there any more, and a daemon keeps no terminal open.
            os.close(self._terminal)
            self._terminal = None
        if self._sockets is not None:
            self._warn_of_unkept(self._sockets)
        self._report_ready()

    def _warn_of_unkept(self, sockets: ListeningSockets) -> None:
        """Log the endpoints whose sockets cannot move to another process."""

        def warn(_: object) -> None:
            for service in self._all_services():
                for description in service.unkept_endpoints(sockets):
                    self._log.warn(
                        "{description} opened its socket itself: a restart cannot keep it",
                        description=description,
                    )

        # Some endpoints listen later.
        opening = DeferredList([each.opening for each in self._all_services()])
        opening.addCallback(warn)

    def _report_ready(self) -> None:
        """Report to the service manager once all services listen and the reactor runs."""
        from twisted.internet import reactor

        def report(_: object) -> None:
            is_complete = all(service.ports for service in self._all_services())
            if is_complete and self._link is not None:
                self._link.report_ready()
            if self._restarts is not None:
                self._restarts.started(is_complete)
            elif is_complete:
                process_notifier.start(reactor, self._describe_ports)

        loop: Any = reactor
        if self._workers.is_worker:
            loop.callWhenRunning(self._link_to_parent)
        if self._restarts is not None:
            loop.callWhenRunning(self._restarts.start)
        opening = DeferredList([each.opening for each in self._all_services()])
        loop.callWhenRunning(opening.addCallback, report)

    def _link_to_parent(self) -> None:
        from twisted.internet import reactor

        from twsock.services.metrics import listening_services
        from twsock.services.workers.worker import run_for_parent

        self._link = run_for_parent(reactor, lambda: listening_services(self))

    def _describe_ports(self) -> str:
        from twsock.services.metrics import describe_ports

        return f"listening on {describe_ports(self)}"

    @override
    def stopService(self) -> Deferred[Any]:
        """Report that the process is not ready; after the delay, stop the services."""
        from twsock.services.metrics import listening_services

        draining = max((each.drain_timeout for each in listening_services(self)), default=0.0)
        process_notifier.notify_stopping(self._drain_delay + draining)
        return ensureDeferred(self._stop())

    async def _stop(self) -> None:
        if self._restarts is not None:
            await self._restarts.stop()
        if self._page is not None:
            was_replaced = self._restarts is not None and self._restarts.has_been_replaced
            await self._page.drain(0 if was_replaced else self._drain_delay)
        await super().stopService()
        if self._page is not None:
            await self._page.stopService()
        if self._link is not None:
            await self._link.finish()
        if self._sockets is not None:
            # The sockets that no port has claimed; the others were closed with their ports.
            self._sockets.close()

    def describe_check(self) -> list[str]:
        """
        Return what the process would do, a line each.

        :raises StartError: when it could not start.
        """
        from twsock.services.checking import describe_check

        control = None if self._restarts is None else str(self._restarts.path)
        try:
            lines = describe_check(self._all_services(), control)
        except ValueError as error:
            raise StartError(f"twsock: {error}") from error
        if self._workers.count is not None:
            lines.insert(-1, f"would start {self._workers.count} workers")
        return lines


def in_process(options: ProcessOptions, service: Any) -> IService:
    """Return the service for ``twistd`` that contains a service of ours."""
    process: Any = ProcessService(options)
    contained_service = options.workers.wrap(service, options)
    contained_service.setServiceParent(process)
    if dict(options)["check"]:
        print(*(f"twsock: {line}" for line in process.describe_check()), sep="\n")
        raise SystemExit(0)
    contained: IService = process
    return contained
