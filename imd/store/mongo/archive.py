"""The archive in MongoDB. The driver blocks, so it is called in threads of its own."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import msgspec
import pymongo
from prometheus_client import Counter, Gauge, Histogram
from pymongo.errors import ConfigurationError as DriverConfigurationError
from pymongo.errors import ConnectionFailure, InvalidURI, PyMongoError
from pymongo.write_concern import WriteConcern
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.contracts.archive import Asked, Changes, ChangesQuery, Entry, History, HistoryQuery, Target
from imd.observe.seldom import Seldom
from imd.protocol.errors import ConfigurationError, Unavailable
from imd.store.backoff import backoff
from imd.store.mongo.all_indexes import make_all_indexes
from imd.store.mongo.changes import read_changes, read_messages, read_newest_id, read_targets
from imd.store.mongo.deadline import within
from imd.store.mongo.entry import Found
from imd.store.mongo.history import read_page
from imd.store.mongo.reasons import describe, plain_reason
from imd.store.mongo.talks import MongoTalks
from imd.store.mongo.write import Inserted, write_messages
from imd.store.shared_metrics import FOREIGN

COLLECTION = "im_message"
DATABASE = "imd"

READ_THREADS = 3
# Two writes, a ping, the building of indexes, the audit, and the cluster's level.
WRITE_THREADS = 6
# Rooms' own: a change of a room waits for no page of history and no batch.
ROOM_THREADS, BLOCK_THREADS, STATE_THREADS = 4, 2, 4
MAX_READS = 256
PING_SECONDS = 2.0
SELECTION_SECONDS = 2.0
STOP_SECONDS = 3.0
# Between two tries to make indexes.
INDEX_SECONDS = 60.0
_retry_seconds = backoff(0.25, 15.0, 1.7)

INSERT_SECONDS = Histogram(
    "imd_mongodb_insert_seconds", "One write of a batch to MongoDB, with its encoding."
)
READ_SECONDS = Histogram(
    "imd_mongodb_read_seconds", "One answer of the archive, with the wait for a thread.", ["what"]
)
HISTORY_SECONDS = Histogram("imd_mongodb_history_seconds", "One page of history, with the wait for a thread.")
MESSAGES_SECONDS, TARGETS_SECONDS, CHANGES_SECONDS, TALKS_SECONDS = map(
    READ_SECONDS.labels, ("messages", "targets", "changes", "talks")
)
WRITTEN = Counter("imd_archive_written_total", "Documents written to MongoDB.")
DUPLICATES = Counter("imd_archive_duplicates_total", "Documents that MongoDB had already.")
UNLISTED = Counter(
    "imd_archive_unlisted_total", "Updates of the list of conversations that MongoDB refused for ever."
)
READS = Gauge("imd_mongodb_reads", f"Answers of the archive that are waited for, at most {MAX_READS}.")


class MongoArchive:
    """`url` is a MongoDB connection string; its database (`imd` if it names none) holds `im_message`.

    Writes wait for a majority and the journal unless the url says otherwise.
    """

    log = Logger()

    def __init__(self, reactor: Any, url: str, *, timeout_seconds: float = 10.0) -> None:
        self._reactor = reactor
        self._seldom = Seldom(self.log, reactor.seconds)
        self._url = url
        self._timeout_seconds = timeout_seconds
        self.talks = MongoTalks(partial(self._ask, TALKS_SECONDS))
        self._client: Any = None
        self._collection: Any = None
        self._readers: ThreadPoolExecutor | None = None
        self._writers: ThreadPoolExecutor | None = None
        self._watching: Deferred[None] | None = None
        self._ready: Deferred[None] = Deferred()
        self._problem: str | None = "not connected yet"
        self._reads = 0
        self._indexed = False
        self._indexing: Deferred[None] | None = None
        self._index_at = 0.0
        self._told: set[str] = set()
        """obstacles to indexes that have been logged"""
        self._stopping = False
        self._pause: Deferred[None] | None = None

    # from the node

    def start(self) -> Deferred[None]:
        """Fires when MongoDB has answered. Threads and sockets are made here, after a daemon has forked."""
        self._readers = ThreadPoolExecutor(READ_THREADS, "mongodb-read")
        self._writers = ThreadPoolExecutor(WRITE_THREADS, "mongodb-write")
        self._watching = ensureDeferred(self._watch())
        self._watching.addErrback(self._watch_ended)
        return self._ready

    async def _stop(self) -> None:
        self._stopping = True
        if self._pause is not None:
            self._pause.cancel()
        watching = self._watching
        if watching is not None and not watching.called:
            watching.addTimeout(STOP_SECONDS, self._reactor, onTimeoutCancel=lambda *_: None)
            await watching
        self._problem = "stopped"
        if self._client is not None and self._writers is not None:
            # Closing sends to the server, which may not answer.
            closed = self._in_thread(self._writers, self._client.close)
            await closed.addTimeout(STOP_SECONDS, self._reactor, onTimeoutCancel=lambda *_: None)
        for pool in (self._readers, self._writers):
            if pool is not None:
                pool.shutdown(wait=False, cancel_futures=True)

    def stop(self) -> Deferred[None]:
        """Call after the writer's stop. Threads end by themselves, within the timeout of their work."""
        return ensureDeferred(self._stop()).addErrback(
            lambda failure: self.log.failure("MongoDB: did not stop in good order", failure)
        )

    def problem(self) -> str | None:
        if self._problem is None:
            return None
        return f"MongoDB: {plain_reason(self._problem)}"

    # from the writer

    def insert(self, bodies: Sequence[bytes | msgspec.Raw]) -> Deferred[Inserted]:
        """Write messages, in any order. A message that is given again is not written twice.

        Unavailable: some may be written; give all of them again.
        """
        if self._writers is None or self._stopping or self._collection is None:
            return fail(Unavailable(self.problem() or "MongoDB: stopped"))
        began = self._reactor.seconds()
        done = self._in_thread(self._writers, write_messages, self._collection, bodies, self._timeout_seconds)

        def note(result: Inserted) -> Inserted:
            INSERT_SECONDS.observe(self._reactor.seconds() - began)
            WRITTEN.inc(result.written)
            DUPLICATES.inc(result.duplicates)
            if result.unlisted:
                UNLISTED.inc(result.unlisted)
                self._seldom.warn("MongoDB: {count} updates of lists were refused", count=result.unlisted)
            return result

        return done.addCallbacks(note, self._unavailable)

    # from the writer and the audit

    def run(self, work: Callable[..., Any], *args: Any, **options: Any) -> Deferred[Any]:
        """Run `work(collection, *args)` in a thread, within the timeout. Fails with Unavailable."""
        if self._writers is None or self._stopping or self._collection is None:
            return fail(Unavailable(self.problem() or "MongoDB: stopped"))
        done = self._in_thread(self._writers, self._within, work, args, options)
        return done.addErrback(self._unavailable)

    # from rooms

    def call(
        self, pool: ThreadPoolExecutor, seconds: float, work: Callable[..., Any], *args: Any
    ) -> Deferred[Any]:
        """Run `work(database, *args)` in a thread of `pool`, within `seconds`. Fails with Unavailable."""
        if self._problem is not None or self._collection is None:
            return fail(Unavailable(self.problem() or "MongoDB: stopped"))
        give_up_at = time.monotonic() + seconds
        done = self._in_thread(pool, within, give_up_at, work, self._collection.database, *args)
        return done.addErrback(self._unavailable)

    # from history

    def history(self, query: HistoryQuery) -> Deferred[History]:
        return self._ask(HISTORY_SECONDS, read_page, query)

    def messages(self, message_ids: Sequence[str], viewer: str) -> Deferred[list[Entry]]:
        return self._ask(MESSAGES_SECONDS, partial(read_messages, viewer=viewer), message_ids)

    def targets(self, asked: Sequence[Asked]) -> Deferred[dict[str, Target | None]]:
        return self._ask(TARGETS_SECONDS, read_targets, asked)

    def changes(self, query: ChangesQuery) -> Deferred[Changes]:
        return self._ask(CHANGES_SECONDS, read_changes, query)

    def _ask(self, seconds: Any, work: Callable[[Any, Any], Found], question: Any) -> Deferred[Any]:
        """The answer of `work(collection, question)`, from a thread that reads."""
        if self._readers is None or self._stopping or self._collection is None:
            return fail(Unavailable(self.problem() or "MongoDB: stopped"))
        if self._reads >= MAX_READS:
            return fail(Unavailable(f"MongoDB: {MAX_READS} answers of the archive are waited for"))
        self._reads += 1
        READS.set(self._reads)
        began = self._reactor.seconds()
        give_up_at = time.monotonic() + self._timeout_seconds
        answer: Deferred[Any] = Deferred()
        # A read counts until its thread is free, which may be after the answer's deadline.
        running = self._in_thread(self._readers, within, give_up_at, work, self._collection, question)
        running.addBoth(self._read_done).addCallback(self._without_foreign)
        running.addErrback(self._unavailable)
        running.chainDeferred(answer)

        def too_late(_: object, limit: float) -> Any:
            raise Unavailable(f"MongoDB: no answer of the archive within {limit:g} s")

        def note(result: Any) -> Any:
            seconds.observe(self._reactor.seconds() - began)
            return result

        answer.addTimeout(self._timeout_seconds + 0.5, self._reactor, onTimeoutCancel=too_late)
        return answer.addCallback(note)

    def newest_id(self) -> Deferred[str]:
        if self._readers is None or self._stopping or self._collection is None:
            return fail(Unavailable(self.problem() or "MongoDB: stopped"))
        return self._in_thread(self._readers, self._newest_id).addErrback(self._unavailable)

    def _read_done(self, result: Any) -> Any:
        self._reads -= 1
        READS.set(self._reads)
        return result

    def _without_foreign(self, found: Found) -> Any:
        if found.foreign:
            FOREIGN.inc(found.foreign)
            self._seldom.warn(
                "history: {count} documents in {collection} are not as nodes write them; passed over",
                count=found.foreign,
                collection=COLLECTION,
            )
        return found.answer

    # in threads, where the reactor must not be used

    def _newest_id(self) -> str:
        with pymongo.timeout(self._timeout_seconds):
            return read_newest_id(self._collection)

    def _within(self, work: Callable[..., Any], args: Sequence[Any], options: dict[str, Any]) -> Any:
        with pymongo.timeout(self._timeout_seconds):
            return work(self._collection, *args, **options)

    def _connect(self) -> None:
        """Make the client; it connects when it is first used. Raises ConfigurationError."""
        try:
            client: Any = pymongo.MongoClient(
                self._url,
                tz_aware=True,
                # A date or text out of range must not make a page of history unreadable.
                datetime_conversion="DATETIME_AUTO",
                unicode_decode_error_handler="replace",
                maxPoolSize=READ_THREADS + WRITE_THREADS + ROOM_THREADS + BLOCK_THREADS + STATE_THREADS,
                serverSelectionTimeoutMS=int(SELECTION_SECONDS * 1000),
                connectTimeoutMS=int(SELECTION_SECONDS * 1000),
                socketTimeoutMS=int(self._timeout_seconds * 1000),
                appname="imd",
            )
            asked = client.write_concern.document
            database = client.get_default_database(DATABASE)
            concern = WriteConcern(**{"w": "majority", "j": True, **asked})
        except (InvalidURI, DriverConfigurationError, ValueError, TypeError) as error:
            raise ConfigurationError(f"mongodb url: {type(error).__name__}: {error}") from None
        if not concern.acknowledged:
            client.close()
            raise ConfigurationError("mongodb url: w=0 would lose messages silently")
        self._collection = database.get_collection(COLLECTION, write_concern=concern)
        self._client = client

    def _ping(self) -> None:
        with pymongo.timeout(self._ping_seconds()):
            self._client.admin.command("ping")

    def _make_indexes(self) -> list[str]:
        # No deadline but the socket's: on a large collection this takes long.
        return make_all_indexes(self._collection)

    # its health

    def _ping_seconds(self) -> float:
        return min(self._timeout_seconds, SELECTION_SECONDS + 1)

    async def _watch(self) -> None:
        failures = 0
        while not self._stopping:
            try:
                await self._look()
            except ConfigurationError:
                raise
            except Exception as error:
                if self._stopping:
                    return
                if not failures:
                    self._seldom.warn("MongoDB: {reason}; trying again", reason=describe(error))
                self._problem = describe(error)
                failures += 1
            else:
                if failures:
                    self._seldom.info("MongoDB: back after {failures} failures", failures=failures)
                failures = 0
            await self._sleep(_retry_seconds(failures) if failures else PING_SECONDS * random.uniform(0.5, 1))

    async def _look(self) -> None:
        """One ping; makes the client and the indexes if they are missing."""
        assert self._writers is not None
        if self._client is None:
            await self._in_thread(self._writers, self._connect)
        await self._in_thread(self._writers, self._ping)
        if self._problem is not None and not self._stopping:
            self._problem = None
        if not self._ready.called:
            self._ready.callback(None)
        if not self._indexed and self._indexing is None and self._reactor.seconds() >= self._index_at:
            self._indexing = self._in_thread(self._writers, self._make_indexes)
            self._indexing.addCallbacks(self._have_indexes, self._no_indexes)

    def _have_indexes(self, troubles: list[str]) -> None:
        self._indexing, self._indexed = None, not troubles
        self._index_at = self._reactor.seconds() + INDEX_SECONDS
        for trouble in troubles:
            if trouble not in self._told:
                self._told.add(trouble)
                self.log.warn("MongoDB: an index cannot be made: {trouble}", trouble=trouble)

    def _no_indexes(self, failure: Failure) -> None:
        # Tried again after a later ping. The server goes on building an index that it has begun.
        self._indexing = None
        if not self._stopping:
            reason = describe(failure.value or RuntimeError(failure))
            self._seldom.warn("MongoDB: indexes: {reason}", reason=reason)

    def _watch_ended(self, failure: Failure) -> None:
        if failure.check(CancelledError) and self._stopping:
            return
        self._problem = describe(failure.value or RuntimeError(failure))
        if self._ready.called:
            self.log.failure("MongoDB: no longer watched", failure)
        else:
            self._ready.errback(failure)

    async def _sleep(self, seconds: float) -> None:
        if self._stopping:
            return
        pause: Deferred[None] = Deferred(lambda _: call.cancel())
        self._pause = pause
        call = self._reactor.callLater(seconds, pause.callback, None)
        await pause

    def _unavailable(self, failure: Failure) -> Failure:
        """The driver's error as Unavailable. A lost connection is a problem until the next ping."""
        error: Any = failure.value
        if isinstance(error, Unavailable):
            return failure
        if isinstance(error, ConnectionFailure) and not self._stopping:
            self._problem = describe(error)
        elif not isinstance(error, PyMongoError) and not isinstance(error, CancelledError):
            self._seldom.failure("MongoDB: an operation failed", failure)
        return Failure(Unavailable(f"MongoDB: {describe(error)}"))

    def _in_thread(self, pool: ThreadPoolExecutor, work: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """Fires in the reactor's thread with the result of `work`. Cancelling does not end `work`."""
        answer: Deferred[Any] = Deferred()

        def over(future: Future[Any]) -> None:
            self._reactor.callFromThread(self._deliver, answer, future)

        try:
            pool.submit(work, *args).add_done_callback(over)
        except RuntimeError:
            return fail(Unavailable("MongoDB: stopped"))
        return answer

    @staticmethod
    def _deliver(answer: Deferred[Any], future: Future[Any]) -> None:
        if answer.called:
            return
        if future.cancelled():
            answer.errback(Unavailable("MongoDB: stopped"))
            return
        error = future.exception()
        if error is None:
            answer.callback(future.result())
        else:
            answer.errback(error)
