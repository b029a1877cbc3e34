"""
The options of every service: command line → **options** → `twsock.services.process`.

Checks the options before they are used. Holds the reactor that the endpoints of the process use.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from twisted.python.usage import Options, UsageError
from typing_extensions import override

from twsock.services.keeping_reactor import BindingReactor, KeepingReactor, plain_reactor
from twsock.services.listening_sockets import ListeningSockets
from twsock.services.options import choice_option, seconds_option
from twsock.services.process_log import LOG_LEVELS, check_log
from twsock.services.start_error import StartError
from twsock.services.twistd_options import check_twistd, options_of_twistd
from twsock.services.workers.role import WorkersRole

__all__ = ["ProcessOptions"]


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
        ["check", None, "Check the options, print what would be done, and exit."],
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
        words = sys.argv[1:] if options is None else options
        try:
            self.workers = WorkersRole.take(os.environ, tuple(words))
        except ValueError as error:
            raise StartError(f"twsock: {error}") from error
        try:
            super().parseOptions(options)
        except (UsageError, StartError) as error:
            if self.workers.is_worker:
                raise self.workers.failed(StartError(str(error))) from error
            # The option may stand after the error, so it is not parsed yet.
            if isinstance(error, StartError) or "--check" not in words:
                raise
            raise StartError(f"twsock: {error}") from error

    def postOptions(self) -> None:
        """
        Check these options, and those options of ``twistd`` whose errors it does not report.

        :raises UsageError: when an option of this class is invalid; names the valid values.
        :raises StartError: when an option of ``twistd`` cannot be used.
        """
        from twsock.services.metrics import check_metrics

        twistd = options_of_twistd(self)
        if self["control"] is not None and not self.workers.is_worker:
            from twsock.services.restart.process import check_control

            check_control(self, twistd)
        self["log-format"] = choice_option(self, "log-format", ("text", "json"))
        self["log-level"] = choice_option(self, "log-level", LOG_LEVELS)
        self["drain-delay"] = seconds_option(self, "drain-delay")
        self.workers.choose(self, twistd)
        check_metrics(self)
        if twistd is not None:
            try:
                check_twistd(twistd)
            except ValueError as error:
                raise StartError(f"twsock: {error}") from error
        for option, default in (("log-format", "text"), ("log-level", LOG_LEVELS[0])):
            if self[option] != default:
                check_log(twistd, option, self[option])
