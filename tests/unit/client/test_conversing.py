"""Both shells on a real node: marks, settings, the list, presence, typing, signals, blocks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from imd.client import (
    Accepted,
    ConversationsChanged,
    ConversationsView,
    Failed,
    FrameRefused,
    Presence,
    Signal,
    SqliteStore,
    Typing,
)
from imd.client.asyncio import Client as AsyncioClient
from imd.client.twisted import Client as TwistedClient
from tests.support.nodes import NodeServer
from tests.unit.client.test_messenger import QUICK, SECONDS, take


def pause(make: Any) -> Any:
    return asyncio.sleep(0.01) if make is AsyncioClient else deferLater(reactor, 0.01)


class Watched:
    """A client with everything that it told."""

    def __init__(self, make: Any, node: NodeServer, user: str, device: str = "d", **options: Any) -> None:
        self.make = make
        self.client = make(node.url, user_id=user, device=device, **QUICK, **options)
        self.told: list[Any] = []
        self.client.on(object, self.told.append)

    async def open(self) -> Any:
        self.client.start()
        await self.client.connected()
        return self.client

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.told if isinstance(event, kind)]

    async def until(self, condition: Callable[[], bool]) -> None:
        for _ in range(100 * SECONDS):
            if condition():
                return
            await pause(self.make)
        raise AssertionError(self.told)


async def marks(make: Any, node: NodeServer, folder: Path) -> None:
    """A mark reaches the other and one's own other device; it and a setting survive a restart."""
    alice_id, bob_id = [f"{name}-{make.__module__}" for name in ("alice", "bob")]
    path = folder / f"{make.__module__}.db"
    phone, laptop = [Watched(make, node, bob_id, device) for device in ("phone", "laptop")]
    bobs = Watched(make, node, alice_id)
    alice, first = await bobs.open(), await phone.open()
    await laptop.open()
    sent = await alice.accepted(alice.send("hi", to=bob_id))
    await take(first, 1)
    first.read(alice_id, up_to=sent.id)
    assert first.conversation(alice_id).mark == sent.id
    await laptop.until(lambda: laptop.client.conversation(alice_id).read == sent.id)
    await bobs.until(lambda: alice.conversation(bob_id).peer_read == sent.id)
    first.settings(alice_id, muted=True, pinned=True)
    await laptop.until(lambda: laptop.client.conversation(alice_id).pinned)
    first.settings(receipts=False)
    await laptop.until(lambda: not laptop.client.receipts)
    first.read(room="r-0123456789abcdef0123456789abcdef", up_to=sent.id)
    await phone.until(lambda: phone.of(FrameRefused) != [])
    assert phone.of(FrameRefused)[0].refusal.code == "not_found"
    await first.stop()
    tablet = Watched(make, node, bob_id, "tablet", store=SqliteStore(path))
    await tablet.open()
    await tablet.until(lambda: tablet.client.conversation(alice_id).muted is True)
    await tablet.client.stop()
    tablet = Watched(make, node, bob_id, "tablet", store=SqliteStore(path))
    assert tablet.client.conversation(alice_id).read == sent.id
    await tablet.open()
    laptop.client.settings(alice_id, muted=False)
    await tablet.until(lambda: tablet.client.conversation(alice_id).muted is False)
    assert not any(event.all for event in tablet.of(ConversationsChanged))
    for each in (alice, laptop.client, tablet.client):
        await each.stop()


async def listed(make: Any, node: NodeServer) -> None:
    """The list and the inbox together count each message once; a mark empties it."""
    carol_id, dave_id = [f"{name}-{make.__module__}" for name in ("carol", "dave")]
    carols, daves = Watched(make, node, carol_id), Watched(make, node, dave_id)
    carol, dave = await carols.open(), await daves.open()
    view = ConversationsView(dave_id)
    dave.on(Accepted, view.accepted)
    dave.on(ConversationsChanged, view.changed)
    for number in range(3):
        sent = await carol.accepted(carol.send(f"{number}", to=dave_id))
    made = await carol.accepted(carol.rooms.create("Weekend", dave_id))
    for entry in await take(dave, 4):
        view.add(entry)

    async def page() -> Any:
        while not (found := await dave.conversations()).conversations:
            await pause(make)
        return found

    for _ in range(100 * SECONDS):
        view.put(await page())
        if not view.incomplete and len(view.all) == 2:
            break
        await pause(make)
    room, pair = view.all
    assert (room.room, room.name, room.unread) == (made.outgoing.room, "Weekend", 0), room
    assert (pair.with_, pair.unread, pair.last and pair.last.msg) == (carol_id, 3, "2"), pair
    assert view.unread() == 3
    dave.read(carol_id, up_to=sent.id)
    await daves.until(lambda: view.unread() == 0)
    await daves.until(lambda: len(daves.client._core.messenger.states._wishes) == 0)
    page_now = await dave.conversations()
    assert [each.unread for each in page_now.conversations if each.with_] == [0], page_now
    for each in (carol, dave):
        await each.stop()


async def hints(make: Any, node: NodeServer) -> None:
    """Presence, typing and signals; a block ends them, and messages."""
    erin_id, frank_id = [f"{name}-{make.__module__}" for name in ("erin", "frank")]
    erins, franks = Watched(make, node, erin_id), Watched(make, node, frank_id)
    erin = await erins.open()
    erin.watch([frank_id])
    await erins.until(lambda: erin.present == {frank_id: False})
    frank = await franks.open()
    await erins.until(lambda: erin.present == {frank_id: True})
    assert [event.all for event in erins.of(Presence)] == [True, False]
    frank.typing(erin_id)
    await erins.until(lambda: Typing(frank_id, with_=frank_id) in erins.told)
    assert frank.signal("call.offer", {"a": [1]}, with_=erin_id)
    await erins.until(lambda: Signal(frank_id, "call.offer", {"a": [1]}, with_=frank_id) in erins.told)
    frank.send("hi", to=erin_id)
    await erins.until(lambda: Typing(frank_id, with_=frank_id, on=False) in erins.told)
    await erin.block(frank_id)
    assert await erin.blocked() == [frank_id]
    frank.send("hi again", to=erin_id)
    await franks.until(lambda: franks.of(Failed) != [])
    assert franks.of(Failed)[0].refusal.code == "forbidden"
    await erins.until(lambda: erin.present == {frank_id: False})
    await erin.block(frank_id, on=False)
    assert await erin.blocked() == []
    for each in (erin, frank):
        await each.stop()


class ConversingTests(unittest.TestCase):
    timeout = 6 * SECONDS

    async def test_all(self) -> None:
        """Each story in both shells, on one node."""
        folder = Path.cwd() / self.mktemp()
        node = NodeServer(folder, {})
        self.addCleanup(deferToThread, node.kill)
        await deferToThread(node.start)
        for story in (lambda make, node: marks(make, node, folder), listed, hints):
            await story(TwistedClient, node)
            await self.in_asyncio(story, node)

    def in_asyncio(self, story: Callable[..., Any], node: NodeServer) -> Deferred[None]:
        async def bounded() -> None:
            async with asyncio.timeout(SECONDS):
                await story(AsyncioClient, node)

        return deferToThread(asyncio.run, bounded())
