"""
``twsock certificates init``: a folder and names → three files → **what to type next**.
"""

from __future__ import annotations

import shlex

from twsock.cli.arguments import InitArguments
from twsock.cli.failure import CommandError
from twsock.cli.screen import Screen
from twsock.errors import SocketError
from twsock.tls.development import make_certificates

__all__ = ["init_certificates"]


def init_certificates(arguments: InitArguments, screen: Screen) -> None:
    """
    Make an authority, a server's and a client's certificate, and say how to use them.

    :raises CommandError: when the folder is not empty, or cannot be written.
    """
    names = arguments.names
    try:
        files = make_certificates(arguments.directory, names, key=arguments.key)
    except SocketError as error:
        raise CommandError(str(error)) from error
    # Absolute, as the two commands below may be typed in different folders.
    authority, server, client = (
        str(path.absolute()) for path in (files.authority, files.server, files.client)
    )
    screen.say(f"{authority}: an authority, for those who are to trust the other two")
    screen.say(f"{server}: a server's certificate and its key, for {', '.join(names)}")
    screen.say(f"{client}: a client's certificate and its key")
    offer = ["twistd", "--pidfile=", "-n", "twsock-stream", "--tls", "--certificate", server]
    use = ["twsock", "echo", "tcp:127.0.0.1:1337", "Hello", "--tls", "--ca", authority]
    if "127.0.0.1" not in names:
        use += ["--name", names[0]]
    screen.say("")
    screen.say("Try them out in two terminals:")
    screen.say(f"  {shlex.join(offer)}")
    screen.say(f"  {shlex.join(use)}")
