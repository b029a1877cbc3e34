"""
A process with ``--control``: `twsock.services.process` → **restarts** → control, pid file, systemd.

Reports to the service manager which process serves, and passes the pid file on. Holds the
`RestartControl`.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.python.usage import UsageError

from twsock.log import TextLogger
from twsock.services.keeping_reactor import plain_reactor
from twsock.services.listening import ListeningService
from twsock.services.listening_sockets import ListeningSockets
from twsock.services.notify import process_notifier
from twsock.services.restart.control import RestartControl
from twsock.services.restart.new_process import TakeError
from twsock.services.restart.served import Served
from twsock.services.start_error import StartError

__all__ = ["PidFile", "RestartingProcess", "check_control"]

#: The longest path of a UNIX socket, in bytes: sun_path less the final NUL, unix(7).
_LONGEST_PATH: Final = 107


def check_control(options: Any, twistd: Any) -> None:
    """
    Check ``--control``, and make the process keep its sockets for the next one.

    :param options: a `ProcessOptions`.
    :param twistd: the options of ``twistd``; None if it does not run the service.
    :raises UsageError: when no control socket can have this path.
    """
    path: str = options["control"]
    if not hasattr(socket, "SOCK_SEQPACKET") or not hasattr(os, "memfd_create"):
        raise UsageError("--control needs Linux")
    # A relative path is meant in the folder that twistd changes to.
    folder = "" if twistd is None else twistd.get("rundir") or ""
    absolute = Path(folder, path).absolute()
    size = len(os.fsencode(absolute))
    if not path or "\0" in path:
        raise UsageError(f"--control takes the path of a socket, not {path!r}")
    if size > _LONGEST_PATH:
        raise UsageError(f"--control takes a path of 1 to {_LONGEST_PATH} bytes, not {size}")
    if options.sockets is None:
        options.sockets = ListeningSockets()
    options.pid_file = PidFile(twistd)
    # Without permission, `RestartingProcess.take_over` says so.
    with contextlib.suppress(PermissionError):
        if absolute.is_socket():
            # The file may be that of the process whose sockets are taken.
            options.pid_file.set_aside()


class PidFile:
    """
    The pid file of ``twistd``, which moves to the process that serves.

    ``twistd`` refuses to start while the process in the file lives, and removes the file when a
    process ends, whichever process is in it.

    :param twistd: the options of ``twistd``; None if it does not run the service.
    """

    _log = TextLogger()

    def __init__(self, twistd: Any) -> None:
        self._twistd = twistd
        self._path = ""

    def set_aside(self) -> None:
        """Prevent ``twistd`` from checking, writing or removing the file from now on."""
        if self._twistd is not None and self._twistd.get("pidfile"):
            # A relative path is meant in this folder, not in the one that twistd changes to.
            self._path = str(Path(self._twistd["pidfile"]).absolute())
            self._twistd["pidfile"] = ""

    def write(self) -> None:
        """Write the file if it was set aside: this process serves."""
        path, self._path = self._path, ""
        if not path:
            return
        try:
            Path(path).write_text(str(os.getpid()))
        except OSError as error:
            self._log.warn(
                "cannot write the pid file {path}: {error}", path=path, error=error.strerror
            )
        else:
            self._twistd["pidfile"] = path


class RestartingProcess:
    """
    The restarts of one process.

    :param options: a `ProcessOptions` with ``--control``.
    :param services: returns all services that listen.
    :param describe: see `Notifier.start`.
    :param owner: see `RestartControl`.
    """

    def __init__(
        self,
        options: Any,
        services: Callable[[], Iterable[ListeningService]],
        describe: Callable[[], str],
        *,
        owner: tuple[int, int] | None,
    ) -> None:
        self._reactor = plain_reactor(options.page_reactor)
        self._pid_file: PidFile = options.pid_file
        self._reported: Deferred[None] = succeed(None)
        self._describe = describe
        self._has_started = False
        self._has_reported = False
        self.path: str = options["control"]
        served = Served(self._reactor, services)
        self._control = RestartControl(
            self._reactor, self.path, options.sockets, served, self, owner
        )

    @property
    def has_been_replaced(self) -> bool:
        """Whether another process serves in the place of this one."""
        return self._control.has_been_replaced

    # Called by the process, in this order.

    def take_over(self) -> None:
        """
        Take the sockets of the process that serves, if there is one; this blocks.

        :raises StartError: when they cannot be taken; the text is a line for the user.
        """
        try:
            self._control.take_over()
        except TakeError as error:
            raise StartError(f"twsock: --control {self.path}: nothing taken: {error}") from error

    def listen(self) -> None:
        """
        Listen on the control socket.

        :raises StartError: when that is not possible; the text is a line for the user.
        """
        try:
            self._control.listen()
        except OSError as error:
            raise StartError(
                f"twsock: --control: cannot listen on {self.path}: {error.strerror}"
            ) from error

    def abandon(self, reason: str) -> None:
        """Give all sockets back: the process cannot start."""
        self._control.abandon(reason)

    def start(self) -> None:
        """Read from the old process: the reactor runs."""
        self._control.start()

    def started(self, is_complete: bool) -> None:
        """Report that all services listen, or that one cannot: then the old process goes on."""
        if is_complete:
            self._has_started = True
            self._control.started()
            self._pid_file.write()
            if self._control.is_alone:
                self.lead()
        else:
            self._control.cannot_start()

    async def stop(self) -> None:
        """Stop: the process stops. Waits for the hand-overs and the report that are under way."""
        await self._control.stop()
        await self._reported

    # Called by the control.

    def restart_begins(self) -> None:
        """A new process has the sockets as well."""
        process_notifier.notify_reloading()

    def replaced(self, process: int) -> Deferred[None]:
        """
        Another process serves, and this one does not.

        :returns: fires when the service manager knows it.
        """
        self._control.pause()
        self._pid_file.set_aside()
        self._reported = process_notifier.notify_adopted_process(self._reactor, process)
        return self._reported

    def lead(self) -> None:
        """
        Report from now on to the service manager, once all services listen.

        Not before: the service manager drops what others than its main process send.
        """
        if self._has_started and not self._has_reported:
            self._has_reported = True
            process_notifier.start(self._reactor, self._describe)

    def serves_again(self) -> None:
        """The restart has failed, and this process serves."""
        self._control.resume()
        self._pid_file.write()
        process_notifier.notify_ready()

    def end(self) -> None:
        """End the process in order."""
        self._reactor.stop()
