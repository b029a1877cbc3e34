"""The header of a proxy is read as its specification says, however it is cut."""

from __future__ import annotations

import ipaddress
import struct
from typing import Any

from hypothesis import example, given
from hypothesis.strategies import binary, integers, ip_addresses, sampled_from
from twisted.protocols.haproxy._v1parser import V1Parser
from twisted.protocols.haproxy._v2parser import V2Parser
from twisted.trial.unittest import SynchronousTestCase

from twsock.errors import RemoteProtocolError
from twsock.wire.proxy_header import ProxyHeader, ProxyHeaderDecoder

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LINE = b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n"
PORTS = integers(0, 65_535)


def block(command: int, family: int, addresses: bytes = b"", length: int | None = None) -> bytes:
    """Make a header of version 2."""
    size = len(addresses) if length is None else length
    return SIGNATURE + bytes([command, family]) + struct.pack("!H", size) + addresses


IPV4 = bytes([192, 0, 2, 1, 198, 51, 100, 2]) + struct.pack("!HH", 56_324, 443)
IPV6 = (
    ipaddress.ip_address("2001:db8::1").packed
    + ipaddress.ip_address("2001:db8::2").packed
    + struct.pack("!HH", 1, 2)
)
UNIX = b"/client".ljust(108, b"\0") + b"/server".ljust(108, b"\0")


def decode(*pieces: bytes) -> tuple[ProxyHeader | None, bytes]:
    """Feed pieces until there is a header; return it and the bytes after it."""
    decoder = ProxyHeaderDecoder()
    header = None
    for piece in pieces:
        decoder.feed(piece)
        header = header or decoder.next_header()
    return header, decoder.take_buffered()


