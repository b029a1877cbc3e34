"""Standard output gets lines, and a terminal nothing that it would act on."""

from __future__ import annotations

import errno
import io

from hypothesis import given
from hypothesis.strategies import binary
from twisted.trial.unittest import SynchronousTestCase

from twsock.cli.failure import CommandError
from twsock.cli.progress import Progress
from twsock.cli.screen import Screen, escape


class EscapeTests(SynchronousTestCase):
    """What a message looks like."""

    def test_text_stays_as_it_is(self) -> None:
        """Letters, symbols, backslashes, no-break spaces and joined emoji are shown themselves."""
        for text in ("Hello, World!", "grüße ☺", r"C:\new", "a\u00a0b", "👩\u200d👧", '"', ""):
            self.assertEqual(escape(text.encode()), text)

    def test_what_a_terminal_would_act_on_is_escaped(self) -> None:
        """Controls of both sets, line ends, and marks that reverse or hide what is around them."""
        for text, shown in (
            ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
            ("a\r\nb\tc\x00", "a\\r\\nb\\tc\\x00"),
            ("\x7f\x9b31m", "\\x7f\\x9b31m"),
            ("\u202etxt\u2028\ufeff", "\\u202etxt\\u2028\\ufeff"),
        ):
            self.assertEqual(escape(text.encode()), shown)

    def test_bytes_that_are_not_utf8_are_escaped(self) -> None:
        """Each of them, and nothing else."""
        self.assertEqual(escape(b"ok \xff\xc3("), "ok \\xff\\xc3(")

    @given(binary(max_size=64))
    def test_no_bytes_reach_a_terminal_as_a_control(self, message: bytes) -> None:
        """Whatever a server sends, the result is one line of printable characters."""
        shown = escape(message)
        self.assertFalse([character for character in shown if ord(character) < 32])
        self.assertEqual(len(shown.splitlines()) or 1, 1)


class Broken(io.BytesIO):
    """Takes nothing."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def flush(self) -> None:
        raise OSError(self.number, "it takes no more")


class ScreenTests(SynchronousTestCase):
    """What is written, and how."""

    def show(self, **settings: bool) -> bytes:
        output = io.BytesIO()
        screen = Screen(output, **settings)  # type: ignore[arg-type]
        screen.say("client connected")
        screen.show_request(b"a\x07")
        screen.show_response(b"a\x07\xff")
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
        Screen(output).show_response(b"a", "192.0.2.1:7 answered late")
        self.assertEqual(output.getvalue(), b'192.0.2.1:7 answered late: "a"\n')

    def test_messages_that_nobody_typed_are_described(self) -> None:
        """Where only the responses are wanted, too."""
        for quiet, lines in (
            (True, b"1 bytes\n"),
            (False, b"client sent the request: 1 bytes\nclient received the response: 1 bytes\n"),
        ):
            output = io.BytesIO()
            screen = Screen(output, quiet=quiet, describe=lambda one: f"{len(one)} bytes")
            screen.show_request(b"a")
            screen.show_response(b"a")
            self.assertEqual(output.getvalue(), lines)

    def test_what_the_encoding_cannot_hold_is_escaped(self) -> None:
        """A terminal without Unicode is no reason to fail."""
        output = io.BytesIO()
        Screen(output, encoding="ascii").show_request("☺".encode())
        self.assertEqual(output.getvalue(), b'client sent the request: "\\u263a"\n')

    def test_a_reader_that_has_left_ends_the_command_without_a_word(self) -> None:
        """As the signal would, with the status of that signal."""
        error = self.assertRaises(CommandError, Screen(Broken(errno.EPIPE)).say, "line")
        self.assertEqual((error.line, error.exit_code), ("", 141))

    def test_a_full_disk_is_told(self) -> None:
        """Any other failure to write has its line."""
        error = self.assertRaises(CommandError, Screen(Broken(errno.ENOSPC)).say, "line")
        self.assertEqual(error.line, "cannot write to standard output: it takes no more")

    def test_the_bar_makes_room_for_lines_on_the_same_terminal(self) -> None:
        """It is erased before a line, and left alone where lines go elsewhere."""
        for is_terminal, erased in ((True, 1), (False, 0)):
            terminal = io.StringIO()
            bar = Progress(terminal, 100, lambda: 80, lambda: 0.0)
            screen = Screen(io.BytesIO(), is_terminal=is_terminal, progress=bar)
            screen.advance()
            screen.say("line")
            self.assertEqual(terminal.getvalue().count("\x1b[K"), erased)


class NoteTests(SynchronousTestCase):
    """What was asked for besides goes to standard error."""

    def test_notes_stay_out_of_the_output(self) -> None:
        """Quiet or not."""
        for quiet in (False, True):
            output, notes = io.BytesIO(), io.StringIO()
            Screen(output, quiet=quiet, notes=notes).note("one", "two")
            self.assertEqual((output.getvalue(), notes.getvalue()), (b"", "one\ntwo\n"))

    def test_a_closed_standard_error_gets_none(self) -> None:
        """That is no failure."""
        output = io.BytesIO()
        Screen(output).note("one")
        self.assertEqual(output.getvalue(), b"")
