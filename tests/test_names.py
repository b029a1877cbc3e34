"""Host names and endpoint pairs are values: which texts are valid, and which names are equal."""

from __future__ import annotations

import copy
import pickle

from hypothesis import assume, example, given
from hypothesis.strategies import characters, from_regex, ip_addresses, one_of, text
from twisted.trial.unittest import SynchronousTestCase

from twsock.names import EndpointPair, HostName, HostNameSortOptions, HostNameType

#: Raw name → canonical and display name.
DOMAIN_NAMES = {
    "localhost": ("localhost", "localhost"),
    "Example.COM": ("example.com", "example.com"),
    "example.com.": ("example.com", "example.com"),
    "1a.2b": ("1a.2b", "1a.2b"),
    "r3---sn.example": ("r3---sn.example", "r3---sn.example"),
    "BÜCHER.example": ("xn--bcher-kva.example", "bücher.example"),
    "XN--BCHER-KVA.example": ("xn--bcher-kva.example", "bücher.example"),
    "A\u0308.example": ("xn--4ca.example", "ä.example"),
    "straße.de": ("xn--strae-oqa.de", "straße.de"),
    "例え。テスト": ("xn--r8jz45g.xn--zckzah", "例え.テスト"),
    "\uff45\uff58\uff41\uff4d\uff50\uff4c\uff45\uff0ecom": ("example.com", "example.com"),
    "my_host": ("my_host", "my_host"),
    "_ldap._TCP.example.com": ("_ldap._tcp.example.com", "_ldap._tcp.example.com"),
}

#: Raw address → type and canonical name.
ADDRESSES = {
    "127.0.0.1": (HostNameType.IPV4, "127.0.0.1"),
    "255.255.255.255": (HostNameType.IPV4, "255.255.255.255"),
    "::1": (HostNameType.IPV6, "::1"),
    "2001:DB8:0:0:0:0:0:1": (HostNameType.IPV6, "2001:db8::1"),
    "2001:db8:0:1:1:1:1:1": (HostNameType.IPV6, "2001:db8:0:1:1:1:1:1"),
    "FE80::1%Eth0.100": (HostNameType.IPV6, "fe80::1%Eth0.100"),
    "fe80::1%2": (HostNameType.IPV6, "fe80::1%2"),
    "::FFFF:192.0.2.1": (HostNameType.IPV6, "::ffff:192.0.2.1"),
    "::ffff:c000:201": (HostNameType.IPV6, "::ffff:192.0.2.1"),
    "01:23:45:67:89:AB": (HostNameType.BLUETOOTH, "01:23:45:67:89:ab"),
    "(01:23:45:67:89:AB)": (HostNameType.BLUETOOTH, "01:23:45:67:89:ab"),
}

#: Malformed name → a part of the error message.
MALFORMED = {
    "": "it is empty",
    ".": "empty label",
    "a..b": "empty label",
    ".example.com": "empty label",
    "example.com..": "empty label",
    "\u00ad": "empty label",
    " example.com": "' ' is not allowed",
    "exam\tple.com": r"'\t' is not allowed",
    "example.com\n": r"'\n' is not allowed",
    "example\0.com": r"'\x00' is not allowed",
    "a/b": "'/' is not allowed",
    "a\uff0fb": "'/' is not allowed",
    "user@example.com": "'@' is not allowed",
    "*.example.com": "'*' is not allowed",
    "example.com:80": "a port is not part of the name",
    "http://example.com": "a port is not part of the name",
    "[::1]": "without brackets",
    "[::1]:80": "without brackets",
    "-a.example": "begins or ends with a hyphen",
    "a-.example": "begins or ends with a hyphen",
    "1": "ends in the number '1'",
    "1.2.3": "ends in the number '3'",
    "256.1.1.1": "ends in the number '1'",
    "01.2.3.4": "ends in the number '4'",
    "1.2.3.4.": "ends in the number '4'",
    "1.2.3.4.5": "ends in the number '5'",
    "\uff11\uff12\uff17.0.0.1": "ends in the number '1'",
    "0x7f.1": "ends in the number '1'",
    "0x7F000001": "ends in the number '0x7f000001'",
    "example.0x": "ends in the number '0x'",
    "example.42": "ends in the number '42'",
    ":": "IPv6",
    "1::2::3": "IPv6",
    "::12345": "IPv6",
    "127.0.0.1%eth0": "IPv6",
    "fe80::1%": "the zone",
    "fe80::1%eth 0": "the zone",
    "fe80::1%eth0%eth1": "the zone",
    "fe80::1%eth0/64": "the zone",
    "(01:23:45:67:89:AB": "IPv6",
    "01:23:45:67:89": "IPv6",
    "☃.net": "U+2603",
    "xn--n3h.net": "U+2603",
    "xn--a.example": "U+0080",
    "\ud800": "U+D800",
}


