"""``twistd twsock`` runs every service with its defaults."""

from __future__ import annotations

from twisted.application.service import IService
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from twsock.services.everything import Options, makeService
from twsock.services.stream import StreamService


class EverythingTests(SynchronousTestCase):
    """All services in one."""

    def test_it_holds_the_stream_service(self) -> None:
        """The echo of port 1337 is among them."""
        service = makeService(Options())
        self.assertTrue(verifyObject(IService, service))
        self.assertEqual([type(child) for child in service], [StreamService])  # type: ignore[attr-defined]

    def test_options_belong_to_the_services(self) -> None:
        """An option is refused here, in one line."""
        self.assertRaises(UsageError, Options().parseOptions, ["--framing", "line"])
