"""The private parts of Twisted that operators' features depend on.

The files that twistd logs to have no public name, and must be opened anew after a rotation. A new version of
Twisted may lose the names: tests/unit/ops/test_twisted_internals.py says which ones are gone.
"""

from __future__ import annotations

from collections.abc import Iterator

from twisted.logger import globalLogPublisher
from twisted.python.logfile import BaseLogFile


def log_files() -> Iterator[BaseLogFile]:
    """The files that this process logs to, if any."""
    for observer in list(getattr(globalLogPublisher, "_observers", ())):
        file = getattr(observer, "_outFile", None)
        if isinstance(file, BaseLogFile):
            yield file