def names_of(raw: str) -> tuple[str, str]:
    name = HostName(raw)
    return name.canonical_name, name.display_name


class DomainNameTests(SynchronousTestCase):
    """Domain names."""

    def test_a_name_has_a_canonical_and_a_display_form(self) -> None:
        """Lower case and A-labels; U-labels."""
        self.assertEqual({raw: names_of(raw) for raw in DOMAIN_NAMES}, DOMAIN_NAMES)

    def test_a_name_is_a_domain_name(self) -> None:
        """A text that is no address has the type `DOMAIN_NAME`."""
        self.assertEqual({HostName(raw).type for raw in DOMAIN_NAMES}, {HostNameType.DOMAIN_NAME})

    def test_the_raw_name_is_the_given_text(self) -> None:
        """With its trailing dot."""
        self.assertEqual(HostName("Example.COM.").raw_name, "Example.COM.")

    def test_a_label_has_up_to_63_characters(self) -> None:
        """63 are accepted, 64 are not."""
        self.assertEqual(names_of("a" * 63), ("a" * 63, "a" * 63))
        self.assertRaisesRegex(ValueError, "64 characters", HostName, "a" * 64)

    def test_a_label_is_measured_as_it_is_sent(self) -> None:
        """The length of an international label is that of its A-label."""
        self.assertEqual(len(HostName("ä" * 57).canonical_name), 63)
        self.assertRaisesRegex(ValueError, "too long", HostName, "ä" * 58)

    def test_a_name_has_up_to_253_characters(self) -> None:
        """253 are accepted, the trailing dot does not count, 254 are too many."""
        longest = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])
        self.assertEqual(HostName(f"{longest}.").canonical_name, longest)
        self.assertRaisesRegex(ValueError, "254 characters", HostName, f"{longest}d")


class AddressTests(SynchronousTestCase):
    """Addresses."""

    def test_an_address_has_one_canonical_form(self) -> None:
        """Dotted decimal, or the shortest form of IPv6 with its zone as given, or six pairs."""
        found = {raw: (HostName(raw).type, HostName(raw).canonical_name) for raw in ADDRESSES}
        self.assertEqual(found, ADDRESSES)

    def test_the_display_name_of_an_ip_address_is_the_canonical_name(self) -> None:
        """For both families."""
        self.assertEqual(names_of("FE80::1%eth0"), ("fe80::1%eth0", "fe80::1%eth0"))

    def test_a_bluetooth_address_is_displayed_in_parentheses(self) -> None:
        """As in Windows."""
        self.assertEqual(HostName("01:23:45:67:89:ab").display_name, "(01:23:45:67:89:AB)")

    @given(ip_addresses())
    def test_every_ip_address_of_python_is_accepted(self, address: object) -> None:
        """With the right type."""
        name = HostName(str(address))
        self.assertEqual(name.type is HostNameType.IPV6, ":" in str(address))
        self.assertEqual(HostName(name.canonical_name), name)


class MalformedNameTests(SynchronousTestCase):
    """Texts that are no host name."""

    def test_a_malformed_name_is_refused_with_the_reason(self) -> None:
        """One line has the name and the reason."""
        for raw, reason in MALFORMED.items():
            with self.assertRaises(ValueError) as caught:
                HostName(raw)
            message = str(caught.exception)
            self.assertTrue(message.startswith(f"{raw!r} is not a host name: "), message)
            self.assertIn(reason, message, (raw, reason))
            self.assertNotIn("\n", message, (raw, reason))

    def test_a_huge_name_has_a_short_message(self) -> None:
        """The message does not contain the whole name."""
        with self.assertRaises(ValueError) as caught:
            HostName("a" * 1_000_000)
        self.assertLess(len(str(caught.exception)), 300)

    def test_a_value_that_is_no_str_raises_type_error(self) -> None:
        """None, bytes and host names."""
        for raw in (None, b"localhost", 1, HostName("localhost")):
            self.assertRaisesRegex(TypeError, "a host name is a str, not", HostName, raw)


