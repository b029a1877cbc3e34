"""
Where datagrams are received, as a value: endpoint string → **endpoint** → datagram port.

Twisted has endpoints for streams only, so the interfaces are made here after the pattern of those.
The text is taken apart by `twsock.datagram.endpoint_string`; ports are opened by
`twsock.datagram.port`, and not before `listen` is called. Further kinds of endpoints come
from plugins, which provide `IDatagramEndpointStringParser`.
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
from twsock.datagram.udp_socket import LARGEST, DatagramOptions, open_udp_socket_of
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

#: The interface of a group without one: by default nothing leaves this machine.
_LOOPBACK: Final = "lo"


class IDatagramEndpoint(Interface):
    """Where datagrams can be received; what ``IStreamServerEndpoint`` is for connections."""

    def listen(protocol: Any) -> Deferred[Any]:  # noqa: N805
        """
        Open a port for a protocol.

        :param protocol: a `twsock.protocols.DatagramProtocol`, or any datagram protocol of Twisted.
        :returns: the port, an ``IListeningPort``, on which the protocol has been started; or fails,
            with a `SocketError` where the system refused, and nothing is left open.
        """


class IDatagramEndpointStringParser(Interface):
    """
    Declared by plugins that make datagram endpoints from strings.

    An instance that also provides ``IPlugin`` is put into a module of ``twisted.plugins``.
    """

    prefix: str = Attribute("The kind it makes, with which its strings begin; in lower case.")

    def parse_datagram_endpoint(
        reactor: Any,  # noqa: N805
        /,
        *args: str,
        **kwargs: str,
    ) -> IDatagramEndpoint:
        """
        Make an endpoint from the words of a string.

        :param args: the fields without a name, nothing escaped, without the kind.
        :param kwargs: the fields with one.
        :raises ValueError: when a word means nothing; with a line for the user.
        :raises TypeError: when a word is missing, or there is one too many, as a call with
            other arguments does by itself.
        """


@implementer(IDatagramEndpoint)
@dataclass(frozen=True, slots=True)
class UdpEndpoint:
    """
    A UDP port of this machine.

    :ivar reactor: watches the port.
    :ivar port: 0 to 65,535; 0 lets the system choose, anew for each `listen`.
    :ivar interface: a numeric address of this machine; empty for all IPv4 addresses, as for
        Twisted's endpoints, ``::`` for all IPv6 addresses.
    :ivar options: of the port.
    """

    reactor: Any
    port: int
    interface: str = ""
    options: DatagramOptions = _DEFAULTS

    def listen(self, protocol: Any) -> Deferred[DatagramPort]:
        """
        Open the port; see `IDatagramEndpoint`.

        :returns: fails with ValueError, when an address or number is none; with `SocketError`, when
            the system refuses.
        """
        return execute(
            listen_datagrams, self.reactor, protocol, self.port, self.interface, self.options
        )


@implementer(IDatagramEndpoint)
@dataclass(frozen=True, slots=True)
class MulticastEndpoint:
    """
    A group, heard on one interface, at a port that is shared with other programs.

    :ivar reactor: watches the port.
    :ivar group: numeric; one of IPv6 may have a zone (``ff15::9%eth1``), which names the interface.
        The port is bound to all addresses of its family, never to the group's.
    :ivar port: 0 to 65,535; 0 lets the system choose.
    :ivar interface: name, index or address of the one that the group is heard on, and sent to by.
        The default keeps all on this machine.
    :ivar source: numeric; the only sender to hear (:rfc:`4607`). None for all.
    :ivar options: of the port, with ``multicast_only`` and ``interface`` as this endpoint needs
        them.
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

        The interface is looked up now, so it may appear after the endpoint was made.

        :returns: fails with `SocketError`: status ``ADDRESS_FAMILY_NOT_SUPPORTED`` when that is no
            group, or the source not of its family; ``UNREACHABLE_HOST`` when there is no such
            interface; ``ADDRESS_ALREADY_IN_USE`` when the port is not shared by all who have it.
            The protocol is started only when the group was joined.
        """
        return execute(self._listen, protocol)

    def _listen(self, protocol: Any) -> DatagramPort:
        # A named interface overrides the default one.
        named = None if self.interface == _LOOPBACK else self.interface
        group, interface = find_group(self.group, named)
        address = "::" if check_group(group) == socket.AF_INET6 else ""
        interface = interface or find_interface(self.interface)
        options = replace(self.options, multicast_only=True, interface=interface.index)
        opened = open_udp_socket_of(self.reactor, address, self.port, options)
        port = DatagramPort(self.reactor, protocol, opened, options)
        try:
            # Before the protocol starts: what it sends to the group then, it shall hear too.
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
        a `UdpEndpoint`. Further words: ``ttl`` (hops, 1 to 255).
    ``multicast:GROUP:PORT[:interface=NAME]``
        a `MulticastEndpoint`. Further words: ``ttl`` (hops, 0 to 255), ``loopback`` (yes or no),
        ``source``.

    Both take ``receiveBuffer``, ``sendBuffer``, ``maxDatagram`` (bytes) and ``dontFragment`` (yes
    or no); see `DatagramOptions` for all. Port, interface, group and, for a group, ``ttl`` need no
    name when they come in this order. The zone of a group (``multicast:[ff15::1%eth0]:22113``)
    names the interface too. In an IPv6 address either the colons are escaped or it is in
    brackets: ``multicast:[ff15::1]:22113``. Other kinds are plugins'.

    :param reactor: the endpoint listens with it.
    :raises ValueError: when the string names no endpoint; one line, which names the string, the
        word and what is allowed.
    :raises SocketError: with status ``ADDRESS_FAMILY_NOT_SUPPORTED``, when a group is none.
    """
    try:
        parsed = parse_endpoint_string(description)
        parser = _find_parser(parsed.kind)
        endpoint: IDatagramEndpoint = parser.parse_datagram_endpoint(
            reactor, *parsed.arguments, **parsed.keywords
        )
    except (TypeError, ValueError) as error:
        # What a TypeError says is about Python's arguments; the user wrote words.
        problem = "a word is missing or unknown" if isinstance(error, TypeError) else error
        raise ValueError(f"cannot use the endpoint {description!r}: {problem}") from error
    return endpoint


