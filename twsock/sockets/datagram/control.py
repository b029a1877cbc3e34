"""
Options of a datagram socket: set by the application before it is bound, applied to its ports.

Read by `twsock.DatagramSocket`, which converts them to `DatagramOptions`.
"""

from __future__ import annotations

from collections.abc import Callable

from twsock._integers import checked_integer
from twsock.datagram.udp_socket import LARGEST, MAX_BUFFER, DatagramOptions
from twsock.errors import LocalProtocolError
from twsock.ip.traffic_class import EXPEDITED_FORWARDING
from twsock.sockets.stream.control import DEFAULT_HOP_LIMIT, SocketQualityOfService, checked_quality

__all__ = ["DatagramSocketControl"]


class DatagramSocketControl:
    """
    Options of one `twsock.DatagramSocket`; ``Windows.Networking.Sockets.DatagramSocketControl``.

    They are set before the socket is bound or connected. Setting one later raises
    `LocalProtocolError` (HRESULT ``E_ILLEGAL_METHOD_CALL``), except for the unicast hop limit.
    """

    __slots__ = (
        "_dont_fragment",
        "_hop_limit",
        "_is_in_use",
        "_max_datagram",
        "_multicast_hop_limit",
        "_multicast_loopback",
        "_multicast_only",
        "_quality_of_service",
        "_receive_buffer",
        "_send_buffer",
        "_set_hop_limit",
    )

    def __init__(self, is_in_use: Callable[[], bool], set_hop_limit: Callable[[int], None]) -> None:
        self._is_in_use = is_in_use
        self._set_hop_limit = set_hop_limit
        self._multicast_only = False
        self._dont_fragment = False
        self._hop_limit = DEFAULT_HOP_LIMIT
        self._multicast_hop_limit = 1
        self._multicast_loopback = True
        self._receive_buffer: int | None = None
        self._send_buffer: int | None = None
        self._max_datagram = LARGEST
        self._quality_of_service = SocketQualityOfService.NORMAL

    @property
    def multicast_only(self) -> bool:
        """
        Whether the port is shared with other programs, which must all set this; default False.

        Such a socket sends only to groups, and receives only from groups that it joined.
        """
        return self._multicast_only

    @multicast_only.setter
    def multicast_only(self, value: bool) -> None:
        self._check("multicast_only")
        self._multicast_only = bool(value)

    @property
    def dont_fragment(self) -> bool:
        """
        Whether routers must not fragment a datagram; default False.

        A datagram that is too long for the path then fails with status ``MESSAGE_TOO_LONG``: at
        once if the limit of the path is known, else as a message event.
        """
        return self._dont_fragment

    @dont_fragment.setter
    def dont_fragment(self, value: bool) -> None:
        self._check("dont_fragment")
        self._dont_fragment = bool(value)

    @property
    def inbound_buffer_size_in_bytes(self) -> int | None:
        """
        Requested size of the kernel's receive buffer (``SO_RCVBUF``); None until it is set.

        Linux doubles it to allow for its own overhead, and limits it to ``net.core.rmem_max``.
        Datagrams that arrive while the buffer is full are lost: see ``information.dropped``.
        """
        return self._receive_buffer

    @inbound_buffer_size_in_bytes.setter
    def inbound_buffer_size_in_bytes(self, value: int) -> None:
        self._check("inbound_buffer_size_in_bytes")
        self._receive_buffer = _checked(value, 1, MAX_BUFFER, "a buffer size")

    #: A shorter name of the same option.
    inbound_buffer_size = inbound_buffer_size_in_bytes

    @property
    def outbound_buffer_size_in_bytes(self) -> int | None:
        """Requested size of the kernel's send buffer (``SO_SNDBUF``); not in WinRT."""
        return self._send_buffer

    @outbound_buffer_size_in_bytes.setter
    def outbound_buffer_size_in_bytes(self, value: int) -> None:
        self._check("outbound_buffer_size_in_bytes")
        self._send_buffer = _checked(value, 1, MAX_BUFFER, "a buffer size")

    @property
    def outbound_unicast_hop_limit(self) -> int:
        """Hop limit of unicast datagrams: 1 to 255; default 128. It can be changed at any time."""
        return self._hop_limit

    @outbound_unicast_hop_limit.setter
    def outbound_unicast_hop_limit(self, value: int) -> None:
        self._hop_limit = _checked(value, 1, 255, "a hop limit")
        self._set_hop_limit(self._hop_limit)

    @property
    def outbound_multicast_hop_limit(self) -> int:
        """
        Hop limit of multicast datagrams: 0 to 255; default 1, which is this network. Not in WinRT.
        """
        return self._multicast_hop_limit

    @outbound_multicast_hop_limit.setter
    def outbound_multicast_hop_limit(self, value: int) -> None:
        self._check("outbound_multicast_hop_limit")
        self._multicast_hop_limit = _checked(value, 0, 255, "a hop limit")

    @property
    def multicast_loopback(self) -> bool:
        """
        Whether members on this machine receive what this socket sends to groups; default True.

        That includes this socket, if it joined the group. Not in WinRT.
        """
        return self._multicast_loopback

    @multicast_loopback.setter
    def multicast_loopback(self, value: bool) -> None:
        self._check("multicast_loopback")
        self._multicast_loopback = bool(value)

    @property
    def max_datagram(self) -> int:
        """Largest datagram that is received whole, in bytes: 0 to 65,535; default 65,535."""
        return self._max_datagram

    @max_datagram.setter
    def max_datagram(self, value: int) -> None:
        self._check("max_datagram")
        self._max_datagram = _checked(value, 0, LARGEST, "max_datagram")

    @property
    def quality_of_service(self) -> SocketQualityOfService:
        """
        The priority of the socket's packets; default ``NORMAL``. See `SocketQualityOfService`.

        Setting it raises `OperationNotSupported` if this system cannot mark packets.
        """
        return self._quality_of_service

    @quality_of_service.setter
    def quality_of_service(self, value: SocketQualityOfService) -> None:
        self._check("quality_of_service")
        self._quality_of_service = checked_quality(value)

    # Called by the socket.

    def make_options(self, *, interface: int = 0, device: str = "") -> DatagramOptions:
        """
        Return the options of a port.

        :param interface: index of the interface for sent multicast; 0 for the kernel's choice.
        :param device: name of the one interface to use for all datagrams; empty for all interfaces.
        """
        is_urgent = self._quality_of_service is SocketQualityOfService.LOW_LATENCY
        return DatagramOptions(
            code_point=EXPEDITED_FORWARDING if is_urgent else 0,
            receive_buffer=self._receive_buffer,
            send_buffer=self._send_buffer,
            max_datagram=self._max_datagram,
            hop_limit=self._hop_limit,
            multicast_hop_limit=self._multicast_hop_limit,
            multicast_loopback=self._multicast_loopback,
            multicast_only=self._multicast_only,
            dont_fragment=self._dont_fragment,
            interface=interface,
            device=device,
        )

    def take(self, options: DatagramOptions) -> None:
        """Show the options of a port that was opened before."""
        is_urgent = options.code_point == EXPEDITED_FORWARDING
        quality = SocketQualityOfService
        self._quality_of_service = quality.LOW_LATENCY if is_urgent else quality.NORMAL
        self._receive_buffer = options.receive_buffer
        self._send_buffer = options.send_buffer
        self._max_datagram = options.max_datagram
        self._hop_limit = options.hop_limit
        self._multicast_hop_limit = options.multicast_hop_limit
        self._multicast_loopback = options.multicast_loopback
        self._multicast_only = options.multicast_only
        self._dont_fragment = options.dont_fragment

    def _check(self, name: str) -> None:
        if self._is_in_use():
            raise LocalProtocolError(f"{name} is set before the socket is bound or connected")


def _checked(value: int, least: int, most: int, what: str) -> int:
    if not least <= checked_integer(value, what) <= most:
        raise ValueError(f"{what} is {least:,} to {most:,}, not {value}")
    return value
