"""The private parts of Twisted that imd.ops depends on are there."""

from __future__ import annotations

from pathlib import Path

from twisted.logger import FileLogObserver, globalLogPublisher, textFileLogObserver
from twisted.python.logfile import LogFile
from twisted.trial import unittest

from imd.ops.twisted_internals import log_files


class InternalsTests(unittest.TestCase):
    def test_log_files(self) -> None:
        """The file of an observer is found while it observes."""
        self.assertTrue(hasattr(globalLogPublisher, "_observers"), "LogPublisher._observers is gone")
        folder = Path(self.mktemp())
        folder.mkdir()
        file = LogFile("node.log", str(folder))
        self.addCleanup(file.close)
        observer = textFileLogObserver(file)
        self.assertIsInstance(observer, FileLogObserver)
        self.assertTrue(hasattr(observer, "_outFile"), "FileLogObserver._outFile is gone")
        globalLogPublisher.addObserver(observer)
        try:
            self.assertIn(file, list(log_files()))
        finally:
            globalLogPublisher.removeObserver(observer)
        self.assertNotIn(file, list(log_files()))
