"""Standard output gets lines, and a terminal nothing that it would act on."""

from __future__ import annotations

import errno
import io
import sys

from hypothesis import given
from hypothesis.strategies import binary
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.cli.extras import needs_rich
from twsock.cli.output import (
    LONG_RUN,
    CommandError,
    Output,
    ProgressBar,
    Responder,
    RoundTrips,
    escape,
)


class EscapeTests(SynchronousTestCase):
    """What a message looks like."""

    def test_text_stays_as_it_is(self) -> None:
        """Letters, symbols, backslashes, no-break spaces and joined emoji are shown themselves."""
        for text in ("Hello, World!", "grüße ☺", r"C:\new", "a\u00a0b", "👩\u200d👧", '"', ""):
            self.assertEqual(escape(text.encode()), text, f"{text=}")

    def test_what_a_terminal_would_act_on_is_escaped(self) -> None:
        """Controls of both sets, line ends, and marks that reverse or hide what is around them."""
        for text, shown in (
            ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
            ("a\r\nb\tc\x00", "a\\r\\nb\\tc\\x00"),
            ("\x7f\x9b31m", "\\x7f\\x9b31m"),
            ("\u202etxt\u2028\ufeff", "\\u202etxt\\u2028\\ufeff"),
        ):
            self.assertEqual(escape(text.encode()), shown, f"{text=}")

    def test_bytes_that_are_not_utf8_are_escaped(self) -> None:
        """Each of them, and nothing else."""
        self.assertEqual(escape(b"ok \xff\xc3("), "ok \\xff\\xc3(")

    @given(binary(max_size=64))
    def test_no_bytes_reach_a_terminal_as_a_control(self, message: bytes) -> None:
        """Whatever a server sends, the result is one line of printable characters."""
        shown = escape(message)
        self.assertFalse([character for character in shown if ord(character) < 32])
        self.assertEqual(len(shown.splitlines()) or 1, 1)


