"""The group commit when blocks leave recipients out, or messages come too late."""

from __future__ import annotations

import json

from imd.chat import accept, batch
from imd.contracts.inbox import Delivery, Duplicate, Late, PlacedPartly
from imd.protocol import events
from imd.protocol.errors import UNAVAILABLE
from tests.unit.chat.test_accept import AcceptorTestCase


class LeftOutTests(AcceptorTestCase):
    def records(self, which: int = 0) -> list[dict[str, object]]:
        """The members that only the archive knows, of a batch's records."""
        bodies = [json.loads(body) for body in self.queue.bodies(which)]
        return [{name: body[name] for name in ("of", "without") if name in body} for body in bodies]

    def settle(self) -> None:
        self.turn()
        self.place()
        self.confirm_all()

    def test_message(self) -> None:
        """It is accepted and delivered to the others; the archive is told who was left out."""
        delivery = Delivery("user1", "epoch", 1, [], b"")
        self.inbox.refusals = {"user0": PlacedPartly([delivery], "", without=("user0", "user2"))}
        self.alice.send_group(3)
        self.settle()
        self.assertEqual(self.alice.answers, [(None, "accepted")])
        self.assertEqual(self.delivered, [delivery])
        self.assertEqual(self.records(), [{"without": ["user0", "user2"]}])

    def test_resend(self) -> None:
        """Its archive record is that of the first time."""
        self.inbox.refusals = {"user0": Duplicate("0" * 28, 7, without=("user2",))}
        self.alice.send_group(3)
        self.settle()
        self.assertEqual(self.records(), [{"without": ["user2"]}])
        self.assertEqual(self.alice.accepted[None], ("0" * 28, 7))

    def test_event(self) -> None:
        """An event goes to nobody whom a block left out of its message, nor to whom one leaves out now."""
        self.inbox.refusals = {"bob": PlacedPartly([], "", without=("bob",))}
        edit = events.Edit(of="0" * 28, group=["bob", "carol"], msg="hello")
        self.submit_event("c-1", edit, kind="edit", archived=b'"without":["carol"]')
        self.settle()
        self.assertEqual(self.records(), [{"of": "0" * 28, "without": ["bob", "carol"]}])

    def test_late(self) -> None:
        """It may be sent again; a metric counts it."""
        before = batch.LATE._value.get()
        self.inbox.refusals = {"bob": Late()}
        self.alice.send("c-1")
        self.settle()
        refused = self.alice.refused["c-1"]
        self.assertEqual((refused.code, refused.retry_after_ms), (UNAVAILABLE, 1000))
        self.assertEqual(batch.LATE._value.get(), before + 1)

    def test_unchecked(self) -> None:
        """A metric counts what is placed while the inbox does not know all blocks."""
        before = accept.UNCHECKED._value.get()
        self.alice.send("c-1")
        self.settle()
        self.acceptor._blocks_loaded = lambda: False
        self.inbox.refusals = {"new": Late()}
        for number, to in enumerate(("bob", "carol", "new")):
            self.alice.send(f"d-{number}", to)
        self.settle()
        self.assertEqual(accept.UNCHECKED._value.get(), before + 2)
