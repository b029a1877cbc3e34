"""
The receiving side of a datagram socket: port → **receiver → delivery** → handlers, or the queue.

Each port of a `twsock.DatagramSocket` has a `MessageReceiver`, which makes messages of received
datagrams; all ports of the socket share one `MessageDelivery`. It holds no message itself: without
handlers the messages wait in the `MessageQueue`. It counts the handlers that have not ended, and
pauses the ports at 1,024 of them, so that further datagrams wait in the kernel. Datagrams that the
handlers of one run write leave together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import CoroutineType
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from typing_extensions import override

from twsock.datagram.network.membership import MembershipChange
from twsock.datagram.port import DatagramPort
from twsock.datagram.protocol import DatagramProtocol
from twsock.datagram.runs import Run
from twsock.errors import LocalProtocolError, SocketError, SocketErrorStatus
from twsock.ip.zones import with_zone
from twsock.log import TextLogger, forget_frames
from twsock.operation import run_coroutine
from twsock.sockets.datagram.information import readable_address
from twsock.sockets.datagram.message import (
    Answering,
    DatagramSocketMessageReceivedEventArgs,
    SenderAddresses,
)
from twsock.sockets.datagram.message_queue import MessageQueue
from twsock.sockets.datagram.state import socket_closed
from twsock.sockets.datagram.streams import OutputStreams
from twsock.sockets.event import Event

__all__ = ["MessageDelivery", "MessageReceiver"]

_Message = DatagramSocketMessageReceivedEventArgs

#: How many handlers may be running at once; at the limit the ports stop reading.
_MAX_RUNNING: Final = 1024


class MessageDelivery:
    """
    Calls the handlers of one socket.

    :param clock: measures the timeouts of the queue.
    :param received: the handlers of messages.
    :param group_changed: the handlers of changed memberships.
    :param streams: their datagrams are sent when the handlers of a run have been called.
    :param set_reading: called with whether the ports should read, when that changes.
    :ivar queue: messages if there is no handler; `wake` completes a wait for one.
    """

    _log = TextLogger()

    __slots__ = (
        "_group_changed",
        "_is_closed",
        "_received",
        "_running",
        "_set_reading",
        "_streams",
        "queue",
    )

    def __init__(
        self,
        clock: IReactorTime,
        received: Event[Any],
        group_changed: Event[Any],
        streams: OutputStreams,
        set_reading: Callable[[bool], None],
    ) -> None:
        self._received = received
        self._group_changed = group_changed
        self._streams = streams
        self._set_reading = set_reading
        self._running = 0
        self._is_closed = False
        self.queue = MessageQueue(clock, set_reading)

    @property
    def has_handlers(self) -> bool:
        """Whether messages go to handlers. Handlers are added before the socket has a port."""
        return bool(self._received.handlers)

    @property
    def is_running(self) -> bool:
        """Whether a handler that returned a coroutine or a Deferred has not ended."""
        return self._running > 0

    def deliver(self, owner: object, messages: Sequence[_Message]) -> None:
        """
        Call the handlers with each message, or queue it for `wake`.

        :param owner: the socket, which is the first argument of the handlers.
        """
        handlers = self._received.handlers
        if not handlers:
            if not self._is_closed:
                self.queue.store(messages)
            return
        was_held = self._streams.hold()
        try:
            for message in messages:
                for handler in handlers:
                    self._call(handler, owner, message)
                if self._is_closed:
                    break
        finally:
            if not was_held:
                self._streams.release()

    def wake(self) -> None:
        """Complete a pending wait of the queue; answers of its callbacks leave together."""
        if self.queue.is_awaited:
            was_held = self._streams.hold()
            try:
                self.queue.wake()
            finally:
                if not was_held:
                    self._streams.release()

    def deliver_change(self, owner: object, change: MembershipChange) -> None:
        """Call the handlers of a group that is no longer received, or is received again."""
        for handler in self._group_changed:
            self._call(handler, owner, change)

    def _call(self, handler: Callable[..., Any], owner: object, argument: object) -> None:
        """Call one handler; log its error. A coroutine or Deferred counts until it ends."""
        try:
            handled = handler(owner, argument)
            if isinstance(handled, CoroutineType):
                handled = run_coroutine(handled)
        except Exception:  # noqa: BLE001 - logged; one bad datagram must not end the socket
            self._failed(Failure())
            return
        # Mostly None: a function, or a coroutine that did not wait. `isinstance` costs more.
        if handled is not None and isinstance(handled, Deferred):
            self._running += 1
            if self._running == _MAX_RUNNING:
                self._set_reading(False)
            handled.addErrback(self._failed).addBoth(self._ended)

    def close(self) -> None:
        """Call no handler any more; drop the queued messages, and fail a pending wait."""
        self._is_closed = True
        self.queue.close(socket_closed)

    def _ended(self, _result: object) -> None:
        self._running -= 1
        if self._running == _MAX_RUNNING // 2:
            self._set_reading(True)

    def _failed(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, SocketError) and not isinstance(error, LocalProtocolError):
            # The peer refused a datagram or was silent: one line, without a traceback.
            self._log.info("the handler of a message failed: {error}", error=error)
            forget_frames(failure)
        else:
            self._log.failure("a handler failed", failure)


class MessageReceiver(DatagramProtocol):
    """
    The protocol of one port: passes its events to the delivery.

    An open port keeps its protocol, and the protocol keeps the socket.

    :param owner: the socket, which sends the answers to messages.
    """

    def __init__(self, owner: Answering, delivery: MessageDelivery) -> None:
        self._owner = owner
        self._delivery = delivery
        self._addresses = SenderAddresses()

    @override
    def started(self) -> None:
        if not self._delivery.has_handlers:
            # One call for all datagrams of a wake-up, so a coroutine that receives continues once.
            self.transport.read_ended = self._delivery.wake

    @override
    def run_received(self, run: Run) -> None:
        owner = self._owner
        address, destination = self._addresses.find(run)
        if run.is_truncated:
            error = SocketError(
                f"a datagram from {address[0]} has more than {len(run.data)} bytes",
                status=SocketErrorStatus.MESSAGE_TOO_LONG,
            )
            messages = [_Message(run.data, address, destination, error, owner)]
        elif run.count == 1:
            messages = [_Message(run.data, address, destination, None, owner)]
        else:
            datagrams = run.datagrams()
            messages = [_Message(data, address, destination, None, owner) for data in datagrams]
        self._delivery.deliver(owner, messages)

    @override
    def refused(self, error: SocketError) -> None:
        port: DatagramPort = self.transport
        host: Any = port.getHost()
        local = with_zone(host.host, getattr(host, "scopeID", 0))
        address = readable_address(port.get_peer() or ("", 0))
        self._delivery.deliver(self._owner, [_Message(b"", address, local, error)])
        self._delivery.wake()

    @override
    def membership_changed(self, change: MembershipChange) -> None:
        super().membership_changed(change)
        self._delivery.deliver_change(self._owner, change)
