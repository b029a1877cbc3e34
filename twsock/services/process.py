"""
A service as a process of ``twistd``: options → **process** → its services and its log.

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
import pwd
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TextIO

from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred, DeferredList, ensureDeferred
from twisted.logger import (
    FilteringLogObserver,
    ILogFilterPredicate,
    ILogObserver,
    LogEvent,
    LogLevel,
    PredicateResult,
    textFileLogObserver,
)
from twisted.python.logfile import LogFile
from twisted.python.usage import Options, UsageError
from typing_extensions import override
from zope.interface import implementer

from twsock.log import TextLogger
from twsock.services.json_log import json_log_observer
from twsock.services.keeping_reactor import BindingReactor, KeepingReactor, plain_reactor
from twsock.services.listening_sockets import ListeningSockets
from twsock.services.notify import process_notifier
from twsock.services.options import choice_option, seconds_option
from twsock.services.twistd_options import check_twistd
from twsock.services.workers.role import WorkersRole

__all__ = ["ProcessOptions", "ProcessService", "StartError", "in_process", "process_owner"]

#: The name of a daemon's log file without ``twistd --logfile``.
_DEFAULT_LOG_FILE: Final = "twistd.log"


#: The values of ``--log-level``, from the most lines to the fewest.
_LEVELS: Final = ("debug", "info", "warn", "error", "critical")


class StartError(SystemExit, Exception):
    """
    A service cannot start; the text of the error is the line for the user.

    It is a ``SystemExit``, so that Python prints the line without a traceback and ends with status
    1. It is an ``Exception`` too, so that ``twistd`` cleans up first.
    """


class ProcessOptions(Options):
    """
    The options of every service; checks some options of ``twistd`` before they are used.

    Set the first three before `reactor` or `page_reactor` is used.

    :ivar sockets: the sockets that the process keeps for another process; None if it keeps none.
    :ivar worker_sockets: in the parent of workers, the sockets of each worker; None otherwise.
    :ivar shares_ports: in a worker, whether the sockets of its ports have ``SO_REUSEPORT``.
    :ivar workers: whether the process is a parent of workers, or a worker.
    """

    sockets: ListeningSockets | None = None
    worker_sockets: Sequence[ListeningSockets] | None = None
    shares_ports = False
    workers = WorkersRole(None, ())
    pid_file: Any = None
    _keeping: KeepingReactor | None = None
    _binding: BindingReactor | None = None

    #: Why a service cannot have workers; empty if it can.
    workers_refused = ""

    optParameters: list[list[Any]] = [
        ["log-format", None, "text", "Log format: text, or json (one object per line)."],
        ["log-level", None, "debug", "Least level logged: debug, info, warn, error or critical."],
        ["metrics", None, None, "Server endpoint string for /metrics and /health/... over HTTP."],
        ["health", None, None, "Server endpoint string for /health/... alone."],
        ["control", None, None, "Path of a UNIX socket, by which a new process takes over."],
        [
            "drain-delay",
            None,
            0.0,
            "Seconds from SIGTERM, while /health/ready is 503, until listening stops.",
        ],
        ["workers", None, None, "Processes that serve: a number, or auto for one per core."],
    ]
    optFlags: list[list[Any]] = [
        ["check", None, "Check the options, say what would be done, and exit."],
    ]

    @property
    def reactor(self) -> Any:
        """
        The reactor for endpoints and services.

        It is a `KeepingReactor` if the process keeps its sockets, and a `BindingReactor` if workers
        serve them; `plain_reactor` returns the one behind it.
        """
        if self.worker_sockets is None:
            return self.page_reactor
        if self._binding is None:
            self._binding = BindingReactor(plain_reactor(self.page_reactor), self.worker_sockets)
        return self._binding

    @property
    def page_reactor(self) -> Any:
        """The reactor for the page of metrics and health, which this process serves itself."""
        from twisted.internet import reactor

        if self.sockets is None:
            return reactor
        if self._keeping is None:
            self._keeping = KeepingReactor(reactor, self.sockets, shares_ports=self.shares_ports)
        return self._keeping

    @override
    def parseOptions(self, options: Any = None) -> None:
        """
        Parse the options.

        :raises StartError: with ``--check``, and in a worker, when an option is invalid: one line
            without the usage.
        """
        given = sys.argv[1:] if options is None else options
        try:
            self.workers = WorkersRole.take(os.environ, tuple(given))
        except ValueError as error:
            raise StartError(f"twsock: {error}") from error
        try:
            super().parseOptions(options)
        except (UsageError, StartError) as error:
            if self.workers.is_worker:
                raise self.workers.failed(StartError(str(error))) from error
            # An error may precede the option.
            if isinstance(error, StartError) or "--check" not in given:
                raise
            raise StartError(f"twsock: {error}") from error

    def postOptions(self) -> None:
        """
        Check these options, and those options of ``twistd`` whose errors it does not report.

        :raises UsageError: when an option of this class is invalid; says what it takes.
        :raises StartError: when an option of ``twistd`` cannot be used.
        """
        from twsock.services.metrics import check_metrics

        if self["control"] is not None and not self.workers.is_worker:
            from twsock.services.restart.process import check_control

            check_control(self, _options_of_twistd(self))
        self["log-format"] = choice_option(self, "log-format", ("text", "json"))
        self["log-level"] = choice_option(self, "log-level", _LEVELS)
        self["drain-delay"] = seconds_option(self, "drain-delay")
        self.workers.choose(self, _options_of_twistd(self))
        check_metrics(self)
        given = _options_of_twistd(self)
        if given is not None:
            try:
                check_twistd(given)
            except ValueError as error:
                raise StartError(f"twsock: {error}") from error
        for option, default in (("log-format", "text"), ("log-level", _LEVELS[0])):
            if self[option] != default:
                _check_log(given, option, self[option])


class ProcessService(MultiService):
    """
    Contains the services of a process that ``twistd`` runs.

    :param options: the parsed options of the plugin; ``options.parent`` has those of ``twistd``.
    """

    _log = TextLogger()

    def __init__(self, options: ProcessOptions) -> None:
        super().__init__()
        given = _options_of_twistd(options)
        self._options: Any = given
        values = dict(options)
        self._workers = options.workers
        self._link: Any = None
        is_worker = self._workers.is_worker
        self._logs_json = given is not None and (is_worker or values["log-format"] == "json")
        self._level = LogLevel.levelWithName(values["log-level"])
        # A worker has no page: its parent waits, and serves the numbers of all workers.
        self._drain_delay = 0.0 if is_worker else float(values["drain-delay"])
        self._sockets = options.sockets
        self._page = None if is_worker else self._make_page(options)
        self._restarts = self._make_restarts(options)
        process_notifier.take_environment(os.environ)
        self._terminal: int | None = None
        if given is not None and _hides_errors(given):
            # Standard error may be closed; then no line is printed.
            with contextlib.suppress(OSError):
                self._terminal = os.dup(2)

    # Called by Twisted.

    @override
    def setServiceParent(self, parent: Any) -> None:
        """Join the application and set its log observer; twistd starts logging after this."""
        super().setServiceParent(parent)
        if self._options is None or not hasattr(parent, "setComponent"):
            return
        if self._logs_json or self._level is not LogLevel.debug:
            parent.setComponent(ILogObserver, self._make_observer())

    def _make_observer(self) -> ILogObserver:
        file = _open_log(self._options)
        observer: Any = json_log_observer(file) if self._logs_json else textFileLogObserver(file)
        filtered: ILogObserver = FilteringLogObserver(observer, [_AtLeast(self._level)])
        return filtered

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
            if self._options is not None and _hides_errors(self._options):
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
        if self._options["pidfile"]:
            Path(self._options["pidfile"]).unlink(missing_ok=True)
            self._options["pidfile"] = ""

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
            # Those that no port has claimed; the others were closed with their ports.
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


@implementer(ILogFilterPredicate)
class _AtLeast:
    """Accepts events of a level or above; Twisted's predicate drops those without a namespace."""

    def __init__(self, level: Any) -> None:
        self._level = level

    def __call__(self, event: LogEvent) -> Any:
        level = event.get("log_level") or LogLevel.info
        return PredicateResult.no if level < self._level else PredicateResult.maybe


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


