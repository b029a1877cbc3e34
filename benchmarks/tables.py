"""
Tables as text for a terminal and as Markdown for a document.

Filled by `benchmarks.results` and `benchmarks.structure`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Table"]


@dataclass(frozen=True, slots=True)
class Table:
    """
    Rows of cells under a header; the first column holds names, the others figures.

    :ivar caption: what the figures are.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def to_text(self) -> str:
        """Aligned with blanks."""
        lines = [self.header, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        aligned = [
            "  ".join(
                cell.ljust(width) if number == 0 else cell.rjust(width)
                for number, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        return "\n".join([self.caption, "", *aligned])

    def to_markdown(self) -> str:
        """The caption as a paragraph, then the table."""
        rule = ["---", *("---:" for _ in self.header[1:])]
        lines = ["| " + " | ".join(line) + " |" for line in (self.header, rule, *self.rows)]
        return "\n".join([f"{self.caption}:", "", *lines])
