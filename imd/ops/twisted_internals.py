"""The private parts of Twisted that operators' features depend on.

Two things have no public name: the path of a `unix:` endpoint, which must be known to remove a socket that a
killed process has left, and the files that twistd logs to, which must be opened anew after a rotation. A new
version of Twisted may lose them: tests/unit/ops/test_twisted_internals.py names the ones that are gone.
"""

from __future__ import annotations

from collections.abc import Iterator

from twisted.internet.endpoints import serverFromString
from twisted.logger import globalLogPublisher
from twisted.python.logfile import BaseLogFile


def unix_path(endpoint: str) -> str:
    """The path of the socket in the description of a `unix:` endpoint."""
    return str(getattr(serverFromString(None, endpoint), "_address", ""))


def log_files() -> Iterator[BaseLogFile]:
    """The files that this process logs to, if any."""
    for observer in list(getattr(globalLogPublisher, "_observers", ())):
        file = getattr(observer, "_outFile", None)
        if isinstance(file, BaseLogFile):
            yield file
