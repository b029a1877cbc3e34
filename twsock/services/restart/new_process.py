"""
The role of the new process in a restart: packets of the old process → **steps** → services.

`twsock.restart.new_side` decides each step. The sockets are taken in one blocking phase before any
service listens, since a process may open low ports only then. Everything later runs on the reactor.
Holds the channel to the old process until that process ends.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twsock.errors import RemoteProtocolError
from twsock.handover.descriptors import channel_peer
from twsock.log import TextLogger
from twsock.restart.new_side import Action, Event, State, follow
from twsock.restart.records import (
    ConnectionOffer,
    Farewell,
    Listed,
    Moved,
    Ready,
    RestartPacket,
    RestartRefused,
    SharedSocket,
    TakeOver,
    encode_restart,
)
from twsock.services.listening_sockets import ListeningSockets, SocketName
from twsock.services.restart.channel import PacketChannel, receive_packet
from twsock.services.restart.served import Served
from twsock.stream.moving import take_connection

__all__ = ["TAKE_TIMEOUT", "NewProcess", "TakeError", "find_old_process"]

#: Seconds that the old process has for sending all sockets.
TAKE_TIMEOUT: Final = 5.0

#: Seconds in which a process that has closed its channel must have ended, if it is dead: the kernel
#: closes the descriptors of a process one after the other.
_DEATH: Final = 1.0

_EVENTS: Final[dict[type[RestartPacket], Event]] = {
    SharedSocket: Event.SOCKET,
    Listed: Event.LISTED,
    RestartRefused: Event.REFUSED,
    ConnectionOffer: Event.CONNECTION,
    Moved: Event.MOVED,
}


class TakeError(Exception):
    """The sockets of the old process cannot be taken; the text is the reason for the user."""


def find_old_process(path: str) -> socket.socket | None:
    """
    Connect to the control socket of a process that serves.

    :returns: None when no process serves: there is no file, or nobody listens on the socket.
    :raises TakeError: when the file is not a control socket, or cannot be used.
    """
    try:
        if not stat.S_ISSOCK(Path(path).lstat().st_mode):
            raise TakeError("it is not a socket; the file of another program is not replaced")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TakeError(error.strerror or "it cannot be read") from error
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel.settimeout(TAKE_TIMEOUT)
    try:
        channel.connect(path)
    except ConnectionRefusedError:
        channel.close()
        return None
    except OSError as error:
        channel.close()
        if error.errno == errno.EPROTOTYPE:
            raise TakeError("it is a socket of another program") from error
        raise TakeError(error.strerror or "it does not answer") from error
    return channel


class NewProcess:
    """
    Takes the sockets and connections of an old process.

    :param lead: called when this process reports to the service manager from now on.
    :param users: the users that the old process may have.
    :ivar state: the state of the restart; None if there was no old process.
    """

    _log = TextLogger()

    def __init__(
        self,
        reactor: Any,
        sockets: ListeningSockets,
        served: Served,
        end: Callable[[], None],
        lead: Callable[[], None],
        users: frozenset[int],
    ) -> None:
        self._reactor = reactor
        self._sockets = sockets
        self._served = served
        self._end_process = end
        self._lead = lead
        self._users = users
        self.state: State | None = None
        self._raw: socket.socket | None = None
        self._channel: PacketChannel | None = None
        self._taken: list[tuple[SocketName, socket.socket]] = []
        self._count = 0
        self._has_died = False
        self._reason = ""
        self._packet: RestartPacket | None = None
        self._passed: socket.socket | None = None

    # The blocking phase.

    def take_over(self, path: str) -> None:
        """
        Take the sockets of the process that serves, if there is one.

        :raises TakeError: when there is one, and its sockets cannot be taken. Nothing is kept then.
        """
        self._take_sockets(path)
        deadline = time.monotonic() + _DEATH
        while self._has_died and time.monotonic() < deadline:
            # It sent nothing. When nobody listens there, this process opens its own sockets.
            time.sleep(_DEATH / 100)
            self.state, self._has_died = None, False
            self._take_sockets(path)
        if self.state is State.FAILED:
            raise TakeError(self._reason)
        if self.state is None:
            return
        try:
            self._sockets.inherit(self._taken)
        except ValueError as error:
            self._close()
            raise TakeError(str(error)) from error
        self._log.info("restart: took {count} sockets", count=len(self._taken))

    def _take_sockets(self, path: str) -> None:
        """Take the sockets of the process that listens; `state` has the result."""
        self._raw = find_old_process(path)
        if self._raw is None:
            return
        self.state, self._has_died = State.ASKED, False
        _raise_descriptor_limit()
        self._ask()
        deadline = time.monotonic() + TAKE_TIMEOUT
        while self.state in (State.ASKED, State.RECEIVING):
            self._receive(deadline)

    def _ask(self) -> None:
        assert self._raw is not None
        _, user = channel_peer(self._raw)
        if user not in self._users:
            self._follow(
                Event.FOREIGN, f"the process there is of user {user}: run this one as that user"
            )
            return
        try:
            self._raw.send(encode_restart(TakeOver(os.getpid())), socket.MSG_NOSIGNAL)
        except OSError:
            # What it has sent is read, or its end.
            pass

    def _receive(self, deadline: float) -> None:
        assert self._raw is not None
        left = deadline - time.monotonic()
        try:
            if left <= 0:
                raise TimeoutError
            self._raw.settimeout(left)
            received = receive_packet(self._raw)
        except TimeoutError:
            self._follow(Event.DEADLINE, f"it sent no sockets within {TAKE_TIMEOUT:g} s")
        except (RemoteProtocolError, OSError) as error:
            self._follow(Event.FOREIGN, str(error))
        else:
            if received is None:
                self._has_died = self.state is State.ASKED
                self._follow(Event.BROKEN, "the process at this path sent no socket")
            else:
                self._handle(*received)

    # Called by the control.

    @property
    def is_alone(self) -> bool:
        """Whether no old process is left."""
        return self.state in (None, State.ALONE)

    @property
    def process(self) -> int:
        """The process id of the old process; 0 if unknown."""
        return 0 if self._channel is None else self._channel.process

    def listen_to_old(self) -> None:
        """Read the channel from now on; the reactor runs."""
        raw, self._raw = self._raw, None
        if raw is not None and self.state in (State.HELD,):
            self._channel = PacketChannel(self._reactor, raw, self)
            self._channel.start()
            self._channel.read()

    def started(self) -> None:
        """Report that all services listen."""
        if self.state in (State.HELD, State.ALONE):
            self._follow(Event.STARTED, "")

    def stop(self, reason: str = "it was stopped") -> None:
        """The process stops, or a service cannot start."""
        if self.state in (State.HELD, State.READY, State.ALONE, State.FAILED):
            self._follow(Event.STOPPED, reason)

    def give_back(self, reason: str) -> None:
        """End the process if an old one goes on."""
        if self.state is State.HELD:
            self.stop(reason)
            self._end_process()

    # Called by the channel.

    def packet_received(
        self, _channel: PacketChannel, packet: RestartPacket, passed: socket.socket | None
    ) -> None:
        """Handle a packet of the old process."""
        self._handle(packet, passed)

    def foreign_received(self, _channel: PacketChannel, reason: str) -> None:
        """Log an invalid packet, and end the channel."""
        self._log.warn("restart: the old process: {reason}", reason=reason)
        self._follow(Event.FOREIGN, reason)

    def channel_ended(self, _channel: PacketChannel) -> None:
        """The old process has ended."""
        self._follow(Event.BROKEN, "the old process has ended")

    # The steps.

    def _handle(self, packet: RestartPacket, passed: socket.socket | None) -> None:
        self._packet, self._passed = packet, passed
        reason = packet.reason if isinstance(packet, RestartRefused) else ""
        event = _EVENTS.get(type(packet), Event.FOREIGN)
        if isinstance(packet, Listed) and packet.count != self._count:
            event, reason = Event.FOREIGN, f"{self._count} of {packet.count} sockets came"
        self._follow(event, reason or f"{type(packet).__name__} was not expected")
        passed, self._passed = self._passed, None
        if passed is not None:
            passed.close()

    def _follow(self, event: Event, reason: str) -> None:
        assert self.state is not None
        before = self.state
        self.state, actions = follow(self.state, event)
        if self.state is State.FAILED and before is not State.FAILED:
            self._reason = reason
        for action in actions:
            self.perform(action)
        if self.state is State.ALONE and before is not State.ALONE:
            # Not before: until then, the old process may accept again.
            self._sockets.remove_unused_paths()
            self._log.info("restart: {reason}; this process serves alone", reason=reason)

    def perform(self, action: Action) -> None:
        """Perform one action of the table."""
        steps: dict[Action, Callable[[], None]] = {
            Action.KEEP: self._keep,
            Action.OWN_PATHS: self._own_paths,
            Action.DROP: self._drop,
            Action.REPORT_READY: self._report_ready,
            Action.TAKE: self._take,
            Action.LOG: self._log_numbers,
            Action.SEND_FAREWELL: self._send_farewell,
            Action.CLOSE: self._close,
            Action.END: self._end,
        }
        steps[action]()

    def _keep(self) -> None:
        assert isinstance(self._packet, SharedSocket)
        assert self._passed is not None
        self._count += 1
        try:
            name = SocketName.parse(self._packet.name)
        except ValueError as error:
            # No endpoint of this process could claim it.
            self._log.warn("restart: {error}; it is closed here", error=error)
            return
        # All copies of a socket share the flag; the old process would block in accept(2).
        self._passed.setblocking(False)
        self._taken.append((name, self._passed))
        self._passed = None

    def _own_paths(self) -> None:
        self._sockets.owns_paths = True
        self._lead()

    def _drop(self) -> None:
        taken, self._taken = self._taken, []
        for _, each in taken:
            each.close()
        self._served.pause()
        self._sockets.owns_paths = False

    def _report_ready(self) -> None:
        if self._channel is not None:
            self._channel.send(Ready())

    def _take(self) -> None:
        assert isinstance(self._packet, ConnectionOffer)
        assert self._passed is not None
        factory = self._served.factory(self._packet.service)
        if factory is None:
            # The old process reads the end of this channel, and keeps the connection.
            return
        channel, self._passed = self._passed, None
        taking: Deferred[Any] = take_connection(factory, channel)
        taking.addErrback(self._log_refusal)

    def _log_refusal(self, failure: Failure) -> None:
        self._log.warn("restart: {error}", error=failure.value)

    def _log_numbers(self) -> None:
        assert isinstance(self._packet, Moved)
        self._log.info(
            "restart: {moved} connections have moved here, {draining} drain in the old process",
            moved=self._packet.moved,
            draining=self._packet.draining,
        )

    def _send_farewell(self) -> None:
        if self._channel is not None:
            self._channel.send(Farewell())

    def _close(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()
        raw, self._raw = self._raw, None
        if raw is not None:
            raw.close()

    def _end(self) -> None:
        self._served.pause()
        self._sockets.owns_paths = False
        self._log.critical("restart refused: {reason}; this process ends", reason=self._reason)
        self._end_process()


def _raise_descriptor_limit() -> None:
    """Raise the soft limit to the hard one: this process gets what the old one has, at once."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
