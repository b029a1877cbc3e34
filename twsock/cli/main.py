"""
From a command line to an exit status: words → command → **reactor** → status.

The first word chooses the command, and each command imports its modules only when it runs: neither
``--help`` nor a wrong command line loads Twisted.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twsock.cli.output import EXIT_SIGNAL, CommandError, UsageError, open_output

if TYPE_CHECKING:
    from twsock.cli.arguments import EchoArguments

__all__ = ["COMMANDS", "Command", "main", "run_on_reactor"]


class Command(NamedTuple):
    """
    One command.

    :ivar purpose: what it does, in a few words.
    :ivar run: called with the words after its name; returns the exit status.
    """

    purpose: str
    run: Callable[[Sequence[str]], int]


_HELP: Final = """\
usage: twsock [--help] [--version] COMMAND ...

Test and restart the services of twsock, or make certificates for them.

commands:
{commands}

options:
  -h, --help    show this help message and exit
  --version     show the version and exit

"twsock COMMAND --help" describes a command.

The servers are run by twistd: "twistd --pidfile= -n twsock" starts them all,
and "twistd --help" lists them one by one."""


def main(argv: Sequence[str] | None = None) -> None:
    """
    Run the command ``twsock``.

    :param argv: the words after the name of the program; None for those of this process.
    :raises SystemExit: with the exit status, unless that is 0.
    """
    try:
        code = _run_command(sys.argv[1:] if argv is None else argv)
    except CommandError as failed:
        if failed.line and sys.stderr is not None:
            print(f"twsock: {failed.line}", *failed.details, sep="\n  ", file=sys.stderr)
        code = failed.exit_code
    except KeyboardInterrupt:
        code = EXIT_SIGNAL + signal.SIGINT
    if code:
        sys.exit(code)


def _run_command(words: Sequence[str]) -> int:
    first = words[0] if words else ""
    if first in COMMANDS:
        return COMMANDS[first].run(words[1:])
    if first in ("-h", "--help"):
        lines = (f"  {name:<12}  {command.purpose}" for name, command in COMMANDS.items())
        open_output().say(_HELP.format(commands="\n".join(lines)))
    elif first == "--version":
        open_output().say(f"twsock {_find_version()}")
    else:
        mistake = f"there is no command {first!r}" if words else "a command is missing"
        raise UsageError(f"{mistake}; see twsock --help")
    return 0


def _run_echo(words: Sequence[str]) -> int:
    from twsock.cli.arguments import parse_echo

    arguments = parse_echo(words)
    # Imported here: until now nothing needed it, and an application chooses its reactor by itself.
    from twisted.internet import reactor

    from twsock.cli.resolver import ThreadResolver

    reactor.installNameResolver(ThreadResolver(reactor))  # type: ignore[attr-defined, arg-type]
    return run_on_reactor(reactor, _prepare_echo(reactor, arguments))


def _prepare_echo(
    reactor: Any, arguments: EchoArguments
) -> Callable[[], Coroutine[Any, Any, None]]:
    """
    Check everything that can be checked before there is a connection.

    :returns: starts the conversation.
    :raises CommandError: with the reason why there can be none.
    """
    if arguments.has_datagrams:
        from twsock.cli.datagram import prepare_datagrams

        return prepare_datagrams(reactor, arguments)
    if arguments.is_websocket:
        from twsock.cli.websocket import prepare_websocket

        return prepare_websocket(reactor, arguments)
    from twsock.cli.stream import prepare_stream

    return prepare_stream(reactor, arguments)


def _run_certificates(words: Sequence[str]) -> int:
    from twsock.cli.arguments import parse_certificates

    arguments = parse_certificates(words)
    from twsock.cli.tls import init_certificates

    init_certificates(arguments, open_output())
    return 0


def _run_restart(words: Sequence[str]) -> int:
    from twsock.cli.arguments import parse_restart

    arguments = parse_restart(words)
    from twsock.cli.restart import restart

    restart(arguments, open_output())
    return 0


#: A new command is a parser in `twsock.cli.arguments`, a function that runs it, and a line here.
COMMANDS: Final = {
    "echo": Command("send messages to an echo server, and compare the answers", _run_echo),
    "certificates": Command("make certificates to test TLS", _run_certificates),
    "restart": Command("replace a running service without a lost connection", _run_restart),
}


def run_on_reactor(reactor: Any, start: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """
    Run a coroutine on a reactor that is started for it.

    Much like `twisted.internet.task.react`, with two differences: an error is raised here, and
    Ctrl-C cancels the coroutine, which ends its connection before the process ends.

    :returns: 0, or the exit status for the signal that ended it.
    """
    from twisted.internet.defer import Deferred

    outcome: list[Any] = []
    ended_by: list[int] = []

    def begin() -> None:
        working: Deferred[None] = Deferred.fromCoroutine(start())

        def interrupt(number: int, _frame: object) -> None:
            ended_by.append(number)
            # Whatever keeps us from ending, the next one ends the process.
            signal.signal(number, signal.SIG_DFL)
            reactor.callFromThread(working.cancel)

        # The reactor's own handlers, installed by now, would stop it under the conversation.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, interrupt)
        working.addBoth(outcome.append)
        # A turn later: a connection that was aborted just now is closed by then.
        working.addBoth(lambda _: reactor.callLater(0, reactor.stop))

    reactor.callWhenRunning(begin)
    reactor.run()
    if ended_by:
        return EXIT_SIGNAL + ended_by[0]
    if not outcome:  # A signal stopped the reactor before anything could begin.
        return EXIT_SIGNAL + signal.SIGINT
    if outcome[0] is not None:
        outcome[0].raiseException()
    return 0


def _find_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("twsock")
    except PackageNotFoundError:
        return "(run from a folder where it is not installed)"
