"""
Tests of twsock.

They mirror its folders: `tests/wire/test_frames.py` is for `twsock/wire/frames.py`.
"""

from hypothesis import HealthCheck, settings

# No test fails because the machine is slow: neither an example nor their generation has a time.
settings.register_profile("twsock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("twsock")
