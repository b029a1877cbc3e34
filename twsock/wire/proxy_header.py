"""
Decoder of the PROXY protocol: first bytes of a connection → **header** with its addresses.

Both versions of the PROXY protocol ("The PROXY protocol, versions 1 and 2", doc/proxy-protocol.txt
in the sources of HAProxy). Fed by `twsock.stream.ProxyEndpoint`. Holds the bytes of one header,
at most 107 in version 1 and 65,551 in version 2, and the bytes after it of the same read.

Version 1 is a line of text, version 2 binary::

    PROXY TCP4 192.0.2.1 192.0.2.2 56324 443 CR LF       source, destination, their ports
    PROXY UNKNOWN ... CR LF                              the rest of the line means nothing

    signature (12) | version, command (1) | family, transport (1) | length (2) | addresses | TLVs

Twisted's own parser refuses ``PROXY UNKNOWN`` and headers that arrive in pieces, and does not check
addresses.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from dataclasses import dataclass
from typing import Final

from twsock.errors import RemoteProtocolError

__all__ = ["ProxyHeader", "ProxyHeaderDecoder"]

_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_TEXT: Final = b"PROXY "

#: The longest line of version 1, with CR LF: "the worst case" in section 2.1.
_MAX_LINE: Final = 107

_FIXED: Final = struct.Struct("!12sBBH")

_PORT: Final = re.compile(rb"0|[1-9][0-9]{0,4}")
_MAX_PORT: Final = 65_535

_LOCAL: Final = 0
_PROXY: Final = 1

#: The address blocks of version 2 by family (section 2.2).
_BLOCKS: Final = {
    0x1: struct.Struct("!4s4sHH"),
    0x2: struct.Struct("!16s16sHH"),
    0x3: struct.Struct("!108s108s"),
}
_UNSPECIFIED: Final = 0x0
_MAX_FAMILY: Final = 0x3
_MAX_TRANSPORT: Final = 0x2
_DATAGRAM: Final = 0x2


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """
    The addresses of the client's connection, as the proxy reports them.

    :ivar source: address and port of the client, or the path of its UNIX socket, which may be
        empty. None if the header has no address, as in a proxy's health check; then use the
        addresses of the connection.
    :ivar destination: the address that the client connected to, in the same form.
    :ivar is_datagram: whether the transport is datagrams (UDP or a UNIX datagram socket).
    """

    source: tuple[str, int] | bytes | None = None
    destination: tuple[str, int] | bytes | None = None
    is_datagram: bool = False


class ProxyHeaderDecoder:
    """Decodes the header at the start of one connection."""

    def __init__(self) -> None:
        self._received = bytearray()

    def feed(self, data: bytes) -> None:
        """Store received bytes."""
        self._received += data

    def next_header(self) -> ProxyHeader | None:
        """
        Return the header, and remove it from the stored bytes.

        :returns: None if more bytes are needed.
        :raises RemoteProtocolError: as soon as the bytes cannot be a header.
        """
        received = self._received
        if _TEXT.startswith(received[: len(_TEXT)]):
            return self._next_line()
        if _SIGNATURE.startswith(received[: len(_SIGNATURE)]):
            return self._next_block()
        raise RemoteProtocolError("it does not begin with a PROXY header")

    def take_buffered(self) -> bytes:
        """Return the bytes after the header, and drop them here."""
        rest, self._received = bytes(self._received), bytearray()
        return rest

    def _next_line(self) -> ProxyHeader | None:
        end = self._received.find(b"\r\n", 0, _MAX_LINE)
        if end < 0:
            if len(self._received) >= _MAX_LINE:
                raise RemoteProtocolError(f"its PROXY line does not end within {_MAX_LINE} bytes")
            return None
        line = bytes(self._received[:end])
        del self._received[: end + 2]
        return _read_line(line)

    def _next_block(self) -> ProxyHeader | None:
        if len(self._received) < _FIXED.size:
            return None
        _, version, family, length = _FIXED.unpack_from(self._received)
        end = _FIXED.size + length
        # Checked before the rest has arrived.
        _check_kind(version, family)
        if len(self._received) < end:
            return None
        block = bytes(self._received[_FIXED.size : end])
        del self._received[:end]
        if version & 0xF == _LOCAL:
            return ProxyHeader()
        return _read_block(family >> 4, family & 0xF, block)


def _read_line(line: bytes) -> ProxyHeader:
    if line == b"PROXY UNKNOWN" or line.startswith(b"PROXY UNKNOWN "):
        return ProxyHeader()
    words = line.split(b" ")
    if len(words) != 6 or words[1] not in (b"TCP4", b"TCP6"):
        raise RemoteProtocolError("its PROXY line has not the words that it should have")
    _, kind, source, destination, source_port, destination_port = words
    return ProxyHeader(
        (_read_address(kind, source), _read_port(source_port)),
        (_read_address(kind, destination), _read_port(destination_port)),
    )


def _read_address(kind: bytes, text: bytes) -> str:
    """Return an address of one family in its canonical form."""
    try:
        address = ipaddress.ip_address(text.decode("ascii"))
    except ValueError as error:
        raise RemoteProtocolError("its PROXY line has no address where one should be") from error
    if address.version != (4 if kind == b"TCP4" else 6) or b"%" in text:
        raise RemoteProtocolError("its PROXY line has an address of another family")
    return str(address)


def _read_port(text: bytes) -> int:
    if not _PORT.fullmatch(text) or int(text) > _MAX_PORT:
        raise RemoteProtocolError("its PROXY line has no port where one should be")
    return int(text)


def _check_kind(version: int, family: int) -> None:
    if version >> 4 != 2 or version & 0xF not in (_LOCAL, _PROXY):
        raise RemoteProtocolError(f"its PROXY header has version and command {version:#04x}")
    # With the command LOCAL, these two fields have no meaning.
    if version & 0xF == _PROXY and (family >> 4 > _MAX_FAMILY or family & 0xF > _MAX_TRANSPORT):
        raise RemoteProtocolError(f"its PROXY header has family and transport {family:#04x}")


def _read_block(family: int, transport: int, block: bytes) -> ProxyHeader:
    """Return the addresses; the TLVs after them are ignored."""
    if _UNSPECIFIED in (family, transport):
        return ProxyHeader()
    layout = _BLOCKS[family]
    if len(block) < layout.size:
        raise RemoteProtocolError(
            f"its PROXY header has {len(block)} bytes of addresses, not {layout.size}"
        )
    source, destination, *ports = layout.unpack_from(block)
    is_datagram = transport == _DATAGRAM
    if not ports:
        return ProxyHeader(_read_path(source), _read_path(destination), is_datagram)
    return ProxyHeader(
        (str(ipaddress.ip_address(source)), ports[0]),
        (str(ipaddress.ip_address(destination)), ports[1]),
        is_datagram,
    )


def _read_path(field: bytes) -> bytes:
    """Return a path, which ends at a NUL byte; an abstract name (unix(7)) begins with one."""
    if field.startswith(b"\0"):
        return field.rstrip(b"\0")
    return field.partition(b"\0")[0]
