"""
System calls that send datagrams: queued items → **calls** → errors.

`twsock.datagram.send_queue` keeps the queue. `Segmentation` decides which queued datagrams leave in
one call as a run (``UDP_SEGMENT``; udp(7)); it holds the refused sizes of at most 256 peers.
`DatagramCalls` makes the calls, and decides which datagram an error belongs to: a connected socket
reports an ICMP reply to an *earlier* datagram at the next call of any kind.
"""

from __future__ import annotations

import errno
import operator
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

from twsock.datagram.network.packet_info import Control, segment_control
from twsock.errors import BusyError, SocketError, SocketErrorStatus
from twsock.wire.datagrams import MAX_IPV6_DATAGRAM, Outgoing, count_fitting, split_run

__all__ = [
    "NO_MEMORY",
    "NO_ROOM",
    "NO_SEGMENTATION",
    "DatagramCalls",
    "Segmentation",
    "describe_refusal",
    "refusal_of",
    "send_error",
    "split_item",
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

#: Peers whose refusals of runs are remembered. At the limit all are dropped and learned again.
_MAX_REMEMBERED: Final = 256


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


class Segmentation:
    """
    Decides which queued datagrams of one socket leave together as a run.

    After a refusal, runs of that size or more to that peer are not tried again. If the system
    cannot segment, no run is.

    :param max_size: bytes of the largest datagram, and of the largest run, of the address family.
    :param is_offered: whether the kernel splits runs at all.
    """

    __slots__ = ("_is_offered", "_max_size", "_refused_sizes")

    def __init__(self, max_size: int, *, is_offered: bool) -> None:
        self._max_size = max_size
        self._is_offered = is_offered
        # By address: the smallest segment size of refused runs whose datagrams were accepted one by
        # one.
        self._refused_sizes: dict[Any, int] = {}

    def allows(self, item: Outgoing) -> bool:
        """Return whether datagrams of this size may leave as a run to this address."""
        return self._is_offered and item.segment_size < self._least_refused(item.address)

    def begins_run(self, window: Sequence[Outgoing]) -> bool:
        """Return whether the first two items may leave together; addresses are not compared."""
        size = window[0].segment_size
        return len(window) > 1 and window[1].segment_size == size and self.allows(window[0])

    def count_run(self, window: Sequence[Outgoing]) -> int:
        """Return how many items, from the first on, leave in one call: 1 or more."""
        return count_fitting(window, 0, self._max_size) if self.allows(window[0]) else 1

    def count_singles(self, window: Sequence[Outgoing]) -> int:
        """Return how many items, from the first on, are one datagram that the next cannot join."""
        sizes = [item.segment_size for item in window]
        lengths = [len(item.data) for item in window]
        # Up to this size a datagram may leave together with another.
        largest = self._least_refused(window[0].address) - 1 if self._is_offered else -1
        if sizes == lengths and (
            min(sizes) > largest or not any(map(operator.le, sizes[1:], sizes))
        ):
            return len(window)
        count = 0
        for size, length, following in zip(sizes, lengths, [*sizes[1:], None], strict=True):
            if size != length or (following is not None and following <= size <= largest):
                break
            count += 1
        return count

    def note_refusal(self, refusal: OSError, address: Any, segment_size: int) -> None:
        """Remember that a run was refused although its datagrams were accepted one by one."""
        if refusal.errno in NO_SEGMENTATION:
            self._is_offered = False
        elif segment_size < self._least_refused(address):
            if len(self._refused_sizes) >= _MAX_REMEMBERED:
                self._refused_sizes.clear()
            self._refused_sizes[address] = segment_size

    def _least_refused(self, address: Any) -> int:
        if not self._refused_sizes:
            return MAX_IPV6_DATAGRAM + 1
        return self._refused_sizes.get(address, MAX_IPV6_DATAGRAM + 1)


class _Piece:
    """One datagram of a queued run."""

    __slots__ = ("address", "control", "data", "segment_size")

    def __init__(self, data: bytes, run: Outgoing) -> None:
        self.data = data
        self.segment_size = len(data)
        self.address = run.address
        self.control = run.control


def split_item(item: Outgoing) -> list[Outgoing]:
    """Return the datagrams of a queued run, in order, each as an item of its own."""
    return [_Piece(data, item) for data in split_run(item.data, item.segment_size)]


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


def refusal_of(item: Outgoing, max_size: int, waiting: int, unsent: int) -> SocketError:
    """
    Return the error of an item that is not queued: it is too long, or the queue is at its limit.

    :param max_size: the largest datagram, in bytes.
    :param waiting: how many items are queued.
    :param unsent: their bytes.
    """
    if item.segment_size > max_size:
        return SocketError(
            f"a datagram has at most {max_size} bytes, this one has {item.segment_size}",
            status=SocketErrorStatus.MESSAGE_TOO_LONG,
        )
    queued = f"{waiting} datagrams or runs of {unsent} bytes"
    return BusyError(f"{queued} wait to be sent: send more after they have been sent")


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
