"""
Medians and ratios of what was measured, as tables and as JSON.

Fed by `benchmarks.rounds`. Every benchmark has subjects (rows), cases, and figures of each case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any, Final

from benchmarks.processes import Subject
from benchmarks.tables import Table

__all__ = ["Figure", "Results"]

_NOTHING: Final = "-"

#: Of fewer rounds, quartiles say nothing.
_FEWEST_FOR_SPREAD: Final = 4


@dataclass(frozen=True, slots=True)
class Figure:
    """
    One figure of a case.

    :ivar name: its key in what a measurement returns, and its column.
    :ivar caption: what it is, with its unit.
    :ivar has_ratios: whether subjects are compared by it.
    :ivar is_sum: whether the rounds add up; else it is their median.
    """

    name: str
    caption: str
    has_ratios: bool = True
    is_sum: bool = False


class Results:
    """
    What was measured in all rounds.

    :param figures: of each case. A measurement may lack some of them.
    :param references: keys of the programs that ratios refer to.
    :param shows_spread: whether each ratio is followed by the quartiles of the rounds.
    """

    def __init__(
        self,
        figures: Sequence[Figure],
        references: Sequence[str] = (),
        *,
        shows_spread: bool = False,
    ) -> None:
        self._figures = figures
        self._references = references
        self._shows_spread = shows_spread
        self._rounds: dict[Subject, dict[str, list[Mapping[str, float]]]] = {}

    def add(self, subject: Subject, case: str, measured: Mapping[str, float]) -> None:
        """Take the figures of one round."""
        self._rounds.setdefault(subject, {}).setdefault(case, []).append(measured)

    def value(self, subject: Subject, case: str, figure: Figure) -> float | None:
        """The median or sum of the rounds; None when a round lacks the figure."""
        measured = self._values(subject, case, figure.name)
        if not measured:
            return None
        return sum(measured) if figure.is_sum else median(measured)

    def ratio(
        self, subject: Subject, reference: Subject, case: str, figure: Figure
    ) -> float | None:
        """The figure beside that of another subject in the same round: the median of the rounds."""
        ratios = self._ratios(subject, reference, case, figure)
        return median(ratios) if ratios else None

    def tables(self) -> Iterator[Table]:
        """The figures, the ratios to each reference, and those to the other checkout."""
        cases = list(dict.fromkeys(case for rounds in self._rounds.values() for case in rounds))
        # With a single case the figures are the columns, otherwise the cases are.
        groups = [self._figures] if len(cases) == 1 else [[figure] for figure in self._figures]
        for group in groups:
            columns = [(figure, case) for figure in group for case in cases]
            caption = "; ".join(figure.caption for figure in group)
            yield self._table(caption, columns, self._rounds, self._cell)
            compared = [column for column in columns if column[0].has_ratios]
            if compared:
                yield from self._ratio_tables(compared)

    def to_json(self) -> dict[str, Any]:
        """For programs: medians, and each round as it was."""
        return {
            subject.key: {
                "title": subject.title,
                "cases": {
                    case: {
                        **{f.name: self.value(subject, case, f) for f in self._figures},
                        "rounds": measured,
                    }
                    for case, measured in cases.items()
                },
            }
            for subject, cases in self._rounds.items()
        }

    def _values(self, subject: Subject, case: str, name: str) -> list[float]:
        rounds = self._rounds.get(subject, {}).get(case, [])
        return [measured[name] for measured in rounds] if all(name in m for m in rounds) else []

    def _ratios(
        self, subject: Subject, reference: Subject, case: str, figure: Figure
    ) -> list[float]:
        ours = self._values(subject, case, figure.name)
        theirs = self._values(reference, case, figure.name)
        if not ours or not theirs or not all(theirs):
            return []
        return [one / other for one, other in zip(ours, theirs, strict=True)]

    def _ratio_tables(self, columns: Sequence[tuple[Figure, str]]) -> Iterator[Table]:
        for key in self._references:
            for reference in self._rounds:
                if reference.key == key:
                    others = dict.fromkeys(self._rounds, reference)
                    yield self._ratio_table(f"ratio to {reference.title}", columns, others)
        this = {subject.key: subject for subject in self._rounds}
        others = {
            this[baseline.program.key]: baseline
            for baseline in self._rounds
            if baseline.baseline is not None
        }
        if others:
            yield self._ratio_table("ratio to the baseline's checkout", columns, others)

    def _ratio_table(
        self,
        caption: str,
        columns: Sequence[tuple[Figure, str]],
        references: Mapping[Subject, Subject],
    ) -> Table:
        def cell(subject: Subject, case: str, figure: Figure) -> str:
            ratios = self._ratios(subject, references[subject], case, figure)
            if not ratios:
                return _NOTHING
            text = f"{median(ratios):.2f}"
            if not self._shows_spread or len(ratios) < _FEWEST_FOR_SPREAD:
                return text
            lower, _, upper = quantiles(ratios, method="inclusive")
            return f"{text} ({lower:.2f}-{upper:.2f})"

        return self._table(f"The same as a {caption}", columns, references, cell)

    def _table(
        self,
        caption: str,
        columns: Sequence[tuple[Figure, str]],
        subjects: Mapping[Subject, object],
        cell: Callable[[Subject, str, Figure], str],
    ) -> Table:
        is_by_figure = len({case for _, case in columns}) == 1
        header = [figure.name if is_by_figure else case for figure, case in columns]
        rows = [
            [subject.title, *(cell(subject, case, figure) for figure, case in columns)]
            for subject in subjects
        ]
        return Table(caption, ["", *header], rows)

    def _cell(self, subject: Subject, case: str, figure: Figure) -> str:
        value = self.value(subject, case, figure)
        return _NOTHING if value is None else _format(value)


def _format(value: float) -> str:
    """Three significant digits, more of a large value; a count has no point."""
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
