"""
A process that has imported the command, and forks for each run: 0.03 s instead of 0.6.

Started by `tests.cli.conversations`. A request is a message with the words and the variables of the
environment as JSON, and four descriptors: the standard streams of the run, and a socket for its
process id and its exit status. A run ends without the end of the interpreter, which takes longer
than all the rest; tests of what happens there start a process of their own.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys

import twsock.cli.datagram
import twsock.cli.stream
import twsock.cli.websocket  # noqa: F401
from twsock.cli import main

__all__: list[str] = []


def serve(control: socket.socket) -> list[str] | None:
    """Fork for each request; in the forked process, return the words of the run."""
    while True:
        message, descriptors, *_ = socket.recv_fds(control, 1_000_000, 4)
        if not message:
            return None
        if os.fork() == 0:
            control.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            *streams, reply = descriptors
            run = os.fork()
            if run == 0:
                os.close(reply)
                return prepare(message, streams)
            report(reply, run, streams)
        for descriptor in descriptors:
            os.close(descriptor)


def report(reply: int, run: int, streams: list[int]) -> None:
    """Send the process id of the run, and its exit status when it has one."""
    for descriptor in (0, 1, 2, *streams):
        os.close(descriptor)
    os.write(reply, b"%d\n" % run)
    _, status = os.waitpid(run, 0)
    os.write(reply, b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def prepare(message: bytes, streams: list[int]) -> list[str]:
    """Have the streams and the environment of the run."""
    request = json.loads(message)
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.stdin = os.fdopen(0, closefd=False, encoding="utf-8")
    sys.stdout = os.fdopen(1, "w", closefd=False, encoding="utf-8")
    sys.stderr = os.fdopen(2, "w", 1, closefd=False, encoding="utf-8", errors="backslashreplace")
    return list(request["words"])


if __name__ == "__main__":
    # Nobody waits for the processes that report.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as requests:
        words = serve(requests)
    if words is not None:
        try:
            main(words)
        except SystemExit as ended:
            status = ended.code
        else:
            status = 0
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(int(status or 0))
