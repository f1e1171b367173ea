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
    rows = _rows(plan)
    with rig.redis_first():
        for turn in range(plan.turns):
            say(f"turn {turn + 1}: {await _room_and_list(rig, plan, rows)}")
            say(f"turn {turn + 1}: {await _others_beside(rig, plan, rows)}")
    for name in ("rooms-script", "group-script", "rooms-busy-script"):
        rows[name].notes = ["from its beginning to its end; Redis waits for no other work meanwhile"]
    rows["rooms"].notes = ["the reference of both is the list, whose members are all connected"]
    for name in ("rooms-beside-p50", "rooms-beside"):
        rows[name].notes = [
            f"{plan.room_rate:g} messages a second in each room; the reference: the same without them"
        ]
    return list(rows.values())


def _rows(plan: Plan) -> dict[str, Row]:
    """Without values, by name."""
    room = f"room of {plan.room_members:,}, {plan.room_connected} of them connected"
    several = f"{plan.busy_rooms} such rooms"
    beside = f"a pair while {several} are busy, to the recipient"
    brief = value_at_most(20)
    rows = (
        Row("rooms", f"{room}: into inboxes", "deliveries/s", goal=ratio_at_least(1)),
        Row("rooms-told", f"{room}: to those connected", "deliveries/s"),
        Row("rooms-script", f"{room}: longest script call", "ms", goal=brief),
        Row("group-script", f"group list of {plan.members}: longest script call", "ms", goal=brief),
        Row("rooms-beside-p50", f"{beside}, p50", "ms"),
        Row("rooms-beside", f"{beside}, p99", "ms"),
        Row("rooms-busy-script", f"{several}, busy: longest script call", "ms", goal=brief),
        Row(
            "rooms-cold",
            "reads of a cold room in MongoDB by a node, many messages",
            "reads",
            goal=value_at_most(1),
        ),
    )
    return {row.name: row for row in rows}


async def _room_and_list(rig: Rig, plan: Plan, rows: dict[str, Row]) -> str:
    """One turn of both; gives it in words."""
    [node] = rig.cluster()
    rig.forget_calls()
    listing = await listed(rig, plan, node.url, 0)
    rows["group-script"].values.append(rig.longest_call_ms())
    ran = await _in_a_room(rig, plan, node.url, listing.messages, rows["rooms-script"])
    rig.stop(node)
    into = ran.per_second * (plan.room_members - 1) / plan.room_connected
    for name, value in (("rooms", into), ("rooms-told", ran.per_second)):
        rows[name].values.append(value)
        rows[name].reference.append(listing.per_second)
    for name in ("rooms", "rooms-told", "rooms-script", "group-script"):
        rows[name].foreign.append(others(ran, listing))
    longest = f"{rows['group-script'].values[-1]:.1f} and {rows['rooms-script'].values[-1]:.1f} ms"
    return f"list {costs(listing)}; to those connected in the room {costs(ran)}; longest calls {longest}"


async def _others_beside(rig: Rig, plan: Plan, rows: dict[str, Row]) -> str:
    """One turn of pairs beside rooms, and of a cold room; gives it in words."""
    [node] = rig.cluster()
    busy = rows["rooms-busy-script"]
    alone, meanwhile, spent = await _beside(rig, plan, node.url, busy)
    for name, percent in (("rooms-beside-p50", 50), ("rooms-beside", 99)):
        rows[name].values.append(percentile(meanwhile, percent) * 1000)
        rows[name].reference.append(percentile(alone, percent) * 1000)
        rows[name].foreign.append(others(spent))
    busy.foreign.append(others(spent))
    reads = await _cold(rig, plan, node.url)
    rows["rooms-cold"].values.append(reads)
    rig.stop_nodes()
    said = ", ".join(
        f"{rows[name].values[-1]:.1f} ms, alone {rows[name].reference[-1]:.1f}"
        for name in ("rooms-beside-p50", "rooms-beside")
    )
    return f"p50, p99: {said}; longest call {busy.values[-1]:.1f} ms; {reads:.0f} reads{disturbance(spent)}"


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
