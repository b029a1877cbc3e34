"""
UDP echo protocol: received run → **answer or drop** → sent run.

UDP has no handshake, so the sender of a forged source address chooses the receiver of the answer.
Two attacks must fail: a loop (with itself, with another echo, through a group), and a flood of
answers to a host that sent nothing. The rules are in `DatagramEcho`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from twisted.internet.error import MessageLengthError
from typing_extensions import override

from twsock._integers import checked_integer
from twsock.datagram.network.interfaces import LocalAddresses
from twsock.datagram.network.packet_info import is_multicast
from twsock.datagram.owner import IRunTransport
from twsock.datagram.protocol import DatagramProtocol, EchoCounters
from twsock.datagram.rate_limit import RateLimit
from twsock.datagram.runs import Address, Run
from twsock.errors import SocketError
from twsock.ip.addresses import network_of
from twsock.log import TextLogger

__all__ = ["DatagramEcho", "is_loop_risk"]

#: Prefix of IPv4 peers on a socket of both families (:rfc:`4291` section 2.5.5.2).
_MAPPED: Final = "::ffff:"

#: Addresses that no host has.
_NO_HOSTS: Final = frozenset({"0.0.0.0", "::", "255.255.255.255"})


class DatagramEcho(DatagramProtocol):
    """
    Sends each datagram back to its sender; a whole run in one call.

    It never answers these sources: port 0, a multicast or broadcast address, itself, or a port with
    its own number, which may be another echo. It never answers a datagram that was sent to a
    broadcast address. It cannot recognise an echo on another port number; ``own_ports`` and the
    rate limit bound the loop with such an echo.

    :param reply_port: send the answer to this port of the sender's address, as the sample of the
        Windows sockets guide does (1336); None for the sender's port. 1 to 65,535.
    :param answer_any_port: also answer a source port that equals the port of this echo.
    :param rate_limit: limit of answers for each peer, in datagrams; None for no limit.
    :param now: seconds, for the rate limit.
    :param own_ports: port numbers of a set of echoes that do not answer each other. Each adds its
        own port when it starts.
    :ivar counters: counts of received datagrams.
    :raises ValueError: when ``reply_port`` is not a port number.
    """

    _log = TextLogger()

    def __init__(
        self,
        *,
        reply_port: int | None = None,
        answer_any_port: bool = False,
        rate_limit: RateLimit | None = None,
        now: Callable[[], float] = time.monotonic,
        own_ports: set[int] | None = None,
    ) -> None:
        if reply_port is not None and not 1 <= checked_integer(reply_port, "reply_port") <= 65_535:
            raise ValueError(f"reply_port is 1 to 65535, not {reply_port}")
        self.counters = EchoCounters()
        self._reply_port = reply_port
        self._answer_any_port = answer_any_port
        self._rate_limit = rate_limit
        self._now = now
        self._own_ports = set() if own_ports is None else own_ports
        self._local_addresses = LocalAddresses(now)
        self._has_runs = False

    @override
    def started(self) -> None:
        self._own_ports.add(self.transport.getHost().port)
        self._has_runs = IRunTransport.providedBy(self.transport)

    @override
    def run_received(self, run: Run) -> None:
        count = run.count
        self.counters.received += count
        if run.is_truncated:
            self.counters.truncated += 1
            super().run_received(run)
        elif self._is_loop_risk(run):
            self.counters.loop_risk += count
        elif self._rate_limit is None:
            self._answer(run, count)
        else:
            self._answer_limited(run, count, self._rate_limit)

    @override
    def send_failed(self, error: SocketError, address: Address | None, count: int) -> None:
        self.counters.answered -= count
        self.counters.failed += count
        super().send_failed(error, address, count)

    @override
    def output_drained(self) -> None:
        if self.transport is not None:
            self.transport.resumeProducing()

    def _is_loop_risk(self, run: Run) -> bool:
        """Return whether the answer could cause a loop, or reach a host that sent nothing."""
        if is_loop_risk(run.source):
            return True
        if run.local and run.local != run.destination:
            return True  # A broadcast: every host of the network would answer a forged source.
        port, own_ports = run.source[1], self._own_ports
        if port not in own_ports and self._reply_port not in own_ports:
            return False
        # A forged source may be any address. The echo must not answer its own socket, which has
        # its port on every address of this machine that it is bound to.
        if not self._answer_any_port:
            return True
        return run.source[0].removeprefix(_MAPPED) in self._local_addresses

    def _answer(self, run: Run, count: int) -> None:
        if self.transport is None:
            return  # Closed in the meantime.
        # Counted before the send, which may call `send_failed`.
        self.counters.answered += count
        try:
            if self._has_runs:
                self.transport.reply(run, port=self._reply_port)
                if self.transport.is_full:
                    # Answers cannot be sent now, so new requests wait in the kernel.
                    self.transport.pauseProducing()
            else:
                host, port = run.source[:2]
                address = (host, port if self._reply_port is None else self._reply_port)
                self.transport.write(run.data, address)
        except (SocketError, OSError, MessageLengthError) as error:
            self.counters.answered -= count
            self.counters.failed += count
            self.warn_occasionally("{error}", error=error)

    def _answer_limited(self, run: Run, count: int, limit: RateLimit) -> None:
        allowed = limit.take(network_of(run.source[0]), count, self._now())
        self.counters.limited += count - allowed
        if allowed == count:
            self._answer(run, count)
        elif allowed:
            size = run.segment_size
            self._answer(run.part(run.data[: allowed * size], size), allowed)


def is_loop_risk(source: Address) -> bool:
    """Return whether an answer could cause a loop, or reach a host that sent nothing."""
    return not source[1] or _is_no_host(source[0])


# Cached: a peer sends many datagrams.
@lru_cache(maxsize=256)
def _is_no_host(address: str) -> bool:
    host = address.removeprefix(_MAPPED)
    return host in _NO_HOSTS or is_multicast(host)
