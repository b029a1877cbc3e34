"""
Runs of received datagrams: socket → **run** → protocol.

A run is consecutive datagrams of one size between the same two addresses, as the kernel joins them
(``UDP_GRO``; udp(7)). The `RunReceiver` of each `twsock.datagram.port.DatagramPort` receives them.
Their bytes stay in one piece: a protocol that answers or forwards whole runs never splits them. The
receiver holds no datagrams: those not yet received wait in the kernel.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any, Final

from twsock.datagram.network.membership import Memberships
from twsock.datagram.network.packet_info import CONTROL_SIZE, Control, read_control
from twsock.datagram.udp_socket import LARGEST, DatagramOptions
from twsock.log import TextLogger
from twsock.wire.datagrams import split_run

__all__ = ["MAX_READS", "Address", "DatagramCounters", "ReadBudget", "Run", "RunReceiver"]

#: A numeric host and a port, for IPv6 also flow information and scope id, as sockets accept it.
Address = tuple[Any, ...]

#: Flags of a truncated datagram, or of lost control messages, which contain the segment size. A
#: plain integer: an operation on the enum costs as much as a function call.
_TRUNCATED: Final = int(socket.MSG_TRUNC | socket.MSG_CTRUNC)

#: The most reads in one wake-up. An output stream of `twsock.DatagramSocket` sends at most as many
#: datagrams in one turn of the reactor. So a program that sends to itself loses none. With the
#: largest runs the reads return 4 MiB.
MAX_READS: Final = 64

#: Most wake-ups between two tries of a second read.
_MAX_INTERVAL: Final = 64


class Run:
    """
    One or more received datagrams, from one peer.

    :ivar data: the datagrams, concatenated.
    :ivar segment_size: bytes of each; the last may have fewer.
    :ivar count: how many datagrams; the same as ``len(run)``, and faster.
    :ivar source: the peer: address and port, for IPv6 also flow information and scope id, as the
        kernel reports and accepts it.
    :ivar destination: the address that they were sent to, for example that of a group; empty where
        the system does not report it.
    :ivar interface: index of the interface that received them; 0 where the system does not report
        it.
    :ivar local: the address of this machine to answer from; empty for the system's choice.
    :ivar is_truncated: whether this is the beginning of a datagram that was longer.
    """

    __slots__ = (
        "count",
        "data",
        "destination",
        "interface",
        "is_truncated",
        "local",
        "segment_size",
        "source",
    )

    def __init__(
        self,
        data: bytes,
        segment_size: int,
        source: Address,
        destination: str = "",
        interface: int = 0,
        is_truncated: bool = False,
        local: str = "",
    ) -> None:
        self.data = data
        self.segment_size = segment_size
        size = len(data)
        self.count = 1 if size <= segment_size else -(-size // segment_size)
        self.source = source
        self.destination = destination
        self.interface = interface
        self.local = local
        self.is_truncated = is_truncated

    def part(self, data: bytes, segment_size: int, *, is_truncated: bool = False) -> Run:
        """Return a run of some bytes of this run, with the same addresses and interface."""
        return Run(
            data,
            segment_size,
            self.source,
            self.destination,
            self.interface,
            is_truncated,
            self.local,
        )

    def __len__(self) -> int:
        return self.count

    def __bool__(self) -> bool:
        return True

    def datagrams(self) -> list[bytes]:
        """Return its datagrams, in order."""
        return split_run(self.data, self.segment_size)

    def __repr__(self) -> str:
        host, port = self.source[:2]
        return f"<{self.count} datagrams of {self.segment_size} bytes from {host} port {port}>"


@dataclass(slots=True)
class DatagramCounters:
    """
    Counts of a port.

    :ivar received: whole datagrams delivered to the protocol.
    :ivar truncated: datagrams longer than ``max_datagram``.
    :ivar unexpected_source: dropped datagrams that were not from the connected peer; on a shared
        port, those not to a joined group.
    :ivar sent: datagrams that the kernel accepted.
    :ivar failed: datagrams that the kernel refused, or that were dropped before they were sent.
    :ivar refused: ICMP errors for sent datagrams.
    """

    received: int = 0
    truncated: int = 0
    unexpected_source: int = 0
    sent: int = 0
    failed: int = 0
    refused: int = 0


class ReadBudget:
    """
    The number of reads of the next wake-up: one, unless more datagrams are likely to wait.

    A read that finds nothing costs a third of an echo. It is wasted if the peer waits for each
    answer. A read that was not tried costs a turn of the reactor, on a socket with many peers. So
    each wake-up has one read. From time to time it tries a second read. If the second read finds a
    datagram, later wake-ups have more reads. Tries that find nothing become rarer.

    :ivar allowed: 1 to `MAX_READS`.
    :ivar wake_ups: wake-ups until `note` is called. The reader counts them down: most wake-ups have
        one read, which finds something, and need no call.
    """

    __slots__ = ("_interval", "allowed", "wake_ups")

    def __init__(self) -> None:
        self.allowed = 1
        self.wake_ups = 1
        self._interval = 1

    def note(self, found: int, *, has_met_end: bool) -> None:
        """
        Record a wake-up with ``wake_ups`` at 0 or below, or with a read that found nothing.

        :param found: how many reads found a datagram.
        :param has_met_end: whether the last read found nothing.
        """
        if not has_met_end:
            self.allowed = min(2 * self.allowed, MAX_READS)
        elif found > 1:
            self._interval = 1
        else:
            self.allowed = 1
            self.wake_ups = self._interval = min(2 * self._interval, _MAX_INTERVAL)


class RunReceiver:
    """
    Receives the runs of one socket, and delivers them to the protocol of its port.

    :param udp: bound and non-blocking; the port closes it.
    :param owner: provides `twsock.datagram.owner.IDatagramOwner`.
    :param memberships: on a shared port, datagrams to other groups are dropped.
    :param counters: of the port.
    :ivar is_reading: whether `read` receives anything; set by the port.
    :ivar run: the run that the owner is handling; None if there is none.
    :ivar peer: the only source to accept; None for all. Set by the port.
    """

    _log = TextLogger()

    def __init__(
        self,
        udp: socket.socket,
        owner: Any,
        options: DatagramOptions,
        memberships: Memberships,
        counters: DatagramCounters,
    ) -> None:
        self.is_reading = False
        self.run: Run | None = None
        self.peer: Address | None = None
        self._udp = udp
        self._owner = owner
        self._max_datagram = options.max_datagram
        self._memberships = memberships if options.multicast_only else None
        self._counters = counters
        self._budget = ReadBudget()
        # The destination of datagrams to a socket of one address. For a socket of all addresses
        # the kernel reports it with each run, if it can.
        host, _, *more = udp.getsockname()
        self._destination = "" if host in ("0.0.0.0", "::") else host
        self._scope = more[1] if more else 0

    @property
    def is_single(self) -> bool:
        """Whether the owner is handling the only datagram of this wake-up."""
        run = self.run
        return run is not None and run.count == 1 and self._budget.allowed == 1

    def read(self) -> None:
        """
        Receive waiting runs, and deliver them.

        :raises OSError: when the socket reports an error, such as an ICMP reply; later runs wait.
        """
        budget = self._budget
        found, has_met_end = 0, False
        # The owner may pause or close the port during an event.
        while found < budget.allowed and self.is_reading:
            try:
                data, messages, flags, source = self._udp.recvmsg(LARGEST, CONTROL_SIZE)
            except BlockingIOError:
                has_met_end = True
                break
            self._received(data, messages, flags, source)
            found += 1
        budget.wake_ups -= 1
        if has_met_end or budget.wake_ups <= 0:
            budget.note(found, has_met_end=has_met_end)

    def deliver_again(self, run: Run) -> None:
        """Deliver a run that an earlier owner of the socket had received."""
        if self._owner is None:
            return  # The port was closed during the previous run.
        if run.is_truncated:
            self._counters.truncated += 1
        else:
            self._counters.received += run.count
        self._deliver(run)

    def close(self) -> None:
        """Drop the reference to the owner; nothing more is delivered."""
        self.is_reading = False
        self._owner = None

    def _received(self, data: bytes, messages: list[Control], flags: int, source: Address) -> None:
        size, destination, interface, local = len(data), self._destination, self._scope, ""
        if messages:
            segment_size, reported, interface, local = read_control(messages)
            size = segment_size or size
            destination = reported or destination
        # A datagram that arrived before the connect may have any source.
        if (self.peer is not None and source != self.peer) or (
            self._memberships is not None
            and not self._memberships.accepts(destination, interface, source[0])
        ):
            self._counters.unexpected_source += 1
            return
        run = Run(data, size, source, destination, interface, False, local)
        if size > self._max_datagram or flags & _TRUNCATED:
            self._received_truncated(run, flags)
        else:
            self._counters.received += run.count
            self._deliver(run)

    def _received_truncated(self, run: Run, flags: int) -> None:
        """Deliver each datagram of a run separately, because one or more are truncated."""
        limit = self._max_datagram
        datagrams = run.datagrams()
        last = len(datagrams) - 1
        for index, data in enumerate(datagrams):
            is_truncated = len(data) > limit or bool(flags & _TRUNCATED and index == last)
            if is_truncated:
                data = data[:limit]
                self._counters.truncated += 1
            else:
                self._counters.received += 1
            if self._owner is not None:
                self._deliver(run.part(data, len(data), is_truncated=is_truncated))

    def _deliver(self, run: Run) -> None:
        self.run = run
        try:
            self._owner.run_received(run)
        except Exception:  # noqa: BLE001 - logged; a port survives its protocol
            self._log.failure("run_received failed")
        finally:
            self.run = None
