"""
Compiles a program in C and becomes it: what the kernel and a compiled loop cost, without Python.

The process keeps its number, and nothing is left on disk.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

__all__ = ["main"]


def main(argv: Sequence[str]) -> NoReturn:
    """
    Compile a source of this folder and run it in place of this process.

    :raises subprocess.CalledProcessError: when it does not compile; the compiler has said why.
    """
    (name,) = argv
    source = Path(__file__).with_name(f"{name}.c")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, name)
        command = ["cc", "-O2", "-o", str(program), str(source)]
        subprocess.run(command, check=True, stdout=sys.stderr)
        descriptor = os.open(program, os.O_RDONLY)
    os.execve(descriptor, [name], os.environ)
