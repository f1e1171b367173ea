"""The private part of Twisted that stores use: the log of a ClientService.

A ClientService logs each try to connect, and cannot be told not to. While a server is away that is a line
every few seconds, and the connection itself has said once what is wrong.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.application.internet import ClientService
from twisted.logger import Logger, LogPublisher


class QuietClientService(ClientService):
    """A ClientService that logs nothing."""

    _log = Logger(observer=cast(Any, LogPublisher()))


def missing_parts() -> list[str]:
    """Names of the parts above that the installed Twisted does not have."""
    return [] if isinstance(getattr(ClientService, "_log", None), Logger) else ["ClientService._log"]
