"""
The role of the old process in a restart: packets of the new process → **steps** → services.

`twsock.restart.old_side` decides each step. Holds the channel to the new process while a restart is
under way; the sockets stay in the table of the process until it ends.
"""

from __future__ import annotations

import os
import socket
import typing
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from twsock.errors import LocalProtocolError
from twsock.log import TextLogger
from twsock.restart.old_side import TABLE, Action, Event, State, follow
from twsock.restart.records import (
    ConnectionOffer,
    Farewell,
    Listed,
    Moved,
    Ready,
    Restarted,
    RestartFailed,
    RestartPacket,
    RestartRefused,
    SharedSocket,
    Watching,
)
from twsock.services.listening_sockets import ListeningSockets
from twsock.services.restart.channel import PacketChannel
from twsock.services.restart.served import Served
from twsock.waiters import Waiters

__all__ = ["MOST_OBSERVERS", "READY_TIMEOUT", "OldProcess", "RestartOwner"]

#: Seconds that a new process has from its sockets until its services listen. It reads certificates
#: in this time, and no client waits for it.
READY_TIMEOUT: Final = 60.0

#: How many observers wait for a result; a further one replaces the oldest.
MOST_OBSERVERS: Final = 16

#: Seconds from the first refused connection until the channel must have ended, if the new process
#: is dead: the kernel closes the descriptors of a process one after the other.
_DEATH: Final = 1.0

#: Seconds in which a new process that hangs can be killed: twice ``WatchdogSec=`` of deploy/.
_HANG: Final = 60.0

#: How often connections are offered: once more after a hang.
_MOST_ATTEMPTS: Final = 2


class RestartOwner(typing.Protocol):
    """The process of a restart; an `OldProcess` calls these methods."""

    def restart_begins(self) -> None:
        """A new process has the sockets as well."""

    def replaced(self, process: int) -> Deferred[None]:
        """
        Another process serves, and this one does not.

        :returns: fires when the service manager knows it.
        """

    def lead(self) -> None:
        """Report to the service manager from now on."""

    def serves_again(self) -> None:
        """The restart has failed, and this process serves."""

    def end(self) -> None:
        """End the process in order."""


