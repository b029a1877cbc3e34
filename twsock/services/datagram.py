"""
``twistd twsock-datagram``: an echo over UDP.

Options → `datagram_service` → `DatagramService` → `twsock.protocols.DatagramEcho`, one for each
port. The service owns the ports; the echo decides which datagrams it answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from twisted.application.service import IService
from typing_extensions import override

from twsock.datagram.endpoint import (
    IDatagramEndpoint,
    MulticastEndpoint,
    UdpEndpoint,
)
from twsock.datagram.protocol import EchoCounters
from twsock.datagram.runs import DatagramCounters
from twsock.datagram.udp_socket import LARGEST
from twsock.log import TextLogger
from twsock.protocols import DatagramEcho, RateLimit
from twsock.services.datagram_listening import (
    DatagramListeningService,
    DatagramServiceOptions,
    parse_datagram_endpoint,
)
from twsock.services.keeping_reactor import plain_reactor
from twsock.services.listening import default_endpoints
from twsock.services.options import count_option
from twsock.services.process import in_process
from twsock.services.stream import DEFAULT_PORT

__all__ = ["DatagramService", "Options", "datagram_service", "makeService"]


class DatagramService(DatagramListeningService[DatagramEcho]):
    """Listens on endpoints, echoes datagrams, and logs their numbers when it stops."""

    _log = TextLogger()

    @override
    def count_port(self, port: Any, protocol: DatagramEcho) -> EchoCounters:
        total = replace(protocol.counters)
        counters = getattr(port, "counters", None)
        if isinstance(counters, DatagramCounters):  # A plugin's port has none.
            # The port counts the answers that were sent, after all that were queued.
            total.answered += counters.sent - protocol.counters.answered
            total.failed += counters.failed - protocol.counters.failed
            total.dropped_by_the_kernel += port.dropped_by_kernel
        return total


class Options(DatagramServiceOptions):
    """The options of ``twistd twsock-datagram``."""

    optParameters = [
        ["reply-port", None, None, "Send answers to this port of the sender. [default: its own]"],
        ["rate-limit", None, None, "Send each peer at most N answers per second."],
    ]
    optFlags = [
        ["answer-any-port", None, "Also answer datagrams whose source port is our own."],
    ]

    def opt_endpoint(self, description: str) -> None:
        """
        Endpoint, as udp:1337:interface=::1; repeatable. [default: port 1337 on 127.0.0.1, ::1]
        """
        self["endpoints"].append(description)

    opt_e = opt_endpoint

    @override
    def postOptions(self) -> None:
        self["reply-port"] = count_option(self, "reply-port", 1, 65_535)
        self["rate-limit"] = count_option(self, "rate-limit", 1)
        super().postOptions()

    def make_service(self, reactor: Any) -> DatagramService:
        """
        Make the service of these options; it does not listen yet.

        :raises ValueError: see `datagram_service`, which also raises `SocketError`.
        """
        return datagram_service(
            reactor,
            self["endpoints"],
            reply_port=self["reply-port"],
            receive_buffer=self["receive-buffer"],
            max_datagram=self["max-datagram"],
            rate_limit=self["rate-limit"],
            answer_any_port=bool(self["answer-any-port"]),
        )


def datagram_service(
    reactor: Any,
    endpoints: Sequence[str] = (),
    *,
    reply_port: int | None = None,
    receive_buffer: int | None = None,
    max_datagram: int = LARGEST,
    rate_limit: int | None = None,
    answer_any_port: bool = False,
    now: Callable[[], float] = time.monotonic,
) -> DatagramService:
    """
    Make the datagram echo service.

    :param endpoints: strings of any kind that `datagram_endpoint_from_string` parses, except
        ``multicast``; if empty, port 1337 on the loopback addresses.
    :param reply_port: see `DatagramEcho`.
    :param receive_buffer: SO_RCVBUF of each port in bytes, if its string has no ``receiveBuffer``;
        None for the system's default.
    :param max_datagram: bytes, if the string has no ``maxDatagram``. Larger datagrams are counted
        and not answered.
    :param rate_limit: answers a second to each peer, from all ports together; also the largest
        burst. 1 or more; None for no limit.
    :param answer_any_port: see `DatagramEcho`.
    :param now: seconds of a monotonic clock, for the rate limit.
    :raises ValueError: when an endpoint or a number cannot be used; the text is a line for users.
    :raises SocketError: see `parse_datagram_endpoint`.
    """
    build_echo = _echo_builder(reply_port, rate_limit, answer_any_port, now)
    parse = partial(
        _parse_endpoint,
        receive_buffer=receive_buffer,
        max_datagram=max_datagram,
        reply_port=None if answer_any_port else reply_port,
    )
    descriptions = list(endpoints) or default_endpoints(DEFAULT_PORT, "udp")
    parsed = [(description, parse(reactor, description)) for description in descriptions]
    return DatagramService(plain_reactor(reactor), parsed, build_echo)


def _echo_builder(
    reply_port: int | None,
    rate_limit: int | None,
    answer_any_port: bool,
    now: Callable[[], float],
) -> Callable[[], DatagramEcho]:
    """Return a function that makes the protocol of a port; check the arguments now."""
    build_echo = partial(
        DatagramEcho,
        reply_port=reply_port,
        answer_any_port=answer_any_port,
        # One for all ports, as a peer may send to each of them.
        rate_limit=None if rate_limit is None else RateLimit(rate_limit, rate_limit),
        now=now,
        own_ports=set(),
    )
    build_echo()  # It checks its arguments now, before the service listens.
    return build_echo


def makeService(options: Options) -> IService:
    """Make the service that ``twistd twsock-datagram`` runs."""
    return in_process(options, options.make_service(options.reactor))


def _parse_endpoint(
    reactor: Any,
    description: str,
    *,
    receive_buffer: int | None,
    max_datagram: int,
    reply_port: int | None,
) -> IDatagramEndpoint:
    endpoint = parse_datagram_endpoint(
        reactor, description, receive_buffer=receive_buffer, max_datagram=max_datagram
    )
    if isinstance(endpoint, MulticastEndpoint):
        raise ValueError(
            f"cannot use the endpoint {description!r}: it is for a group; "
            "run twsock-multicast for it"
        )
    if isinstance(endpoint, UdpEndpoint) and endpoint.port and endpoint.port == reply_port:
        raise ValueError(
            f"cannot use the endpoint {description!r}: answers go to its own port, so every "
            "peer would count as another echo and get no answer"
        )
    return endpoint
