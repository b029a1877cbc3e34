"""
The command ``twsock``: the client's side of the services, for people and for scripts.

`main` reads the command line (`twsock.cli.arguments`), runs one conversation (`twsock.cli.echo`) on
a reactor (`twsock.cli.command`), and turns its end into an exit status.
"""

from twsock.cli.command import main

__all__ = ["main"]
