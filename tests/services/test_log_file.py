"""A log file to which two processes write."""

from __future__ import annotations

import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from twsock.services.log_file import SharedLogFile


class SharedLogFileTests(SynchronousTestCase):
    """Two objects, as in two processes, for one file."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "twistd.log"

    def open(self) -> SharedLogFile:
        """Open the file once more."""
        file: SharedLogFile = SharedLogFile.fromFullPath(str(self.path))
        self.addCleanup(file.close)
        return file

    def test_no_line_overwrites_another(self) -> None:
        """Each write goes to the end, wherever the writer was before."""
        old, new = self.open(), self.open()
        for number in range(3):
            old.write(f"old {number}\n")
            new.write(f"new {number}\n")
        lines = [f"{which} {number}" for number in range(3) for which in ("old", "new")]
        self.assertEqual(self.path.read_text().splitlines(), lines)

    def test_no_line_is_lost_when_one_rotates(self) -> None:
        """The other goes on in the rotated file."""
        old, new = self.open(), self.open()
        old.write("old 0\n")
        new.rotate()
        new.write("new 0\n")
        old.write("old 1\n")
        rotated = self.path.with_name("twistd.log.1").read_text()
        self.assertEqual((rotated, self.path.read_text()), ("old 0\nold 1\n", "new 0\n"))
        again = self.open()
        again.write("again\n")
        new.write("new 1\n")
        self.assertEqual(self.path.read_text(), "new 0\nagain\nnew 1\n")
