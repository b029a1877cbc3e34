"""
Moves sockets between two processes: detached value → **channel** → detached value.

Each hand-over uses one connected UNIX socket of type SEQPACKET. `give` holds its copies of the
sockets until the other process has acknowledged them. `twsock.handover.exchange` decides who
continues the sockets, `twsock.handover.records` is the format, and `twsock.handover.offering`
checks what arrives. Linux only.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from typing import Any, Final, TypeVar, overload

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from twsock.errors import LocalProtocolError, RemoteProtocolError, SocketError
from twsock.handover.descriptors import ReceivedPacket, channel_peer, receive_with_descriptors
from twsock.handover.detached import Detached, DetachedConnection
from twsock.handover.exchange import (
    GiverState,
    HandoverEvent,
    TakerState,
    follow_giver,
    follow_taker,
)
from twsock.handover.offering import MOST_DESCRIPTORS, kind_of, open_offer, send_offer
from twsock.handover.records import (
    MAX_PACKET,
    Accepted,
    Offer,
    Packet,
    Refused,
    SocketKind,
    Withdrawn,
    decode_packet,
    encode_packet,
)
from twsock.log import TextLogger
from twsock.operation import Operation, fail

__all__ = ["DEFAULT_HANDOVER_TIMEOUT", "HandoverError", "give", "take"]

#: Default of ``timeout``, in seconds.
DEFAULT_HANDOVER_TIMEOUT: Final = 5.0

D = TypeVar("D", bound=Detached)
T = TypeVar("T")

_EVENTS: Final[dict[type[Packet], HandoverEvent]] = {
    Offer: HandoverEvent.OFFER,
    Accepted: HandoverEvent.ACCEPTED,
    Refused: HandoverEvent.REFUSED,
    Withdrawn: HandoverEvent.WITHDRAWN,
}


class HandoverError(SocketError):
    """Sockets were not handed over; their earlier owner still has them."""


def give(
    reactor: Any,
    channel: socket.socket,
    detached: Detached,
    *,
    application: bytes = b"",
    timeout: float = DEFAULT_HANDOVER_TIMEOUT,
) -> Deferred[None]:
    """
    Give a connection, a listener or UDP sockets to the process at the other end of a channel.

    :param channel: a connected UNIX socket of type SEQPACKET. It is closed at the end.
    :param detached: what ``detach`` returned. It is closed when the other process has acknowledged
        it; otherwise it is unchanged.
    :param application: bytes that `take` returns in the other process. Together with the bytes that
        were not read and not sent, at most 64 MiB.
    :param timeout: seconds that the other process has to acknowledge the offer; above 0.
    :returns: fires when the other process has acknowledged the offer. It fails with
        `HandoverError`, which has the reason, when this process still has the sockets.
        Cancelling withdraws the offer. Before ``cancel`` returns, the Deferred fires if the
        acknowledgement had been sent, and fails otherwise.
    :raises ValueError: at once, when the channel is of another kind, or the timeout is not above 0.
    """
    _check(channel, timeout)
    giving = _Giving(reactor, channel, detached)
    return giving.start(application, timeout)


@overload
def take(
    reactor: Any, channel: socket.socket, *, accept: None = None, timeout: float = ...
) -> Deferred[tuple[DetachedConnection, bytes]]: ...


@overload
def take(
    reactor: Any,
    channel: socket.socket,
    *,
    accept: Callable[[DetachedConnection, bytes], T],
    timeout: float = ...,
) -> Deferred[tuple[DetachedConnection, T]]: ...


@overload
def take(
    reactor: Any,
    channel: socket.socket,
    *,
    kind: type[D],
    accept: None = None,
    timeout: float = ...,
) -> Deferred[tuple[D, bytes]]: ...


@overload
def take(
    reactor: Any,
    channel: socket.socket,
    *,
    kind: type[D],
    accept: Callable[[D, bytes], T],
    timeout: float = ...,
) -> Deferred[tuple[D, T]]: ...


def take(
    reactor: Any,
    channel: socket.socket,
    *,
    kind: type[Any] = DetachedConnection,
    accept: Callable[[Any, bytes], Any] | None = None,
    timeout: float = DEFAULT_HANDOVER_TIMEOUT,
) -> Deferred[tuple[Any, Any]]:
    """
    Take sockets from the process at the other end of a channel, and acknowledge them.

    An invalid offer, an offer of another kind and any other packet are refused: the descriptors
    beside it are closed, and one line is logged.

    :param channel: a connected UNIX socket of type SEQPACKET. It is closed at the end.
    :param kind: the class of the value: `twsock.handover.DetachedConnection`, ``DetachedListener``,
        ``DetachedDatagramPort`` or ``DetachedDatagramSocket``.
    :param accept: called with the value and the bytes of the application, after the offer was
        checked and before it is acknowledged. It may check and prepare. It must not read or write
        the sockets, or add them to a reactor: the giver may still withdraw its offer. If it raises,
        the offer is refused with the text of the error, and the giver continues the sockets.
    :param timeout: seconds that the other process has for its offer; above 0.
    :returns: fires with the value and the result of ``accept``; without ``accept``, with the value
        and the bytes of the application. It fails with `HandoverError` when nothing was taken. Its
        cause is the error of ``accept``, if that refused the offer. If the offer is withdrawn after
        ``accept``, the result of ``accept`` is dropped. Cancelling takes nothing.
    :raises ValueError: at once, when the channel is of another kind, or the timeout is not above 0.
    """
    _check(channel, timeout)
    return _Taking(reactor, channel, kind_of(kind), accept).start(timeout)


def _check(channel: socket.socket, timeout: float) -> None:
    if channel.family != socket.AF_UNIX or channel.type != socket.SOCK_SEQPACKET:
        raise ValueError("a channel is a UNIX socket of type SEQPACKET")
    if not timeout > 0:
        raise ValueError(f"timeout is above 0 seconds, not {timeout!r}")


class _Channel:
    """The end of a channel: reads packets until a deadline; the base of both sides."""

    _log = TextLogger()

    def __init__(self, reactor: Any, channel: socket.socket) -> None:
        self._reactor = reactor
        self._channel = channel
        self._deadline: IDelayedCall | None = None
        self._done: Deferred[Any] | None = None
        self._is_cancelled = False
        self.fileno = channel.fileno

    # Implemented by both sides.

    def follow(self, event: HandoverEvent, reason: str) -> None:
        """Change the state for an event, and act on the new state."""
        raise NotImplementedError

    def received(self, packet: Packet, descriptors: list[int]) -> None:
        """Handle a packet; the caller closes the descriptors that are left in the list."""
        raise NotImplementedError

    # Called by both sides.

    def begin(self, timeout: float) -> Deferred[Any]:
        """Read from the channel, until a deadline."""
        done: Deferred[Any] = Operation(self._cancel)
        self._done = done
        self._channel.setblocking(False)
        self._deadline = self._reactor.callLater(timeout, self._pass_deadline, timeout)
        self._reactor.addReader(self)
        return done

    def check_user(self) -> None:
        """
        Check that the other process is of the same user.

        :raises RemoteProtocolError: when it is of another one.
        """
        process, user = channel_peer(self._channel)
        if user != os.geteuid():
            raise RemoteProtocolError(
                f"process {process} is of user {user}, this process of user {os.geteuid()}"
            )

    def send(self, packet: Packet) -> bool:
        """Send a packet; return whether the kernel has it."""
        try:
            self._channel.send(encode_packet(packet), socket.MSG_NOSIGNAL)
        except OSError:
            return False
        return True

    def end(self, result: object) -> None:
        """Close the channel, and fire the Deferred of `begin` with the result or the error."""
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None
        self._reactor.removeReader(self)
        self._channel.close()
        done, self._done = self._done, None
        if done is not None and not done.called:
            if isinstance(result, SocketError):
                done.errback(result)
            else:
                done.callback(result)

    def read(self) -> None:
        """Handle the packets that have arrived, and the end of the channel."""
        while self._done is not None:
            try:
                packet = receive_with_descriptors(self._channel, MAX_PACKET, MOST_DESCRIPTORS)
            except BlockingIOError:
                return
            except OSError as error:
                # An acknowledgement may follow a reset, so the next turn of the loop reads on.
                self.follow(HandoverEvent.RESET, error.strerror or "reset")
                continue
            with packet:
                self._handle(packet)

    def _handle(self, packet: ReceivedPacket) -> None:
        if not packet.data:
            self.follow(HandoverEvent.END, "the other process ended the channel")
            return
        try:
            packet.check_whole()
            self.received(decode_packet(packet.data), packet.descriptors)
        except RemoteProtocolError as error:
            self._log.warn("hand-over refused: {error}", error=error)
            self.follow(HandoverEvent.FOREIGN, str(error))

    def _pass_deadline(self, timeout: float) -> None:
        self.follow(HandoverEvent.DEADLINE, f"the other process did not end within {timeout:g} s")

    def _cancel(self, _deferred: Deferred[Any]) -> None:
        self._is_cancelled = True
        self.follow(HandoverEvent.DEADLINE, "cancelled")

    # Called by the reactor.

    def logPrefix(self) -> str:
        return "hand-over"

    def doRead(self) -> None:
        self.read()

    def connectionLost(self, _reason: Failure) -> None:
        """Read to the end: a reactor on epoll or poll reports a reset this way."""
        self.read()
        if self._done is not None:
            self.follow(HandoverEvent.DEADLINE, "the reactor has stopped")


class _Giving(_Channel):
    """The giver of one value."""

    def __init__(self, reactor: Any, channel: socket.socket, detached: Detached) -> None:
        super().__init__(reactor, channel)
        self._detached = detached
        self._state = GiverState.OFFERED

    def start(self, application: bytes, timeout: float) -> Deferred[None]:
        """Send the offer."""
        try:
            self.check_user()
            send_offer(self._channel, self._detached, application)
        except (LocalProtocolError, RemoteProtocolError) as error:
            self._channel.close()
            return fail(HandoverError(f"not handed over: {error}"))
        except OSError as error:
            self._channel.close()
            return fail(HandoverError.from_exception(error))
        return self.begin(timeout)

    def received(self, packet: Packet, descriptors: list[int]) -> None:
        unexpected = "the other process sent an unexpected packet"
        reason = packet.reason if isinstance(packet, Refused) else unexpected
        self.follow(_EVENTS[type(packet)], reason)

    def follow(self, event: HandoverEvent, reason: str) -> None:
        before, self._state = self._state, follow_giver(self._state, event)
        if self._state is GiverState.GIVEN:
            self._detached.close()
            self.end(None)
        elif self._state is GiverState.KEPT:
            self.send(Withdrawn())
            self.end(HandoverError(f"not handed over: {reason}"))
        elif before is not self._state:
            # From now on no acknowledgement can be sent; one that was sent is read.
            with contextlib.suppress(OSError):
                self._channel.shutdown(socket.SHUT_RD)
            if event is not HandoverEvent.RESET:
                self.read()


class _Taking(_Channel):
    """The taker of one value."""

    def __init__(
        self,
        reactor: Any,
        channel: socket.socket,
        kind: SocketKind,
        accept: Callable[[Any, bytes], Any] | None,
    ) -> None:
        super().__init__(reactor, channel)
        self._kind = kind
        self._accept = accept
        self._state = TakerState.WAITING
        # The second part is the bytes of the application, and then the result of `accept`.
        self._taken: tuple[Detached, Any] | None = None
        self._declined: BaseException | None = None

    def start(self, timeout: float) -> Deferred[tuple[Any, Any]]:
        """Wait for the offer."""
        try:
            self.check_user()
        except RemoteProtocolError as error:
            self._log.warn("hand-over refused: {error}", error=error)
            self._channel.close()
            return fail(HandoverError(f"nothing taken: {error}"))
        return self.begin(timeout)

    def received(self, packet: Packet, descriptors: list[int]) -> None:
        if isinstance(packet, Offer) and self._state is TakerState.WAITING:
            self._taken = open_offer(packet, descriptors, self._kind)
        self.follow(_EVENTS[type(packet)], "the other process withdrew its offer")

    def follow(self, event: HandoverEvent, reason: str) -> None:
        before, self._state = self._state, follow_taker(self._state, event)
        if self._state is TakerState.DECIDING:
            self._decide()
        elif self._state is TakerState.HELD:
            sent = self.send(Accepted())
            self.follow(HandoverEvent.SENT if sent else HandoverEvent.NOT_SENT, "")
        elif self._state is TakerState.TAKEN:
            taken, self._taken = self._taken, None
            self.end(taken)
        elif self._state is TakerState.EMPTY:
            if before is not TakerState.UNSURE:
                self.send(Refused(reason))
            self._drop(reason)

    def _decide(self) -> None:
        """Call the application; it may also cancel."""
        accept, self._accept = self._accept, None
        if accept is not None and self._taken is not None:
            detached, application = self._taken
            try:
                result = accept(detached, application)
            except BaseException as error:
                self._decline(error)
                if isinstance(error, Exception):
                    return
                raise
            self._taken = detached, result
        if self._state is TakerState.DECIDING:
            self.follow(HandoverEvent.APPROVED, "")
        else:
            self._taken = None

    def _decline(self, error: BaseException) -> None:
        reason = " ".join(str(error).split()) or type(error).__name__
        self._log.warn("hand-over refused: {reason}", reason=reason)
        if self._state is TakerState.DECIDING:
            self._declined = error
            self.follow(HandoverEvent.DECLINED, reason)

    def _drop(self, reason: str) -> None:
        """Close what was received, and fail."""
        taken, self._taken = self._taken, None
        if taken is not None:
            taken[0].close()
        error = HandoverError(f"nothing taken: {reason}")
        error.__cause__, self._declined = self._declined, None
        self._accept = None
        self.end(error)
