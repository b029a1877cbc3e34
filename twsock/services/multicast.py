"""
``twistd twsock-multicast``: a member of groups that answers.

options → `multicast_service` → `MulticastService` → `twsock.protocols.MulticastEcho`, one for each
group. The service owns the ports, which others may share, and tells how much was heard; who is
answered, the echo decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from twisted.application.service import IService
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.python import usage
from typing_extensions import override

from twsock.datagram.endpoint import IDatagramEndpoint, MulticastEndpoint
from twsock.datagram.udp_socket import LARGEST
from twsock.errors import SocketError
from twsock.log import TextLogger
from twsock.protocols import MulticastEcho, ReplyTo
from twsock.services.listening import (
    DatagramListeningService,
    describe_mistake,
    parse_datagram_endpoint,
)
from twsock.services.options import choice_option, count_option
from twsock.services.process import ProcessOptions, ProcessService

__all__ = [
    "DEFAULT_GROUP_ENDPOINT",
    "MulticastCounts",
    "MulticastService",
    "Options",
    "makeService",
    "multicast_service",
]

#: Group and port of the multicast sample in the Windows sockets guide; nothing leaves the machine.
DEFAULT_GROUP_ENDPOINT: Final = "multicast:224.3.0.5:22113:interface=lo"

#: Seconds between two lines of counts, which there are only when something was heard.
_PERIOD: Final = 60.0

#: The largest number of bytes that the kernel takes for a buffer.
_MAX_BUFFER: Final = 2**31 - 1

_REPLIES: Final = tuple(member.value for member in ReplyTo)


@dataclass(slots=True)
class MulticastCounts:
    """
    What all ports of a `MulticastService` have seen.

    :ivar received: datagrams of the groups, whole or not.
    :ivar answered: sent back.
    :ivar from_members: not answered, since they are answers to the group, our own among them.
    :ivar loop_risk: not answered, since that could make a loop.
    :ivar truncated: not answered, since they were longer than what is taken.
    :ivar not_for_a_group: came to the port, but not by a group that was joined; dropped, and not in
        ``received``.
    :ivar dropped_by_the_kernel: came while the receive buffer was full.
    :ivar failed: answers that could not be sent.
    """

    received: int = 0
    answered: int = 0
    from_members: int = 0
    loop_risk: int = 0
    truncated: int = 0
    not_for_a_group: int = 0
    dropped_by_the_kernel: int = 0
    failed: int = 0


class MulticastService(DatagramListeningService[MulticastEcho]):
    """Joins groups, answers what they are asked, and says now and then how much that was."""

    _log = TextLogger()
    _telling: LoopingCall | None = None
    _told = MulticastCounts()

    @override
    def count(self) -> MulticastCounts:
        total = MulticastCounts()
        for port, echo in self.opened:
            counters = echo.counters
            total.received += counters.received
            total.answered += counters.answered
            total.from_members += counters.from_members
            total.loop_risk += counters.loop_risk
            total.truncated += counters.truncated
            total.not_for_a_group += port.counters.unexpected_source
            total.dropped_by_the_kernel += port.dropped_by_kernel
            total.failed += counters.failed
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
        self._told = MulticastCounts()
        self._telling = LoopingCall(self._tell_counts)
        self._telling.clock = self._reactor
        self._telling.start(_PERIOD, now=False)

    @override
    def stopService(self) -> Deferred[None]:
        if self._telling is not None:
            self._telling.stop()
            self._telling = None
        return super().stopService()

    def _tell_counts(self) -> None:
        counts = self.count()
        if counts != self._told:
            self._told = counts
            self._log.info("until now: {counts}", counts=self.describe_counts())


class Options(ProcessOptions):
    """What ``twistd twsock-multicast`` takes."""

    optParameters = [
        ["reply", None, ReplyTo.SENDER.value, "Who is answered: sender, group or off."],
        ["receive-buffer", None, None, "SO_RCVBUF of each port, in bytes. [default: the system's]"],
        ["max-datagram", None, LARGEST, "Larger ones, in bytes, are counted and not answered."],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["endpoints"] = []

    def opt_endpoint(self, description: str) -> None:
        """
        The group, port and interface to listen on; may be given several times.
        [default: multicast:224.3.0.5:22113:interface=lo]
        """
        self["endpoints"].append(description)

    opt_e = opt_endpoint

    def postOptions(self) -> None:
        """
        Check what was given, while a mistake still gets its one line.

        :raises UsageError: naming the option and what it takes.
        """
        from twisted.internet import reactor

        super().postOptions()
        self["reply"] = choice_option(self, "reply", _REPLIES)
        self["receive-buffer"] = count_option(self, "receive-buffer", 1, _MAX_BUFFER)
        self["max-datagram"] = count_option(self, "max-datagram", 0, LARGEST)
        try:
            self.make_service(reactor)
        except (SocketError, ValueError) as error:
            raise usage.UsageError(f"--endpoint: {describe_mistake(error)}") from error

    def make_service(self, reactor: Any) -> MulticastService:
        """
        Make the service that was asked for; nothing is joined yet.

        :raises ValueError: and others, see `multicast_service`.
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

    :param endpoints: strings of the kind ``multicast``; none for group 224.3.0.5 at port 22113 on
        the interface ``lo``.
    :param reply: who is answered.
    :param receive_buffer: of each port, in bytes, where its string has no ``receiveBuffer``; None
        leaves it to the system.
    :param max_datagram: likewise for ``maxDatagram``: larger ones are counted and not answered.
    :raises ValueError: when an endpoint or a number cannot be used, with a line for the user.
    :raises SocketError: likewise, see `parse_datagram_endpoint`.
    """

    def build_echo() -> MulticastEcho:
        return MulticastEcho(reactor, reply=reply)

    parsed: list[tuple[str, IDatagramEndpoint]] = []
    for description in list(endpoints) or [DEFAULT_GROUP_ENDPOINT]:
        endpoint = parse_datagram_endpoint(
            reactor, description, receive_buffer=receive_buffer, max_datagram=max_datagram
        )
        if not isinstance(endpoint, MulticastEndpoint):
            raise ValueError(
                f"cannot use the endpoint {description!r}: it is of no group; give one such as "
                f"{DEFAULT_GROUP_ENDPOINT}, or run twsock-datagram"
            )
        parsed.append((description, endpoint))
    return MulticastService(reactor, parsed, build_echo)


def makeService(options: Options) -> IService:
    """Make the service that ``twistd twsock-multicast`` runs."""
    from twisted.internet import reactor

    process = ProcessService(options)
    options.make_service(reactor).setServiceParent(process)
    service: IService = process
    return service
