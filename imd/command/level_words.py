"""The cluster's level for a command: both words, and what speaks against a change. Blocks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pymongo
from pymongo.errors import PyMongoError
from pymongo.write_concern import WriteConcern

from imd.command.findings import say
from imd.command.redis_client import RedisClient, RedisError
from imd.config.settings import Settings
from imd.protocol.errors import ConfigurationError
from imd.store.mongo.archive import COLLECTION, DATABASE
from imd.store.mongo.ledger import read_ledger
from imd.store.mongo.level import holds_events, read_level, write_level
from imd.store.redis.level import LEVEL_KEY, parse_word


class Words(NamedTuple):
    """Each store's word; 0 for none."""

    redis: int
    mongodb: int

    @property
    def level(self) -> int:
        return max(self)

    def __str__(self) -> str:
        return f"Redis {self.redis or 'none'}, MongoDB {self.mongodb or 'none'}"


class LevelWords:
    """Connections to both stores. Raises ConfigurationError where one does not answer."""

    def __init__(self, settings: Settings, seconds: float) -> None:
        milliseconds = int(seconds * 1000)
        with _named("redis"):
            self._redis = RedisClient(settings.redis.url, seconds)
        with _named("mongodb"):
            self._mongo: Any = pymongo.MongoClient(
                settings.mongodb.url,
                serverSelectionTimeoutMS=milliseconds,
                connectTimeoutMS=milliseconds,
                socketTimeoutMS=milliseconds,
                tz_aware=True,
                appname="imd upgrade",
            )
            concern = WriteConcern(**{"w": "majority", "j": True, **self._mongo.write_concern.document})
            database = self._mongo.get_default_database(DATABASE)
            self._archive = database.get_collection(COLLECTION, write_concern=concern)

    def close(self) -> None:
        self._redis.__exit__()
        self._mongo.close()

    def read(self) -> Words:
        with _named("redis"):
            redis = parse_word(self._redis("GET", LEVEL_KEY))
        with _named("mongodb"):
            return Words(redis, read_level(self._archive))

    def write(self, level: int) -> None:
        """MongoDB first: a Redis that forgets in between takes the word from there."""
        with _named("mongodb"):
            write_level(self._archive, level)
        with _named("redis"):
            self._redis("SET", LEVEL_KEY, level)

    def holds_events(self) -> bool:
        """True if anything was written that nodes of the first level would misread."""
        with _named("mongodb"):
            return holds_events(self._archive)

    def on_archive(self, work: Callable[..., Any], *args: Any) -> Any:
        """Do `work(archive, *args)` on the collection of messages."""
        with _named("mongodb"):
            return work(self._archive, *args)

    def count_held(self) -> int:
        """Batches that consumers of the archive queue hold."""
        with _named("mongodb"):
            return sum(map(len, read_ledger(self._archive).holding))


@contextlib.contextmanager
def _named(store: str) -> Iterator[None]:
    try:
        yield
    except (OSError, RedisError, PyMongoError, ValueError) as error:
        raise ConfigurationError(f"{store}: {say(error)}") from None
