"""Services accept no more connections than they have descriptors for."""

from __future__ import annotations

import resource

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from twsock.services.connection_limit import (
    MOST_CONNECTIONS,
    RESERVED_DESCRIPTORS,
    default_max_connections,
)
from twsock.services.stream import stream_service


class DefaultTests(SynchronousTestCase):
    """The limit on open files decides, up to a point."""

    def limit_descriptors(self, count: int) -> None:
        """Lower or raise the limit of this process, as far as it may."""
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, limits[1]))

    def test_some_descriptors_are_left(self) -> None:
        """For logs, ports and certificates."""
        self.limit_descriptors(1000)
        self.assertEqual(default_max_connections(), 1000 - RESERVED_DESCRIPTORS)

    def test_of_few_most_are_for_connections(self) -> None:
        """A service that accepts nobody would be none."""
        self.limit_descriptors(80)
        self.assertEqual(default_max_connections(), 70)

    def test_enough_is_enough(self) -> None:
        """However many descriptors there may be."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard != resource.RLIM_INFINITY and hard < MOST_CONNECTIONS + RESERVED_DESCRIPTORS:
            self.skipTest(f"this process may have {hard} descriptors at most")
        self.limit_descriptors(MOST_CONNECTIONS + RESERVED_DESCRIPTORS + 1)
        self.assertEqual(default_max_connections(), MOST_CONNECTIONS)

    def test_the_service_has_it_unless_told_otherwise(self) -> None:
        """What was asked for comes first, more than there are descriptors included."""
        self.limit_descriptors(1000)
        for asked, expected in ((None, 1000 - RESERVED_DESCRIPTORS), (7, 7), (5000, 5000)):
            service = stream_service(
                MemoryReactorClock(), ["tcp:1:interface=127.0.0.1"], max_connections=asked
            )
            self.assertEqual(service.factory.group.max_connections, expected)
