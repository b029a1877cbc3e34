"""Endpoint strings come apart into their words."""

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

#: What the grammar gives a meaning to, and a little of all else.
WORDS = text(alphabet=":=\\[]ab\n\N{GREEK SMALL LETTER ALPHA}")
KINDS = text(alphabet=string.ascii_lowercase, min_size=1)
#: Without a meaning in brackets, which Twisted does not know.
PATHS = text(alphabet=":=\\ab/", min_size=1)


class EndpointStringTests(SynchronousTestCase):
    """A string has a kind, fields without and fields with a name."""

    def parts_of(self, description: str) -> tuple[str, list[str], dict[str, str]]:
        """Take a string apart."""
        parsed = parse_endpoint_string(description)
        return parsed.kind, list(parsed.arguments), dict(parsed.keywords)

    def assert_refused(self, description: str, message: str) -> None:
        """Check that a string has no parts, and what the one line says."""
        error = self.assertRaises(ValueError, parse_endpoint_string, description)
        self.assertEqual(str(error), message)

    def test_colons_divide_fields(self) -> None:
        """The first field is the kind, the others are arguments in their order."""
        parts = self.parts_of("multicast:224.3.0.5:22113")
        self.assertEqual(parts, ("multicast", ["224.3.0.5", "22113"], {}))

    def test_an_equals_sign_makes_a_keyword(self) -> None:
        """A field with a name is a keyword, wherever it stands."""
        parts = self.parts_of("multicast:interface=lo:224.3.0.5:ttl=0")
        self.assertEqual(parts, ("multicast", ["224.3.0.5"], {"interface": "lo", "ttl": "0"}))

    def test_only_the_first_equals_sign_divides(self) -> None:
        """Further ones belong to the value."""
        self.assertEqual(self.parts_of("udp:key=a=b="), ("udp", [], {"key": "a=b="}))

    def test_a_kind_is_lower_case(self) -> None:
        """``UDP`` is ``udp``; the other words stay as they are."""
        self.assertEqual(self.parts_of("UDP:LO"), ("udp", ["LO"], {}))

    def test_fields_may_be_empty(self) -> None:
        """Two colons have an empty field between them, as for Twisted."""
        self.assertEqual(self.parts_of("udp::a=:"), ("udp", ["", ""], {"a": ""}))

    def test_a_backslash_takes_the_meaning_away(self) -> None:
        r"""``\:``, ``\=``, ``\\`` and ``\[`` are characters, as all are that are escaped."""
        parts = self.parts_of(r"udp:\:\:1:a\=b:\[c:\\\d:k\=\:=\[v")
        self.assertEqual(parts, ("udp", ["::1", "a=b", "[c", "\\d"], {"k=:": "[v"}))

    def test_brackets_protect_colons(self) -> None:
        """An address of IPv6 needs no backslashes in brackets, which are not part of it."""
        parts = self.parts_of("multicast:[ff15::1]:22113:source=[2001:db8::1]")
        self.assertEqual(parts, ("multicast", ["ff15::1", "22113"], {"source": "2001:db8::1"}))

    def test_brackets_protect_all_signs(self) -> None:
        """Between brackets are characters only, be it a zone with an equals sign."""
        self.assertEqual(self.parts_of(r"udp:[fe80::1%a=\b]"), ("udp", [r"fe80::1%a=\b"], {}))

    def test_brackets_elsewhere_are_characters(self) -> None:
        """A bracket that does not open a field has no meaning."""
        self.assertEqual(self.parts_of("udp:a[1]:b=c[2"), ("udp", ["a[1]"], {"b": "c[2"}))

    @given(KINDS, lists(WORDS), dictionaries(WORDS, WORDS))
    def test_parts_survive_being_a_string(
        self, kind: str, arguments: list[str], keywords: dict[str, str]
    ) -> None:
        """Whatever the parts are, their text has the same parts."""
        parts = EndpointString(kind, tuple(arguments), keywords)
        self.assertEqual(parse_endpoint_string(str(parts)), parts)

    @given(text(alphabet=":=\\[]a"))
    def test_any_text_is_parsed_or_refused_in_one_line(self, description: str) -> None:
        """Nothing but a ValueError of one line comes out of any text, and what is parsed stays."""
        try:
            parsed = parse_endpoint_string(description)
        except ValueError as error:
            self.assertNotIn("\n", str(error))
        else:
            self.assertEqual(parse_endpoint_string(str(parsed)), parsed)

    @given(PATHS)
    def test_twisted_reads_quoted_values_alike(self, path: str) -> None:
        """What Twisted quotes for its own endpoints is the same value for both."""
        description = f"unix:address={quoteStringArgument(path)}:mode=600"
        reactor: Any = MemoryReactorClock()
        serverFromString(reactor, description).listen(Factory())
        (listening,) = reactor.unixServers
        self.assertEqual(self.parts_of(description)[2]["address"], listening[0])

    def test_without_a_kind_it_is_refused(self) -> None:
        """The first field has to be there, and to be no keyword."""
        for description in ("", ":1337", "port=1337", "=udp"):
            self.assert_refused(description, "it does not begin with a kind, such as udp")

    def test_a_keyword_twice_is_refused(self) -> None:
        """Neither of two values wins."""
        self.assert_refused("udp:1337:ttl=1:ttl=1", "'ttl' is given twice")

    def test_a_backslash_at_the_end_is_refused(self) -> None:
        """It would take the meaning from nothing."""
        for description in ("udp:\\", "udp\\", "udp:a=b\\", "udp:a\\\\\\"):
            self.assert_refused(description, "it ends with a backslash")

    def test_an_open_bracket_is_refused(self) -> None:
        """A bracket that begins a value has to be closed."""
        self.assert_refused("udp:[::1:1337", "the bracket of '[::1:1337' is not closed")
        self.assert_refused("udp:interface=[", "the bracket of '[' is not closed")

    def test_text_after_a_bracket_is_refused(self) -> None:
        """Brackets hold a whole value."""
        self.assert_refused("udp:[::1]1337", "after '[::1]' comes a colon or the end")
