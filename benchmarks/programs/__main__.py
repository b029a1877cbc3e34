"""
Runs a program on the twsock of a checkout: ``python -m benchmarks.programs CHECKOUT MODULE ...``.

The program itself is of this checkout, as `benchmarks` has been imported from here by now.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

__all__: list[str] = []


def _use(checkout: Path) -> None:
    """
    Have twsock imported from a checkout.

    :raises ImportError: when the import would find another twsock.
    """
    sys.path.insert(0, str(checkout))
    found = importlib.util.find_spec("twsock")
    if found is None or found.origin is None or not Path(found.origin).is_relative_to(checkout):
        raise ImportError(f"twsock would not come from {checkout}")


if __name__ == "__main__":
    _, _checkout, _module, *_arguments = sys.argv
    _use(Path(_checkout))
    importlib.import_module(f"benchmarks.programs.{_module}").main(_arguments)
