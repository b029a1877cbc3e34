"""
Datagram endpoints and their strings: endpoint string → **endpoint** → datagram port.

Twisted has endpoints for streams only. The interfaces here follow the same pattern.
`twsock.datagram.endpoint_string` parses the text. `listen` opens a `twsock.datagram.port`. Plugins
that provide `IDatagramEndpointStringParser` add further kinds.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from twisted.internet.defer import Deferred, execute
from twisted.plugin import getPlugins
from zope.interface import Attribute, Interface, implementer

from twsock.datagram.endpoint_string import parse_endpoint_string
from twsock.datagram.network.interfaces import find_interface
from twsock.datagram.network.membership import find_group
from twsock.datagram.network.membership_calls import check_group
from twsock.datagram.port import DatagramPort, listen_datagrams
from twsock.datagram.udp_socket import LARGEST, MAX_BUFFER, DatagramOptions, open_udp_socket_of
from twsock.errors import SocketErrorStatus
from twsock.ip.address_errors import EndpointError
from twsock.ip.zones import split_zone

__all__ = [
    "IDatagramEndpoint",
    "IDatagramEndpointStringParser",
    "MulticastEndpoint",
    "UdpEndpoint",
    "datagram_endpoint_from_string",
]

_DEFAULTS: Final = DatagramOptions()

#: The interface of a group without an argument ``interface``: its datagrams stay on this machine.
_LOOPBACK: Final = "lo"


class IDatagramEndpoint(Interface):
    """An address to receive datagrams at, as ``IStreamServerEndpoint`` is for connections."""

    def listen(protocol: Any) -> Deferred[Any]:  # noqa: N805
        """
        Open a port for a protocol.

        :param protocol: a `twsock.protocols.DatagramProtocol`, or any datagram protocol of Twisted.
        :returns: fires with the port, an ``IListeningPort`` whose protocol has been started. Fails
            with `SocketError` if the system refuses; then nothing stays open.
        """


class IDatagramEndpointStringParser(Interface):
    """
    Provided by plugins that make datagram endpoints from strings.

    A plugin module in ``twisted.plugins`` contains an instance that also provides ``IPlugin``.
    """

    prefix: str = Attribute("The first field of its strings, in lower case.")

    def parse_datagram_endpoint(
        reactor: Any,  # noqa: N805
        /,
        *args: str,
        **kwargs: str,
    ) -> IDatagramEndpoint:
        """
        Make an endpoint from the fields of a string.

        :param args: the values of the fields without a name, unescaped, without the kind.
        :param kwargs: the values of the fields with a name.
        :raises ValueError: when a value is invalid; the message is shown to the user.
        :raises TypeError: when an argument is missing or unknown, as Python does for any call.
        """


@implementer(IDatagramEndpoint)
@dataclass(frozen=True, slots=True)
class UdpEndpoint:
    """
    A UDP port of this machine.

    :ivar reactor: watches the port.
    :ivar port: 0 to 65,535; with 0 the system chooses a port at each `listen`.
    :ivar interface: a numeric address of this machine; empty for all IPv4 addresses, as for
        Twisted's endpoints, ``::`` for all IPv6 addresses.
    :ivar options: socket options of the port.
    """

    reactor: Any
    port: int
    interface: str = ""
    options: DatagramOptions = _DEFAULTS

    def listen(self, protocol: Any) -> Deferred[DatagramPort]:
        """
        Open the port; see `IDatagramEndpoint`.

        :returns: fails with ValueError when the address or the port number is invalid; with
            `SocketError` when the system refuses.
        """
        return execute(
            listen_datagrams, self.reactor, protocol, self.port, self.interface, self.options
        )


@implementer(IDatagramEndpoint)
@dataclass(frozen=True, slots=True)
class MulticastEndpoint:
    """
    A multicast group on one interface, at a port that is shared with other programs.

    :ivar reactor: watches the port.
    :ivar group: numeric. An IPv6 group may have a zone (``ff15::9%eth1``), which names the
        interface. The port is bound to all addresses of the family, never to the group address.
    :ivar port: 0 to 65,535; with 0 the system chooses.
    :ivar interface: name, index or address of the interface that receives from the group and sends
        to it. With the default, all datagrams stay on this machine.
    :ivar source: numeric; receive only from this sender (:rfc:`4607`). None for all senders.
    :ivar options: socket options of the port. The endpoint replaces ``multicast_only`` and
        ``interface``.
    """

    reactor: Any
    group: str
    port: int
    interface: str = _LOOPBACK
    source: str | None = None
    options: DatagramOptions = _DEFAULTS

    def listen(self, protocol: Any) -> Deferred[DatagramPort]:
        """
        Open the port and join the group; see `IDatagramEndpoint`.

        The interface is looked up now, so it may be created after the endpoint.

        :returns: fails with `SocketError`. Its status is ``ADDRESS_FAMILY_NOT_SUPPORTED`` when the
            address is not a group, or the source has another family; ``UNREACHABLE_HOST`` when the
            interface does not exist; ``ADDRESS_ALREADY_IN_USE`` when another program has the port
            and does not share it. The protocol starts after the group was joined.
        """
        return execute(self._listen, protocol)

    def _listen(self, protocol: Any) -> DatagramPort:
        # An explicit interface overrides the default.
        named = None if self.interface == _LOOPBACK else self.interface
        group, interface = find_group(self.group, named)
        address = "::" if check_group(group) == socket.AF_INET6 else ""
        interface = interface or find_interface(self.interface)
        options = replace(self.options, multicast_only=True, interface=interface.index)
        wanted = f"{group.partition('%')[0]}%{interface.name}"
        wanted += f",{self.source}" if self.source else ""
        opened = open_udp_socket_of(self.reactor, address, self.port, options, wanted)
        port = DatagramPort(self.reactor, protocol, opened, options)
        try:
            # Joined before the protocol starts, so that it receives what it sends at its start.
            port.join_group(group, interface, self.source)
            port.startListening()
        except BaseException:
            port.stopListening()
            raise
        return port


def datagram_endpoint_from_string(reactor: Any, description: str) -> IDatagramEndpoint:
    r"""
    Make a datagram endpoint from its string, as ``serverFromString`` of Twisted does for streams.

    ``udp:PORT[:interface=ADDRESS]``
        a `UdpEndpoint`. Further arguments: ``ttl`` (hops, 1 to 255).
    ``multicast:GROUP:PORT[:interface=NAME]``
        a `MulticastEndpoint`. Further arguments: ``ttl`` (hops, 0 to 255), ``loopback`` (yes or
        no), ``source``.

    Both take ``receiveBuffer``, ``sendBuffer``, ``maxDatagram`` (bytes) and ``dontFragment`` (yes
    or no); see `DatagramOptions` for all. ``port`` and ``interface`` of ``udp``, and ``group``,
    ``port``, ``interface`` and ``ttl`` of ``multicast``, need no name if they are in this order.
    The zone of a group (``multicast:[ff15::1%eth0]:22113``) names the interface too. In an IPv6
    address, escape the colons or put it in brackets: ``multicast:[ff15::1]:22113``. Plugins add
    other kinds.

    :param reactor: the reactor that the endpoint listens with.
    :raises ValueError: when the string is invalid. The message is one line with the string, the
        argument and the allowed values.
    :raises SocketError: with status ``ADDRESS_FAMILY_NOT_SUPPORTED``, when the group address is not
        a multicast address.
    """
    try:
        parsed = parse_endpoint_string(description)
        parser = _find_parser(parsed.kind)
        endpoint: IDatagramEndpoint = parser.parse_datagram_endpoint(
            reactor, *parsed.arguments, **parsed.keywords
        )
    except (TypeError, ValueError) as error:
        # The text of a TypeError is about Python's call, not about the user's string.
        problem = "an argument is missing or unknown" if isinstance(error, TypeError) else error
        raise ValueError(f"cannot use the endpoint {description!r}: {problem}") from error
    return endpoint


# The arguments. A reader returns the value of an argument, or raises ValueError with the allowed
# values.

_Reader = Callable[[str], Any]


@dataclass(frozen=True, slots=True)
class _Argument:
    """
    The reader of an argument.

    :ivar option: the field of `DatagramOptions` that it sets; empty for a field of the endpoint.
    """

    read: _Reader
    option: str = ""


def _number(least: int, most: int) -> _Reader:
    def read(text: str) -> int:
        # Ten digits are enough; for thousands of digits `int` raises an error with another text.
        if text.isascii() and text.isdecimal() and len(text) <= 10 and least <= int(text) <= most:
            return int(text)
        raise ValueError(f"a number, {least} to {most}")

    return read


def _yes_or_no(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError("yes or no")
    return text == "yes"


def _address(text: str) -> str:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise ValueError("a numeric address, such as 127.0.0.1 or [::1]") from None
    return text


def _local_address(text: str) -> str:
    # A port bound to a group address would receive from the group without a join.
    if text and ipaddress.ip_address(_address(text)).is_multicast:
        raise ValueError("an address of this machine (for a group use multicast:GROUP:PORT)")
    return text


def _group(text: str) -> str:
    literal, zone = split_zone(text)
    # An IPv4 group with a zone is not a group.
    check_group(literal if ":" in literal else text)
    if literal != text and not zone:
        raise ValueError("a group, with the name of an interface after %")
    return text


def _interface(text: str) -> str:
    # `listen` checks that the interface exists.
    if not text:
        raise ValueError("a name, an index or an address, such as lo")
    return text


_PORT: Final = _Argument(_number(0, 65_535))
_COMMON: Final = {
    "receiveBuffer": _Argument(_number(1, MAX_BUFFER), "receive_buffer"),
    "sendBuffer": _Argument(_number(1, MAX_BUFFER), "send_buffer"),
    "maxDatagram": _Argument(_number(0, LARGEST), "max_datagram"),
    "dontFragment": _Argument(_yes_or_no, "dont_fragment"),
}


@implementer(IDatagramEndpointStringParser)
@dataclass(frozen=True, slots=True)
class _Parser:
    """
    Makes the endpoints of one built-in kind.

    :ivar make: the class of the endpoint; its fields have the names of the arguments.
    :ivar positional: the arguments that need no name, in order.
    :ivar required: how many of the positional arguments are required.
    """

    prefix: str
    make: Callable[..., Any]
    positional: tuple[str, ...]
    required: int
    arguments: Mapping[str, _Argument]

    def parse_datagram_endpoint(
        self, reactor: Any, /, *args: str, **kwargs: str
    ) -> IDatagramEndpoint:
        values: dict[str, Any] = {}
        options: dict[str, Any] = {}
        for name, text in self._name_all(args, kwargs).items():
            argument = self.arguments[name]
            try:
                value = argument.read(text)
            except ValueError as error:
                problem = f"{name} is {error}, not {text!r}"
                if name != "port":
                    raise ValueError(problem) from None
                status = SocketErrorStatus.CLASS_TYPE_NOT_FOUND
                raise EndpointError(problem, status=status) from None
            if argument.option:
                options[argument.option] = value
            else:
                values[name] = value
        endpoint: IDatagramEndpoint = self.make(
            reactor, options=DatagramOptions(**options), **values
        )
        return endpoint

    def _name_all(self, arguments: tuple[str, ...], keywords: dict[str, str]) -> dict[str, str]:
        if len(arguments) > len(self.positional):
            surplus = arguments[len(self.positional)]
            in_order = ", ".join(self.positional)
            raise ValueError(f"too many arguments: {surplus!r}; without a name: {in_order}")
        named = dict(zip(self.positional, arguments, strict=False))
        for name, text in keywords.items():
            if name not in self.arguments:
                known = ", ".join(self.arguments)
                raise ValueError(f"unknown argument {name!r}, known are {known}")
            if name in named:
                raise ValueError(f"{name!r} is given twice, once without its name")
            named[name] = text
        for name in self.positional[: self.required]:
            if name not in named:
                needed = ":".join(one.upper() for one in self.positional[: self.required])
                raise ValueError(f"the {name} is missing, the form is {self.prefix}:{needed}")
        return named


_BUILT_IN: Final[Mapping[str, IDatagramEndpointStringParser]] = {
    "udp": _Parser(
        "udp",
        UdpEndpoint,
        ("port", "interface"),
        1,
        {
            "port": _PORT,
            "interface": _Argument(_local_address),
            "ttl": _Argument(_number(1, 255), "hop_limit"),
            **_COMMON,
        },
    ),
    "multicast": _Parser(
        "multicast",
        MulticastEndpoint,
        ("group", "port", "interface", "ttl"),
        2,
        {
            "group": _Argument(_group),
            "port": _PORT,
            "interface": _Argument(_interface),
            "ttl": _Argument(_number(0, 255), "multicast_hop_limit"),
            "loopback": _Argument(_yes_or_no, "multicast_loopback"),
            "source": _Argument(_address),
            **_COMMON,
        },
    ),
}


def _find_parser(kind: str) -> IDatagramEndpointStringParser:
    if kind in _BUILT_IN:
        return _BUILT_IN[kind]
    plugins = getPlugins(IDatagramEndpointStringParser)
    parsers = {parser.prefix.lower(): parser for parser in plugins}
    if kind not in parsers:
        kinds = ", ".join(sorted({*_BUILT_IN, *parsers}))
        raise ValueError(f"unknown kind {kind!r}, the kinds for datagrams are {kinds}")
    return parsers[kind]
