"""
An echo on bare pyOpenSSL, without Twisted, to measure what OpenSSL needs for an idle connection.

One dictionary holds a socket and an ``SSL.Connection`` for each client. The program echoes bytes
without regard to frames, and waits until the kernel has taken an answer.
"""

from __future__ import annotations

import argparse
import select
import socket
from collections.abc import Sequence
from pathlib import Path

from OpenSSL import SSL

__all__ = ["main"]

_RECEIVE = 64 * 1024


def _make_context(file: Path) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    # Twisted sets this mode, too. Without it each idle connection keeps buffers of 32 KiB.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.use_privatekey_file(str(file))
    context.use_certificate_file(str(file))
    return context


def _answer(plain: socket.socket, tls: SSL.Connection) -> bool:
    """Echo the bytes that have arrived; return False at the end of the connection."""
    data = plain.recv(_RECEIVE)
    if not data:
        return False
    tls.bio_write(data)
    try:
        while True:
            tls.send(tls.recv(_RECEIVE))
    except SSL.WantReadError:
        pass
    except SSL.ZeroReturnError:
        return False
    try:
        plain.sendall(tls.bio_read(_RECEIVE))
    except SSL.WantReadError:
        pass
    return True


def main(argv: Sequence[str]) -> None:
    """Serve as the command line says, until a signal ends the process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tls", type=Path, metavar="FILE", required=True)
    context = _make_context(parser.parse_args(argv).tls)
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(listening.getsockname()[1], flush=True)
    connections: dict[int, tuple[socket.socket, SSL.Connection]] = {}
    poll = select.epoll()
    poll.register(listening, select.EPOLLIN)
    while True:
        for descriptor, _event in poll.poll():
            if descriptor == listening.fileno():
                plain, _address = listening.accept()
                tls = SSL.Connection(context, None)
                tls.set_accept_state()
                connections[plain.fileno()] = plain, tls
                poll.register(plain, select.EPOLLIN)
            elif not _answer(*connections[descriptor]):
                connections.pop(descriptor)[0].close()
