"""A room of 1,000 members, 200 of them connected: deliveries, script calls, others beside it, cold rooms."""

from __future__ import annotations

import asyncio
import itertools

from tests.tools.bench.clients import Watch
from tests.tools.bench.lists import GROUP_WINDOW, listed
from tests.tools.bench.load import (
    DRAIN_SECONDS,
    Pacer,
    Ran,
    close_pairs,
    drain,
    open_pairs,
    percentile,
    run_group,
    time_from_now,
)
from tests.tools.bench.plan import Plan, Say
from tests.tools.bench.report import Row, ratio_at_least, value_at_most
from tests.tools.bench.rig import Rig
from tests.tools.bench.room_clients import Party, RoomSender
from tests.tools.bench.turns import costs, disturbance, foreign, others, wait_archived

# Messages of each of many senders to a room that their node does not know.
COLD_MESSAGES = 4
_names = itertools.count(1)


async def rooms(rig: Rig, plan: Plan, say: Say) -> list[Row]:
    """Deliveries of a room against those of a list, and what rooms cost others."""
    size, live = plan.room_members, plan.room_connected
    room, several = f"room of {size:,}, {live} of them connected", f"{plan.busy_rooms} such rooms"
    into = Row("rooms", f"{room}: into inboxes", "deliveries/s", goal=ratio_at_least(1))
    told = Row("rooms-told", f"{room}: to those connected", "deliveries/s")
    slowest = Row("rooms-script", f"{room}: longest script call", "ms", goal=value_at_most(20))
    lists = Row(
        "group-script", f"group list of {plan.members}: longest script call", "ms", goal=value_at_most(20)
    )
    beside = Row("rooms-beside", f"a pair while {several} are busy, to the recipient, p99", "ms")
    busy = Row("rooms-busy-script", f"{several}, busy: longest script call", "ms", goal=value_at_most(20))
    cold = Row(
        "rooms-cold",
        "reads of a cold room in MongoDB by a node, many messages",
        "reads",
        goal=value_at_most(1),
    )
    for turn in range(plan.turns):
        [node] = rig.cluster()
        rig.forget_calls()
        listing = await listed(rig, plan, node.url, 0)
        lists.values.append(rig.longest_call_ms())
        ran = await _in_a_room(rig, plan, node.url, listing.messages, slowest)
        rig.stop(node)
        into.values.append(ran.per_second * (size - 1) / live)
        told.values.append(ran.per_second)
        into.reference.append(listing.per_second)
        told.reference.append(listing.per_second)
        for row in (into, told, slowest, lists):
            row.foreign.append(others(ran, listing))
        say(f"turn {turn + 1}: list {costs(listing)}; to those connected in the room {costs(ran)}")

        [node] = rig.cluster()
        alone, meanwhile, spent = await _beside(rig, plan, node.url, busy)
        beside.values.append(percentile(meanwhile, 99) * 1000)
        beside.reference.append(percentile(alone, 99) * 1000)
        for row in (beside, busy):
            row.foreign.append(others(spent))
        cold.values.append(await _cold(rig, plan, node.url))
        rig.stop_nodes()
        p99, reads = beside.values[-1], cold.values[-1]
        say(f"turn {turn + 1}: p99 {p99:.1f} ms; {reads:.0f} reads{disturbance(spent)}")
    into.notes = ["the reference of both is the list, whose members are all connected"]
    beside.notes = [
        f"{plan.room_rate:g} messages a second in each room; the reference: the same without them"
    ]
    return [into, told, slowest, lists, beside, busy, cold]


async def _in_a_room(rig: Rig, plan: Plan, url: str, archived: int, slowest: Row) -> Ran:
    """One sender to one room, until the archive has it; `per_second` counts deliveries to those connected."""
    watch = Watch()
    party = Party(watch, f"room{next(_names)}", plan.room_members, plan.room_connected, window=GROUP_WINDOW)
    rig.forget_calls()
    ran = await run_group(watch, party, url, plan.warm_seconds, plan.seconds, rig.cpu)
    slowest.values.append(rig.longest_call_ms())
    wait_archived(rig, archived + ran.messages + party.changes, ran.sent_until)
    return ran


async def _beside(rig: Rig, plan: Plan, url: str, busy: Row) -> tuple[list[float], list[float], Ran]:
    """Latencies of pairs alone, and beside busy rooms, and what that took."""
    watch = Watch()
    party = Party(watch, f"busy{next(_names)}", plan.room_members, plan.room_connected, plan.busy_rooms)
    await party.open(url)
    pairs = await open_pairs(watch, [(url, url)], plan.shape)
    pacer = Pacer(pairs, plan.rate)
    await pacer.run(watch, plan.warm_seconds)
    time_from_now(pairs)
    await pacer.run(watch, plan.seconds)
    await drain(watch, pairs)
    alone = [one for pair in pairs for one in pair.recipient.latencies or () if one == one]
    rig.forget_calls()
    talking = asyncio.ensure_future(_talk(watch, party, plan.room_rate))
    await pacer.run(watch, plan.warm_seconds)
    time_from_now(pairs)
    spent, cpu = Ran(), rig.cpu()
    await pacer.run(watch, plan.seconds)
    spent.spent(cpu, rig.cpu(), 1, plan.seconds)
    foreign.append(spent.foreign)
    talking.cancel()
    await asyncio.gather(talking, return_exceptions=True)
    await drain(watch, pairs)
    await watch.until(lambda: party.complete, DRAIN_SECONDS, lambda: f"{party.delivered} in busy rooms")
    busy.values.append(rig.longest_call_ms())
    meanwhile = [one for pair in pairs for one in pair.recipient.latencies or () if one == one]
    await close_pairs(watch, pairs)
    party.close()
    return alone, meanwhile, spent


async def _talk(watch: Watch, party: Party, rate: float) -> None:
    """`rate` messages a second in each room, one room after the other."""
    pause = 1 / (rate * len(party.senders))
    for sender in itertools.cycle(party.senders):
        sender.send_numbered(1)
        await watch.sleep(pause)


async def _cold(rig: Rig, plan: Plan, url: str) -> float:
    """Reads of a room's document by a node that has just started, while many members write to the room."""
    watch = Watch()
    party = Party(watch, f"cold{next(_names)}", plan.cold_senders + 1, 0)
    await party.open(url)
    party.close()
    rig.forget_rooms(party.rooms)
    other = rig.another().url
    senders = [RoomSender(watch, user, party.rooms[0], user.encode() + b"-%012d") for user in party.users]
    for sender in senders:
        await sender.open(other)
    with rig.reads_of(party.rooms[0]) as reads:
        for sender in senders:
            sender.send_numbered(COLD_MESSAGES)
        await watch.until(
            lambda: all(one.count == one.sent for one in senders),
            DRAIN_SECONDS,
            lambda: "accepted in a cold room",
        )
    for sender in senders:
        sender.close()
    return float(reads())