# The words. A reader gives the value of a word, or raises ValueError with what is allowed.

_Reader = Callable[[str], Any]


@dataclass(frozen=True, slots=True)
class _Word:
    """How a word is read, and the field of `DatagramOptions` that it sets, if it does."""

    read: _Reader
    option: str = ""


def _number(least: int, most: int) -> _Reader:
    def read(text: str) -> int:
        # Ten digits are enough, and `int` refuses thousands of them with a line of its own.
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


def _own_address(text: str) -> str:
    # Bound to a group's address, a port would get what is sent there without having joined.
    if text and ipaddress.ip_address(_address(text)).is_multicast:
        raise ValueError("an address of this machine (for groups there is multicast:GROUP:PORT)")
    return text


def _group(text: str) -> str:
    literal, zone = split_zone(text)
    # A zone of IPv4 is refused with the group.
    check_group(literal if ":" in literal else text)
    if literal != text and not zone:
        raise ValueError("a group, and behind % the name of an interface")
    return text


def _interface(text: str) -> str:
    # Whether it exists is asked when it is needed.
    if not text:
        raise ValueError("a name, an index or an address, such as lo")
    return text


_PORT: Final = _Word(_number(0, 65_535))
_COMMON: Final = {
    "receiveBuffer": _Word(_number(1, 2**31 - 1), "receive_buffer"),
    "sendBuffer": _Word(_number(1, 2**31 - 1), "send_buffer"),
    "maxDatagram": _Word(_number(0, LARGEST), "max_datagram"),
    "dontFragment": _Word(_yes_or_no, "dont_fragment"),
}


@implementer(IDatagramEndpointStringParser)
@dataclass(frozen=True, slots=True)
class _Parser:
    """
    Makes the endpoints of a kind that is built in.

    :ivar make: an endpoint's class, whose fields have the names of the words.
    :ivar positional: the words that need no name, in their order.
    :ivar required: how many of these have to be there.
    """

    prefix: str
    make: Callable[..., Any]
    positional: tuple[str, ...]
    required: int
    words: Mapping[str, _Word]

    def parse_datagram_endpoint(
        self, reactor: Any, /, *args: str, **kwargs: str
    ) -> IDatagramEndpoint:
        values: dict[str, Any] = {}
        options: dict[str, Any] = {}
        for name, text in self._name_all(args, kwargs).items():
            word = self.words[name]
            try:
                value = word.read(text)
            except ValueError as error:
                problem = f"{name} is {error}, not {text!r}"
                if name != "port":
                    raise ValueError(problem) from None
                status = SocketErrorStatus.CLASS_TYPE_NOT_FOUND
                raise EndpointError(problem, status=status) from None
            if word.option:
                options[word.option] = value
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
            raise ValueError(f"{surplus!r} is too many: without a name there are {in_order}")
        named = dict(zip(self.positional, arguments, strict=False))
        for name, text in keywords.items():
            if name not in self.words:
                raise ValueError(f"there is no {name!r} in it, there are {', '.join(self.words)}")
            if name in named:
                raise ValueError(f"{name!r} is given twice, once without its name")
            named[name] = text
        for name in self.positional[: self.required]:
            if name not in named:
                needed = ":".join(word.upper() for word in self.positional[: self.required])
                raise ValueError(f"the {name} is missing, it begins {self.prefix}:{needed}")
        return named


_BUILT_IN: Final[Mapping[str, IDatagramEndpointStringParser]] = {
    "udp": _Parser(
        "udp",
        UdpEndpoint,
        ("port", "interface"),
        1,
        {
            "port": _PORT,
            "interface": _Word(_own_address),
            "ttl": _Word(_number(1, 255), "hop_limit"),
            **_COMMON,
        },
    ),
    "multicast": _Parser(
        "multicast",
        MulticastEndpoint,
        ("group", "port", "interface", "ttl"),
        2,
        {
            "group": _Word(_group),
            "port": _PORT,
            "interface": _Word(_interface),
            "ttl": _Word(_number(0, 255), "multicast_hop_limit"),
            "loopback": _Word(_yes_or_no, "multicast_loopback"),
            "source": _Word(_address),
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
        raise ValueError(f"there is no kind {kind!r} for datagrams, there are {kinds}")
    return parsers[kind]
