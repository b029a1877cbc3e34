"""The parser of endpoint strings."""

from __future__ import annotations

import string
from typing import Any

from hypothesis import given
from hypothesis.strategies import dictionaries, lists, text
from twisted.internet.endpoints import quoteStringArgument, serverFromString
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from twsock.datagram.endpoint_string import EndpointString, parse_endpoint_string

#: The special characters of the grammar, and some others.
WORDS = text(alphabet=":=\\[]ab\n\N{GREEK SMALL LETTER ALPHA}")
KINDS = text(alphabet=string.ascii_lowercase, min_size=1)
#: The same without brackets, which Twisted does not support.
PATHS = text(alphabet=":=\\ab/", min_size=1)


class EndpointStringTests(SynchronousTestCase):
    """A string has a kind, fields without a name and fields with a name."""

    def parts_of(self, description: str) -> tuple[str, list[str], dict[str, str]]:
        """Parse a string into its parts."""
        parsed = parse_endpoint_string(description)
        return parsed.kind, list(parsed.arguments), dict(parsed.keywords)

    def assert_refused(self, description: str, message: str) -> None:
        """Check the message of the error for a string."""
        error = self.assertRaises(ValueError, parse_endpoint_string, description)
        self.assertEqual(str(error), message, f"{description=}")

    def test_colons_divide_fields(self) -> None:
        """The first field is the kind, the others are arguments in order."""
        parts = self.parts_of("multicast:224.3.0.5:22113")
        self.assertEqual(parts, ("multicast", ["224.3.0.5", "22113"], {}))

    def test_an_equals_sign_makes_a_keyword(self) -> None:
        """A field with a name is a keyword at any position."""
        parts = self.parts_of("multicast:interface=lo:224.3.0.5:ttl=0")
        self.assertEqual(parts, ("multicast", ["224.3.0.5"], {"interface": "lo", "ttl": "0"}))

    def test_only_the_first_equals_sign_divides(self) -> None:
        """Further ones belong to the value."""
        self.assertEqual(self.parts_of("udp:key=a=b="), ("udp", [], {"key": "a=b="}))

    def test_a_kind_becomes_lower_case(self) -> None:
        """``UDP`` becomes ``udp``; other fields are unchanged."""
        self.assertEqual(self.parts_of("UDP:LO"), ("udp", ["LO"], {}))

    def test_fields_may_be_empty(self) -> None:
        """Two colons enclose an empty field, as for Twisted."""
        self.assertEqual(self.parts_of("udp::a=:"), ("udp", ["", ""], {"a": ""}))

    def test_a_backslash_escapes_the_next_character(self) -> None:
        r"""``\:``, ``\=``, ``\\``, ``\[`` and any other character."""
        parts = self.parts_of(r"udp:\:\:1:a\=b:\[c:\\\d:k\=\:=\[v")
        self.assertEqual(parts, ("udp", ["::1", "a=b", "[c", "\\d"], {"k=:": "[v"}))

    def test_brackets_protect_colons(self) -> None:
        """
        An IPv6 address in brackets needs no backslashes; the brackets are not part of the value.
        """
        parts = self.parts_of("multicast:[ff15::1]:22113:source=[2001:db8::1]")
        self.assertEqual(parts, ("multicast", ["ff15::1", "22113"], {"source": "2001:db8::1"}))

    def test_brackets_protect_all_special_characters(self) -> None:
        """Such as an equals sign in a zone."""
        self.assertEqual(self.parts_of(r"udp:[fe80::1%a=\b]"), ("udp", [r"fe80::1%a=\b"], {}))

    def test_brackets_inside_a_value_are_ordinary_characters(self) -> None:
        """Only a bracket at the beginning of a value is special."""
        self.assertEqual(self.parts_of("udp:a[1]:b=c[2"), ("udp", ["a[1]"], {"b": "c[2"}))

    @given(KINDS, lists(WORDS), dictionaries(WORDS, WORDS))
    def test_the_string_of_parts_has_the_same_parts(
        self, kind: str, arguments: list[str], keywords: dict[str, str]
    ) -> None:
        """For any parts."""
        parts = EndpointString(kind, tuple(arguments), keywords)
        self.assertEqual(parse_endpoint_string(str(parts)), parts)

    @given(text(alphabet=":=\\[]a"))
    def test_any_text_is_parsed_or_refused_in_one_line(self, description: str) -> None:
        """
        Any text is parsed, or raises a ValueError of one line. Parsed text survives a round trip.
        """
        try:
            parsed = parse_endpoint_string(description)
        except ValueError as error:
            self.assertNotIn("\n", str(error))
        else:
            self.assertEqual(parse_endpoint_string(str(parsed)), parsed)

    @given(PATHS)
    def test_twisted_parses_quoted_values_alike(self, path: str) -> None:
        """A value quoted by Twisted is the same value for both parsers."""
        description = f"unix:address={quoteStringArgument(path)}:mode=600"
        reactor: Any = MemoryReactorClock()
        serverFromString(reactor, description).listen(Factory())
        (listening,) = reactor.unixServers
        self.assertEqual(self.parts_of(description)[2]["address"], listening[0])

    def test_a_string_without_a_kind_is_refused(self) -> None:
        """The first field must exist and must have no name."""
        for description in ("", ":1337", "port=1337", "=udp"):
            self.assert_refused(description, "it does not begin with a kind, such as udp")

    def test_a_repeated_keyword_is_refused(self) -> None:
        """Neither value takes precedence."""
        self.assert_refused("udp:1337:ttl=1:ttl=1", "'ttl' is given twice")

    def test_a_backslash_at_the_end_is_refused(self) -> None:
        """It escapes no character."""
        for description in ("udp:\\", "udp\\", "udp:a=b\\", "udp:a\\\\\\"):
            self.assert_refused(description, "it ends with a backslash")

    def test_an_open_bracket_is_refused(self) -> None:
        """A bracket at the beginning of a value must be closed."""
        self.assert_refused("udp:[::1:1337", "the bracket of '[::1:1337' is not closed")
        self.assert_refused("udp:interface=[", "the bracket of '[' is not closed")

    def test_text_after_a_bracket_is_refused(self) -> None:
        """Brackets enclose a whole value."""
        self.assert_refused("udp:[::1]1337", "after '[::1]' a colon or the end must follow")
