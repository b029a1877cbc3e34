"""
From a command line to an exit status: arguments → **reactor** → conversation → status.

Certificates are made without a reactor.

Much like `twisted.internet.task.react`, with two differences: a failure is one line, and Ctrl-C
lets the conversation end its connection before the process ends.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import IO, Any, Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twsock.cli.arguments import EchoArguments, InitArguments, parse_arguments
from twsock.cli.certificates import init_certificates
from twsock.cli.datagram_echo import echo_datagrams
from twsock.cli.datagram_target import parse_target
from twsock.cli.echo import echo
from twsock.cli.endpoint import parse_endpoint
from twsock.cli.failure import CommandError
from twsock.cli.made_texts import MadeTexts, describe_made, describe_numbered
from twsock.cli.progress import Progress
from twsock.cli.screen import Screen
from twsock.cli.security import prepare_upgrade, warn_of_exposed_key
from twsock.cli.texts import GivenTexts, InputLines, Texts
from twsock.cli.threads import ThreadResolver, in_thread

__all__ = ["main"]

#: What a shell adds to the number of the signal that ended a program.
_EXIT_SIGNAL: Final = 128

#: One read of standard input, in bytes.
_READ_SIZE: Final = 64 * 1024


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
        code = _EXIT_SIGNAL + signal.SIGINT
    if code:
        _drop_unwritten_output()
        sys.exit(code)


def _run_command(words: Sequence[str]) -> int:
    arguments = parse_arguments(words)
    if isinstance(arguments, InitArguments):
        init_certificates(arguments, _make_screen())
        return 0
    # Imported here, so that a program can choose its reactor after it imported this module.
    from twisted.internet import reactor

    return _run_echo(reactor, arguments)


def _run_echo(reactor: Any, arguments: EchoArguments) -> int:
    reactor.installNameResolver(ThreadResolver(reactor))
    if arguments.has_datagrams:
        return _run_datagram_echo(reactor, arguments)
    endpoint = parse_endpoint(reactor, arguments.endpoint, arguments.timeout)
    security, upgrade = arguments.security, None
    if security is not None:
        upgrade = prepare_upgrade(security, arguments.endpoint, arguments.timeout)
    texts = _find_texts(reactor, arguments)
    screen = _make_echo_screen(arguments, texts)
    if security is not None:
        warn_of_exposed_key(security, screen)
    return _run(
        reactor,
        lambda: echo(reactor, endpoint, arguments, texts, screen, time.perf_counter, upgrade),
    )


def _run_datagram_echo(reactor: Any, arguments: EchoArguments) -> int:
    target = parse_target(arguments.endpoint)
    texts = _find_texts(reactor, arguments)
    screen = _make_echo_screen(arguments, texts)
    return _run(
        reactor,
        lambda: echo_datagrams(reactor, target, arguments, texts, screen, time.perf_counter),
    )


def _run(reactor: Any, start: Callable[[], Coroutine[Deferred[Any], Any, None]]) -> int:
    """
    Run a coroutine on a reactor that is started for it.

    :returns: 0, or the exit status for the signal that ended it.
    """
    failures: list[Failure] = []
    ended_by: list[int] = []
    finished: list[None] = []

    def begin() -> None:
        working = Deferred.fromCoroutine(start())

        def interrupt(number: int, _frame: object) -> None:
            ended_by.append(number)
            # Whatever keeps us from ending, the next one ends the process.
            signal.signal(number, signal.SIG_DFL)
            reactor.callFromThread(working.cancel)

        # The reactor's own handlers, installed by now, would stop it under the conversation.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, interrupt)
        working.addCallbacks(finished.append, failures.append)
        # A turn later: a connection that was aborted just now is closed by then.
        working.addBoth(lambda _: reactor.callLater(0, reactor.stop))

    reactor.callWhenRunning(begin)
    reactor.run()
    if ended_by:
        return _EXIT_SIGNAL + ended_by[0]
    if failures:
        failures[0].raiseException()
    # The reactor was stopped by a signal before anything could begin.
    return 0 if finished else _EXIT_SIGNAL + signal.SIGINT


def _find_texts(reactor: Any, arguments: EchoArguments) -> Texts:
    if arguments.size is not None:
        return MadeTexts(arguments.size, arguments.count, is_numbered=arguments.has_datagrams)
    if arguments.texts:
        return GivenTexts(arguments.texts)
    source = _open_stream(sys.stdin, "input").fileno()

    def read() -> Deferred[bytes]:
        # Not from `sys.stdin`: a thread waiting in there holds a lock that Python wants at its end.
        return in_thread(reactor, os.read, source, _READ_SIZE)

    limit = "a datagram" if arguments.has_datagrams else "--max-frame"
    return InputLines(read, arguments.max_frame, limit)


def _make_echo_screen(arguments: EchoArguments, texts: Texts) -> Screen:
    describe = None
    if arguments.size is not None:
        describe = describe_numbered if arguments.has_datagrams else describe_made
    progress = _make_progress(arguments, texts)
    return _make_screen(quiet=arguments.quiet, progress=progress, describe=describe)


def _make_screen(
    *,
    quiet: bool = False,
    progress: Progress | None = None,
    describe: Callable[[bytes], str] | None = None,
) -> Screen:
    output = _open_stream(sys.stdout, "output")
    return Screen(
        output.buffer,  # type: ignore[attr-defined]
        encoding=output.encoding,  # type: ignore[attr-defined]
        is_terminal=output.isatty(),
        quiet=quiet,
        progress=progress,
        notes=sys.stderr,
        describe=describe,
    )


def _make_progress(arguments: EchoArguments, texts: Texts) -> Progress | None:
    """Make a bar where a person can see it, and is not typing into it."""
    terminal = sys.stderr
    if terminal is None or not terminal.isatty() or os.environ.get("TERM") == "dumb":
        return None
    if texts.total is None and sys.stdin.isatty():
        return None
    total = None if texts.total is None else texts.total * arguments.repeats

    def find_columns() -> int:
        # A terminal that was never told its size has 0.
        return os.get_terminal_size(terminal.fileno()).columns or 80

    return Progress(terminal, total, find_columns, time.monotonic)


def _open_stream(stream: IO[str] | None, name: str) -> IO[str]:
    # Python has None for a stream that was closed when the process began.
    if stream is None:
        raise CommandError(f"standard {name} is closed")
    return stream


def _drop_unwritten_output() -> None:
    """Keep Python from writing, at its end, what could not be written before."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
