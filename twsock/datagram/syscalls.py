"""
System calls that send datagrams, and the meaning of their errors: items → **call** → error or None.

`twsock.datagram.send_queue` keeps the queue and makes the calls. This module decides which datagram
an error belongs to. A connected socket reports an ICMP reply to an *earlier* datagram at the next
call of any kind.
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

#: The kernel has no memory. No event reports when it has memory again.
NO_MEMORY: Final = frozenset({errno.ENOBUFS, errno.ENOMEM})

#: The kernel may accept the datagram later.
NO_ROOM: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK}) | NO_MEMORY

#: The kernel or the network card cannot split runs (udp(7)), for example for lack of checksum
#: offload.
NO_SEGMENTATION: Final = frozenset({errno.EIO, errno.EOPNOTSUPP})

#: Errors that only an ICMP reply to an earlier datagram causes.
_FROM_EARLIER: Final = frozenset({errno.ECONNREFUSED, errno.ENOPROTOOPT})

#: How many errors of earlier datagrams one send may get before it fails.
_MAX_EARLIER: Final = 8


class DatagramCalls:
    """
    Sends datagrams on one socket.

    :param udp: non-blocking; its creator closes it.
    :param report_refused: called with the error of an earlier datagram; returns False to stop.
    """

    __slots__ = ("_report_refused", "_udp")

    def __init__(self, udp: socket.socket, report_refused: Callable[[SocketError], bool]) -> None:
        self._udp = udp
        self._report_refused = report_refused

    def close(self) -> None:
        """Drop the callback; no error is reported any more."""
        self._report_refused = _stop

    def send(self, batch: Sequence[Outgoing], *, is_run: bool) -> OSError | None:
        """
        Send a datagram or a run in one call.

        :param batch: one datagram; with ``is_run`` the items of one run.
        :returns: None if all was sent; otherwise the error, and nothing was sent.
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
            # Its frames refer to the items, and the items get the error.
            return error.with_traceback(None)
        except (TypeError, ValueError, OverflowError) as error:
            return _unusable(error)
        return None

    def send_each(self, items: Sequence[Outgoing]) -> tuple[int, OSError | None]:
        """
        Send datagrams in one call each, until one fails.

        :returns: how many were sent, and the error of the next datagram; None if all were sent.
        """
        done = 0
        send, send_to = self._udp.send, self._udp.sendto
        plain = _plain_data(items)
        try:
            # A short loop: each system call evicts this code from the processor's caches.
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
        Repeat a call whose error may belong to an earlier datagram.

        An error belongs to an earlier datagram if only an ICMP reply causes it, or if the repeated
        call does not fail with it again. Such errors are reported.

        :returns: the error of this call itself; None if all was sent.
        """
        later: list[OSError] = []
        for _ in range(_MAX_EARLIER):
            if error.errno in NO_ROOM:
                break
            again = self.send(batch, is_run=is_run)
            if again is None:
                self._report([error, *later])
                return None
            if error.errno in _FROM_EARLIER:
                is_continued = self._report([error])
                error = again
                if not is_continued:
                    break
            elif again.errno in _FROM_EARLIER:
                later.append(again)
            else:
                error = again
                break
        self._report(later)
        return error

    def _report(self, errors: Sequence[OSError]) -> bool:
        """Report each error; return False to stop."""
        is_continued = True
        for error in errors:
            is_continued = self._report_refused(describe_refusal(error))
        return is_continued

    def _transmit(self, data: list[bytes], messages: list[Control], address: Any) -> None:
        if address is None:
            self._udp.sendmsg(data, messages)
        else:
            self._udp.sendmsg(data, messages, 0, address)


def _stop(_error: SocketError) -> bool:
    return False


def _plain_data(items: Sequence[Outgoing]) -> list[bytes] | None:
    """Return the bytes of all items, or None if an item has an address or a control message."""
    count = len(items)
    if [item.address for item in items].count(None) < count:
        return None
    if [item.control for item in items].count(None) < count:
        return None
    return [item.data for item in items]


def _unusable(error: Exception) -> OSError:
    """Return the kernel's error for an item that Python cannot pass to the kernel."""
    return OSError(errno.EINVAL, str(error))


def send_error(item: Outgoing, error: OSError) -> SocketError:
    """Return the error of a datagram that was not sent, with the address of its peer."""
    where = "the connected peer" if item.address is None else item.address[0]
    return SocketError.from_exception(error, f"cannot send to {where}: {error.strerror}")


def describe_refusal(error: OSError) -> SocketError:
    """
    Convert the error of an ICMP reply.

    A closed UDP port has status ``CONNECTION_RESET_BY_PEER``, as in WinRT. A refused TCP connection
    has another status.
    """
    refused = SocketError.from_exception(error)
    if error.errno == errno.ECONNREFUSED:
        refused = SocketError(
            "nothing listens on that port of the peer (ICMP port unreachable)",
            status=SocketErrorStatus.CONNECTION_RESET_BY_PEER,
        )
        refused.__cause__ = error
    return refused
