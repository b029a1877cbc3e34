"""
The first parent of the program that `twsock.cli.restart` starts; a program of its own.

It ends as soon as its standard input does, and the kernel gives the program to the next parent: to
systemd, which waits for a service only if the main process is a child of its own. The command
itself cannot be this parent, as it ends later than the restart.

The first line on the descriptor of the reports is the process id of the program, or why it cannot
be started. The second is its exit status, negative for a signal. Until this process ends, nobody
reaps the program, so that its process id stays its own.
"""

from __future__ import annotations

import os
import select
import signal
import sys

__all__ = ["main"]


def main(report: int, command: list[str]) -> None:
    """Start a program in a session of its own, without input, and report its end."""
    os.set_inheritable(report, False)
    try:
        process = os.posix_spawnp(
            command[0],
            command,
            os.environ,
            file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
            setsid=True,
            setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGPIPE],
        )
    except OSError as error:
        os.write(report, f"{error.strerror}\n".encode())
        return
    os.write(report, f"{process}\n".encode())
    ended = os.pidfd_open(process)
    ready, _, _ = select.select([0, ended], [], [])
    if ended in ready:
        result = os.waitid(os.P_PIDFD, ended, os.WEXITED | os.WNOWAIT)
        assert result is not None
        is_exit = result.si_code == os.CLD_EXITED
        os.write(report, f"{result.si_status if is_exit else -result.si_status}\n".encode())
        os.read(0, 1)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