class OldProcess:
    """
    Gives the sockets and connections of this process to a new one; one restart at a time.

    :ivar state: the state of the restart.
    """

    _log = TextLogger()

    def __init__(
        self, reactor: Any, sockets: ListeningSockets, served: Served, owner: RestartOwner
    ) -> None:
        self._reactor = reactor
        self._sockets = sockets
        self._served = served
        self._owner = owner
        self.state = State.SERVING
        self._channel: PacketChannel | None = None
        self._process = 0
        self._reason = ""
        self._deadline: IDelayedCall | None = None
        self._moving: Deferred[None] | None = None
        self._draining: Deferred[None] | None = None
        self._moved = 0
        self._reported: Deferred[None] = succeed(None)
        self._broken = Waiters()
        self._observers: list[PacketChannel] = []

    # Called by the control.

    def begin(self, channel: PacketChannel, process: int) -> None:
        """Give the sockets to a new process, if no restart is under way; refuse it otherwise."""
        if self.state is not State.SERVING:
            self._log.warn(
                "restart refused: process {new} asked while one by process {process} is under way",
                new=process,
                process=self._process,
            )
            channel.send(RestartRefused(f"a restart by process {self._process} is under way"))
            channel.close()
            return
        self._channel, self._process = channel, process
        channel.receiver = self
        self._deadline = self._reactor.callLater(READY_TIMEOUT, self._pass_deadline)
        self._follow(Event.TAKE_OVER)

    def watch(self, channel: PacketChannel) -> None:
        """Report the result of the next restart to an observer."""
        channel.receiver = self
        if len(self._observers) >= MOST_OBSERVERS:
            self._forget_observer(self._observers[0])
        self._observers.append(channel)
        channel.send(Watching(os.getpid()))

    async def stop(self) -> None:
        """Stop: the process stops. Waits for the hand-overs that are under way."""
        if self.state is not State.ENDED:
            self._follow(Event.STOPPED)
        if self._draining is not None:
            self._draining.cancel()
        # An observer asks the process that serves after this one.
        self._dismiss_observers()
        if self._moving is not None:
            await self._moving

    # Called by channels.

    def packet_received(
        self, channel: PacketChannel, packet: RestartPacket, passed: socket.socket | None
    ) -> None:
        """Handle a packet of the new process; an observer that sends one is dropped."""
        if passed is not None:
            passed.close()
        if channel is not self._channel:
            self._forget_observer(channel)
        elif isinstance(packet, Ready):
            self._follow(Event.READY)
        elif isinstance(packet, Farewell):
            self._reason = "it was stopped"
            self._follow(Event.FAREWELL)
        else:
            self.foreign_received(channel, f"{type(packet).__name__} was not expected")

    def foreign_received(self, channel: PacketChannel, reason: str) -> None:
        """Log an invalid packet, and end the channel."""
        self._log.warn(
            "restart: process {process}: {reason}", process=channel.process, reason=reason
        )
        if channel is not self._channel:
            self._forget_observer(channel)
        else:
            self._reason = reason
            self._follow(Event.FOREIGN)

    def channel_ended(self, channel: PacketChannel) -> None:
        """Serve again if the new process has ended without a farewell."""
        if channel is not self._channel:
            self._forget_observer(channel)
        else:
            self._reason = "it has ended"
            self._follow(Event.BROKEN)
            self._broken.fire()

    # The steps.

    def _follow(self, event: Event) -> None:
        before = self.state
        self.state, actions = follow(self.state, event)
        if before is State.SHARED and self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        for action in actions:
            self.perform(action)
        serving = (State.SERVING, State.RETURNING)
        if before not in serving and self.state in serving:
            self._report_failure()

    def perform(self, action: Action) -> None:
        """Perform one action of the table."""
        steps: dict[Action, Callable[[], None]] = {
            Action.SEND_SOCKETS: self._send_sockets,
            Action.REFUSE: self._refuse,
            Action.CLOSE: self._close,
            Action.YIELD: self._yield,
            Action.LEAVE_PATHS: self._leave_sockets,
            Action.OFFER: self._offer,
            Action.REPORT: self._report,
            Action.DRAIN: self._drain,
            Action.SERVE_AGAIN: self._serve_again,
            Action.END: self._owner.end,
        }
        steps[action]()

    def _send_sockets(self) -> None:
        held = self._sockets.held()
        self._log.info(
            "restart: process {process} takes {count} sockets",
            process=self._process,
            count=len(held),
        )
        self._owner.restart_begins()
        try:
            for name, each in held:
                # Not `dup`, which sets the flag O_NONBLOCK; all copies of a socket share it.
                copy = socket.socket(fileno=os.dup(each.fileno()))
                self._send(SharedSocket(str(name)), copy)
            self._send(Listed(len(held)))
        except (OSError, LocalProtocolError) as error:
            self._reason = f"cannot send the sockets: {error}"
            self._reactor.callLater(0, self._fail)

    def _fail(self) -> None:
        if self.state is State.SHARED:
            self._follow(Event.DEADLINE)

    def _refuse(self) -> None:
        self._send(RestartRefused(self._reason))

    def _close(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def _leave_sockets(self) -> None:
        self._served.pause()
        self._sockets.owns_paths = False
        self._reported = self._owner.replaced(self._process)

    def _yield(self) -> None:
        self._leave_sockets()
        self._log.info(
            "restart: process {process} serves; this one accepts no more", process=self._process
        )
        self._send_to_observers(Restarted(self._process))

    def _offer(self) -> None:
        self._moving = ensureDeferred(self._move())

    async def _move(self) -> None:
        try:
            self._moved = 0
            for _ in range(_MOST_ATTEMPTS):
                result = await self._served.give(self._send_offer)
                self._moved += result.given
                if not (result.refused and self.state is State.MOVING):
                    break
                if not await self._wait_for_death():
                    break
            if self._channel is not None:
                self._channel.read()
        finally:
            self._moving = None
            if (self.state, Event.ANSWERED) in TABLE:
                self._follow(Event.ANSWERED)

    async def _wait_for_death(self) -> bool:
        """
        Wait until the new process reads what was sent, or its channel ends.

        If it is dead, the connections that stay are served on, not drained. A process that hangs
        reads nothing, and its service manager or its user may kill it.

        :returns: whether it hung, and reads again; then connections can be offered again.
        """
        deadline = self._reactor.seconds() + _HANG
        await self._broken.wait_at_most(_DEATH, self._reactor)
        has_hung = False
        while (channel := self._channel) is not None and not channel.is_read:
            has_hung = True
            if self._reactor.seconds() >= deadline:
                return False
            await self._broken.wait_at_most(_DEATH, self._reactor)
        return has_hung and self.state is State.MOVING

    def _send_offer(self, key: str, theirs: socket.socket) -> None:
        if self._channel is None:
            theirs.close()
        else:
            self._channel.send(ConnectionOffer(key), theirs)

    def _report(self) -> None:
        numbers = Moved(self._moved, self._served.connections)
        channel = self._channel
        assert channel is not None
        # With MOVED, the new process begins to report to the service manager. Reports before that
        # would be dropped: they would not come from the main process.
        self._reported.addCallback(lambda _: channel.send(numbers))
        self._send_to_observers(numbers)
        self._dismiss_observers()

    def _drain(self) -> None:
        self._log.info(
            "restart: {moved} connections have moved, {draining} drain",
            moved=self._moved,
            draining=self._served.connections,
        )
        self._draining = self._served.drain()
        self._draining.addCallbacks(self._drained, self._drain_failed)

    def _drained(self, _result: object) -> None:
        self._draining = None
        if self._channel is not None:
            # If the new process was killed, this one serves again.
            self._channel.read()
        if self.state in (State.DRAINING, State.LEAVING):
            self._log.info("restart: no connection is left, and this process ends")
            self._follow(Event.DRAINED)

    def _drain_failed(self, failure: Failure) -> None:
        if failure.check(CancelledError) is None:
            self._log.failure("restart: the drain failed", failure)
            self._drained(None)

    def _serve_again(self) -> None:
        if self._draining is not None:
            self._draining.cancel()
            self._draining = None
        self._sockets.owns_paths = True
        self._served.resume()

    def _report_failure(self) -> None:
        self._log.warn(
            "restart by process {process} failed: {reason}; this process goes on",
            process=self._process,
            reason=self._reason,
        )
        # The new process may have set other options.
        self._sockets.renew()
        self._owner.serves_again()
        self._send_to_observers(RestartFailed(self._reason))
        self._dismiss_observers()

    def _pass_deadline(self) -> None:
        self._deadline = None
        self._reason = f"it was not ready within {READY_TIMEOUT:g} s"
        self._follow(Event.DEADLINE)

    def _send(self, packet: RestartPacket, passed: socket.socket | None = None) -> None:
        if self._channel is not None:
            self._channel.send(packet, passed)
        elif passed is not None:
            passed.close()

    def _send_to_observers(self, packet: RestartPacket) -> None:
        for each in self._observers:
            each.send(packet)

    def _dismiss_observers(self) -> None:
        observers, self._observers = self._observers, []
        for each in observers:
            each.close()

    def _forget_observer(self, channel: PacketChannel) -> None:
        channel.close()
        if channel in self._observers:
            self._observers.remove(channel)