class Terminal(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


class Broken(io.BytesIO):
    """Takes nothing."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def flush(self) -> None:
        raise OSError(self.number, "it takes no more")


class OutputTests(SynchronousTestCase):
    """What is written, and how."""

    def show(self, **settings: bool) -> bytes:
        output = io.BytesIO()
        output_ = Output(output, **settings)  # type: ignore[arg-type]
        output_.say("client connected")
        output_.show_request(b"a\x07")
        output_.show_response(b"a\x07\xff")
        return output.getvalue()

    def test_requests_and_responses_stand_in_quotes(self) -> None:
        """The exact lines, escaped on a terminal and elsewhere."""
        lines = (
            b"client connected\n"
            b'client sent the request: "a\\x07"\n'
            b'client received the response: "a\\x07\\xff"\n'
        )
        self.assertEqual(self.show(), lines)
        self.assertEqual(self.show(is_terminal=True), lines)

    def test_quiet_writes_responses_byte_for_byte(self) -> None:
        """For programs that read them."""
        self.assertEqual(self.show(quiet=True), b"a\x07\xff\n")

    def test_quiet_on_a_terminal_escapes(self) -> None:
        """A person reads them."""
        self.assertEqual(self.show(quiet=True, is_terminal=True), b"a\\x07\\xff\n")

    def test_a_response_may_have_somebody_who_sent_it(self) -> None:
        """Or a time, where it is not the usual one."""
        output = io.BytesIO()
        Output(output).show_response(b"a", "192.0.2.1:7 answered late")
        self.assertEqual(output.getvalue(), b'192.0.2.1:7 answered late: "a"\n')

    def test_messages_that_nobody_typed_are_described(self) -> None:
        """Where only the responses are wanted, too."""
        for quiet, lines in (
            (True, b"1 bytes\n"),
            (False, b"client sent the request: 1 bytes\nclient received the response: 1 bytes\n"),
        ):
            output = io.BytesIO()
            output_ = Output(output, quiet=quiet, describe=lambda one: f"{len(one)} bytes")
            output_.show_request(b"a")
            output_.show_response(b"a")
            self.assertEqual(output.getvalue(), lines, f"{quiet=}")

    def test_what_the_encoding_cannot_hold_is_escaped(self) -> None:
        """A terminal without Unicode is no reason to fail."""
        output = io.BytesIO()
        Output(output, encoding="ascii").show_request("☺".encode())
        self.assertEqual(output.getvalue(), b'client sent the request: "\\u263a"\n')

    def test_a_reader_that_has_left_ends_the_command_without_a_word(self) -> None:
        """As the signal would, with the status of that signal."""
        error = self.assertRaises(CommandError, Output(Broken(errno.EPIPE)).say, "line")
        self.assertEqual((error.line, error.exit_code), ("", 141))

    def test_a_full_disk_is_told(self) -> None:
        """Any other failure to write has its line."""
        error = self.assertRaises(CommandError, Output(Broken(errno.ENOSPC)).say, "line")
        self.assertEqual(error.line, "cannot write to standard output: it takes no more")

    @needs_rich
    def test_the_bar_makes_room_for_lines_on_the_same_terminal(self) -> None:
        """It is erased before a line, and left alone where lines go elsewhere."""
        for is_terminal, erased in ((True, 1), (False, 0)):
            terminal = Terminal()
            bar = ProgressBar(terminal, 100, lambda: 0.0)
            output_ = Output(io.BytesIO(), is_terminal=is_terminal, bar=bar)
            output_.advance()
            output_.say("line")
            self.assertEqual(terminal.getvalue().count("\x1b[?25h"), erased, f"{is_terminal=}")


class NoteTests(SynchronousTestCase):
    """What was asked for besides goes to standard error."""

    def test_notes_stay_out_of_the_output(self) -> None:
        """Quiet or not."""
        for quiet in (False, True):
            output, notes = io.BytesIO(), io.StringIO()
            Output(output, quiet=quiet, notes=notes).note("one", "two")
            self.assertEqual(
                (output.getvalue(), notes.getvalue()), (b"", "one\ntwo\n"), f"{quiet=}"
            )

    def test_a_closed_standard_error_gets_none(self) -> None:
        """That is no failure."""
        output = io.BytesIO()
        Output(output).note("one")
        self.assertEqual(output.getvalue(), b"")

    @needs_rich
    def test_the_bar_makes_room_for_notes(self) -> None:
        """They go to the terminal that it is on."""
        notes = Terminal()
        bar = ProgressBar(notes, 100, lambda: 0.0)
        output_ = Output(io.BytesIO(), notes=notes, bar=bar)
        output_.advance()
        output_.note("one")
        self.assertTrue(notes.getvalue().endswith("\x1b[2Kone\n"), repr(notes.getvalue()))


class RawTests(SynchronousTestCase):
    """Bytes without messages."""

    def write(self, *pieces: bytes, is_terminal: bool) -> bytes:
        output = io.BytesIO()
        shown = Output(output, quiet=True, is_terminal=is_terminal)
        for piece in pieces:
            shown.write_bytes(piece)
        return output.getvalue()

    def test_a_pipe_gets_them_as_they_are(self) -> None:
        """Whatever they are."""
        self.assertEqual(self.write(b"\x1b\0", b"\xff\r\n", is_terminal=False), b"\x1b\0\xff\r\n")

    def test_a_terminal_gets_text_and_line_ends_only(self) -> None:
        """Controls and bytes that are not UTF-8 are escaped; a character may come in two pieces."""
        self.assertEqual(
            self.write(b"a\tb\r\nc\rd\x1b[2J\xff", b"\xe2\x98", b"\xba\n", is_terminal=True),
            "a\tb\nc\\rd\\x1b[2J\\xff☺\n".encode(),
        )


class TableTests(SynchronousTestCase):
    """Figures of several."""

    def table(self, *, is_terminal: bool) -> list[str]:
        output = io.BytesIO()
        shown = Output(output, is_terminal=is_terminal)
        shown.say_table(["name", "sent"], [["one", "1"], ["two", "22"]], ["one: 1", "two: 22"])
        return [line.rstrip() for line in output.getvalue().decode().splitlines()]

    def test_a_pipe_gets_a_line_for_each(self) -> None:
        """Which scripts can read."""
        self.assertEqual(self.table(is_terminal=False), ["one: 1", "two: 22"])

    @needs_rich
    def test_a_terminal_gets_columns(self) -> None:
        """Drawn by rich."""
        self.assertEqual(self.table(is_terminal=True), ["name  sent", "one   1", "two   22"])

    def test_a_narrow_terminal_gets_lines_with_every_digit(self) -> None:
        """A table has its columns side by side, and rich cuts what has no room."""
        output = io.BytesIO()
        # Wider than any terminal.
        row = ["1", "2" * 5000]
        Output(output, is_terminal=True).say_table(["name", "sent"], [row], ["1: 2", "all of it"])
        self.assertEqual(output.getvalue(), b"1: 2\nall of it\n")

    @needs_rich
    def test_an_address_is_no_markup(self) -> None:
        """Whatever is in brackets."""
        output = io.BytesIO()
        Output(output, is_terminal=True).say_table(["name"], [["[fe80::1%lo]:1:2:"]], [])
        self.assertIn(b"[fe80::1%lo]:1:2:", output.getvalue())

    def test_without_rich_a_terminal_gets_lines_too(self) -> None:
        """It is an extra."""
        loaded = {"rich": sys.modules["rich"]} if "rich" in sys.modules else {}
        sys.modules["rich"] = None  # type: ignore[assignment]
        # The last that is added runs first.
        self.addCleanup(sys.modules.update, loaded)
        self.addCleanup(sys.modules.pop, "rich")
        self.assertEqual(self.table(is_terminal=True), ["one: 1", "two: 22"])


class ProgressBarTests(SynchronousTestCase):
    """Long runs show how far they are, with a bar that comes and goes."""

    def make(self, total: int | None) -> ProgressBar:
        self.clock = Clock()
        self.terminal = Terminal()
        return ProgressBar(self.terminal, total, self.clock.seconds)

    def test_a_short_run_has_none(self) -> None:
        """It is over before anybody looks."""
        bar = self.make(LONG_RUN - 1)
        for _ in range(LONG_RUN - 1):
            bar.advance()
        bar.erase()
        self.assertEqual(self.terminal.getvalue(), "")

    @needs_rich
    def test_a_long_run_has_one_from_the_start(self) -> None:
        """It is drawn ten times a second, however fast the run is, and goes without a trace."""
        bar = self.make(LONG_RUN)
        for _ in range(50):
            bar.advance()
        self.clock.advance(0.1)
        bar.advance()
        bar.erase()
        shown = self.terminal.getvalue()
        for text, times in ((" 1/100", 1), (" 2/100", 0), ("51/100", 1)):
            self.assertEqual(shown.count(text) > 0, times > 0, (text, shown))
        self.assertTrue(shown.endswith("\x1b[2K"), repr(shown))

    @needs_rich
    def test_a_run_without_an_end_counts_once_it_is_long(self) -> None:
        """Standard input may have one line or millions."""
        bar = self.make(None)
        for _ in range(LONG_RUN - 1):
            bar.advance()
        self.assertEqual(self.terminal.getvalue(), "")
        bar.advance()
        self.assertIn("100/?", self.terminal.getvalue())

    @needs_rich
    def test_an_erased_bar_comes_back_with_a_later_message(self) -> None:
        """A line that was written in its place does not end it."""
        bar = self.make(LONG_RUN)
        bar.advance()
        bar.erase()
        self.clock.advance(0.1)
        bar.advance()
        self.assertIn(" 2/100", self.terminal.getvalue())


class RoundTripsTests(SynchronousTestCase):
    """Shortest, median, longest."""

    def summarize(self, *seconds: float, max_samples: int = 8) -> str:
        round_trips = RoundTrips(max_samples)
        for one in seconds:
            round_trips.add(one)
        self.assertEqual(round_trips.count, len(seconds))
        return round_trips.summary

    def test_they_are_in_milliseconds(self) -> None:
        """Two digits after the point, whatever the order they came in."""
        self.assertEqual(
            self.summarize(0.0006, 0.00018, 0.00021), "round trip min/median/max 0.18/0.21/0.60 ms"
        )

    def test_an_even_number_has_its_median_in_the_middle(self) -> None:
        """Half way between the two in the middle."""
        self.assertEqual(
            self.summarize(0.001, 0.002), "round trip min/median/max 1.00/1.50/2.00 ms"
        )

    def test_nothing_has_no_times(self) -> None:
        """Not even zeros."""
        self.assertEqual(self.summarize(), "")

    def test_a_long_run_keeps_a_bounded_sample_of_the_whole(self) -> None:
        """Count and extremes stay exact, and the median comes from all parts of the run."""
        times = [0.5, *(number / 1000 for number in range(1, 1000))]
        summary = self.summarize(*times, max_samples=64)
        shortest, median, longest = summary.split()[-2].split("/")
        self.assertEqual((shortest, longest), ("1.00", "999.00"))
        self.assertAlmostEqual(float(median), 500, delta=40)


class ResponderTests(SynchronousTestCase):
    """What one responder did, in one phrase."""

    def test_all_is_well(self) -> None:
        """No more than there is to say."""
        one = Responder(received=2)
        one.round_trips.add(0.001)
        times = "round trip min/median/max 1.00/1.00/1.00 ms"
        self.assertEqual(one.describe(2, 0), f"2 received, 0 lost; {times}")

    def test_each_count_has_its_number(self) -> None:
        """What is still awaited is not lost."""
        self.assertEqual(Responder().describe(3, 3), "0 received, 3 awaited, 0 lost")
        self.assertEqual(Responder().describe(3, 0), "0 received, 3 lost (100 %)")
        for duplicates, text in ((1, "1 duplicate"), (2, "2 duplicates")):
            self.assertEqual(
                Responder(6, duplicates).describe(8, 1),
                f"6 received, 1 awaited, 1 lost (12.5 %), {text}",
                f"{duplicates=}",
            )

    def test_a_small_share_is_not_none(self) -> None:
        """Three digits, wherever they are."""
        self.assertEqual(Responder(2999).describe(3000, 0), "2999 received, 1 lost (0.0333 %)")
