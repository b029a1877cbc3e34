"""Tests of `benchmarks.results`."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.processes import Program, Subject
from benchmarks.results import Figure, Results

_CPU = Figure("cpu", "CPU")
_LOST = Figure("lost", "Lost", has_ratios=False, is_sum=True)
_ECHO = Subject(Program("echo", "twsock echo", "module"))
_OTHER = Subject(Program("other", "Other", "module"))
_BASELINE = Subject(_ECHO.program, Path("/elsewhere"))


class ResultsTests(SynchronousTestCase):
    """Measurements become medians and ratios."""

    def setUp(self) -> None:
        self.results = Results([_CPU, _LOST], references=["other"])

    def add(self, subject: Subject, *costs: float, case: str = "A") -> None:
        """A round for each cost."""
        for cost in costs:
            self.results.add(subject, case, {"cpu": cost, "lost": 1})

    def test_figure_is_the_median_of_the_rounds(self) -> None:
        """One slow round does not change the figure."""
        self.add(_ECHO, 2, 90, 3)
        self.assertEqual(self.results.value(_ECHO, "A", _CPU), 3)

    def test_sum_is_of_all_rounds(self) -> None:
        """A single lost datagram is seen."""
        self.add(_ECHO, 2, 90, 3)
        self.assertEqual(self.results.value(_ECHO, "A", _LOST), 3)

    def test_ratio_compares_within_a_round(self) -> None:
        """A round in which the machine was slow for all subjects has the same ratio."""
        self.add(_ECHO, 1, 10, 2)
        self.add(_OTHER, 4, 40, 8)
        self.assertEqual(self.results.ratio(_ECHO, _OTHER, "A", _CPU), 0.25)

    def test_round_without_a_figure_leaves_neither_median_nor_ratio(self) -> None:
        """As when a server resumed not all of the sessions in one round."""
        self.add(_ECHO, 1, 1)
        self.results.add(_ECHO, "A", {"lost": 0})
        self.add(_OTHER, 1, 1, 1)
        self.assertIsNone(self.results.value(_ECHO, "A", _CPU))
        self.assertIsNone(self.results.ratio(_ECHO, _OTHER, "A", _CPU))
        self.assertIsNone(self.results.ratio(_OTHER, _ECHO, "A", _CPU))

    def test_without_the_reference_there_are_no_ratios(self) -> None:
        """A run of other servers only still has its figures."""
        self.add(_ECHO, 1)
        self.add(_ECHO, 1, case="B")
        captions = [table.caption for table in self.results.tables()]
        self.assertEqual(captions, ["CPU", "Lost"])

    def test_spread_is_the_quartiles_of_the_ratios(self) -> None:
        """Of fewer than four rounds only the median is shown."""
        self.results = Results([_CPU], references=["other"], shows_spread=True)
        self.add(_ECHO, 1, 2, 3, 4, 5)
        self.add(_OTHER, 10, 10, 10, 10, 10)
        self.add(_ECHO, 1, 2, 3, case="B")
        self.add(_OTHER, 10, 10, 10, case="B")
        _, ratios = self.results.tables()
        self.assertEqual(ratios.rows[0], ["twsock echo", "0.30 (0.20-0.40)", "0.20"])

    def test_each_figure_has_a_table_and_the_compared_one_its_ratios(self) -> None:
        """The columns are the cases."""
        for case in ("A", "B"):
            self.add(_ECHO, 1, case=case)
            self.add(_OTHER, 4, case=case)
        cpu, ratios, lost = self.results.tables()
        self.assertEqual(cpu.header, ["", "A", "B"])
        self.assertEqual(cpu.rows, [["twsock echo", "1", "1"], ["Other", "4", "4"]])
        self.assertEqual(ratios.caption, "The same as a ratio to Other")
        self.assertEqual(ratios.rows[0], ["twsock echo", "0.25", "0.25"])
        self.assertEqual(lost.rows, [["twsock echo", "1", "1"], ["Other", "1", "1"]])

    def test_single_case_has_its_figures_as_columns(self) -> None:
        """The sum has no ratios."""
        self.add(_ECHO, 1)
        self.add(_OTHER, 4)
        figures, ratios = self.results.tables()
        self.assertEqual(figures.header, ["", "cpu", "lost"])
        self.assertEqual(ratios.header, ["", "cpu"])

    def test_other_checkout_has_ratios_of_its_own(self) -> None:
        """Only what was measured on both has a row."""
        self.add(_ECHO, 1, 10, 2)
        self.add(_BASELINE, 2, 20, 4)
        self.add(_OTHER, 1, 1, 1)
        *_, ratios = self.results.tables()
        self.assertEqual(ratios.caption, "The same as a ratio to the baseline's checkout")
        self.assertEqual(ratios.rows, [["twsock echo", "0.50"]])

    def test_missing_figure_is_a_dash(self) -> None:
        """Its row is still there."""
        self.results.add(_ECHO, "A", {"lost": 0})
        (table,) = Results.tables(self.results)
        self.assertEqual(table.rows, [["twsock echo", "-", "0"]])

    def test_json_has_the_rounds_too(self) -> None:
        """They are there for other figures than medians."""
        self.add(_ECHO, 1, 3)
        self.add(_BASELINE, 1, 3)
        document = self.results.to_json()
        self.assertEqual(list(document), ["echo", "echo@baseline"])
        case = document["echo"]["cases"]["A"]
        self.assertEqual((case["cpu"], case["lost"]), (2, 2))
        self.assertEqual([each["cpu"] for each in case["rounds"]], [1, 3])
