"""System calls of writes, counted with strace."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

_TOP = Path(__file__).parents[2]
_STRACE = shutil.which("strace")


class SystemCallTests(SynchronousTestCase):
    """Five writes of thirteen bytes, in a traced process."""

    if _STRACE is None:
        skip = "strace is not installed"

    def sends(self, way: str) -> int:
        """Count the calls that carried the message."""
        trace = Path(self.mktemp()).absolute()
        traced = subprocess.run(
            [
                *(str(_STRACE), "-f", "--seccomp-bpf", "-s", "100"),
                *("-e", "trace=sendto,sendmsg,write,writev"),
                *("-o", str(trace), sys.executable, "examples/batched_sends.py", way, "1"),
            ],
            cwd=_TOP,
            env={"PYTHONPATH": str(_TOP)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if not trace.exists() or "Operation not permitted" in traced.stderr:
            self.skipTest(f"strace may not trace here: {traced.stderr[:100]}")
        self.assertEqual(traced.returncode, 0, traced.stderr)
        return trace.read_text().count('"Hello, World!')

    def test_writes_awaited_one_by_one_are_five_calls(self) -> None:
        """Each is with the kernel before the next begins."""
        self.assertEqual(self.sends("awaited"), 5)

    def test_writes_awaited_together_are_one_call(self) -> None:
        """The first await sends the others too."""
        self.assertEqual(self.sends("together"), 1)

    def test_writes_and_a_flush_are_one_call(self) -> None:
        """No write is awaited."""
        self.assertEqual(self.sends("flushed"), 1)
