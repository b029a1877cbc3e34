"""
An echo over UDP: run → **answer or silence** → run.

UDP has no handshake, so whoever forges a source address chooses who is answered. What an echo must
not be talked into is a loop (with itself, with another echo, through a group) and a flood at
somebody who never asked; the rules are in `DatagramEcho`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.error import MessageLengthError
from typing_extensions import override

from twsock._integers import checked_integer
from twsock.datagram.network.local_addresses import LocalAddresses
from twsock.datagram.owner import IRunTransport
from twsock.datagram.protocol import DatagramProtocol
from twsock.datagram.rate_limit import RateLimit
from twsock.datagram.runs import MAPPED, Address, Run, is_loop_risk
from twsock.errors import SocketError
from twsock.ip.addresses import network_of
from twsock.log import TextLogger

__all__ = ["DatagramEcho", "EchoCounters"]


@dataclass(slots=True)
class EchoCounters:
    """
    What became of the datagrams that came.

    :ivar answered: sent back.
    :ivar loop_risk: not answered, since that could make a loop.
    :ivar limited: not answered, since the peer had its share.
    :ivar truncated: not answered, since they were not whole.
    :ivar failed: answers that could not be sent.
    """

    answered: int = 0
    loop_risk: int = 0
    limited: int = 0
    truncated: int = 0
    failed: int = 0


class DatagramEcho(DatagramProtocol):
    """
    Answers each datagram with itself, whole runs in one call.

    It never answers source port 0, a group or a broadcast address, itself, what was sent to
    everybody, nor a source port that is its own (another echo, or somebody who wants two of them to
    talk for ever). An echo on another port number it cannot tell from any other peer: for those
    there are ``own_ports``, and the rate limit.

    :param reply_port: answer the sender's address at this port, as the sample of the Windows
        sockets guide does (1336); None for the port it sent from.
    :param answer_any_port: answer also a source port that is the port of this echo.
    :param rate_limit: how much a peer is answered, in datagrams; None for no limit.
    :param now: measures the seconds of the rate limit.
    :param own_ports: the port numbers of echoes that belong together, none of which answers
        another; each adds its own, when it is started.
    :ivar counters: what became of what came.
    :raises ValueError: when ``reply_port`` is none.
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
        self._own_addresses = LocalAddresses(now)
        self._has_runs = False

    @override
    def started(self) -> None:
        self._own_ports.add(self.transport.getHost().port)
        self._has_runs = IRunTransport.providedBy(self.transport)

    @override
    def run_received(self, run: Run) -> None:
        if run.is_truncated:
            self.counters.truncated += 1
            super().run_received(run)
        elif self._is_loop_risk(run):
            self.counters.loop_risk += len(run)
        elif self._rate_limit is None:
            self._answer(run)
        else:
            self._answer_share(run, self._rate_limit)

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
        """Tell whether an answer could make a loop, or go to somebody who never asked."""
        if is_loop_risk(run.source):
            return True
        if run.local and run.local != run.destination:
            return True  # A broadcast: as many answers as there are hosts, to whoever was forged.
        host, port = run.source[0].removeprefix(MAPPED), run.source[1]
        own_ports = self._own_ports
        if port not in own_ports and self._reply_port not in own_ports:
            return False
        # A forged source is as good as any: what must not be answered is this very socket, which
        # has its port on every address of this machine that it is bound to.
        return not self._answer_any_port or host in self._own_addresses

    def _answer(self, run: Run) -> None:
        if self.transport is None:
            return  # Closed meanwhile.
        count = len(run)
        # Before it is sent, as it may fail within.
        self.counters.answered += count
        try:
            if self._has_runs:
                self.transport.reply(run, port=self._reply_port)
                if self.transport.is_full:
                    # What comes meanwhile waits in the kernel; there is no use in answers that
                    # cannot leave.
                    self.transport.pauseProducing()
            else:
                host, port = run.source[:2]
                address = (host, port if self._reply_port is None else self._reply_port)
                self.transport.write(run.data, address)
        except (SocketError, OSError, MessageLengthError) as error:
            self.counters.answered -= count
            self.counters.failed += count
            self.warn_occasionally("{error}", error=error)

    def _answer_share(self, run: Run, limit: RateLimit) -> None:
        count = len(run)
        allowed = limit.take(network_of(run.source[0]), count, self._now())
        self.counters.limited += count - allowed
        if allowed == count:
            self._answer(run)
        elif allowed:
            size = run.segment_size
            self._answer(run.part(run.data[: allowed * size], size))
