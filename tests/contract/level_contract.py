"""The contract of a store of the cluster's level."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import gatherResults

from imd.contracts.level import FIRST, NEWEST, NO_WORD, LevelStore
from imd.protocol.errors import Unavailable


class LevelContract:
    """`make_store`, `spoil` and `fill` are the store's own."""

    assertEqual: Any
    assertFailure: Any

    async def make_store(self) -> LevelStore:
        """An empty store, on servers of the test."""
        raise NotImplementedError

    async def spoil(self) -> None:
        """Put in the word's place what no node writes."""
        raise NotImplementedError

    async def fill(self) -> None:
        """Put in what a cluster leaves."""
        raise NotImplementedError

    async def test_begin(self) -> None:
        """The first word stays; whoever comes later is told it."""
        store = await self.make_store()
        self.assertEqual(await store.read(), NO_WORD)
        self.assertEqual(await store.begin(FIRST), FIRST)
        self.assertEqual(await store.begin(NEWEST), FIRST)
        self.assertEqual(await store.read(), FIRST)

    async def test_begin_at_once(self) -> None:
        """Of many that begin at the same time, with different words, one decides for all."""
        store = await self.make_store()
        words = await gatherResults([store.begin(1 + number % 2) for number in range(20)])
        self.assertEqual(set(words), {await store.read()})

    async def test_broken_word(self) -> None:
        """It is neither taken for none nor for any level."""
        store = await self.make_store()
        await self.spoil()
        error = await self.assertFailure(store.read(), Unavailable)
        self.assertEqual("level" in str(error), True)

    async def test_empty(self) -> None:
        """The word itself is no data; what a cluster leaves is."""
        store = await self.make_store()
        self.assertEqual(await store.is_empty(), True)
        await store.begin(NEWEST)
        self.assertEqual(await store.is_empty(), True)
        await self.fill()
        self.assertEqual(await store.is_empty(), False)
