"""Redis with a replica: it fails over and back, with and without nodes that follow."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from tests.support.primaries import Primary

if TYPE_CHECKING:
    from tests.tools.drill.faults import Stage


@contextlib.asynccontextmanager
async def _replica(stage: Stage) -> AsyncIterator[Primary]:
    """A server that has all that Redis has, and follows it."""
    spare = stage.cluster.backends.spare
    try:
        await asyncio.to_thread(spare.start)
        await asyncio.to_thread(spare.follow, stage.cluster.backends.redis)
        yield spare
    finally:
        await asyncio.to_thread(spare.kill)


async def _take_over(stage: Stage, spare: Primary) -> None:
    """Redis follows the other one, and leads again; what it had beyond that is gone."""
    redis = stage.cluster.backends.redis
    try:
        await asyncio.to_thread(redis.follow, spare)
        if stage.rng.random() < 0.5:
            await stage.hold(0.2, 2.0)
    finally:
        await asyncio.to_thread(redis.lead)


async def failback(stage: Stage) -> str:
    """The replica is cut off; Redis takes over what that has, under the same connections or new ones."""
    async with _replica(stage) as spare:
        with stage.losing():
            await asyncio.to_thread(spare.lead)
            await stage.hold(0.2, 2.0)
            await _take_over(stage, spare)
    return ""


async def failover(stage: Stage) -> str:
    """Nodes move to the replica one after another, while Redis still takes messages; then the same way back.

    No node may die meanwhile: what it alone had accepted, nobody would be told of.
    """
    proxies = [stage.cluster.proxies[number, "redis"] for number in range(len(stage.cluster.nodes))]

    async def move(port: int) -> None:
        for proxy in stage.rng.sample(proxies, len(proxies)):
            proxy.target = port
            proxy.drop()
            await stage.hold(0.0, 0.8)

    async with _replica(stage) as spare:
        redis = stage.cluster.backends.redis
        with stage.losing():
            stage.split()
            try:
                await asyncio.to_thread(spare.lead)
                await move(spare.port)
                await stage.hold(0.5, 2.0)
                await _take_over(stage, spare)
            finally:
                await move(redis.port)
    return "forth and back"
