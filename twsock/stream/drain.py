"""
Who tells that a queue has drained: the reactor's write events → **watch** → stream transport.

A transport tells of an empty queue through the producer that is registered with it. Made by
`twsock.stream.transport` when bytes stay behind, and gone when they have left.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IDelayedCall, IPullProducer, IPushProducer, IReactorTime
from zope.interface import implementer

from twsock.stream.descriptor import queued_bytes

__all__ = ["BrakeWatch", "DrainWatch", "Watch"]

#: How often the queue is looked at where a producer of the application holds the place from which
#: we would be told that it drained, in seconds.
_POLL_INTERVAL: Final = 0.01


class Watch(typing.Protocol):
    """What can be stopped."""

    def stop(self) -> None:
        """Tell no more."""


@implementer(IPullProducer)
class DrainWatch:
    """
    Is called by a plain descriptor when its queue is empty.

    :param descriptor: has bytes in its queue.
    :param drained: called when the queue has become empty; it then calls `stop`.
    """

    __slots__ = ("_descriptor", "_drained", "_poll", "_registering")

    def __init__(self, descriptor: FileDescriptor, drained: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._drained = drained
        self._poll: IDelayedCall | None = None
        self._registering = True
        if typing.cast(Any, descriptor).producer is None:
            # The descriptor's own method: under TLS that was started on it, the instance's would
            # register with the TLS engine, which calls a pull producer all the time.
            FileDescriptor.registerProducer(descriptor, self, False)
        else:
            self._poll_later()
        self._registering = False

    def stop(self) -> None:
        """Leave the place of the producer free."""
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
        """The queue is empty, unless this is the call at registration, whatever the queue holds."""
        if not self._registering:
            self._drained()

    def stopProducing(self) -> None:
        """Do nothing: the end of the connection reaches the owner in its own way."""


@implementer(IPushProducer)
class BrakeWatch:
    """
    Is called by a transport without a plain descriptor when its buffer fills and empties.

    :param braked: called with whether it is full.
    """

    __slots__ = ("_braked", "_transport")

    def __init__(self, transport: Any, braked: Callable[[bool], None]) -> None:
        self._transport = transport
        self._braked = braked
        transport.registerProducer(self, True)

    def stop(self) -> None:
        """Leave the place of the producer free."""
        self._transport.unregisterProducer()

    # Called by Twisted.

    def pauseProducing(self) -> None:
        """The buffer is full."""
        self._braked(True)

    def resumeProducing(self) -> None:
        """The buffer has room."""
        self._braked(False)

    def stopProducing(self) -> None:
        """Do nothing: the end of the connection reaches the owner in its own way."""
