"""
Services with UDP ports: datagram endpoint strings → endpoints → **service** → ports and protocols.

Contains the parser of the strings, and the base classes of the options and services. Holds each
port with its protocol, which has the counters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any, Final, Generic, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamServerEndpointStringParser
from twisted.internet.task import deferLater
from twisted.plugin import getPlugins
from twisted.python.usage import UsageError
from typing_extensions import override

from twsock.datagram.endpoint import (
    IDatagramEndpoint,
    MulticastEndpoint,
    UdpEndpoint,
    datagram_endpoint_from_string,
)
from twsock.datagram.endpoint_string import parse_endpoint_string
from twsock.datagram.protocol import EchoCounters
from twsock.datagram.udp_socket import LARGEST, MAX_BUFFER
from twsock.errors import SocketError, SocketErrorStatus
from twsock.ip.address_errors import EndpointError
from twsock.protocols import DatagramProtocol
from twsock.services.listening import ListeningService, describe_mistake
from twsock.services.measurements import Measurement, describe_counts, measure_datagrams
from twsock.services.options import count_option
from twsock.services.process_options import ProcessOptions

__all__ = ["DatagramListeningService", "DatagramServiceOptions", "parse_datagram_endpoint"]

_UDP_EXAMPLE: Final = "udp:1337:interface=127.0.0.1"

#: The kinds that Twisted parses itself; plugins parse the others.
_STREAMS: Final = ("ssl", "tcp", "unix")

#: Counts that the log has although they are 0.
_ALWAYS_LOGGED: Final = ("received", "answered")

_Protocol = TypeVar("_Protocol", bound=DatagramProtocol)


def parse_datagram_endpoint(
    reactor: Any,
    description: str,
    *,
    receive_buffer: int | None = None,
    max_datagram: int = LARGEST,
) -> IDatagramEndpoint:
    """
    Make a datagram endpoint from its string; arguments in the string override the parameters.

    :param receive_buffer: used when a ``udp`` or ``multicast`` string has no ``receiveBuffer``; see
        `DatagramOptions`.
    :param max_datagram: used when such a string has no ``maxDatagram``.
    :raises EndpointError: when the string names no endpoint; the text is a line for the user. It is
        a ``ValueError``. The status is ``CLASS_TYPE_NOT_FOUND`` for an invalid port.
    :raises SocketError: when the string names an invalid group; the status is
        ``ADDRESS_FAMILY_NOT_SUPPORTED``.
    """
    try:
        endpoint: IDatagramEndpoint = datagram_endpoint_from_string(reactor, description)
    except SocketError as error:
        raise SocketError.from_exception(
            error, f"cannot use the endpoint {description!r}: {error}"
        ) from error
    except ValueError as error:
        raise _datagram_mistake(description, error) from error
    if not isinstance(endpoint, (UdpEndpoint, MulticastEndpoint)):
        return endpoint
    options, given = endpoint.options, parse_endpoint_string(description).keywords
    return replace(
        endpoint,
        options=replace(
            options,
            receive_buffer=options.receive_buffer if "receiveBuffer" in given else receive_buffer,
            max_datagram=options.max_datagram if "maxDatagram" in given else max_datagram,
        ),
    )


def _datagram_mistake(description: str, error: ValueError) -> EndpointError:
    if _kind_of(description) in _kinds_of_streams():
        return EndpointError(
            f"cannot use the endpoint {description!r}: it is for streams, not for datagrams; "
            "run twsock-stream for it",
            status=SocketErrorStatus.SOCKET_TYPE_NOT_SUPPORTED,
        )
    is_group = _kind_of(description) == "multicast"
    example = "multicast:224.3.0.5:22113:interface=lo" if is_group else _UDP_EXAMPLE
    status = SocketError.get_status(error)
    return EndpointError(f"{error}; give one such as {example}", status=status)


class DatagramServiceOptions(ProcessOptions):
    """The options of every service with datagram ports; a base class."""

    optParameters: list[list[Any]] = [
        ["receive-buffer", None, None, "SO_RCVBUF of each port, in bytes. [default: the system's]"],
        ["max-datagram", None, LARGEST, "Bytes; larger datagrams are counted, not answered."],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["endpoints"] = []

    @override
    def postOptions(self) -> None:
        """
        Check the options, so that a mistake is reported in one line before anything starts.

        :raises UsageError: when an option is invalid; names the option and what it takes.
        """
        super().postOptions()
        self["receive-buffer"] = count_option(self, "receive-buffer", 1, MAX_BUFFER)
        self["max-datagram"] = count_option(self, "max-datagram", 0, LARGEST)
        try:
            self.make_service(self.reactor)
        except (SocketError, ValueError) as error:
            raise UsageError(f"--endpoint: {describe_mistake(error)}") from error

    # To be overridden.

    def make_service(self, reactor: Any) -> Service:
        """Make the service of these options."""
        raise NotImplementedError


class DatagramListeningService(ListeningService, Generic[_Protocol]):
    """
    Listens on datagram endpoints, each with its own protocol; a base class for services.

    :param endpoints: pairs of an endpoint string and the endpoint made from it.
    :param build_protocol: makes a protocol each time that an endpoint is listened on.
    """

    def __init__(
        self,
        reactor: Any,
        endpoints: Sequence[tuple[str, IDatagramEndpoint]],
        build_protocol: Callable[[], _Protocol],
    ) -> None:
        super().__init__(reactor, endpoints)
        self._build_protocol = build_protocol
        self._opened: list[tuple[Any, _Protocol]] = []
        # Of the opened ports, as a closed port may have none.
        self._names: list[str] = []

    @property
    def opened(self) -> Sequence[tuple[Any, _Protocol]]:
        """Each port with its protocol; after the stop still the last ones."""
        return tuple(self._opened)

    # To be overridden.

    def count_port(self, port: Any, protocol: _Protocol) -> EchoCounters:
        """Return the counts of a port and its protocol together."""
        raise NotImplementedError

    # Called by subclasses.

    def count(self) -> Any:
        """Return the sums of the counters of all ports, as a dataclass of numbers."""
        total = EchoCounters()
        for port, protocol in self.opened:
            total.add(self.count_port(port, protocol))
        return total

    @override
    def measure(self) -> Iterator[Measurement]:
        for (port, protocol), name in zip(self._opened, self._names, strict=True):
            counts = self.count_port(port, protocol)
            yield from measure_datagrams(name, type(protocol).__name__, counts, port)

    def describe_counts(self) -> str:
        """Return the sums as text for the log; without those that are 0, but with the first two."""
        return describe_counts(asdict(self.count()).items(), _ALWAYS_LOGGED)

    # Called by the base.

    @override
    def listen_on(self, endpoint: Any) -> Deferred[Any]:
        protocol = self._build_protocol()
        listening: Deferred[Any] = endpoint.listen(protocol)
        return listening.addCallback(self._note_opened, protocol)

    @override
    async def stop(self) -> None:
        await self.close_ports()
        self._log.info("stopped: {counts}", counts=self.describe_counts())

    @override
    async def drain_rest(self) -> None:
        # At most 5 seconds, for a busy network. Nearly always, the queues are empty.
        for _ in range(500):
            if not any(getattr(port, "unsent", 0) for port, _ in self._opened):
                return
            await deferLater(self._reactor, 0.01)
        self._log.warn("the kernel did not take all queued datagrams in time")

    @override
    def privilegedStartService(self) -> None:
        self._opened = []
        self._names = []
        super().privilegedStartService()

    def _note_opened(self, port: Any, protocol: _Protocol) -> Any:
        if self._is_listening:
            self._opened.append((port, protocol))
            self._names.append(self.describe_opened(port))
        return port


def _kind_of(description: str) -> str:
    return description.partition(":")[0].lower()


def _kinds_of_streams() -> set[str]:
    plugins = getPlugins(IStreamServerEndpointStringParser)
    return {*_STREAMS, *(parser.prefix.lower() for parser in plugins)}
