"""How a node finds the cluster's level, and what it does when the stores differ, forget or fall silent."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial import unittest

from imd.contracts.level import FIRST, NEWEST, NO_WORD
from imd.ops.level import LOOK_SECONDS, ClusterLevel
from imd.protocol.errors import Unavailable


class Store:
    """A store with a word. `down`: why it does not answer."""

    def __init__(self, word: int = NO_WORD, *, empty: bool = True, down: str = "") -> None:
        self.word = word
        self.empty = empty
        self.down = down
        self.begun: list[int] = []

    def read(self) -> Deferred[int]:
        return fail(Unavailable(self.down)) if self.down else succeed(self.word)

    def begin(self, level: int) -> Deferred[int]:
        if self.down:
            return fail(Unavailable(self.down))
        self.begun.append(level)
        self.word = self.word or level
        return succeed(self.word)

    def is_empty(self) -> Deferred[bool]:
        return fail(Unavailable(self.down)) if self.down else succeed(self.empty)


class LevelTests(unittest.TestCase):
    def begin(self, redis: Store, mongo: Store) -> ClusterLevel:
        self.clock = Clock()
        self.told: list[int] = []
        self.redis, self.mongo = redis, mongo
        self.level = ClusterLevel(self.clock, {"Redis": redis, "MongoDB": mongo}, self.told.append)
        self.found = self.level.start()
        self.addCleanup(self.level.stop)
        return self.level

    def look(self) -> int:
        self.clock.advance(LOOK_SECONDS)
        return self.level()

    def assert_unknown(self, *words: str) -> None:
        self.assertNoResult(self.found)
        problem = self.level.problem() or ""
        for word in ("level: unknown", *words):
            self.assertIn(word, problem)

    def test_new_cluster(self) -> None:
        """Two empty stores: the newest level, which both get."""
        self.begin(Store(), Store())
        self.successResultOf(self.found)
        self.assertEqual((self.level(), self.told, self.level.problem()), (NEWEST, [NEWEST], None))
        self.assertEqual((self.redis.word, self.mongo.word), (NEWEST, NEWEST))

    def test_old_cluster(self) -> None:
        """Anything of imd's in either store: the first level, written down."""
        for redis, mongo in ((False, True), (True, False)):
            self.begin(Store(empty=redis), Store(empty=mongo))
            self.assertEqual((self.level(), self.redis.word, self.mongo.word), (FIRST, FIRST, FIRST))

    def test_several_begin(self) -> None:
        """A node that is late, and sees the data of another one as old, takes the word that is there."""
        late = Store(empty=False)
        self.begin(late, Store())
        self.mongo.word = NEWEST
        self.assertEqual(self.level(), FIRST)
        mongo = Store()
        mongo.read = lambda: succeed(NO_WORD)  # type: ignore[method-assign]
        mongo.word = NEWEST
        self.begin(Store(empty=False), mongo)
        self.assertEqual((self.level(), self.redis.word), (NEWEST, NEWEST))

    def test_higher_counts(self) -> None:
        """The higher word, in whichever store; the lower one stays for the operator."""
        self.assertEqual(self.begin(Store(FIRST), Store(NEWEST))(), NEWEST)
        self.assertEqual(self.begin(Store(NEWEST), Store(FIRST))(), NEWEST)
        self.assertEqual((self.redis.begun, self.mongo.begun), ([], []))

    def test_one_store(self) -> None:
        """One word is enough; the other store's counts when it can be read."""
        self.begin(Store(down="redis: down"), Store(FIRST))
        self.successResultOf(self.found)
        self.assertEqual(self.level(), FIRST)
        self.redis.down, self.redis.word = "", NEWEST
        self.assertEqual((self.look(), self.told), (NEWEST, [FIRST, NEWEST]))

    def test_no_word_to_be_read(self) -> None:
        """Neither can be read, or one is silent and the other holds none: not known, and said why."""
        self.begin(Store(down="redis: down"), Store(down="MongoDB: down"))
        self.assert_unknown("Redis: redis: down", "MongoDB: MongoDB: down")
        self.redis.down = ""
        self.look()
        self.assert_unknown("Redis: holds none", "MongoDB: MongoDB: down")
        self.assertEqual((self.redis.begun, self.told), ([], []))
        self.mongo.down = ""
        self.assertEqual(self.look(), NEWEST)
        self.successResultOf(self.found)

    def test_redis_forgets(self) -> None:
        """It gets the word again, from MongoDB or, when that is away too, from the node."""
        self.begin(Store(NEWEST), Store(NEWEST))
        self.redis.word = NO_WORD
        self.assertEqual((self.look(), self.redis.word), (NEWEST, NEWEST))
        self.mongo.down, self.redis.word = "MongoDB: down", NO_WORD
        self.assertEqual((self.look(), self.redis.word), (NEWEST, NEWEST))
        self.mongo.down = ""
        self.redis.word = self.mongo.word = NO_WORD
        self.redis.empty = self.mongo.empty = False
        self.assertEqual((self.look(), self.redis.word, self.mongo.word), (NEWEST, NEWEST, NEWEST))
        self.assertEqual(self.told, [NEWEST])

    def test_raised_and_lowered(self) -> None:
        """Each change is told once. While one store is silent, its last word counts."""
        self.begin(Store(FIRST), Store(FIRST))
        self.mongo.word = NEWEST
        self.assertEqual(self.look(), NEWEST)
        self.mongo.down = "MongoDB: down"
        self.assertEqual(self.look(), NEWEST)
        self.mongo.down, self.mongo.word = "", FIRST
        self.assertEqual(self.look(), FIRST)
        self.assertEqual(self.told, [FIRST, NEWEST, FIRST])

    def test_newer_cluster(self) -> None:
        """A level that this version does not know: it is not ready, and does not start."""
        self.begin(Store(NEWEST + 1), Store(NEWEST))
        self.assertNoResult(self.found)
        self.assertIn("level: newer", self.level.problem() or "")
        self.assertEqual(self.level(), NEWEST)
        self.flushLoggedErrors()

    def test_no_stores(self) -> None:
        """Embedded: the newest level, at once."""
        told: list[int] = []
        level = ClusterLevel(Clock(), {}, told.append)
        self.successResultOf(level.start())
        self.assertEqual((level(), told, level.problem()), (NEWEST, [NEWEST], None))
        level.stop()

    def test_late_answer(self) -> None:
        """A store that answers after the stop changes nothing."""
        answer: Deferred[int] = Deferred()
        redis = Store()
        redis.read = lambda: answer  # type: ignore[method-assign]
        self.begin(redis, Store(down="MongoDB: down"))
        self.level.stop()
        answer.callback(NEWEST)
        self.assertEqual(self.told, [])
