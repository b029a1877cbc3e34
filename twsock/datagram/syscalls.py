"""
One system call to send, and what its error means: items → **call** → done, or why not.

Made by `twsock.datagram.send_queue`, which keeps the queue. The one thing that is decided
here is whose an error is: a connected socket tells of an ICMP reply to an *earlier* datagram at the
next call, whatever that is.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

from twsock.datagram.network.packet_info import Control, segment_control
from twsock.errors import SocketError, SocketErrorStatus
from twsock.wire.datagrams import Outgoing

__all__ = [
    "NO_MEMORY",
    "NO_ROOM",
    "NO_SEGMENTATION",
    "DatagramCalls",
    "describe_refusal",
    "send_error",
]

#: The kernel has no memory; no event tells when it has.
NO_MEMORY: Final = frozenset({errno.ENOBUFS, errno.ENOMEM})

#: It would take the datagram later.
NO_ROOM: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK}) | NO_MEMORY

#: The kernel or the network card cannot cut at all (udp(7), and checksums that nobody computes).
NO_SEGMENTATION: Final = frozenset({errno.EIO, errno.EOPNOTSUPP})

#: What only an ICMP reply to an earlier datagram can be the reason of.
_FROM_EARLIER: Final = frozenset({errno.ECONNREFUSED, errno.ENOPROTOOPT})

#: How many earlier errors one send may meet before it is given up.
_MAX_EARLIER: Final = 8


class DatagramCalls:
    """
    Calls of one socket.

    :param udp: non-blocking; whoever made it closes it.
    :param tell_refused: called with the error of an earlier datagram; tells whether to go on.
    """

    __slots__ = ("_tell_refused", "_udp")

    def __init__(self, udp: socket.socket, tell_refused: Callable[[SocketError], bool]) -> None:
        self._udp = udp
        self._tell_refused = tell_refused

    def close(self) -> None:
        """Drop the callbacks: report nothing more."""
        self._tell_refused = _stop

    def send(self, batch: Sequence[Outgoing], *, is_run: bool) -> OSError | None:
        """
        Make one call.

        :param batch: one datagram; or, as a run, all that leave together.
        :returns: why nothing of it was sent.
        """
        first = batch[0]
        try:
            if is_run or first.control is not None:
                messages: list[Control] = [] if first.control is None else [first.control]
                if is_run:
                    messages.append(segment_control(first.segment_size))
                self._transmit([item.data for item in batch], messages, first.address)
            elif first.address is None:
                self._udp.send(first.data)
            else:
                self._udp.sendto(first.data, first.address)
        except OSError as error:
            # Its frames refer to what was to be sent, which is told of the error.
            return error.with_traceback(None)
        except (TypeError, ValueError, OverflowError) as error:
            return _unusable(error)
        return None

    def send_each(self, items: Sequence[Outgoing]) -> tuple[int, OSError | None]:
        """
        Make a call for each datagram, until one fails.

        :returns: how many were sent, and why the next one was not.
        """
        done = 0
        send, send_to = self._udp.send, self._udp.sendto
        plain = _plain_data(items)
        try:
            # As little as can be is done between two system calls: after each the processor has
            # forgotten what it knew of our code.
            if plain is not None:
                for data in plain:
                    send(data)
                    done += 1
            else:
                for item in items:
                    if item.control is not None:
                        self._transmit([item.data], [item.control], item.address)
                    elif item.address is not None:
                        send_to(item.data, item.address)
                    else:
                        send(item.data)
                    done += 1
        except OSError as error:
            return done, error.with_traceback(None)
        except (TypeError, ValueError, OverflowError) as error:
            return done, _unusable(error)
        return done, None

    def send_again(
        self, batch: Sequence[Outgoing], error: OSError, *, is_run: bool
    ) -> OSError | None:
        """
        Repeat a call whose error may be that of an earlier datagram; give its own.

        What only an ICMP reply can be the reason of is an earlier one's; so is what a repetition
        does not meet again.
        """
        later: list[OSError] = []
        for _ in range(_MAX_EARLIER):
            if error.errno in NO_ROOM:
                break
            again = self.send(batch, is_run=is_run)
            if again is None:
                self._tell([error, *later])
                return None
            if error.errno in _FROM_EARLIER:
                goes_on = self._tell([error])
                error = again
                if not goes_on:
                    break
            elif again.errno in _FROM_EARLIER:
                later.append(again)
            else:
                error = again
                break
        self._tell(later)
        return error

    def _tell(self, errors: Sequence[OSError]) -> bool:
        """Tell of each; tell whether to go on."""
        goes_on = True
        for error in errors:
            goes_on = self._tell_refused(describe_refusal(error))
        return goes_on

    def _transmit(self, data: list[bytes], messages: list[Control], address: Any) -> None:
        if address is None:
            self._udp.sendmsg(data, messages)
        else:
            self._udp.sendmsg(data, messages, 0, address)


def _stop(_error: SocketError) -> bool:
    return False


def _plain_data(items: Sequence[Outgoing]) -> list[bytes] | None:
    """Give the bytes of what all goes to the connected peer, with nothing else to say."""
    count = len(items)
    if [item.address for item in items].count(None) < count:
        return None
    if [item.control for item in items].count(None) < count:
        return None
    return [item.data for item in items]


def _unusable(error: Exception) -> OSError:
    """What Python cannot hand to the kernel is as if the kernel had refused it."""
    return OSError(errno.EINVAL, str(error))


def send_error(item: Outgoing, error: OSError) -> SocketError:
    """Return the error of a datagram that was not sent, with the address of its peer."""
    where = "the connected peer" if item.address is None else item.address[0]
    return SocketError.from_exception(error, f"cannot send to {where}: {error.strerror}")


def describe_refusal(error: OSError) -> SocketError:
    """
    Say what an ICMP reply means: to UDP, a closed port is a peer that broke off.

    WinRT tells it with that status, where a refused connection of TCP has another.
    """
    refused = SocketError.from_exception(error)
    if error.errno == errno.ECONNREFUSED:
        refused = SocketError(
            "nothing listens on that port of the peer (ICMP port unreachable)",
            status=SocketErrorStatus.CONNECTION_RESET_BY_PEER,
        )
        refused.__cause__ = error
    return refused
