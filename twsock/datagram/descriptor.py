"""
A UDP socket that a reactor watches: reactor → **descriptor** → receiver and send queue.

The base class of `twsock.datagram.port.DatagramPort`, under any reactor that watches descriptors.
Reactors on epoll and poll report an error of a socket, such as an ICMP reply, as the end of a
descriptor, and remove it. For a UDP socket that is no end: the error is cleared and reported, and
the socket is watched again.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Any, Final

from twisted.internet.interfaces import (
    IHalfCloseableDescriptor,
    ILoggingContext,
    IReadDescriptor,
    IWriteDescriptor,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from twsock.datagram.runs import RunReceiver
from twsock.datagram.send_queue import DatagramOutput
from twsock.datagram.syscalls import describe_refusal
from twsock.errors import SocketError
from twsock.log import TextLogger

__all__ = ["DatagramDescriptor"]

#: Errors of a socket that other code has closed.
_CLOSED_ELSEWHERE: Final = frozenset({errno.EBADF, errno.ENOTSOCK})


@implementer(IReadDescriptor, IWriteDescriptor, IHalfCloseableDescriptor, ILoggingContext)
class DatagramDescriptor:
    """
    The part of a port that a reactor calls.

    :param reactor: watches descriptors (``IReactorFDSet``).
    :param udp: non-blocking; the port closes it.
    """

    _log = TextLogger()

    _output: DatagramOutput
    _receiver: RunReceiver

    def __init__(self, reactor: Any, udp: socket.socket) -> None:
        self._reactor = reactor
        # None after the port was closed.
        self._udp: socket.socket | None = udp
        #: Returns the descriptor; -1 after the socket was closed. Called at each event.
        self.fileno = udp.fileno

    # To be overridden.

    def logPrefix(self) -> str:
        """Return the name of the port for the log."""
        raise NotImplementedError

    def doRead(self) -> None:
        """Receive waiting datagrams, and deliver them to the protocol."""
        raise NotImplementedError

    def refused(self, error: SocketError) -> None:
        """Report the ICMP error of an earlier datagram to the protocol."""
        raise NotImplementedError

    def _close(self) -> None:
        """Close the port at once; closing twice is harmless."""
        raise NotImplementedError

    # Called by applications.

    def pauseProducing(self) -> None:
        """Stop receiving; datagrams wait in the receive buffer of the kernel until it is full."""
        if self._receiver.is_reading:
            self._receiver.is_reading = False
            self._reactor.removeReader(self)

    def resumeProducing(self) -> None:
        """Start to receive again."""
        if not self._receiver.is_reading and self._udp is not None:
            self._receiver.is_reading = True
            self._reactor.addReader(self)

    # Called by the reactor.

    def doWrite(self) -> None:
        """Send queued datagrams."""
        self._output.flush()

    def readConnectionLost(self, reason: Failure) -> None:
        """Clear an error of the socket: reactors on epoll and poll report it as an end of input."""
        self._take_error()
        self._watch_again()

    def writeConnectionLost(self, reason: Failure) -> None:
        """Clear an error of the socket, as `readConnectionLost` does."""
        self._take_error()
        self._watch_again()

    def connectionLost(self, reason: Failure) -> None:
        """Continue if a socket error is the reason; otherwise close the port."""
        # Reactors on epoll and poll report an error by this call if the port only waits to write.
        # A send may have cleared the error already. A reactor that stops makes the same call; only
        # its private attribute shows that it stops (Twisted 26.10).
        is_ending = getattr(self._reactor, "_stopped", False)
        if self._take_error() or not (self._receiver.is_reading or is_ending):
            self._watch_again()
        else:
            self._close()

    # Called by the output.

    def wait_until_writable(self, *, is_waiting: bool) -> None:
        """Start or stop waiting for room in the kernel; `doWrite` is called when it has room."""
        if self._udp is None:
            return
        if is_waiting:
            self._reactor.addWriter(self)
        else:
            self._reactor.removeWriter(self)

    # Errors.

    def _read_failed(self, error: OSError) -> None:
        """Report an ICMP error; close if other code closed the socket."""
        if error.errno in _CLOSED_ELSEWHERE:
            self._log.error("{port} was closed by other code", port=repr(self))
            self._close()
        else:
            self.refused(describe_refusal(error.with_traceback(None)))

    def _take_error(self) -> bool:
        """Clear the error of the socket and report it; return whether there was one."""
        if self._udp is None:
            return False
        number = self._udp.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            self.refused(describe_refusal(OSError(number, os.strerror(number))))
        return bool(number)

    def _watch_again(self) -> None:
        """Add the port to the reactor again: the reactor has removed it after an error."""
        if self._receiver.is_reading:
            self._reactor.addReader(self)
        if self._output.is_waiting:
            self._reactor.addWriter(self)
