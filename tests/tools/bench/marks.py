"""The cost of a mark to MongoDB, beside that of a message in the archive.

    python -m tests.tools.bench.marks

Marks are set by users with few conversations and with very many, each shown to another user with as many.
Prints the CPU time of MongoDB for each: the least of several turns, as other work on the machine only adds to
it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import bson
import pymongo
from pymongo.write_concern import WriteConcern

from imd.contracts.state import Mark
from imd.contracts.state_rules import pair_id
from imd.protocol.ids import MessageIds, ServerClock
from imd.protocol.message import IMessage, encode_message
from imd.protocol.selector import Selector
from imd.store.mongo.all_indexes import make_all_indexes
from imd.store.mongo.state import COLLECTION, StateDocuments
from imd.store.mongo.state_batch import Batch, Job
from imd.store.mongo.write import write_messages
from tests.support.servers import shared
from tests.tools.bench.machine import cpu_seconds

TURNS = 6
MESSAGES = 256
USERS = 100
"""and as many peers"""
SIZES = {"a typical state": 40, "the largest state": 300, "a state of all": 1000}
"""conversations of each user"""


class Costs:
    """MongoDB and its documents."""

    def __init__(self) -> None:
        server = shared().mongo
        self.pid = server.pid
        database: Any = pymongo.MongoClient(shared().mongo_url()).get_default_database()
        self.database = database
        self.archive = database.get_collection("im_message", write_concern=WriteConcern(w="majority", j=True))
        make_all_indexes(self.archive)
        self.batch = Batch(StateDocuments(database), 30)
        self._ids = MessageIds(ServerClock())

    def next_id(self) -> str:
        return self._ids.next()[0]

    def messages(self, count: int = MESSAGES) -> int:
        """A batch of messages, each of another pair; gives their number."""
        bodies = []
        for n in range(count):
            message_id, now = self._ids.next()
            message = IMessage(
                message_id, f"c-{n}", f"a{n}", "USER_TYPE", f"b{n}", msg="x" * 60, send_time=now
            )
            bodies.append(encode_message(message))
        write_messages(self.archive, bodies, 10.0)
        return count

    def fill(self, kind: str, conversations: int) -> int:
        """Give users and peers so many conversations; the size of a document in bytes."""
        for side, other in (("user", "peer"), ("peer", "user")):
            for n in range(USERS):
                user = f"{side}-{conversations}-{n}"
                names = [f"{other}-{conversations}-{n}", *(f"somebody-{m}" for m in range(conversations - 1))]
                for start in range(0, len(names), 200):
                    marks = [self.mark(user, name, shown=False) for name in names[start : start + 200]]
                    self.batch.run([Job(user, marks, None, None)])
        found = self.database[COLLECTION].find_one({"_id": f"user-{conversations}-0"})
        return len(bson.encode(found))

    def mark(self, user: str, other: str, *, shown: bool = True) -> Mark:
        peer = other if shown else ""
        return Mark(pair_id(user, other), Selector(with_=other), self.next_id(), peer)

    def marks(self, conversations: int, users: int = USERS) -> int:
        """A mark of each user, in one batch."""
        pairs = [(f"user-{conversations}-{n}", f"peer-{conversations}-{n}") for n in range(users)]
        jobs = [Job(user, [self.mark(user, peer)], None, 1 << 40) for user, peer in pairs]
        self.batch.run([job._replace(since=None) for job in jobs])
        return users

    def many_marks(self, conversations: int) -> int:
        """Two hundred marks of one user, in one frame; counts as one."""
        user = f"user-{conversations}-0"
        marks = [self.mark(user, f"somebody-{m}", shown=False) for m in range(min(200, conversations - 1))]
        self.batch.run([Job(user, marks, None, None)])
        return 1

    def least(self, work: Callable[[], int]) -> float:
        """The least CPU time of MongoDB for one, in µs."""
        found = []
        for _ in range(TURNS):
            began, count = cpu_seconds(self.pid), 0
            while cpu_seconds(self.pid) - began < 0.25:
                count += work()
            found.append((cpu_seconds(self.pid) - began) / count)
        return min(found) * 1e6


def main(arguments: Sequence[str] | None = None) -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "").parse_args(arguments)
    costs = Costs()
    rows: list[tuple[str, Callable[[], int]]] = [
        ("a message in the archive", costs.messages),
        ("the same alone in its batch", lambda: costs.messages(1)),
    ]
    for kind, conversations in SIZES.items():
        size = costs.fill(kind, conversations)
        rows += [
            (f"a mark, {kind} ({size:,} bytes)", lambda c=conversations: costs.marks(c)),
            (f"the same alone in its batch, {kind}", lambda c=conversations: costs.marks(c, 1)),
            (
                f"{min(200, conversations - 1)} marks in a frame, {kind}",
                lambda c=conversations: costs.many_marks(c),
            ),
        ]
    for name, work in rows:
        print(f"{name}: {costs.least(work):,.1f} µs", flush=True)


if __name__ == "__main__":
    main()
