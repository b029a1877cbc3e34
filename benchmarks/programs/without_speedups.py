"""Runs another program as it runs where the extra ``speedups`` of twsock is not installed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

__all__ = ["main"]


def main(argv: Sequence[str]) -> None:
    """Run a program of this package; it must not have been imported before."""
    program, *arguments = argv
    modules: dict[str, Any] = sys.modules
    modules["websockets.speedups"] = None  # An import of it fails.
    importlib.import_module(f"benchmarks.programs.{program}").main(arguments)
