"""
The command: ``python -m benchmarks NAME``; without a name it lists them.

Each name is a module of this package with a ``main`` that takes the rest of the command line.
"""

from __future__ import annotations

import importlib
import sys
from typing import Final

__all__ = ["COMMANDS", "main"]

#: Name, which is also that of its module → what it measures.
COMMANDS: Final = {
    "structure": "modules, lines and imports of twsock, and what it costs to import it",
}


def main(argv: list[str]) -> None:
    """Run one command; list them when there is none, and end with status 2 for a wrong one."""
    if not argv or argv[0] in {"-h", "--help"}:
        width = max(map(len, COMMANDS))
        print("\n".join(f"{name:{width}}  {summary}" for name, summary in COMMANDS.items()))
        return
    name, *rest = argv
    if name not in COMMANDS:
        print(f"python -m benchmarks: {name!r} is none of {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    importlib.import_module(f"benchmarks.{name}").main(rest)


if __name__ == "__main__":
    main(sys.argv[1:])
