"""Words and numbers of a command line are checked; errors name the option."""

from __future__ import annotations

from hypothesis import given
from hypothesis.strategies import text
from twisted.python.usage import Options, UsageError
from twisted.trial.unittest import SynchronousTestCase

from twsock.services.options import choice_option, count_option, mode_option, seconds_option


class Given(Options):
    """Options of which one is given."""

    def __init__(self, value: object) -> None:
        super().__init__()
        self["limit"] = value


class ChoiceTests(SynchronousTestCase):
    """One of several words."""

    def test_each_word_is_accepted(self) -> None:
        """As it is written."""
        for word in ("red", "green"):
            self.assertEqual(
                choice_option(Given(word), "limit", ("red", "green")), word, f"{word=}"
            )

    def test_another_word_is_refused_with_the_list(self) -> None:
        """The error is one line with the option, its words and the given text; case counts."""
        for word in ("Red", "", "blue"):
            error = self.assertRaises(
                UsageError, choice_option, Given(word), "limit", ("red", "green", "off")
            )
            self.assertEqual(
                str(error), f"--limit takes red, green or off, not {word!r}", f"{word=}"
            )


class CountTests(SynchronousTestCase):
    """Whole numbers."""

    def test_the_bounds_are_included(self) -> None:
        """The smallest and the largest value are accepted, their neighbours are not."""
        self.assertEqual(count_option(Given("1"), "limit", 1, 3), 1)
        self.assertEqual(count_option(Given("3"), "limit", 1, 3), 3)
        for value in ("0", "4"):
            self.assertRaises(UsageError, count_option, Given(value), "limit", 1, 3)

    def test_an_option_that_is_not_given_is_none(self) -> None:
        """It has no default."""
        self.assertIsNone(count_option(Given(None), "limit", 1))

    def test_a_number_out_of_bounds_is_refused_with_the_bounds(self) -> None:
        """The error is one line with the option, its bounds and the given text."""
        error = self.assertRaises(UsageError, count_option, Given("many"), "limit", 1)
        self.assertEqual(str(error), "--limit takes a whole number, 1 or more, not 'many'")

    @given(text())
    def test_any_text_is_a_number_or_a_usage_error(self, value: str) -> None:
        """No other exception escapes."""
        try:
            number = count_option(Given(value), "limit", 0)
        except UsageError:
            return
        assert number is not None
        self.assertGreaterEqual(number, 0)


class ModeTests(SynchronousTestCase):
    """Permissions of a file."""

    def test_permissions_are_octal(self) -> None:
        """As for chmod."""
        self.assertEqual(mode_option(Given("660"), "limit"), 0o660)
        self.assertEqual(mode_option(Given("0"), "limit"), 0)

    def test_text_that_is_no_permission_is_refused(self) -> None:
        """Other digits, more bits, words."""
        for value in ("668", "1777", "-1", "u=rw", ""):
            error = self.assertRaises(UsageError, mode_option, Given(value), "limit")
            self.assertIn("--limit takes permissions in octal", str(error), f"{value=}: {error}")


class SecondsTests(SynchronousTestCase):
    """Times in seconds."""

    def test_fractions_of_seconds_are_accepted(self) -> None:
        """Half a second is a time."""
        self.assertEqual(seconds_option(Given("0.5"), "limit"), 0.5)

    def test_text_that_is_no_time_is_refused(self) -> None:
        """Negative, infinite, not a number: the error names each."""
        for value in ("-1", "inf", "nan", "soon", ""):
            error = self.assertRaises(UsageError, seconds_option, Given(value), "limit")
            self.assertIn("--limit takes seconds", str(error), f"{value=}: {error}")
