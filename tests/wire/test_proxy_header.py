"""A PROXY header is read as its specification says, at any cut."""

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
    """Feed pieces until there is a header; return it and the bytes behind it."""
    decoder = ProxyHeaderDecoder()
    header = None
    for piece in pieces:
        decoder.feed(piece)
        header = header or decoder.next_header()
    return header, decoder.take_buffered()


class LineTests(SynchronousTestCase):
    """Version 1: one line of text."""

    def test_a_line_has_the_addresses_of_either_family(self) -> None:
        """The client's address, and the address that the client connected to."""
        header = ProxyHeader(("192.0.2.1", 56_324), ("198.51.100.2", 443))
        self.assertEqual(decode(LINE + b"rest"), (header, b"rest"))
        header, rest = ProxyHeader(("2001:db8::1", 0), ("::1", 65_535)), b""
        line = b"PROXY TCP6 2001:DB8:0:0::1 ::1 0 65535\r\n"
        self.assertEqual(decode(line), (header, rest))

    def test_unknown_gives_no_client(self) -> None:
        """Words behind it are ignored."""
        for line in (b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN ffff::1 x 65536\r\n", longest_line()):
            self.assertEqual(decode(line + b"x"), (ProxyHeader(), b"x"), f"{line=}")

    def test_the_longest_line_has_107_bytes(self) -> None:
        """One byte more is refused before the line has ended."""
        self.assertEqual(decode(longest_line())[0], ProxyHeader())
        decoder = ProxyHeaderDecoder()
        decoder.feed(longest_line()[:-2] + b"f")
        self.assertIsNone(decoder.next_header())
        decoder.feed(b"f")
        self.assertRaises(RemoteProtocolError, decoder.next_header)

    def test_a_malformed_line_is_refused(self) -> None:
        """The connection can't be trusted then."""
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
    """Return the longest line that the specification allows."""
    address = b":".join([b"ffff"] * 8)
    return b"PROXY UNKNOWN " + address + b" " + address + b" 65535 65535\r\n"


class BlockTests(SynchronousTestCase):
    """Version 2: a binary header."""

    def test_a_block_has_the_addresses_of_every_family(self) -> None:
        """For streams and for datagrams."""
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

    def test_a_path_ends_at_a_zero(self) -> None:
        """An abstract name, which begins with a zero, is kept whole."""
        for field, path in ((b"/a\0b", b"/a"), (b"\0a\0b", b"\0a\0b"), (b"", b"")):
            header, _ = decode(block(0x21, 0x31, field.ljust(108, b"\0") * 2))
            self.assertEqual(header, ProxyHeader(path, path), f"{field=}")

    def test_a_header_of_the_proxy_itself_gives_no_client(self) -> None:
        """LOCAL, with any addresses, and an unspecified family or transport."""
        for header in (
            block(0x20, 0x00),
            block(0x20, 0xFF, b"anything"),
            block(0x21, 0x00),
            block(0x21, 0x00, b"a TLV"),
            block(0x21, 0x10, IPV4),
            block(0x21, 0x01),
        ):
            self.assertEqual(decode(header + b"x"), (ProxyHeader(), b"x"), f"{header=}")

    def test_bytes_behind_the_addresses_are_skipped(self) -> None:
        """Up to the length, which is at most 65,535."""
        extended = block(0x21, 0x11, IPV4 + bytes(65_535 - len(IPV4)))
        self.assertEqual(decode(extended + b"x")[1], b"x")

    def test_a_malformed_block_is_refused(self) -> None:
        """Before its end arrives, where that is possible."""
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
    """Both versions."""

    @given(
        sampled_from([LINE, b"PROXY UNKNOWN\r\n", block(0x21, 0x21, IPV6), block(0x20, 0)]),
        integers(1, 20),
    )
    def test_any_cut_gives_the_same_header(self, header: bytes, step: int) -> None:
        """In a first piece of five bytes, or one byte at a time."""
        stream = header + b"rest"
        pieces = [stream[start : start + step] for start in range(0, len(stream), step)]
        self.assertEqual(decode(*pieces), decode(stream))

    @given(binary(max_size=40))
    @example(b"")
    def test_other_bytes_are_refused_at_the_first_wrong_byte(self, data: bytes) -> None:
        """
        No other error escapes, and a decoder does not wait for bytes that can't become a header.
        """
        for start in (b"", SIGNATURE, b"PROXY "):
            try:
                header, _ = decode(start + data)
            except RemoteProtocolError:
                continue
            begins = (b"PROXY ".startswith(data[:6]), SIGNATURE.startswith(data[:12]))
            self.assertTrue(start or header or any(begins), f"{start=}")

    def test_a_connection_without_a_header_is_refused(self) -> None:
        """It begins with a frame, an HTTP request, or a TLS handshake."""
        for data in (b"\0\0\0\5Hello", b"GET / HTTP/1.1\r\n", b"\x16\x03", b"PROXX", b"\r\n\r\n\r"):
            error = self.assertRaises(RemoteProtocolError, decode, data)
            self.assertEqual(str(error), "it does not begin with a PROXY header", f"{data=}")

    @given(ip_addresses(v=4), ip_addresses(v=4), PORTS, PORTS)
    def test_twisted_reads_the_same_line(
        self, source: Any, destination: Any, near: int, far: int
    ) -> None:
        """Its parser is independent of twsock."""
        line = f"PROXY TCP4 {source} {destination} {near} {far}".encode()
        info: Any = V1Parser.parse(line)
        header, _ = decode(line + b"\r\n")
        assert header is not None
        self.assertEqual(header.source, (info.source.host, info.source.port))
        self.assertEqual(header.destination, (info.destination.host, info.destination.port))

    @given(ip_addresses(), PORTS)
    def test_twisted_reads_the_same_block(self, address: Any, port: int) -> None:
        """In both families."""
        family = 0x11 if address.version == 4 else 0x21
        data = block(0x21, family, address.packed * 2 + struct.pack("!HH", port, port))
        info: Any = V2Parser.parse(data)
        header, _ = decode(data)
        assert header is not None
        assert isinstance(header.source, tuple)
        host, read = header.source
        self.assertEqual(ipaddress.ip_address(host), ipaddress.ip_address(info.source.host))
        self.assertEqual(read, info.source.port)