def process_owner(options: Options) -> tuple[int, int] | None:
    """
    Return the user and group that ``twistd`` switches to once the services listen.

    :returns: numeric user and group, -1 for one that does not change; None if neither changes.
    """
    given = _options_of_twistd(options)
    uid = None if given is None else given.get("uid")
    gid = None if given is None else given.get("gid")
    if uid is None and gid is None:
        return None
    if gid is None and uid is not None:
        # twistd chooses the same group.
        gid = pwd.getpwuid(uid).pw_gid
    # chown(2) does not change an id that is -1.
    return -1 if uid is None else uid, -1 if gid is None else gid


def _options_of_twistd(options: Options) -> Any:
    """Return the options of ``twistd``; None if an application or ``twist`` runs the service."""
    given: Any = options.parent
    return given if given is not None and "nodaemon" in given else None


def _check_log(given: Any, name: str, value: str) -> None:
    """Refuse options that would replace our log observer, or programs that ignore it."""
    if given is None:
        raise UsageError(f"--{name} {value} needs twistd; with twist, use twist --{name}")
    for option in ("logger", "syslog"):
        if given.get(option):
            raise UsageError(
                f"--{name} {value} excludes twistd's --{option}: both set the log observer"
            )


def _open_log(given: Any) -> TextIO:
    """
    Open the log that twistd would use; it is rotated at one megabyte and on SIGUSR1, as by twistd.

    :raises StartError: when the file cannot be opened, or when a daemon should log to standard
        output.
    """
    name = given.get("logfile")
    if name == "-" and _is_daemon(given):
        raise StartError("twsock: --logfile -: daemons have no standard output to log to")
    if name == "-" or (not name and not _is_daemon(given)):
        return sys.stdout
    try:
        file: Any = LogFile.fromFullPath(name or _DEFAULT_LOG_FILE)
    except OSError as error:
        raise StartError(f"twsock: --logfile: cannot write {name}: {error.strerror}") from error
    if not signal.getsignal(signal.SIGUSR1):
        signal.signal(signal.SIGUSR1, lambda *_: _rotate_later(file))
    opened: TextIO = file
    return opened


def _rotate_later(file: Any) -> None:
    from twisted.internet import reactor

    loop: Any = reactor
    loop.callFromThread(file.rotate)


def _hides_errors(given: Any) -> bool:
    """Return whether twistd has replaced standard error by a log that is not on the terminal."""
    if _is_daemon(given) or given.get("logger") or given.get("syslog"):
        return True
    return given.get("logfile") not in (None, "", "-")


def _is_daemon(given: Any) -> bool:
    return not given.get("nodaemon") and not given.get("debug")
