"""
Protection levels: level and floor → **versions of TLS** → contexts.

A level is a ceiling: the highest version offered, with all versions below it down to a floor. It is
checked before any packet is sent. The versions that this machine's OpenSSL supports are found once,
by trying each.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from OpenSSL import SSL

from twsock._enums import DocumentedEnum
from twsock.errors import OperationNotSupported

__all__ = ["SocketProtectionLevel", "TlsVersion", "VersionRange", "choose_versions"]


class SocketProtectionLevel(DocumentedEnum):
    """
    The protection of a connection; ``Windows.Networking.Sockets.SocketProtectionLevel``.

    ``SSL`` means: encrypted, with the highest version that both sides support. ``TLS13`` is
    twsock's own.
    """

    PLAIN_SOCKET = 0
    SSL = 1
    SSL_ALLOW_NULL_ENCRYPTION = 2
    BLUETOOTH_ENCRYPTION_ALLOW_NULL_AUTHENTICATION = 3
    BLUETOOTH_ENCRYPTION_WITH_AUTHENTICATION = 4
    SSL3_ALLOW_WEAK_ENCRYPTION = 5
    TLS10 = 6
    TLS11 = 7
    TLS12 = 8
    UNSPECIFIED = 9
    TLS13 = 10


class TlsVersion(enum.IntEnum):
    """A version of TLS, by its number on the wire (:rfc:`8446`, section 4.2.1)."""

    TLS10 = 0x0301
    TLS11 = 0x0302
    TLS12 = 0x0303
    TLS13 = 0x0304

    def __str__(self) -> str:
        return f"TLS 1.{self.value - TlsVersion.TLS10.value}"


@dataclass(frozen=True, slots=True)
class VersionRange:
    """
    The versions that are offered or accepted.

    :ivar lowest: the lowest of them.
    :ivar highest: the highest of them.
    """

    lowest: TlsVersion
    highest: TlsVersion


_Level = SocketProtectionLevel

_CEILINGS: Final[Mapping[SocketProtectionLevel, TlsVersion]] = {
    _Level.SSL: TlsVersion.TLS13,
    _Level.TLS10: TlsVersion.TLS10,
    _Level.TLS11: TlsVersion.TLS11,
    _Level.TLS12: TlsVersion.TLS12,
    _Level.TLS13: TlsVersion.TLS13,
}
_FLOORS: Final[Mapping[SocketProtectionLevel, TlsVersion]] = {
    # Older versions are deprecated (RFC 8996).
    _Level.UNSPECIFIED: TlsVersion.TLS12,
    _Level.TLS10: TlsVersion.TLS10,
    _Level.TLS11: TlsVersion.TLS11,
    _Level.TLS12: TlsVersion.TLS12,
    _Level.TLS13: TlsVersion.TLS13,
}
_NOT_OFFERED: Final[Mapping[SocketProtectionLevel, str]] = {
    _Level.SSL_ALLOW_NULL_ENCRYPTION: "a connection that may end up unencrypted",
    _Level.SSL3_ALLOW_WEAK_ENCRYPTION: "SSL 3.0",
}


def choose_versions(
    level: SocketProtectionLevel,
    floor: SocketProtectionLevel = SocketProtectionLevel.UNSPECIFIED,
) -> VersionRange:
    """
    Return the versions of a level.

    :param level: the ceiling.
    :param floor: the lowest version; ``UNSPECIFIED`` for TLS 1.2.
    :raises ValueError: for a level without TLS (plain, unspecified, Bluetooth), or an invalid
        floor.
    :raises OperationNotSupported: when this machine's OpenSSL does not support the level, or the
        floor is above it. No other version is used instead.
    """
    level, floor = SocketProtectionLevel(level), SocketProtectionLevel(floor)
    if level in _NOT_OFFERED:
        raise OperationNotSupported(
            f"{level.documented_name}: {_NOT_OFFERED[level]} is not offered"
        )
    if level not in _CEILINGS:
        raise ValueError(f"{level.documented_name} is not a level of TLS")
    if floor not in _FLOORS:
        raise ValueError(f"{floor.documented_name} cannot be the lowest version of TLS")
    highest, lowest = _CEILINGS[level], _FLOORS[floor]
    available = available_versions()
    if highest not in available:
        raise OperationNotSupported(f"this machine's OpenSSL does not offer {highest}")
    if lowest > highest:
        raise OperationNotSupported(
            f"{level.documented_name} allows at most {highest}, but the lowest version is {lowest}"
        )
    return VersionRange(max(lowest, min(available)), highest)


@functools.lru_cache(maxsize=1)
def available_versions() -> frozenset[TlsVersion]:
    """Return the versions that this OpenSSL supports, by starting a handshake with each."""
    return frozenset(version for version in TlsVersion if _can_begin(version))


def _can_begin(version: TlsVersion) -> bool:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(version)
    context.set_max_proto_version(version)
    connection = SSL.Connection(context, None)
    connection.set_connect_state()
    try:
        connection.do_handshake()
    except SSL.WantReadError:
        return True  # The ClientHello was made.
    except SSL.Error:
        return False
    return False
