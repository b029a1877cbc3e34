"""docs/architecture.rst shows the tables of states as they are in the code."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.state_tables import PAGE, PARTS, render_grid, replace_parts
from twsock.stream import closing


class PageTests(SynchronousTestCase):
    """The generated parts of the page."""

    def test_page_shows_the_tables_of_the_code(self) -> None:
        """If the test fails, run ``python -m tests.state_tables``."""
        text = PAGE.read_text("utf-8")
        self.assertEqual(replace_parts(text), text, "run python -m tests.state_tables")

    def test_edited_part_is_made_anew(self) -> None:
        """Text that was edited between the two comments is replaced."""
        text = PAGE.read_text("utf-8")
        edited = text.replace(PARTS[0].end, f"by hand\n\n{PARTS[0].end}")
        self.assertNotEqual(edited, text)
        self.assertEqual(replace_parts(edited), text)

    def test_missing_comment_is_an_error(self) -> None:
        """A page without the comments of a table raises an error."""
        for part in PARTS:
            text = PAGE.read_text("utf-8").replace(f"\n{part.end}\n", "\n")
            with self.assertRaisesRegex(ValueError, part.module.__name__):
                replace_parts(text)

    def test_every_state_and_event_is_listed(self) -> None:
        """Each name stands in front of its meaning."""
        for part in PARTS:
            if part.what != "table":
                continue
            lines = part.render().splitlines()
            for member in (*part.module.State, *part.module.Event):
                found = [line.split(maxsplit=1) for line in lines]
                self.assertIn([member.name, member.value], found, part.module.__name__)


class GridTests(SynchronousTestCase):
    """Tables of reStructuredText."""

    def test_rows_of_a_group_share_their_first_cell(self) -> None:
        """Long cells are wrapped."""
        groups = [[["A", "one", "next"], ["A", "two", "a long step"]], [["B", "one", "none"]]]
        self.assertEqual(
            render_grid(("Event", "In", "Step"), groups, (5, 3, 6)).splitlines(),
            [
                "+-------+-----+--------+",
                "| Event | In  | Step   |",
                "+=======+=====+========+",
                "| A     | one | next   |",
                "|       +-----+--------+",
                "|       | two | a long |",
                "|       |     | step   |",
                "+-------+-----+--------+",
                "| B     | one | none   |",
                "+-------+-----+--------+",
            ],
        )


class EndsTests(SynchronousTestCase):
    """The table of ends, rendered."""

    def setUp(self) -> None:
        (part,) = (part for part in PARTS if part.module is closing and part.what == "table")
        self.rendered = part.render()

    def test_states_with_the_same_steps_share_a_row(self) -> None:
        """TCP and TLS are columns; TLS says whether it differs."""
        (row,) = (line for line in self.rendered.splitlines() if "| SEND_FAILED " in line)
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        step = "→ BROKEN; report the failed send"
        self.assertEqual(cells, ["SEND_FAILED", "OPEN, ANSWERING", step, "the same"])

    def test_steps_that_do_nothing_are_left_out(self) -> None:
        """BROKEN is no state of FLUSHED, and a call without a row has no step."""
        between = self.rendered.partition("| FLUSHED ")[2].partition("| FIN_SENT ")[0]
        self.assertIn("FINISHING", between)
        self.assertNotIn("BROKEN", between)

    def test_calls_without_a_row_are_listed(self) -> None:
        """The list says that these calls raise an error."""
        self.assertIn("\n- END_OUTPUT in BROKEN, ABORTED, DETACHED, LOST\n", self.rendered)

    def test_whole_is_described_where_it_differs(self) -> None:
        """WHOLE has no column of its own."""
        self.assertTrue(
            self.rendered.endswith("\n- FLUSHED in FINISHING: → ENDED; close the transport")
        )
