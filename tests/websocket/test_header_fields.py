"""Header fields of the handshake are parsed strictly, and those of applications are checked."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twsock.errors import RemoteProtocolError
from twsock.websocket.header_fields import (
    Extension,
    check_header,
    check_subprotocols,
    format_extension,
    is_token,
    parse_extensions,
    parse_tokens,
)

TOKENS = st.text("abcXYZ019!#$%&'*+-.^_`|~", min_size=1, max_size=8)
EXTENSIONS = st.tuples(
    TOKENS, st.lists(st.tuples(TOKENS, st.none() | TOKENS), max_size=3).map(tuple)
)


class CheckHeaderTests(SynchronousTestCase):
    """Fields that an application adds."""

    def test_usual_fields_pass(self) -> None:
        """Values may be empty, have spaces inside, and have characters of Latin-1."""
        for name, value in (
            ("Authorization", "Basic dTpw"),
            ("X-Empty", ""),
            ("Cookie", "a=1; b=\t2"),
            ("Host", "example.com"),
            ("X-Latin", "gr\u00fcn"),
        ):
            check_header(name, value)

    def test_a_value_with_a_line_end_is_refused(self) -> None:
        """CR, LF and NUL would begin another field, or end the value early; the error hides it."""
        for value in ("a\r\nX: 1", "secret\n", "\rsecret", "a\0b", "a\x7f", " a", "a ", "\u20ac"):
            with self.assertRaises(ValueError, msg=f"{value=}") as caught:
                check_header("X-Value", value)
            self.assertNotIn("secret", str(caught.exception))

    def test_a_name_that_is_no_token_is_refused(self) -> None:
        """Names have no spaces, colons or line ends."""
        for name in ("", "a b", "a:", "a\r\nb", "\u00fc"):
            self.assertRaises(ValueError, check_header, name, "1")

    def test_fields_of_the_handshake_are_refused(self) -> None:
        """``Sec-WebSocket-Extensions`` cannot be set, and neither can the others it writes."""
        for name in (
            "Sec-WebSocket-Extensions",
            "sec-websocket-key",
            "SEC-WEBSOCKET-PROTOCOL",
            "Upgrade",
            "Connection",
            "Content-Length",
            "Transfer-Encoding",
        ):
            self.assertRaises(ValueError, check_header, name, "1")

    def test_other_types_are_refused(self) -> None:
        """Bytes and None are no text."""
        wrong: tuple[tuple[Any, Any], ...] = ((b"X", "1"), ("X", b"1"), ("X", None), (1, "1"))
        for name, value in wrong:
            self.assertRaises(TypeError, check_header, name, value)


class CheckSubprotocolsTests(SynchronousTestCase):
    """Subprotocols that an application lists."""

    def test_order_is_kept(self) -> None:
        """The result has the same names."""
        self.assertEqual(check_subprotocols(["b", "a"]), ("b", "a"))

    def test_wrong_names_are_refused(self) -> None:
        """A name is a token, and is listed once (section 4.1, item 10)."""
        for names in (["a b"], [""], ["a,b"], ["a", "a"], ["a\r\n"]):
            self.assertRaises(ValueError, check_subprotocols, names)

    def test_one_text_is_refused(self) -> None:
        """One ``str`` would be a list of letters."""
        self.assertRaises(TypeError, check_subprotocols, "chat")


class ParseTokensTests(SynchronousTestCase):
    """Lists of tokens."""

    def test_several_fields_are_one_list(self) -> None:
        """Empty elements and spaces around an element are ignored."""
        values = ["a, b", "", " c ,,\td\t,"]
        self.assertEqual(parse_tokens("X", values), ["a", "b", "c", "d"])

    def test_an_element_that_is_no_token_is_refused(self) -> None:
        """The error names the field."""
        for value in ("a b", 'a, "b"', "a;b", "\u00fc"):
            with self.assertRaises(RemoteProtocolError, msg=f"{value=}") as caught:
                parse_tokens("X-List", [value])
            self.assertIn("X-List", str(caught.exception))

    @given(st.text(max_size=8))
    def test_tokens_are_what_a_list_of_one_has(self, text: str) -> None:
        """`is_token` and `parse_tokens` agree."""
        if is_token(text):
            self.assertEqual(parse_tokens("X", [text]), [text])


class ParseExtensionsTests(SynchronousTestCase):
    """The field ``Sec-WebSocket-Extensions`` (section 9.1)."""

    def test_names_and_parameters_are_parsed(self) -> None:
        """Parameters have a value, a quoted one, or none; elements keep their order."""
        value = 'foo, bar; baz=2 ; q = "x\\y", foo;a'
        self.assertEqual(
            parse_extensions([value, "", "deflate-stream"]),
            [
                ("foo", ()),
                ("bar", (("baz", "2"), ("q", "xy"))),
                ("foo", (("a", None),)),
                ("deflate-stream", ()),
            ],
        )

    def test_malformed_fields_are_refused(self) -> None:
        """RFC 6455: what does not conform fails the handshake."""
        for value in (
            "a b",
            "a;",
            "a; =1",
            "a; b=",
            'a; b="',
            'a; b="x y"',
            'a; b=""',
            "a; b=1 2",
            "a/b",
            ";a",
            "a;b;;c",
            "\u00fc",
        ):
            with self.assertRaises(RemoteProtocolError, msg=f"{value=}"):
                parse_extensions([value])

    @given(st.lists(EXTENSIONS, max_size=4), st.sampled_from([", ", ",", " ,\t"]))
    def test_what_is_formatted_is_parsed(self, extensions: list[Extension], comma: str) -> None:
        """Any list makes the round trip."""
        value = comma.join(map(format_extension, extensions))
        self.assertEqual(parse_extensions([value]), extensions)

    @given(st.text('ab;=," \\', max_size=30))
    def test_garbage_raises_only_the_documented_error(self, value: str) -> None:
        """Any text is parsed or refused."""
        try:
            parse_extensions([value])
        except RemoteProtocolError:
            pass
