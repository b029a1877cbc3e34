"""Packets carry the mark of their socket's quality of service, as the receiving side sees it."""

from __future__ import annotations

import socket
import sys
from collections.abc import Awaitable
from typing import Any

from tests.loopback.contract import OnEveryReactor
from tests.loopback.reactors import on_every_reactor
from twsock import (
    DatagramSocket,
    SocketQualityOfService,
    StreamSocket,
    StreamSocketListener,
)
from twsock.sockets.stream.control import StreamSocketListenerControl

LOW_LATENCY = SocketQualityOfService.LOW_LATENCY

#: Expedited forwarding, 46, before the two bits of explicit congestion notification.
MARK = 46 << 2

# <linux/tcp.h>: keep the headers of SYN packets, and give them for an accepted socket.
TCP_SAVE_SYN, TCP_SAVED_SYN = 27, 28

LOOPBACK: dict[int, str] = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
FAMILIES = list(LOOPBACK) if socket.has_ipv6 else [socket.AF_INET]


def traffic_class_of(header: bytes) -> int:
    """Read the type of service of IPv4 or the traffic class of IPv6 in a header."""
    if header[0] >> 4 == 4:
        return header[1]
    return int.from_bytes(header[:4], "big") >> 20 & 0xFF


def marks_of(marked: socket.socket) -> set[int]:
    """Read the marks of what a socket sends, by IPv4 and by IPv6."""
    marks = set()
    if marked.family == socket.AF_INET6:
        marks.add(marked.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS))
        if marked.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
            return marks
    marks.add(marked.getsockopt(socket.IPPROTO_IP, socket.IP_TOS))
    return marks


def sockets_of(reactor: Any) -> list[socket.socket]:
    """List the connections and ports that a reactor reads from."""
    found = [getattr(reader, "socket", None) for reader in reactor.getReaders()]
    types = (socket.SOCK_STREAM, socket.SOCK_DGRAM)
    families = (socket.AF_INET, socket.AF_INET6)
    return [one for one in found if one and one.type in types and one.family in families]


class StreamTests(OnEveryReactor):
    """Streams are marked from the handshake on."""

    has_variants = True

    if sys.platform != "linux":
        skip = "only Linux gives the headers of a SYN"

    async def saved_syn(self, reactor: Any, family: int, quality: SocketQualityOfService) -> int:
        """Connect to a plain socket; return the traffic class of the received SYN."""
        with socket.create_server((LOOPBACK[family], 0), family=family) as server:
            server.setsockopt(socket.IPPROTO_TCP, TCP_SAVE_SYN, 1)
            async with StreamSocket(reactor) as near:
                near.control.quality_of_service = quality
                await near.connect(LOOPBACK[family], server.getsockname()[1])
                with server.accept()[0] as far:
                    syn = far.getsockopt(socket.IPPROTO_TCP, TCP_SAVED_SYN, 256)
                self.assertEqual(traffic_class_of(syn), marks_of(sockets_of(reactor)[0]).pop())
        return traffic_class_of(syn)

    @on_every_reactor
    def test_low_latency_is_marked_from_the_first_packet(self) -> None:
        """The SYN has the mark, by IPv4 and by IPv6."""

        async def work(reactor: Any) -> None:
            for family in FAMILIES:
                self.assertEqual(await self.saved_syn(reactor, family, LOW_LATENCY), MARK, family)

        self.conduct(work)

    def test_normal_is_not_marked(self) -> None:
        """Unless somebody asks for it."""

        async def work(reactor: Any) -> None:
            for family in FAMILIES:
                normal = SocketQualityOfService.NORMAL
                self.assertEqual(await self.saved_syn(reactor, family, normal), 0, family)

        self.conduct(work)


