"""
Tests of twsock.

They mirror its folders: `tests/wire/test_frames.py` is for `twsock/wire/frames.py`.

There are three profiles. The daily one leaves repetition out: variants of a claim run on one
reactor, state models try an eighth of their examples, one way of installing is tried, a benchmark
measures one of several similar programs, and outside programs are not run.
``TWSOCK_TESTS=thorough`` runs all of it. ``TWSOCK_TESTS=machines`` also starts machines with
systemd, as root (`tests.machine`).
"""

import os
from typing import Final

from hypothesis import HealthCheck, settings

_PROFILE: Final = os.environ.get("TWSOCK_TESTS", "daily")
if _PROFILE not in ("daily", "thorough", "machines"):
    raise ValueError(f"TWSOCK_TESTS is {_PROFILE!r}: neither daily, thorough nor machines")

#: Whether all repetition runs.
THOROUGH: Final = _PROFILE != "daily"

#: Whether machines with systemd may be started.
MACHINES: Final = _PROFILE == "machines"

# No test fails because the machine is slow: neither an example nor their generation has a time.
settings.register_profile("twsock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("twsock")
