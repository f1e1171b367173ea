"""A store on MongoDB with threads of its own, so that its work waits for no other store's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred, fail, succeed

from imd.protocol.errors import Unavailable
from imd.store.mongo.archive import MongoArchive

Documents = TypeVar("Documents")


class InThreads(Generic[Documents]):
    """Implements imd.contracts.backend.Backend. The archive connects, and knows MongoDB's problems.

    `make` makes of a database the object that the work is done with, and again if the database is another.
    `name` is the store's, for the texts; `seconds` bound each piece of work.
    """

    def __init__(
        self,
        archive: MongoArchive,
        name: str,
        threads: int,
        seconds: float,
        make: Callable[[Any], Documents],
    ) -> None:
        self._archive = archive
        self._name = name
        self._threads = threads
        self._seconds = seconds
        self._make = make
        self._pool: ThreadPoolExecutor | None = None
        self._made: tuple[Any, Documents] | None = None
        """the database, and what was made of it last"""

    def start(self) -> Deferred[None]:
        self._pool = ThreadPoolExecutor(self._threads, f"mongodb-{self._name}")
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """Work that has begun goes on; nothing else is begun."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None
        return succeed(None)

    def problem(self) -> str | None:
        return None

    @property
    def is_running(self) -> bool:
        return self._pool is not None

    def _ask(self, work: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """The result of `work(documents, *args)`, from a thread. Fails with Unavailable."""
        if self._pool is None:
            return fail(Unavailable(f"{self._name}: stopped"))
        return self._archive.call(self._pool, self._seconds, self._work, work, args)

    def _work(self, database: Any, work: Callable[..., Any], args: Sequence[Any]) -> Any:
        """In a thread."""
        made = self._made
        if made is None or made[0] != database:
            made = self._made = (database, self._make(database))
        return work(made[1], *args)
