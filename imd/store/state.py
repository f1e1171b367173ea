"""Marks and settings of a cluster: changes are collected while a batch is under way, and written together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from prometheus_client import Gauge
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.contracts.state import Changes, Entry, Mark, Setting
from imd.observe.seldom import Seldom
from imd.protocol.errors import Refused
from imd.store.gathering import Gathering
from imd.store.mongo.archive import STATE_THREADS, MongoArchive
from imd.store.mongo.in_threads import InThreads
from imd.store.mongo.state import StateDocuments
from imd.store.mongo.state_batch import Batch, Done, Job

WAITING = Gauge("imd_state_waiting", "Marks and settings that wait to be written (bound: 10,000).")
READS_WAITING = Gauge("imd_state_reads_waiting", "Questions about states that wait (bound: 10,000).")

ANSWER_SECONDS = 2.0


class ClusterStates(InThreads[Batch]):
    """Implements imd.contracts.state.StateStore."""

    log = Logger()

    def __init__(self, reactor: Any, archive: MongoArchive, visitor_days: float) -> None:
        self._seldom = Seldom(self.log, reactor.seconds)

        def make(database: Any) -> Batch:
            return Batch(StateDocuments(database), visitor_days)

        super().__init__(archive, "state", STATE_THREADS, ANSWER_SECONDS, make)
        self._tell: Callable[[Sequence[Changes]], None] = lambda changes: None
        # One batch at a time: two of one node would only race for the documents of popular users.
        self._jobs = Gathering(
            reactor, "state", self._do_jobs, calls=1, seconds=ANSWER_SECONDS, waiting=WAITING.set
        )
        self._questions = Gathering(
            reactor, "state", self._answer, calls=2, seconds=ANSWER_SECONDS, waiting=READS_WAITING.set
        )

    # StateStore

    def listen(self, changed: Callable[[Sequence[Changes]], None]) -> None:
        self._tell = changed

    def change(
        self, user: str, marks: Sequence[Mark], setting: Setting | None, since: int | None
    ) -> Deferred[Changes | Refused]:
        return self._jobs.add(Job(user, marks, setting, since))

    def since(self, user: str, version: int | None) -> Deferred[Changes]:
        return self._questions.add((user, version))

    def versions(self, users: Sequence[str]) -> Deferred[dict[str, int]]:
        return self._ask(Batch.versions, users)

    def entries(self, user: str, conversations: Sequence[str]) -> Deferred[dict[str, Entry]]:
        return self._ask(Batch.entries, user, conversations)

    def cleared(self, user: str) -> Deferred[dict[str, str]]:
        return self._ask(Batch.cleared, user)

    def touch(self, pairs: Sequence[tuple[str, str]]) -> Deferred[None]:
        return self._ask(Batch.touch, pairs).addCallback(self._tell)

    # from within

    def _do_jobs(self, jobs: Sequence[Job]) -> Deferred[Sequence[Any]]:
        return self._ask(Batch.run, jobs).addCallback(self._jobs_done)

    def _jobs_done(self, done: Done) -> Sequence[Any]:
        self._tell(done.told)
        for user in done.heavy:
            self._ask(Batch.trim, user).addErrback(self._not_trimmed, user)
        return done.outcomes

    def _not_trimmed(self, failure: Failure, user: str) -> None:
        # The user's next change tries again.
        reason = failure.getErrorMessage()
        self._seldom.warn("the state of {user} stays large: {reason}", user=user, reason=reason)

    def _answer(self, questions: Sequence[tuple[str, int | None]]) -> Deferred[Sequence[Any]]:
        return self._ask(Batch.since, questions)
