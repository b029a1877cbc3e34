"""
The command ``twsock``: a client of the services, for terminals and scripts.

`main` reads the command line (`twsock.cli.arguments`), runs one conversation on a reactor
(`twsock.cli.stream` on a connection, `twsock.cli.datagram` without one), and turns its end into
an exit status.
"""

from twsock.cli.main import main

__all__ = ["main"]
