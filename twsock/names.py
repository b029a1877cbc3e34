"""
Host names and endpoint pairs, as values: parsed and compared, but never looked up.

Made by applications, and by sockets, listeners and their information objects. No network is used.
International names follow IDNA 2008 (:rfc:`5891`) after the mapping of UTS #46; IPv6 addresses are
written as :rfc:`5952` says.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Final

from twsock._enums import DocumentedEnum, DocumentedFlag

__all__ = ["EndpointPair", "HostName", "HostNameSortOptions", "HostNameType"]

# RFC 1035 section 2.3.4 in text: 255 bytes on the wire include a length before each label and the
# empty label of the root, one of which the dots make up for.
_MAX_NAME: Final = 253
_MAX_LABEL: Final = 63

# Host names have letters, digits and hyphens (RFC 1123 section 2.1). The underscore is not allowed,
# but hosts files and the names of SRV records (RFC 2782) have it, and resolvers accept it.
_NOT_IN_LABEL: Final = re.compile(r"[^0-9a-z_-]")

# To inet_aton, and so to most resolvers, "1.2.3", "0x7f.1" and "1" are IPv4 addresses. Such a name
# would be one host to a check and another to the connection (RFC 6943 section 3.1.1), so what ends
# like a number is refused, as browsers do; no top-level domain ends so.
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")

_ZONE: Final = re.compile(r"[0-9A-Za-z._~-]+")  # RFC 6874 section 2, "unreserved"
_BLUETOOTH: Final = re.compile(r"(\()?([0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5})(?(1)\))")


class HostNameType(DocumentedEnum):
    """What kind of name a `HostName` is; ``Windows.Networking.HostNameType``."""

    DOMAIN_NAME = 0
    IPV4 = 1
    IPV6 = 2
    BLUETOOTH = 3


class HostNameSortOptions(DocumentedFlag):
    """
    The order in which endpoint pairs are tried; ``Windows.Networking.HostNameSortOptions``.

    ``NONE`` aims at a short wait: the attempt after a failed one differs from it at both ends.
    ``OPTIMIZE_FOR_LONG_CONNECTIONS`` prefers the best path, even if that takes more attempts.
    """

    NONE = 0
    OPTIMIZE_FOR_LONG_CONNECTIONS = 2  # there is no 1


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class HostName:
    """
    A well-formed domain name, IP address or Bluetooth address. It is not looked up.

    Two host names are equal when their canonical names are. Only ``raw_name`` keeps one trailing
    dot of a domain name, so ``example.com.`` equals ``example.com``.

    :param raw_name: an address without brackets or port (IPv6 may have a zone: ``fe80::1%eth0``),
        or a name of labels of 1 to 63 characters, 253 in all, both as sent to the DNS.
    :ivar raw_name: the text as given.
    :ivar canonical_name: the form to compare: lower case, A-labels (``xn--…``); the shortest form
        of IPv6, its zone as given; six lower-case pairs with colons for Bluetooth.
    :ivar display_name: the form to show: U-labels; Bluetooth in upper case and parentheses.
        Different names can look alike here, so compare the canonical names.
    :ivar type: the kind of name.
    :raises ValueError: when it is malformed; the message says why.
    :raises TypeError: when it is no ``str``.
    """

    raw_name: str
    canonical_name: str = field(init=False)
    display_name: str = field(init=False)
    type: HostNameType = field(init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.raw_name, str):
            raise TypeError(f"a host name is a str, not {self.raw_name.__class__.__name__}")
        try:
            kind, canonical, display = _parse(self.raw_name)
        except ValueError as error:
            raise ValueError(f"{_shown(self.raw_name)} is not a host name: {error}") from error
        # The class is frozen, so its own methods cannot assign either.
        object.__setattr__(self, "type", kind)
        object.__setattr__(self, "canonical_name", canonical)
        object.__setattr__(self, "display_name", display)

    def is_equal(self, other: HostName) -> bool:
        """Return whether both canonical names are the same."""
        return self == other

    @staticmethod
    def compare(first: str, second: str) -> int:
        """
        Compare the canonical names of two names.

        :returns: below 0, 0 or above 0.
        :raises ValueError: when one is malformed.
        """
        one, other = HostName(first).canonical_name, HostName(second).canonical_name
        return (one > other) - (one < other)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, HostName):
            return NotImplemented
        return self.canonical_name == other.canonical_name

    def __hash__(self) -> int:
        return hash(self.canonical_name)

    def __str__(self) -> str:
        return self.canonical_name

    def __repr__(self) -> str:
        return f"HostName({self.raw_name!r})"


_Parsed = tuple[HostNameType, str, str]


def _shown(raw: str) -> str:
    # The name may have any length, but its error message must not.
    return repr(raw) if len(raw) <= 2 * _MAX_NAME else f"{raw[:_MAX_LABEL]!r}…"


def _parse(raw: str) -> _Parsed:
    if not raw:
        raise ValueError("it is empty")
    if "[" in raw or "]" in raw:
        raise ValueError("an address is given without brackets")
    bluetooth = _BLUETOOTH.fullmatch(raw)
    if bluetooth:
        pairs = bluetooth[2].lower()
        return HostNameType.BLUETOOTH, pairs, f"({pairs.upper()})"
    if ":" in raw or "%" in raw:
        return _parse_ipv6(raw)
    try:
        address = str(ipaddress.IPv4Address(raw))
    except ValueError:
        return _parse_domain(raw)
    return HostNameType.IPV4, address, address


def _parse_ipv6(raw: str) -> _Parsed:
    literal, percent, zone = raw.partition("%")
    try:
        address = ipaddress.IPv6Address(literal)
    except ValueError as error:
        raise ValueError(
            "':' and '%' are for IPv6 addresses, and this is none; a port is not part of the name"
        ) from error
    if percent and not _ZONE.fullmatch(zone):
        raise ValueError("the zone after '%' is the name or number of an interface")
    text = str(address)
    # RFC 5952 section 5. Python writes it so from 3.13 on.
    if address.ipv4_mapped is not None:
        text = f"::ffff:{address.ipv4_mapped}"
    canonical = text + percent + zone  # case matters in names of interfaces
    return HostNameType.IPV6, canonical, canonical


def _parse_domain(raw: str) -> _Parsed:
    labels = [_parse_label(label) for label in _mapped(raw).removesuffix(".").split(".")]
    canonical = ".".join(label for label, _ in labels)
    if len(canonical) > _MAX_NAME:
        raise ValueError(f"it has {len(canonical)} characters, at most {_MAX_NAME} are allowed")
    last = labels[-1][0]
    if _NUMBER.fullmatch(last):
        raise ValueError(
            f"it ends in the number {last!r}, and is no IPv4 address (four numbers of 0 to 255)"
        )
    return HostNameType.DOMAIN_NAME, canonical, ".".join(label for _, label in labels)


def _mapped(raw: str) -> str:
    """Return a name in lower case, with one form for each character and "." for any full stop."""
    # Which ASCII characters are allowed is checked by label, because of the underscore.
    if raw.isascii():
        return raw.lower()
    import idna  # here, as it takes longer to load than the rest of this module

    return idna.uts46_remap(raw, std3_rules=False)


def _parse_label(label: str) -> tuple[str, str]:
    """Check one label in lower case; return its canonical and its display form."""
    if not label:
        raise ValueError("it has an empty label")
    if label.isascii():
        _check_ascii(label)
        if not label.startswith("xn--"):
            return label, label
    import idna

    # Encode, then decode: an A-label that is not the encoding of its U-label is refused.
    display = idna.ulabel(label)
    return idna.alabel(display).decode("ascii"), display


def _check_ascii(label: str) -> None:
    if len(label) > _MAX_LABEL:
        raise ValueError(f"a label has {len(label)} characters, at most {_MAX_LABEL} are allowed")
    wrong = _NOT_IN_LABEL.search(label)
    if wrong:
        raise ValueError(f"{wrong[0]!r} is not allowed in it")
    if label.startswith("-") or label.endswith("-"):
        raise ValueError(f"its label {label!r} begins or ends with a hyphen")


@dataclass(slots=True)
class EndpointPair:
    """
    The local and the remote end of a connection; ``Windows.Networking.EndpointPair``.

    :param local_host_name: None lets the system choose the local address.
    :param local_service_name: a port or a service; empty lets the system choose the local port.
    :param remote_host_name: never None.
    :param remote_service_name: a port or a service; not empty. Assigning an empty one later is
        allowed, as in WinRT, but no socket can connect with it.
    :raises ValueError: at construction and at assignment, for a missing value.
    :raises TypeError: for a host that is no `HostName`, or a service that is no ``str``.
    """

    local_host_name: HostName | None
    local_service_name: str
    remote_host_name: HostName
    remote_service_name: str

    def __post_init__(self) -> None:
        if not self.remote_service_name:
            raise ValueError("remote_service_name is empty: a connection needs a port or a service")

    def __setattr__(self, name: str, value: object) -> None:
        kind = _FIELDS.get(name, object)
        if value is None and name != "local_host_name":
            raise ValueError(f"{name} is None")
        if value is not None and not isinstance(value, kind):
            raise TypeError(f"{name} is a {kind.__name__}, not {type(value).__name__}")
        object.__setattr__(self, name, value)


_FIELDS: Final[dict[str, type]] = {
    "local_host_name": HostName,
    "local_service_name": str,
    "remote_host_name": HostName,
    "remote_service_name": str,
}
