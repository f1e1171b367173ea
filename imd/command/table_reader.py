"""Reads the table of nodes for a command: blocking, with a connection that is made anew when it fails."""

from __future__ import annotations

import time

from imd.command.findings import say
from imd.command.redis_client import RedisClient, RedisError
from imd.config.settings import Settings, load
from imd.gateway.table import LEASE_SECONDS, Reading, Words, read, reading
from imd.protocol.errors import ConfigurationError

LOOK_SECONDS = 0.5
"""between two looks while a table is waited for"""


class NoTable(Exception):
    """Redis does not answer, or not with a table; the text says why."""


def cluster_settings(path: str) -> Settings:
    """A configuration of a cluster. Raises ConfigurationError for any other."""
    settings = load(path)
    if settings.node.backend != "cluster":
        raise ConfigurationError(
            f"{path}: [node] backend = embedded: that is one node, without a table of nodes"
        )
    return settings


class TableReader:
    """`seconds` is the deadline of each command."""

    def __init__(self, settings: Settings, seconds: float = 5.0) -> None:
        self._url = settings.redis.url
        self._seconds = seconds
        self._client: RedisClient | None = None

    def run(self, words: Words) -> object:
        """The reply to one command. Raises NoTable."""
        try:
            if self._client is None:
                self._client = RedisClient(self._url, self._seconds)
            return self._client(*words)
        except RedisError as error:
            raise NoTable(f"redis: {say(error)}") from None
        except OSError as error:
            self.close()
            raise NoTable(f"redis does not answer: {say(error)}") from None

    def read(self) -> Reading:
        """The table as it is. Raises NoTable."""
        try:
            return reading(self.run(read()))
        except ValueError as error:
            raise NoTable(f"redis: {error}") from None

    def wait_for_table(self, seconds: float = LEASE_SECONDS + 2) -> Reading:
        """The table as soon as it stands; after `seconds` as it is. Raises NoTable."""
        end = time.monotonic() + seconds
        while not (found := self.read()).stands and time.monotonic() < end:
            time.sleep(LOOK_SECONDS)
        return found

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.__exit__()


def why_not(found: Reading) -> str:
    """Why a table that does not stand may not be acted upon."""
    if not found.rows:
        return "no node has announced itself in Redis"
    return (
        f"the table of nodes is new ({found.age_seconds:.0f} s old in this run of Redis): "
        f"nodes may be missing for {LEASE_SECONDS:g} s"
    )