#: Texts that resemble a host name, and any others.
TEXTS = one_of(
    text(characters()),
    from_regex(r"[a-zA-Z0-9äßΔ-ω_.\-]{1,40}", fullmatch=True),
    from_regex(r"[0-9a-fA-FxX.:%()\[\]]{1,24}", fullmatch=True),
)


class AnyNameTests(SynchronousTestCase):
    """Properties of every name."""

    @given(TEXTS)
    @example("example.com.")
    @example("xn--a")
    def test_any_text_is_refused_or_equals_itself(self, raw: str) -> None:
        """A text raises `ValueError`, or gives the same host name each time."""
        try:
            name = HostName(raw)
        except ValueError:
            return
        self.assertEqual(name, HostName(raw))
        self.assertEqual(name.raw_name, raw)

    @given(TEXTS)
    @example("straße.example.")
    @example("(01:23:45:67:89:AB)")
    def test_canonicalising_twice_changes_nothing(self, raw: str) -> None:
        """The canonical name and the display name give the same host name."""
        try:
            name = HostName(raw)
        except ValueError:
            assume(False)
            raise
        self.assertEqual(HostName(name.canonical_name).canonical_name, name.canonical_name)
        self.assertEqual(HostName(name.display_name), name)


class ComparisonTests(SynchronousTestCase):
    """Host names are compared by their canonical names."""

    def test_names_with_one_canonical_name_are_equal(self) -> None:
        """Despite case, spelling and a trailing dot; their hashes are equal too."""
        one, other = HostName("Bücher.example"), HostName("xn--bcher-kva.EXAMPLE.")
        self.assertTrue(one.is_equal(other))
        self.assertEqual(one, other)
        self.assertEqual(len({one, other}), 1)

    def test_other_names_differ(self) -> None:
        """A name differs from its subdomain, and an address from one with another zone."""
        self.assertFalse(HostName("example.com").is_equal(HostName("a.example.com")))
        self.assertNotEqual(HostName("fe80::1%eth0"), HostName("fe80::1%eth1"))
        self.assertNotEqual(HostName("fe80::1%eth0"), HostName("fe80::1"))

    def test_a_name_is_not_its_text(self) -> None:
        """A host name equals no ``str``."""
        self.assertNotEqual(HostName("localhost"), "localhost")

    def test_texts_are_compared_by_their_canonical_names(self) -> None:
        """`compare` takes two texts."""
        self.assertEqual(HostName.compare("EXAMPLE.com", "example.COM."), 0)
        self.assertLess(HostName.compare("a.example", "B.example"), 0)
        self.assertLess(HostName.compare("ä.example", "z.example"), 0)  # xn--…
        self.assertGreater(HostName.compare("b.example", "A.example"), 0)

    def test_malformed_texts_cannot_be_compared(self) -> None:
        """`compare` raises for either of them."""
        self.assertRaises(ValueError, HostName.compare, "a", "a b")
        self.assertRaises(ValueError, HostName.compare, "", "a")


class HostNameValueTests(SynchronousTestCase):
    """A host name is a frozen value."""

    def test_text_is_the_canonical_name(self) -> None:
        """``str`` returns the canonical name, ``repr`` the given text."""
        name = HostName("BÜCHER.example")
        self.assertEqual(f"{name} {name!r}", "xn--bcher-kva.example HostName('BÜCHER.example')")

    def test_a_host_name_cannot_be_changed(self) -> None:
        """Assigning to any attribute fails."""
        name = HostName("localhost")
        for attribute in ("raw_name", "canonical_name", "display_name", "type"):
            self.assertRaises(AttributeError, setattr, name, attribute, "other")

    def test_copies_are_equal(self) -> None:
        """Pickles as well."""
        name = HostName("Example.com")
        for other in (copy.copy(name), copy.deepcopy(name), pickle.loads(pickle.dumps(name))):
            self.assertEqual((other, other.raw_name), (name, "Example.com"), other)


