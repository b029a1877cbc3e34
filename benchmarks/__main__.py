"""The command: ``python -m benchmarks NAME``; without a name it lists them."""

from __future__ import annotations

import sys

from benchmarks.commands import main

__all__: list[str] = []

if __name__ == "__main__":
    main(sys.argv[1:])
