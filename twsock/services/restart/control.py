"""
The control socket of a process: ``--control`` → **control** → both roles of a restart.

A process with a control socket takes the sockets of the process that serves at this path, if there
is one, and later gives its own to the next process. The control socket itself moves with the other
sockets. Holds the connections of processes that have sent no packet yet, at most `MOST_SILENT`.
"""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from twsock.log import TextLogger
from twsock.restart.records import RestartPacket, RestartRefused, TakeOver, Watch
from twsock.services.listening_sockets import ListeningSockets
from twsock.services.restart.channel import PacketChannel
from twsock.services.restart.new_process import NewProcess, TakeError, find_old_process
from twsock.services.restart.old_process import OldProcess, RestartOwner
from twsock.services.restart.served import Served

__all__ = ["MOST_SILENT", "RestartControl"]

#: How many processes may be connected that have sent no packet; a further one replaces the oldest.
MOST_SILENT: Final = 16

#: Seconds that a connected process has for its first packet.
_FIRST_PACKET: Final = 5.0

#: Also how many processes are accepted in one turn of the reactor.
_BACKLOG: Final = 64

#: Seconds in which nothing is accepted after a failure, such as a lack of descriptors. The kernel
#: keeps the processes that wait.
_REST: Final = 1.0


class RestartControl:
    """
    Both roles of a process in restarts.

    :param path: of the control socket.
    :param owner: the user and group that the process switches to, for ``chown``; None for its own.
    """

    _log = TextLogger()

    def __init__(
        self,
        reactor: Any,
        path: str,
        sockets: ListeningSockets,
        served: Served,
        process: RestartOwner,
        owner: tuple[int, int] | None = None,
    ) -> None:
        self._reactor = reactor
        self._path = path
        self._sockets = sockets
        self._owner = owner
        users = {0, os.geteuid(), *(() if owner is None else owner[:1])}
        self._new = NewProcess(
            reactor, sockets, served, process.end, process.lead, frozenset(users)
        )
        self._old = OldProcess(reactor, sockets, served, process)
        self._listening: socket.socket | None = None
        self._silent: dict[PacketChannel, IDelayedCall] = {}
        self._is_reading = False
        self._resting: IDelayedCall | None = None

    # Called by the process, in this order.

    def take_over(self) -> None:
        """
        Take the sockets of the process that serves, if there is one; this blocks.

        :raises TakeError: when they cannot be taken.
        """
        # A relative path is relative to the folder that twistd has changed to.
        self._path = str(Path(self._path).absolute())
        self._new.take_over(self._path)

    def listen(self) -> None:
        """
        Listen on the control socket.

        :raises OSError: when the path cannot be used.
        """
        self._listening, _ = self._sockets.claim("control", self._path, 0, self._open)

    def start(self) -> None:
        """Read from the old process: the reactor runs."""
        self._new.listen_to_old()

    def started(self) -> None:
        """Report that all services listen; from now on, a further process can take over."""
        unused = self._sockets.close_unclaimed()
        if unused:
            names = ", ".join(map(str, unused))
            # A mistake, if another service has the same control socket: that one has ended now.
            self._log.warn(
                "restart: closed the sockets that no endpoint uses: {names}", names=names
            )
        self.resume()
        self._new.started()

    def cannot_start(self) -> None:
        """End this process, which cannot use all sockets that it took: the old process goes on."""
        self._new.give_back("a service cannot listen")

    def abandon(self, reason: str) -> None:
        """Give all sockets back: the process cannot start."""
        self._new.stop(reason)
        self._sockets.close()
        self._close_listening()

    async def stop(self) -> None:
        """End both roles: the process stops."""
        self.pause()
        self._new.stop()
        await self._old.stop()
        for channel in list(self._silent):
            self._forget(channel)
        self._close_listening()

    def _close_listening(self) -> None:
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.close()

    # Called by the process when another one serves.

    def pause(self) -> None:
        """Accept no further process: another process does."""
        resting, self._resting = self._resting, None
        if resting is not None and resting.active():
            resting.cancel()
        if self._is_reading:
            self._is_reading = False
            self._reactor.removeReader(self)

    def resume(self) -> None:
        """Accept processes."""
        if not self._is_reading and self._listening is not None:
            self._is_reading = True
            self._reactor.addReader(self)

    @property
    def is_alone(self) -> bool:
        """Whether no old process serves beside this one."""
        return self._new.is_alone

    @property
    def has_been_replaced(self) -> bool:
        """Whether another process serves in the place of this one."""
        return not self._sockets.owns_paths

    # Called by channels on which nothing has arrived yet.

    def packet_received(
        self, channel: PacketChannel, packet: RestartPacket, passed: socket.socket | None
    ) -> None:
        """Pass the channel of a new process or an observer to the old side."""
        if passed is not None:
            passed.close()
        if isinstance(packet, TakeOver) and self._new.is_alone:
            self._release(channel)
            self._old.begin(channel, packet.process)
        elif isinstance(packet, TakeOver):
            channel.send(RestartRefused("a restart is under way: the old process still drains"))
            self._forget(channel)
        elif isinstance(packet, Watch):
            self._release(channel)
            self._old.watch(channel)
        else:
            name = type(packet).__name__
            self.foreign_received(channel, f"the first packet is {name}, not TakeOver or Watch")

    def foreign_received(self, channel: PacketChannel, reason: str) -> None:
        """Refuse a process that sends an invalid packet."""
        self._refuse(channel.process, channel.user, reason)
        channel.send(RestartRefused(reason))
        self._forget(channel)

    def channel_ended(self, channel: PacketChannel) -> None:
        """Forget a process that has closed its connection."""
        self._forget(channel)

    # Called by the reactor.

    def fileno(self) -> int:
        """Return the descriptor of the control socket."""
        return -1 if self._listening is None else self._listening.fileno()

    def logPrefix(self) -> str:
        """Return the name of the socket for the log."""
        return "control"

    def doRead(self) -> None:
        """Accept connections that wait."""
        assert self._listening is not None
        for _ in range(_BACKLOG):
            try:
                accepted, _address = self._listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                self._log.warn("control: cannot accept: {error}", error=error.strerror)
                # The socket stays readable, and the reactor would call again at once.
                self.pause()
                self._resting = self._reactor.callLater(_REST, self.resume)
                return
            self._accept(accepted)

    def connectionLost(self, _reason: Failure) -> None:
        """The reactor has stopped."""
        self._is_reading = False

    def _accept(self, accepted: socket.socket) -> None:
        channel = PacketChannel(self._reactor, accepted, self)
        if channel.user not in (0, os.geteuid()):
            self._refuse(channel.process, channel.user, f"this process is of user {os.geteuid()}")
            channel.close()
            return
        if len(self._silent) >= MOST_SILENT:
            self._forget(next(iter(self._silent)))
        self._silent[channel] = self._reactor.callLater(_FIRST_PACKET, self._forget, channel)
        channel.start()

    def _refuse(self, process: int, user: int, reason: str) -> None:
        self._log.warn(
            "control: refused process {process} of user {user}: {reason}",
            process=process,
            user=user,
            reason=reason,
        )

    def _release(self, channel: PacketChannel) -> None:
        deadline = self._silent.pop(channel, None)
        if deadline is not None and deadline.active():
            deadline.cancel()

    def _forget(self, channel: PacketChannel) -> None:
        self._release(channel)
        channel.close()

    def _open(self) -> socket.socket:
        path = Path(self._path)
        # `take_over` has tried, but another process may have started meanwhile.
        try:
            other = find_old_process(self._path)
        except TakeError as error:
            raise OSError(errno.EADDRINUSE, str(error)) from error
        if other is not None:
            other.close()
            raise OSError(errno.EADDRINUSE, "another process has begun to serve there")
        path.unlink(missing_ok=True)
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            mask = os.umask(0o177)
            try:
                opened.bind(self._path)
            finally:
                os.umask(mask)
            if self._owner is not None:
                os.chown(path, *self._owner)
            opened.listen(_BACKLOG)
        except BaseException:
            opened.close()
            raise
        return opened
