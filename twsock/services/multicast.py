"""
``twistd twsock-multicast``: an echo for multicast groups.

Options → `multicast_service` → `MulticastService` → `twsock.protocols.MulticastEcho`, one for each
group. The service owns the ports, which other programs may share, and logs the numbers of
datagrams; the echo decides which ones it answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from twisted.application.service import IService
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from typing_extensions import override

from twsock.datagram.endpoint import IDatagramEndpoint, MulticastEndpoint
from twsock.datagram.protocol import EchoCounters
from twsock.datagram.udp_socket import LARGEST
from twsock.log import TextLogger
from twsock.protocols import MulticastEcho, ReplyTo
from twsock.services.datagram_listening import (
    DatagramListeningService,
    DatagramServiceOptions,
    parse_datagram_endpoint,
)
from twsock.services.keeping_reactor import plain_reactor
from twsock.services.options import choice_option
from twsock.services.process import in_process

__all__ = [
    "DEFAULT_GROUP_ENDPOINT",
    "MulticastService",
    "Options",
    "makeService",
    "multicast_service",
]

#: Group and port of the multicast sample in the Windows sockets guide, on the loopback interface.
DEFAULT_GROUP_ENDPOINT: Final = "multicast:224.3.0.5:22113:interface=lo"

#: Seconds between two log lines with counts; no line is logged if no count has changed.
_PERIOD: Final = 60.0

_REPLIES: Final = tuple(member.value for member in ReplyTo)


class MulticastService(DatagramListeningService[MulticastEcho]):
    """Joins groups, echoes their datagrams, and logs the numbers each minute and at the stop."""

    _log = TextLogger()
    _logging: LoopingCall | None = None
    _logged = EchoCounters()

    @override
    def count_port(self, port: Any, protocol: MulticastEcho) -> EchoCounters:
        total = replace(protocol.counters)
        total.not_for_a_group += port.counters.unexpected_source
        total.dropped_by_the_kernel += port.dropped_by_kernel
        return total

    @override
    def describe_opened(self, port: Any) -> str:
        number = port.getHost().port
        (membership,) = port.memberships
        group, interface = membership.group, membership.interface.name
        escaped = group.replace(":", "\\:")
        return f"multicast:{escaped}:{number}:interface={interface}"

    @override
    def startService(self) -> None:
        super().startService()
        self._logged = EchoCounters()
        self._logging = LoopingCall(self._log_counts)
        self._logging.clock = self._reactor
        self._logging.start(_PERIOD, now=False)

    @override
    def stopService(self) -> Deferred[None]:
        if self._logging is not None:
            self._logging.stop()
            self._logging = None
        return super().stopService()

    def _log_counts(self) -> None:
        counts = self.count()
        if counts != self._logged:
            self._logged = counts
            self._log.info("so far: {counts}", counts=self.describe_counts())


class Options(DatagramServiceOptions):
    """The options of ``twistd twsock-multicast``."""

    # Linux copies each datagram of a group to every socket of the port, SO_REUSEPORT or not.
    workers_refused = "every worker would receive and answer the datagrams of a group"

    optParameters = [
        [
            "reply",
            None,
            ReplyTo.SENDER.value,
            "Where to send answers: sender, group or off.",
        ],
    ]

    def opt_endpoint(self, description: str) -> None:
        """
        Group, port, interface; repeatable. [default: multicast:224.3.0.5:22113:interface=lo]
        """
        self["endpoints"].append(description)

    opt_e = opt_endpoint

    @override
    def postOptions(self) -> None:
        self["reply"] = choice_option(self, "reply", _REPLIES)
        super().postOptions()

    def make_service(self, reactor: Any) -> MulticastService:
        """
        Make the service of these options; it joins no group yet.

        :raises ValueError: see `multicast_service`, which also raises `SocketError`.
        """
        return multicast_service(
            reactor,
            self["endpoints"],
            reply=ReplyTo(self["reply"]),
            receive_buffer=self["receive-buffer"],
            max_datagram=self["max-datagram"],
        )


def multicast_service(
    reactor: Any,
    endpoints: Sequence[str] = (),
    *,
    reply: ReplyTo = ReplyTo.SENDER,
    receive_buffer: int | None = None,
    max_datagram: int = LARGEST,
) -> MulticastService:
    """
    Make the multicast service.

    :param endpoints: ``multicast`` strings; if empty, group 224.3.0.5 at port 22113 on the
        interface ``lo``.
    :param reply: whether answers go to the sender, to the group, or are off.
    :param receive_buffer: SO_RCVBUF of each port in bytes, if its string has no ``receiveBuffer``;
        None for the system's default.
    :param max_datagram: bytes, if the string has no ``maxDatagram``. Larger datagrams are counted
        and not answered.
    :raises ValueError: when an endpoint or a number cannot be used; the text is a line for users.
    :raises SocketError: see `parse_datagram_endpoint`.
    """
    plain = plain_reactor(reactor)

    def build_echo() -> MulticastEcho:
        return MulticastEcho(plain, reply=reply)

    parsed: list[tuple[str, IDatagramEndpoint]] = []
    for description in list(endpoints) or [DEFAULT_GROUP_ENDPOINT]:
        endpoint = parse_datagram_endpoint(
            reactor, description, receive_buffer=receive_buffer, max_datagram=max_datagram
        )
        if not isinstance(endpoint, MulticastEndpoint):
            raise ValueError(
                f"cannot use the endpoint {description!r}: it is not for a group; give one such as "
                f"{DEFAULT_GROUP_ENDPOINT}, or run twsock-datagram"
            )
        parsed.append((description, endpoint))
    return MulticastService(plain, parsed, build_echo)


def makeService(options: Options) -> IService:
    """Make the service that ``twistd twsock-multicast`` runs."""
    return in_process(options, options.make_service(options.reactor))