class EnumerationTests(SynchronousTestCase):
    """The documented numbers and names."""

    def test_the_types_have_the_documented_values(self) -> None:
        """`HostNameType` as in WinRT."""
        found = {kind.documented_name: kind.value for kind in HostNameType}
        self.assertEqual(found, {"DomainName": 0, "Ipv4": 1, "Ipv6": 2, "Bluetooth": 3})

    def test_the_sort_options_have_the_documented_values(self) -> None:
        """`HostNameSortOptions` as in WinRT, where there is no 1."""
        options = (HostNameSortOptions.NONE, HostNameSortOptions.OPTIMIZE_FOR_LONG_CONNECTIONS)
        found = {option.documented_name: option.value for option in options}
        self.assertEqual(found, {"None": 0, "OptimizeForLongConnections": 2})


HERE, THERE = HostName("192.0.2.1"), HostName("example.com")


class EndpointPairTests(SynchronousTestCase):
    """The two ends of a connection."""

    def test_the_system_may_choose_the_local_end(self) -> None:
        """The local host may be None, and the local service empty."""
        pair = EndpointPair(None, "", THERE, "http")
        self.assertEqual((pair.local_host_name, pair.local_service_name), (None, ""))
        self.assertEqual((pair.remote_host_name, pair.remote_service_name), (THERE, "http"))

    def test_a_missing_value_raises_at_construction(self) -> None:
        """Only the local host may be None; the remote service must not be empty."""
        for arguments, reason in [
            ((None, None, THERE, "80"), "local_service_name is None"),
            ((None, "", None, "80"), "remote_host_name is None"),
            ((None, "", THERE, None), "remote_service_name is None"),
            ((None, "", THERE, ""), "remote_service_name is empty"),
        ]:
            self.assertRaisesRegex(ValueError, reason, EndpointPair, *arguments)

    def test_none_is_refused_at_assignment(self) -> None:
        """The earlier value stays."""
        pair = EndpointPair(HERE, "1", THERE, "2")
        for name in ("local_service_name", "remote_host_name", "remote_service_name"):
            self.assertRaisesRegex(ValueError, f"{name} is None", setattr, pair, name, None)
        self.assertEqual(pair, EndpointPair(HERE, "1", THERE, "2"))

    def test_every_field_can_be_assigned(self) -> None:
        """The remote service may become empty, as in WinRT."""
        pair = EndpointPair(HERE, "1", THERE, "2")
        pair.local_host_name = None
        pair.local_service_name = ""
        pair.remote_host_name = HERE
        pair.remote_service_name = ""
        self.assertEqual(
            repr(pair),
            "EndpointPair(local_host_name=None, local_service_name='',"
            " remote_host_name=HostName('192.0.2.1'), remote_service_name='')",
        )

    def test_other_types_are_type_errors(self) -> None:
        """Hosts are `HostName` objects and services ``str``."""
        pair = EndpointPair(HERE, "1", THERE, "2")
        for name, value in (("local_host_name", "::1"), ("remote_host_name", "a")):
            self.assertRaisesRegex(TypeError, "is a HostName, not str", setattr, pair, name, value)
        for name in ("local_service_name", "remote_service_name"):
            self.assertRaisesRegex(TypeError, "is a str, not int", setattr, pair, name, 80)

    def test_other_fields_cannot_be_added(self) -> None:
        """A misspelt attribute raises."""
        pair = EndpointPair(None, "", THERE, "2")
        self.assertRaises(AttributeError, setattr, pair, "remote_port", "80")

    def test_pairs_are_equal_when_all_fields_are(self) -> None:
        """Hosts are compared by their canonical names; a mutable pair has no hash."""
        pair = EndpointPair(None, "", HostName("EXAMPLE.com"), "80")
        self.assertEqual(pair, EndpointPair(None, "", THERE, "80"))
        self.assertNotEqual(pair, EndpointPair(HERE, "", THERE, "80"))
        self.assertNotEqual(pair, EndpointPair(None, "", THERE, "443"))
        self.assertRaises(TypeError, hash, pair)
