"""The list of conversations at the store: how long a page takes, and what keeping the list costs a batch.

    python -m tests.tools.bench.talks --messages 1000000

Makes a MongoDB with one user's conversations. Tells how long a page takes, at least, and the CPU time of the
two sides, which depends on other work on the machine the least.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import pymongo
from pymongo.write_concern import WriteConcern

from imd.contracts.rooms import RoomPart
from imd.contracts.talks import Place, PlacesQuery, TalksQuery, Wanted
from imd.protocol.events import RoomMessage, encode_event
from imd.protocol.ids import MessageIds, ServerClock
from imd.protocol.message import IMessage, encode_message
from imd.store.mongo import write
from imd.store.mongo.all_indexes import make_all_indexes
from imd.store.mongo.talks import read_places, read_talks
from imd.store.mongo.write import write_messages
from tests.support.servers import shared
from tests.tools.bench.machine import cpu_seconds

BATCH = 5000
TURNS = 14


class Maker:
    """Messages with ids of a second, so that a million is made as fast as MongoDB takes them."""

    def __init__(self, conversations: int) -> None:
        self._ids = MessageIds(ServerClock())
        self._random = random.Random(1)
        rooms = conversations // 50
        self.rooms = [f"r-{n:032x}" for n in range(rooms)]
        self._lists = [[f"l{n}-{k}" for k in range(30 if n % 3 == 0 else 5)] for n in range(rooms)]
        self.people = [f"u{n}" for n in range(conversations - 2 * rooms)]

    def body(self) -> bytes:
        """A message of one of the user's conversations; every second is the user's own."""
        message_id, now = self._ids.next()
        own = self._random.random() < 0.5
        choice = self._random.random()
        if choice < 0.02:
            room = self._random.choice(self.rooms)
            sender = "alice" if own else "bob"
            more: dict[str, Any] = {"from_user_type": "USER_TYPE", "send_time": now, "msg": "x" * 60}
            return encode_event(RoomMessage(id=message_id, user_id=sender, room=room, room_version=3, **more))
        if choice < 0.04:
            people = self._random.choice(self._lists)
            sender, others = ("alice", people) if own else (people[0], ["alice", *people[1:]])
            return self._plain(message_id, now, sender, group=others)
        other = self._random.choice(self.people)
        return self._plain(message_id, now, *(("alice", other) if own else (other, "alice")))

    def one_way(self, to: str) -> bytes:
        """Nobody answers: a hundred and more are unread."""
        message_id, now = self._ids.next()
        return self._plain(message_id, now, to, "alice")

    def _plain(self, message_id: str, now: int, sender: str, to: str = "", **more: Any) -> bytes:
        return encode_message(
            IMessage(
                id=message_id,
                user_id=sender,
                from_user_type="USER_TYPE",
                to=to,
                msg="x" * 60,
                send_time=now,
                **more,
            )
        )


def timed(work: Callable[[int], Any], turns: int = 30) -> str:
    """The time that a call of `work` takes; it is given the number of the turn."""
    mongod = shared().mongo.pid
    taken = []
    server, own = cpu_seconds(mongod), time.process_time()
    for turn in range(turns):
        began = time.perf_counter()
        work(turn)
        taken.append(1000 * (time.perf_counter() - began))
    server, own = cpu_seconds(mongod) - server, time.process_time() - own
    cpu = f"CPU: MongoDB {1000 * server / turns:.1f} ms, caller {1000 * own / turns:.1f} ms"
    return f"least {min(taken):.1f} ms, median {median(taken):.1f} ms; {cpu}"


def page(archive: Any, rooms: list[RoomPart], before: str | None, read: str) -> list[Place]:
    """A page of 50 as a node reads it, but for the marks, which are all the same here."""
    places = read_places(archive, PlacesQuery("alice", rooms, before, 51)).answer.found[:50]
    wanted = [Wanted(place.conversation, place.at, read) for place in places]
    talks = read_talks(archive, TalksQuery("alice", wanted)).answer
    assert len(talks) == 50 and all(talk.last for talk in talks), talks
    return list(places)


def pages(archive: Any, maker: Maker) -> None:
    rooms = [RoomPart(room, "a room", 3, 1, 1) for room in maker.rooms]
    deep: list[Place] = []
    depth = len(maker.people) // 60
    for _ in range(depth):
        deep = page(archive, rooms, deep[-1].at if deep else None, "")
    for what, before, read in (
        ("the first page, all unread", None, ""),
        ("the first page, all read", None, "f" * 28),
        (f"page {depth}, all unread", deep[0].at, ""),
    ):
        print(f"{what}: {timed(partial(_page, archive, rooms, before, read))}", flush=True)
    for n in range(50):
        write_messages(archive, [maker.one_way(f"u{n}") for _ in range(150)], 60.0)
    print(f"50 times 100 and more unread: {timed(partial(_page, archive, rooms, None, ''))}", flush=True)


def _page(archive: Any, rooms: list[RoomPart], before: str | None, read: str, _: int) -> None:
    page(archive, rooms, before, read)


def batches(archive: Any, maker: Maker) -> None:
    """One batch of 256 as the archiver writes it, with the list and without, by turns."""
    writes_list = write.write_talks
    for what, others in (("256 pairs", 256), ("one pair", 1)):
        for name, writer in (("with", writes_list), ("without", _no_list)) * 2:
            write.write_talks = writer
            made = [[maker.one_way(f"w{n % others}") for n in range(256)] for _ in range(TURNS)]
            said = timed(partial(_write, archive, made), TURNS)
            print(f"a batch of 256 between {what}, {name} the list: {said}", flush=True)
    write.write_talks = writes_list


def _write(archive: Any, made: list[list[bytes]], turn: int) -> None:
    write_messages(archive, made[turn], 60.0)


def _no_list(*_: Any) -> int:
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--conversations", type=int, default=5000)
    options = parser.parse_args()
    client: Any = pymongo.MongoClient(shared().mongo_url(), tz_aware=True)
    concern = WriteConcern(w="majority", j=True)
    quick = WriteConcern(w=1, j=False)
    archive = client.get_default_database().get_collection("im_message", write_concern=concern)
    make_all_indexes(archive)
    maker = Maker(options.conversations)
    began = time.monotonic()
    for _ in range(options.messages // BATCH):
        bodies = [maker.body() for _ in range(BATCH)]
        write_messages(archive.with_options(write_concern=quick), bodies, 60.0)
    print(f"{archive.estimated_document_count():,} messages in {time.monotonic() - began:.0f} s", flush=True)
    pages(archive, maker)
    batches(archive, maker)


if __name__ == "__main__":
    main()
