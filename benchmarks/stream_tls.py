"""``python -m benchmarks stream-tls``: what an echoed frame costs a server over TLS."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from benchmarks import stream
from benchmarks.programs import TLS_SERVERS

__all__ = ["BENCHMARK"]

BENCHMARK: Final = replace(
    stream.BENCHMARK, name="stream-tls", programs=TLS_SERVERS, is_secure=True
)
