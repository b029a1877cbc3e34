"""
Compiles a program in C and becomes it: what the kernel and a compiled loop cost, without Python.

Called by the programs `c_epoll` and `c_datagram`. The process keeps its number, and nothing is left
on disk.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

__all__ = ["become"]


def become(source: Path) -> NoReturn:
    """
    Compile a source and run it in place of this process.

    :raises subprocess.CalledProcessError: when it does not compile; the compiler has said why.
    """
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, source.stem)
        command = ["cc", "-O2", "-o", str(program), str(source)]
        subprocess.run(command, check=True, stdout=sys.stderr)
        descriptor = os.open(program, os.O_RDONLY)
    os.execve(descriptor, [source.stem], os.environ)
