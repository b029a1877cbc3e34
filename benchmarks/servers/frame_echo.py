"""twsock's own echo, as it ships: idle timeout, counters and limits on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.servers.twisted_program import run
from twsock.protocols import FrameEchoFactory, UpgradePolicy, UpgradeToSsl
from twsock.tls import Certificate, ServerOptions, ServerTls

__all__: list[str] = []


def _make_secure_factory(reactor: Any, certificate: Path) -> FrameEchoFactory:
    tls = ServerTls(ServerOptions([Certificate.load(certificate)]))
    return FrameEchoFactory(reactor, upgrade=UpgradeToSsl(tls, UpgradePolicy.IMPLICIT))


if __name__ == "__main__":
    run(FrameEchoFactory, _make_secure_factory)
