"""Compiles ``c_datagram.c`` and becomes it."""

from __future__ import annotations

from pathlib import Path

from benchmarks.servers.c_program import become

__all__: list[str] = []

if __name__ == "__main__":
    become(Path(__file__).with_suffix(".c"))
