"""Skips of the tests that need an extra of the package, where it is not installed."""

import importlib.util
from typing import Final
from unittest import skipIf

#: For tests of what `rich` draws; the command does without the bar and the tables elsewhere.
needs_rich: Final = skipIf(
    importlib.util.find_spec("rich") is None,
    "rich, which draws the bar and the tables, is not installed",
)