class AcceptedTests(OnEveryReactor):
    """Accepted sockets have the options of their listener."""

    has_variants = True

    def accept_with(
        self, options: dict[str, Any], host: str | None, family: int = socket.AF_INET
    ) -> None:
        """Accept a plain connection; check the sockets of the listener and of the connection."""

        async def work(reactor: Any) -> None:
            async with StreamSocketListener(reactor) as listener:
                for name, value in options.items():
                    setattr(listener.control, name, value)
                await listener.bind_endpoint(host, "")
                port = int(listener.information.local_port)
                with socket.create_connection((LOOPBACK[family], port)):
                    async with await listener.accept(timeout=5) as accepted:
                        self.assertIs(accepted.control.quality_of_service, LOW_LATENCY)
                        found = sockets_of(reactor)
                        self.assertGreaterEqual(len(found), 2)
                        for one in found:
                            self.assertEqual(marks_of(one), {MARK}, one)
                            self.assert_keeps_alive(one, listener.control)

        self.conduct(work)

    def assert_keeps_alive(self, one: socket.socket, control: StreamSocketListenerControl) -> None:
        for name, value in (
            ("TCP_KEEPIDLE", control.keep_alive_idle),
            ("TCP_KEEPINTVL", control.keep_alive_interval),
            ("TCP_KEEPCNT", control.keep_alive_count),
        ):
            if value is not None:
                option: int = getattr(socket, name)
                self.assertEqual(one.getsockopt(socket.IPPROTO_TCP, option), value, (name, value))
                self.assertTrue(
                    one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), (name, value)
                )

    @on_every_reactor
    def test_they_are_marked_in_both_families(self) -> None:
        """The port too, since the kernel answers a SYN for it."""
        for family in FAMILIES:
            self.accept_with({"quality_of_service": LOW_LATENCY}, LOOPBACK[family], family)

    def test_a_socket_of_both_families_marks_both(self) -> None:
        """Bound to all addresses, IPv6 sockets carry IPv4 as well."""
        for family in FAMILIES:
            self.accept_with({"quality_of_service": LOW_LATENCY}, None, family)

    def test_keep_alive_has_its_times(self) -> None:
        """Idle time, interval and count of the listener."""
        if not hasattr(socket, "TCP_KEEPIDLE"):
            self.skipTest("this system has no TCP_KEEPIDLE")
        options = {
            "quality_of_service": LOW_LATENCY,
            "keep_alive": True,
            "keep_alive_idle": 30,
            "keep_alive_interval": 7,
            "keep_alive_count": 4,
        }
        self.accept_with(options, "127.0.0.1")


class DatagramTests(OnEveryReactor):
    """Datagrams are marked, however their socket came to its port."""

    has_variants = True

    def receiver(self, family: int) -> socket.socket:
        """Make a plain socket that receives the mark of each datagram."""
        made = socket.socket(family, socket.SOCK_DGRAM)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
        else:
            # <linux/in.h>: Python does not name it everywhere.
            made.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_RECVTOS", 13), 1)
        made.bind((LOOPBACK[family], 0))
        made.settimeout(60)
        return made

    def mark_of_next(self, receiver: socket.socket) -> int:
        """Receive a datagram; give its traffic class."""
        _data, ancillary, _flags, _address = receiver.recvmsg(64, 256)
        kinds = [
            (socket.IPPROTO_IP, socket.IP_TOS),
            (socket.IPPROTO_IPV6, socket.IPV6_TCLASS),
        ]
        (value,) = [value for level, kind, value in ancillary if (level, kind) in kinds]
        return int.from_bytes(value, sys.byteorder)

    def check(self, send: Any, quality: SocketQualityOfService = LOW_LATENCY) -> None:
        async def work(reactor: Any) -> None:
            for family in FAMILIES:
                with self.receiver(family) as receiver:
                    host, port = receiver.getsockname()[:2]
                    async with DatagramSocket(reactor) as near:
                        near.control.quality_of_service = quality
                        sending: Awaitable[object] = send(near, host, port)
                        await sending
                    expected = MARK if quality is LOW_LATENCY else 0
                    self.assertEqual(self.mark_of_next(receiver), expected, family)

        self.conduct(work)

    if sys.platform != "linux":
        skip = "how a receiver is told the mark differs between systems"

    def test_of_a_socket_that_is_bound(self) -> None:
        """To all addresses: a port of each family."""

        async def send(near: DatagramSocket, host: str, port: int) -> None:
            await near.bind_service_name("")
            await near.send_to(b"x", (host, port))

        self.check(send)

    @on_every_reactor
    def test_of_a_socket_that_is_connected(self) -> None:
        """It is bound by that."""

        async def send(near: DatagramSocket, host: str, port: int) -> None:
            await near.connect(host, port)
            near.output_stream.write(b"x")
            await near.output_stream.flush()

        self.check(send)

    def test_of_a_stream_to_one_host(self) -> None:
        """And by the first stream, too."""

        async def send(near: DatagramSocket, host: str, port: int) -> None:
            stream = await near.get_output_stream(host, port)
            await stream.write(b"x")

        self.check(send)

    def test_normal_is_not_marked(self) -> None:
        """Unless somebody asks for it."""

        async def send(near: DatagramSocket, host: str, port: int) -> None:
            await near.send_to(b"x", (host, port))

        self.check(send, SocketQualityOfService.NORMAL)


globals().update(StreamTests.makeTestCaseClasses())
globals().update(AcceptedTests.makeTestCaseClasses())
globals().update(DatagramTests.makeTestCaseClasses())