class LineTests(SynchronousTestCase):
    """Version 1."""

    def test_addresses_of_both_families(self) -> None:
        """The client's, and what it has connected to."""
        header = ProxyHeader(("192.0.2.1", 56_324), ("198.51.100.2", 443))
        self.assertEqual(decode(LINE + b"rest"), (header, b"rest"))
        header, rest = ProxyHeader(("2001:db8::1", 0), ("::1", 65_535)), b""
        line = b"PROXY TCP6 2001:DB8:0:0::1 ::1 0 65535\r\n"
        self.assertEqual(decode(line), (header, rest))

    def test_unknown_says_nothing_of_the_client(self) -> None:
        """With or without words behind it, which mean nothing."""
        for line in (b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN ffff::1 x 65536\r\n", longest_line()):
            self.assertEqual(decode(line + b"x"), (ProxyHeader(), b"x"), f"{line=}")

    def test_the_longest_line(self) -> None:
        """107 bytes with its end; one more is refused before the end is there."""
        self.assertEqual(decode(longest_line())[0], ProxyHeader())
        decoder = ProxyHeaderDecoder()
        decoder.feed(longest_line()[:-2] + b"f")
        self.assertIsNone(decoder.next_header())
        decoder.feed(b"f")
        self.assertRaises(RemoteProtocolError, decoder.next_header)

    def test_what_is_no_line_is_refused(self) -> None:
        """The connection cannot be trusted then."""
        for line in (
            b"PROXY TCP4 192.0.2.1 198.51.100.2 56324\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443 x\r\n",
            b"PROXY TCP4  192.0.2.1 198.51.100.2 56324 443\r\n",
            b"PROXY TCP5 192.0.2.1 198.51.100.2 56324 443\r\n",
            b"PROXY UNKNOWNS\r\n",
            b"PROXY TCP4 example.org 198.51.100.2 1 2\r\n",
            b"PROXY TCP4 192.0.2.001 198.51.100.2 1 2\r\n",
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY TCP6 192.0.2.1 192.0.2.1 1 2\r\n",
            b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.2 65536 443\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.2 01 443\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.2 +1 443\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.2 1 \r\n",
            b"PROXY TCP4 192.0.2.\xb2 198.51.100.2 1 2\r\n",
        ):
            self.assertRaises(RemoteProtocolError, decode, line)


def longest_line() -> bytes:
    """Give the longest line of all, as the specification has it."""
    address = b":".join([b"ffff"] * 8)
    return b"PROXY UNKNOWN " + address + b" " + address + b" 65535 65535\r\n"


class BlockTests(SynchronousTestCase):
    """Version 2."""

    def test_addresses_of_every_family(self) -> None:
        """And of datagrams."""
        for family, addresses, source, destination in (
            (0x11, IPV4, ("192.0.2.1", 56_324), ("198.51.100.2", 443)),
            (0x21, IPV6, ("2001:db8::1", 1), ("2001:db8::2", 2)),
            (0x31, UNIX, b"/client", b"/server"),
        ):
            header = ProxyHeader(source, destination)
            self.assertEqual(
                decode(block(0x21, family, addresses) + b"x"), (header, b"x"), f"{family=}"
            )
            datagram = ProxyHeader(source, destination, is_datagram=True)
            self.assertEqual(decode(block(0x21, family + 1, addresses))[0], datagram, f"{family=}")

    def test_paths_end_at_a_zero(self) -> None:
        """But for names without a file, which begin with one."""
        for field, path in ((b"/a\0b", b"/a"), (b"\0a\0b", b"\0a\0b"), (b"", b"")):
            header, _ = decode(block(0x21, 0x31, field.ljust(108, b"\0") * 2))
            self.assertEqual(header, ProxyHeader(path, path), f"{field=}")

    def test_a_proxy_that_speaks_for_itself(self) -> None:
        """LOCAL, whatever else it says, and a family or transport that is not specified."""
        for header in (
            block(0x20, 0x00),
            block(0x20, 0xFF, b"anything"),
            block(0x21, 0x00),
            block(0x21, 0x00, b"a TLV"),
            block(0x21, 0x10, IPV4),
            block(0x21, 0x01),
        ):
            self.assertEqual(decode(header + b"x"), (ProxyHeader(), b"x"), f"{header=}")

    def test_what_follows_the_addresses_is_left_out(self) -> None:
        """Up to the length, which is at most 65,535."""
        extended = block(0x21, 0x11, IPV4 + bytes(65_535 - len(IPV4)))
        self.assertEqual(decode(extended + b"x")[1], b"x")

    def test_what_is_no_block_is_refused(self) -> None:
        """Before its end is waited for, where that is possible."""
        for header in (
            block(0x11, 0x11, length=12),
            block(0x31, 0x11, length=12),
            block(0x22, 0x11, length=12),
            block(0x21, 0x41, length=12),
            block(0x21, 0x13, length=12),
            block(0x21, 0x11, IPV4[:-1]),
            block(0x21, 0x21, IPV4),
            block(0x21, 0x31, UNIX[:-1]),
        ):
            self.assertRaises(RemoteProtocolError, decode, header)


class AnyTests(SynchronousTestCase):
    """What holds for both."""

    @given(
        sampled_from([LINE, b"PROXY UNKNOWN\r\n", block(0x21, 0x21, IPV6), block(0x20, 0)]),
        integers(1, 20),
    )
    def test_any_cut_gives_the_same_header(self, header: bytes, step: int) -> None:
        """Five bytes at first, or one at a time."""
        stream = header + b"rest"
        pieces = [stream[start : start + step] for start in range(0, len(stream), step)]
        self.assertEqual(decode(*pieces), decode(stream))

    @given(binary(max_size=40))
    @example(b"")
    def test_anything_else_is_refused_at_its_first_byte(self, data: bytes) -> None:
        """No other error escapes, and what cannot become a header is not waited for."""
        for start in (b"", SIGNATURE, b"PROXY "):
            try:
                header, _ = decode(start + data)
            except RemoteProtocolError:
                continue
            begins = (b"PROXY ".startswith(data[:6]), SIGNATURE.startswith(data[:12]))
            self.assertTrue(start or header or any(begins), f"{start=}")

    def test_bytes_that_begin_otherwise(self) -> None:
        """A frame, a request, a handshake of TLS."""
        for data in (b"\0\0\0\5Hello", b"GET / HTTP/1.1\r\n", b"\x16\x03", b"PROXX", b"\r\n\r\n\r"):
            error = self.assertRaises(RemoteProtocolError, decode, data)
            self.assertEqual(str(error), "it does not begin with a PROXY header", f"{data=}")

    @given(ip_addresses(v=4), ip_addresses(v=4), PORTS, PORTS)
    def test_twisted_reads_the_same_line(
        self, source: Any, destination: Any, near: int, far: int
    ) -> None:
        """An independent parser agrees."""
        line = f"PROXY TCP4 {source} {destination} {near} {far}".encode()
        info: Any = V1Parser.parse(line)
        header, _ = decode(line + b"\r\n")
        assert header is not None
        self.assertEqual(header.source, (info.source.host, info.source.port))
        self.assertEqual(header.destination, (info.destination.host, info.destination.port))

    @given(ip_addresses(), PORTS)
    def test_twisted_reads_the_same_block(self, address: Any, port: int) -> None:
        """Likewise, of both families."""
        family = 0x11 if address.version == 4 else 0x21
        data = block(0x21, family, address.packed * 2 + struct.pack("!HH", port, port))
        info: Any = V2Parser.parse(data)
        header, _ = decode(data)
        assert header is not None
        assert isinstance(header.source, tuple)
        host, read = header.source
        self.assertEqual(ipaddress.ip_address(host), ipaddress.ip_address(info.source.host))
        self.assertEqual(read, info.source.port)
