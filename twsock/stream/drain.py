"""
Detects that an output queue has drained: write events of the reactor → **watch** → transport.

A transport of Twisted reports an empty queue to its registered producer. `twsock.stream.transport`
registers a `DrainWatch` when bytes are queued, and removes it when they have been sent. A transport
without a descriptor has a `BufferWatch` all the time.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IDelayedCall, IPullProducer, IPushProducer, IReactorTime
from zope.interface import implementer

from twsock.stream.descriptor import queued_bytes

__all__ = ["BufferWatch", "DrainWatch"]

#: Interval at which the queue is checked while an application has registered its own producer, in
#: seconds.
_POLL_INTERVAL: Final = 0.01


@implementer(IPullProducer)
class DrainWatch:
    """
    Reports when the queue of a plain descriptor is empty.

    :param descriptor: a descriptor with bytes in its queue.
    :param drained: called when the queue has become empty; the callback has to call `stop`.
    """

    __slots__ = ("_descriptor", "_drained", "_poll", "_registering")

    def __init__(self, descriptor: FileDescriptor, drained: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._drained = drained
        self._poll: IDelayedCall | None = None
        self._registering = True
        if typing.cast(Any, descriptor).producer is None:
            # The method of the class: after startTLS, the method of the instance would register
            # with the TLS engine, which calls a pull producer all the time.
            FileDescriptor.registerProducer(descriptor, self, False)
        else:
            self._poll_later()
        self._registering = False

    def stop(self) -> None:
        """Unregister the producer."""
        if self._poll is not None:
            self._poll.cancel()
            self._poll = None
        elif typing.cast(Any, self._descriptor).producer is self:
            FileDescriptor.unregisterProducer(self._descriptor)

    def _poll_later(self) -> None:
        clock = typing.cast(IReactorTime, self._descriptor.reactor)
        self._poll = clock.callLater(_POLL_INTERVAL, self._look)

    def _look(self) -> None:
        self._poll = None
        if queued_bytes(self._descriptor):
            self._poll_later()
        else:
            self._drained()

    # Called by Twisted.

    def resumeProducing(self) -> None:
        """Handle an empty queue; ignore the call at registration, when the queue is not empty."""
        if not self._registering:
            self._drained()

    def stopProducing(self) -> None:
        """Do nothing: other calls report the end of the connection to the owner."""


@implementer(IPushProducer)
class BufferWatch:
    """
    Watches whether the buffer of a transport without a plain descriptor is full.

    :param drained: called when the full buffer has room again.

    :ivar is_full: whether the transport has paused its producer.
    :ivar queued: bytes that were written while the buffer was full; 0 when it has room.
    """

    __slots__ = ("_drained", "_transport", "is_full", "queued")

    def __init__(self, transport: Any, drained: Callable[[], None]) -> None:
        self._transport: Any = transport
        self._drained = drained
        self.is_full = False
        self.queued = 0
        transport.registerProducer(self, True)

    def note(self, size: int) -> None:
        """Count bytes that were just written to the transport, if its buffer is full."""
        if self.is_full:
            self.queued += size

    def stop(self) -> None:
        """Unregister the producer; report nothing more. Calling it twice is harmless."""
        self._drained = _do_nothing  # A lost connection keeps this object.
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.unregisterProducer()

    # Called by Twisted.

    def pauseProducing(self) -> None:
        """Note that the buffer is full."""
        self.is_full = True

    def resumeProducing(self) -> None:
        """Report that the buffer has room."""
        self.is_full = False
        self.queued = 0
        self._drained()

    def stopProducing(self) -> None:
        """Do nothing: other calls report the end of the connection to the owner."""


def _do_nothing() -> None:
    """Replaces the callback of a watch that was stopped."""
