"""
twsock's stream service with the options of a process, such as ``--metrics`` and ``--workers``.

The rest of the command line is that of ``twistd twsock-stream``. A page of ``--metrics`` listens on
the abstract UNIX socket that `page_of` names. The log is formatted as by twistd, and dropped.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.programs.serving import HOST, install, make_parser

__all__ = ["main", "page_of"]


def page_of(pid: int) -> str:
    """Return the abstract UNIX address of the page of a process."""
    return f"\0twsock-benchmark-{pid}"


class _TwistdOptions(dict[str, Any]):
    subCommand = "twsock-stream"  # noqa: N815 - an attribute of Twisted's options


def main(argv: Sequence[str]) -> None:
    """Serve with the options of the command line."""
    parser = make_parser()
    parser.add_argument("--metrics", action="store_true", help="serve the page of metrics")
    options, rest = parser.parse_known_args(argv)
    reactor = install(options.reactor)

    # Not at the top, as these modules import a reactor.
    from twisted.logger import globalLogBeginner, textFileLogObserver

    from twsock.services.stream import Options, makeService

    with Path(os.devnull).open("w") as dropped:
        globalLogBeginner.beginLoggingTo([textFileLogObserver(dropped)], redirectStandardIO=False)
        given = Options()
        # The options of twistd, which starts the workers with the twsock of this checkout.
        twistd: Any = _TwistdOptions(nodaemon=True, pidfile="", reactor=options.reactor)
        given.parent = twistd
        os.environ["PYTHONPATH"] = sys.path[0]
        page = ("--metrics", f"unix:{page_of(os.getpid())}") if options.metrics else ()
        given.parseOptions(["--endpoint", f"tcp:0:interface={HOST}", *page, *rest])
        process: Any = makeService(given)
        process.privilegedStartService()
        process.startService()
        (service,) = process
        port = service.ports[0].getHost().port
        # Once all workers serve.
        service.opening.addCallback(lambda _: print(port, flush=True))
        reactor.addSystemEventTrigger("before", "shutdown", process.stopService)
        reactor.run()
