"""Changes of state reach other nodes' devices, and lost ones are found by comparing versions."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.internet.task import Clock
from twisted.trial import unittest

from imd.chat.state_feed import Feeds
from imd.chat.state_news import MAX_PAYLOAD_BYTES, STATE, StateNews
from imd.chat.state_upkeep import HURRIED_SECONDS, TICK_SECONDS, StateUpkeep
from imd.contracts.state import Changes, Entry
from imd.protocol.author import Author
from imd.protocol.errors import Unavailable
from imd.protocol.frames import ConnectFrame
from imd.protocol.message import FromUserType
from imd.protocol.selector import Selector
from tests.support.doubles import AimsDouble, StatesDouble, WireDouble

PASS = 60.0


class DeviceDouble(WireDouble):
    """imd.chat.live.Device."""

    features = ("state",)
    is_open = True

    def __init__(self, user: str) -> None:
        super().__init__()
        self.author = Author(user, "phone", FromUserType.USER_TYPE)


class SignalsDouble:
    """Remembers what is sent to other nodes."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Any, bytes]] = []
        self.takes: dict[str, Any] = {}

    def take(self, kind: str, take: Any) -> None:
        self.takes[kind] = take

    def send(self, kind: str, channels: Any, payload: bytes) -> None:
        self.sent.append((kind, channels, payload))


class StateNodeTestCase(unittest.TestCase):
    """A node with devices at version 5."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.states = StatesDouble()
        self.feeds = Feeds(self.states, self.clock.callLater)

    def device(self, user: str) -> DeviceDouble:
        device = DeviceDouble(user)
        self.feeds.opened(f"channel-{user}", device, ConnectFrame(is_connect=True, state=5))
        self.states.answer(Changes(user, 5, 5))
        return device

    def changes(self, user: str, base: int, version: int) -> Changes:
        return Changes(user, base, version, (Entry("0" * 32, Selector(with_="bob"), version),))


class NewsTests(StateNodeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.aims, self.signals = AimsDouble(), SignalsDouble()
        self.news = StateNews(self.feeds, self.aims, self.signals, has_others=True)  # type: ignore[arg-type]

    def sent(self) -> list[tuple[Any, Changes]]:
        sent, self.signals.sent = self.signals.sent, []
        self.assertEqual({kind for kind, _, _ in sent} - {STATE}, set())
        return [(channels, msgspec.msgpack.decode(payload, type=Changes)) for _, channels, payload in sent]

    def test_here_and_elsewhere(self) -> None:
        """Devices of this node are told at once; other nodes get the same change for their channels."""
        alice = self.device("alice")
        change = self.changes("alice", 5, 6)
        self.aims.live["alice"] = ["channel-alice", "away"]
        self.news.changed([change])
        self.assertEqual([frame["version"] for frame in alice.frames], [6])
        self.assertEqual(self.sent(), [({"alice": ["away"]}, change)])

    def test_from_elsewhere(self) -> None:
        """The change of another node is told here; one that cannot be read is passed over."""
        alice = self.device("alice")
        self.signals.takes[STATE](["channel-alice"], b"\xc1")
        self.signals.takes[STATE](["channel-alice"], msgspec.msgpack.encode(self.changes("alice", 5, 6)))
        self.assertEqual([frame["version"] for frame in alice.frames], [6])

    def test_large_ones_and_several(self) -> None:
        """Of a change that is large, and of several changes, there is only word that there is one."""
        self.aims.live.update(alice=["a"], bob=["b"])
        name = "x" * 128
        entries = tuple(Entry(f"{n:032x}", Selector(with_=name), 6) for n in range(MAX_PAYLOAD_BYTES // 128))
        self.news.changed([Changes("alice", 5, 6, entries), *(self.changes("bob", n, n + 1) for n in (3, 4))])
        found = dict((next(iter(channels)), change) for channels, change in self.sent())
        self.assertEqual(found, {"alice": Changes("alice", 6, 6), "bob": Changes("bob", 5, 5)})

    def test_registry_away(self) -> None:
        """Nothing is sent; reconciling finds it."""
        self.aims.live["alice"] = ["away"]
        self.aims.down = True
        self.news.changed([self.changes("alice", 5, 6)])
        self.assertEqual(self.sent(), [])


class UpkeepTests(StateNodeTestCase):
    problem: str | None = None

    def begin(self) -> None:
        upkeep = StateUpkeep(self.clock, self.states, self.feeds, lambda: self.problem, PASS)
        upkeep.start()
        self.addCleanup(upkeep.stop)

    def passed(self, seconds: float, **versions: int) -> int:
        """Time goes by; questions about versions get these answers. Gives the number of questions."""
        questions = 0
        for _ in range(int(seconds / TICK_SECONDS)):
            self.clock.advance(TICK_SECONDS)
            while waiting := [n for n, (asked, _) in enumerate(self.states.asked) if asked[0] == "versions"]:
                users = self.states.asked[waiting[0]][0][1]
                self.states.answer({user: versions[user] for user in users}, waiting[0])
                questions += len(users)
        return questions

    def test_found(self) -> None:
        """A device that has missed a change gets it within a pass; each is asked about once."""
        alice, _ = self.device("alice"), self.device("bob")
        self.begin()
        self.assertEqual(self.passed(PASS, alice=6, bob=5), 2)
        self.assertEqual(self.states.answer(self.changes("alice", 5, 6)), ("since", "alice", 5))
        self.assertEqual([frame["version"] for frame in alice.frames], [6])
        self.assertEqual(self.passed(PASS, alice=6, bob=5), 2)
        self.assertEqual(self.states.asked, [])

    def test_lower(self) -> None:
        """A version that has fallen is asked about: the store says whether it is so."""
        self.device("alice")
        self.begin()
        self.passed(PASS, alice=4)
        self.assertEqual(self.states.answer(Changes("alice", 5, 5)), ("since", "alice", 5))

    def test_bus_down(self) -> None:
        """Feeds are compared more often, and once after it is back."""
        self.device("alice")
        self.begin()
        self.passed(PASS / 2, alice=5)
        self.problem = "down"
        self.assertEqual(self.passed(10 * HURRIED_SECONDS, alice=5) // 10, 1)
        self.problem = None
        self.assertEqual(self.passed(HURRIED_SECONDS, alice=5), 1)
        self.assertEqual(self.passed(PASS / 2, alice=5), 0)

    def test_store_away(self) -> None:
        """The next pass looks again."""
        self.device("alice")
        self.begin()
        self.clock.advance(TICK_SECONDS)
        self.states.fail(Unavailable("away"))
        self.assertEqual(self.passed(PASS, alice=6), 1)
        self.assertEqual(self.states.asked[0][0], ("since", "alice", 5))
