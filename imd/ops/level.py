"""The cluster's level, as a node knows it: found at the start, and watched for as long as the node runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import Gauge
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.contracts.level import FIRST, NEWEST, NO_WORD, LevelStore
from imd.observe.seldom import Seldom
from imd.protocol.errors import Unavailable

LEVEL = Gauge("imd_level", "The cluster's feature level; 0 while it is not known.")

LOOK_SECONDS = 1.0
"""between two looks at each store"""


class _Word:
    """One store's word."""

    def __init__(self, name: str, store: LevelStore) -> None:
        self.name = name
        self.store = store
        self.looking: Deferred[Any] | None = None
        self.level: int | None = None
        """the last that was read; None before the first"""
        self.trouble: str | None = "not read yet"
        """the reason why the last look failed; None if it did not"""


class ClusterLevel:
    """Called, it gives the level. The higher word counts; a word that cannot be read any more stays.

    A store without a word, such as a Redis that forgot, gets it again. If neither has one, both have to say
    whether they are empty: a cluster that is new begins with NEWEST, any other is one of 0.1. When several
    nodes begin at the same time the last store decides, which takes the first word only.
    """

    log = Logger()

    def __init__(
        self, clock: Any, stores: Mapping[str, LevelStore], changed: Callable[[int], None] = lambda _: None
    ) -> None:
        """`clock` is a reactor. `stores` by name; without any the level is NEWEST.

        `changed` is told the level when it is found, and when it changes.
        """
        self._words = [_Word(name, store) for name, store in stores.items()]
        self._tell = changed
        self._seldom = Seldom(self.log, clock.seconds)
        self._level = NO_WORD if stores else NEWEST
        self._found: Deferred[None] = Deferred()
        self._deciding: Deferred[Any] | None = None
        self._stopped = False
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock
        LEVEL.set(self._level)

    def __call__(self) -> int:
        """The level; FIRST until it is known. Never above NEWEST."""
        return min(self._level, NEWEST) or FIRST

    # from the node

    def start(self) -> Deferred[None]:
        """Fires when the level is known, and this version knows it."""
        if not self._words:
            self._tell(self())
            return succeed(None)
        self._loop.start(LOOK_SECONDS, now=True).addErrback(
            lambda failure: self.log.failure("the cluster's level is no longer watched", failure)
        )
        return self._found

    def stop(self) -> None:
        """Answers that are still to come change nothing."""
        self._stopped = True
        if self._loop.running:
            self._loop.stop()

    def problem(self) -> str | None:
        """Why this node cannot take part; None if it can."""
        if self._level > NEWEST:
            return f"level: newer, the cluster has {self._level}, this version knows {NEWEST}"
        if self._level:
            return None
        said = ", ".join(f"{word.name}: {word.trouble or 'holds none'}" for word in self._words)
        return f"level: unknown ({said})"

    # from within

    def _look(self) -> None:
        for word in self._words:
            if word.looking is None:
                word.looking = looking = word.store.read()
                looking.addCallbacks(self._read, self._not_read, callbackArgs=(word,), errbackArgs=(word,))
                looking.addErrback(lambda f: self._seldom.failure("a look at the level failed", f))

    def _read(self, level: int, word: _Word) -> None:
        word.looking, word.trouble, word.level = None, None, level
        if not self._stopped:
            self._judge()

    def _not_read(self, failure: Failure, word: _Word) -> None:
        word.looking = None
        word.trouble = failure.getErrorMessage()
        failure.trap(Unavailable)

    def _judge(self) -> None:
        level = max(word.level or NO_WORD for word in self._words)
        if level:
            self._set(level)
        if self._deciding is not None:
            return
        # A store that is read now: it may be written as well.
        silent = [word for word in self._words if word.trouble is None and word.level == NO_WORD]
        if self._level and silent:
            self._deciding = gatherResults([self._begin(word, self._level) for word in silent], True)
        elif len(silent) == len(self._words):
            self._deciding = Deferred.fromCoroutine(self._decide())
        else:
            return
        self._deciding.addBoth(self._decided)

    def _begin(self, word: _Word, level: int) -> Deferred[None]:
        def begun(held: int) -> None:
            word.level = held

        return word.store.begin(level).addCallback(begun)

    async def _decide(self) -> None:
        empty = [await word.store.is_empty() for word in self._words]
        level = NEWEST if all(empty) else FIRST
        # Another node may have decided since the first look, and written what is no emptiness any more.
        for word in reversed(self._words):
            level = await word.store.begin(level)
            word.level = level
        kind = "new" if all(empty) else "one of 0.1"
        self.log.info("this cluster had no level yet, and is {kind}", kind=kind)

    def _decided(self, result: Any) -> None:
        self._deciding = None
        if self._stopped:
            return
        if not isinstance(result, Failure):
            self._judge()
        else:
            # The next look tries again.
            self._seldom.warn("the cluster's level cannot be written: {why}", why=_why(result))

    def _set(self, level: int) -> None:
        before, self._level = self._level, level
        if level == before:
            return
        LEVEL.set(level)
        if before:
            self.log.warn("the cluster's level is {now} now; it was {before}", now=level, before=before)
        else:
            self.log.info("the cluster's level is {now}", now=level)
        if level > NEWEST:
            self._seldom.error("{problem}", cause="newer", problem=self.problem())
        self._tell(self())
        if level <= NEWEST and not self._found.called:
            self._found.callback(None)


def _why(failure: Failure) -> str:
    error = failure.value
    inner = getattr(error, "subFailure", None)
    return str((inner or failure).getErrorMessage())
