"""The heart of the design, at random: whatever the bus drops, repeats and reorders, whatever the inbox
loses or answers late, each device gets its inbox in order, without holes and without repeats."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from twisted.trial import unittest

from imd.chat.session import Session
from imd.contracts.inbox import ConnectRequest, Leave, Registered
from imd.protocol.errors import Unavailable
from tests.support.doubles import InboxDouble

WINDOW = 3
USER = "bob"


class Link:
    """One connection of a client, both ends: the session's outlet, and what the client makes of it.

    A frame that was sent stays in flight until the client reads it. A ping is in flight like everything else.
    """

    def __init__(self, story: Story, client: Client) -> None:
        self.story = story
        self.client = client
        self.writable = True
        self.in_flight: list[bytes | None] = []
        """payloads; None for a ping, whose mark is the next of `marks`"""
        self.marks: list[bytes] = []
        self.closed: int | None = None
        self.alive = True
        """False: the client has gone, and the node does not know"""
        self.epoch = ""
        self.seq = 0
        """the last number that the client got on this link, or began with"""
        self.sent_seq = 0
        """the last number that was sent, read or not"""
        self.heard: dict[str, int] = {}
        """epoch → the highest number that a hint brought"""
        story.channels += 1
        request = ConnectRequest(
            USER, client.name, f"{client.name}-{story.channels}", attempt=story.channels
        )
        if client.sends_cursor and client.cursor is not None:
            request.epoch, request.seq = client.cursor
        self.claimed = client.cursor
        self.session = Session(
            story.inbox, self, request, acknowledges=client.acknowledges, window=WINDOW
        )
        story.links[self.session.channel] = self
        story.inbox.connect(request).addCallbacks(self.registered, self.failed)

    # from the inbox

    def registered(self, outcome: Any) -> None:
        """As the connection does it."""
        if not isinstance(outcome, Registered):
            self.end(clean=False)
            return
        if self.session.ended:
            self.story.leave(self.session.leave(clean=False))
            return
        start = {"epoch": outcome.page.epoch, "seq": outcome.seq, "recovered": outcome.recovered}
        self.send(json.dumps({"type": "connected", **start}).encode())
        self.session.begin(outcome)

    def failed(self, failure: Any) -> None:
        failure.trap(Unavailable)
        self.end(clean=False)

    # what a session needs

    def send(self, payload: bytes, rest: memoryview | None = None) -> None:
        assert rest is None, "nothing is that large here"
        assert self.closed is None, "nothing is sent after a close"
        frame = json.loads(payload)
        if "type" in frame:
            self.sent_seq = frame["seq"]
        else:
            assert frame["seq"] == self.sent_seq + 1, (frame, self.sent_seq)
            self.sent_seq = frame["seq"]
            if self.client.acknowledges:
                unacked = self.session.sent - self.session.cursor.acked
                assert unacked <= WINDOW, "more than a window is in flight"
        self.in_flight.append(payload)

    def ping(self) -> None:
        self.marks.append(self.session.ping_mark())
        self.in_flight.append(None)

    def close(self, code: int, reason: str) -> None:
        self.closed = code
        self.writable = False

    # the client

    def read(self, count: int) -> None:
        arrived, self.in_flight = self.in_flight[:count], self.in_flight[count:]
        for payload in arrived:
            if payload is None:
                self.session.ponged(self.marks.pop(0))
            else:
                self.client.got(self, json.loads(payload))

    def end(self, clean: bool) -> None:
        """The connection is gone, and the node knows; what a clean close leaves in flight has arrived."""
        if clean:
            self.read(len(self.in_flight))
        self.alive = False
        self.story.links.pop(self.session.channel, None)
        if self.client.link is self:
            self.client.link = None
        if self.session.epoch:
            self.story.leave(self.session.leave(clean))
        self.session.ended = True


class Client:
    """A device, with the memory that it keeps from one connection to the next."""

    def __init__(self, name: str, *, acknowledges: bool, sends_cursor: bool) -> None:
        self.name = name
        self.acknowledges = acknowledges
        self.sends_cursor = self.names_epoch = sends_cursor
        self.link: Link | None = None
        self.cursor: tuple[str, int] | None = None
        self.first: int | None = None
        """the first number of the inbox that is this device's to get"""
        self.have: list[tuple[str, int]] = []
        self.told = 0
        """how often it was told that there is a hole"""

    def got(self, link: Link, frame: dict[str, Any]) -> None:
        kind = frame.get("type")
        if kind in ("connected", "reset"):
            link.epoch, link.seq = frame["epoch"], frame["seq"]
            if not frame["recovered"]:
                self.told += 1
            elif self.cursor is not None:
                epoch, seq = self.cursor
                assert link.epoch == epoch, "another epoch, and not told"
                # Seed clients start where the node knows them to have got to: never later than that.
                assert link.seq == seq if self.sends_cursor else link.seq <= seq, "a hole, and not told"
            if self.first is None:
                self.first = frame["seq"] + 1
        else:
            assert frame["seq"] == link.seq + 1, "out of order"
            assert frame["msg"] == link.story.truth[link.epoch, frame["seq"]], "another message's number"
            link.seq = frame["seq"]
            self.have.append((link.epoch, frame["seq"]))
        self.cursor = (link.epoch, link.seq)


class Story(RuleBasedStateMachine):
    """Three devices of one user: one acknowledges, with the epoch, and keeps a cursor, one only acknowledges,
    one is as the seed's. Here the bus reorders and repeats; and with `lossy` it drops, and the inbox fails
    too."""

    lossy = False
    stormy = False
    """the inbox goes back in time, is trimmed under its readers, and the registry forgets channels"""

    def __init__(self) -> None:
        super().__init__()
        self.channels = 0
        self.texts = 0
        self.truth: dict[tuple[str, int], str] = {}
        """what each number of each epoch stands for"""
        self.links: dict[str, Link] = {}
        self.hints: list[tuple[str, str, int, bytes | None]] = []
        self.clients = [
            Client("phone", acknowledges=True, sends_cursor=True),
            Client("laptop", acknowledges=True, sends_cursor=False),
            Client("tablet", acknowledges=False, sends_cursor=False),
        ]
        self.inbox = InboxDouble()

    def leave(self, leave: Leave) -> None:
        self.inbox.leave(leave).addErrback(lambda failure: failure.trap(Unavailable))

    def tell(self, index: int, keep: bool, whole: bool) -> None:
        channel, epoch, seq, body = self.hints[index]
        if not keep:
            del self.hints[index]
        link = self.links.get(channel)
        if link is not None:
            link.heard[epoch] = max(seq, link.heard.get(epoch, 0))
            link.session.hint(epoch, seq, body if whole else None)

    # the senders

    @rule(count=st.integers(1, 5))
    def place(self, count: int) -> None:
        held = self.inbox.of(USER)
        for _ in range(count):
            self.texts += 1
            self.truth[held.epoch, held.head + 1] = text = f"text {self.texts}"
            placed = self.inbox.place(USER, json.dumps({"msg": text}).encode())
            self.hints += [(channel, placed.epoch, placed.seq, placed.body) for channel in placed.channels]

    # the bus

    @precondition(lambda self: self.hints)
    @rule(at=st.integers(0, 1000), keep=st.booleans(), whole=st.sampled_from([True, True, False]))
    def hint(self, at: int, keep: bool, whole: bool) -> None:
        self.tell(at % len(self.hints), keep, whole)

    @precondition(lambda self: self.hints)
    @rule()
    def hints_in_order(self) -> None:
        while self.hints:
            self.tell(0, False, True)

    @precondition(lambda self: self.lossy and self.hints)
    @rule(at=st.integers(0, 1000))
    def drop_hint(self, at: int) -> None:
        del self.hints[at % len(self.hints)]

    # the inbox

    @precondition(lambda self: self.inbox.calls)
    @rule(count=st.integers(1, 4))
    def perform(self, count: int) -> None:
        for _ in range(count):
            self.inbox.perform()

    @precondition(lambda self: self.inbox.answers)
    @rule(count=st.integers(1, 4))
    def answer(self, count: int) -> None:
        for _ in range(count):
            self.inbox.answer()

    @precondition(lambda self: self.lossy and (self.inbox.calls or self.inbox.answers))
    @rule()
    def fail(self) -> None:
        if not self.inbox.lose_answer():
            self.inbox.refuse()

    @precondition(lambda self: self.stormy)
    @rule(lost=st.integers(0, 5))
    def go_back(self, lost: int) -> None:
        self.inbox.go_back(USER, lost)
        held = self.inbox.of(USER)
        for seq, body in held.messages.items():
            self.truth[held.epoch, seq] = json.loads(body)["msg"]

    @precondition(lambda self: self.stormy)
    @rule(kept=st.integers(0, 4))
    def trim(self, kept: int) -> None:
        held = self.inbox.of(USER)
        held.trim(max(held.low, held.head - kept))

    @precondition(lambda self: self.stormy)
    @rule()
    def forget_channels(self) -> None:
        self.inbox.of(USER).channels.clear()

    @precondition(lambda self: self.stormy)
    @rule(lost=st.integers(0, 5))
    def go_back_and_tell(self, lost: int) -> None:
        """And every session finds out, while its client has read nothing of it yet."""
        self.go_back(lost)
        self.reconcile()
        self.inbox.settle()

    # the clients

    @rule(who=st.integers(0, 2), clean=st.booleans())
    def come_back(self, who: int, clean: bool) -> None:
        """End the connection, and have another that is through and read."""
        self.disconnect(who, clean)
        self.connect(who)
        self.inbox.settle()
        self.read(who, 1000)

    @rule(who=st.integers(0, 2))
    def connect(self, who: int) -> None:
        """Afresh; a connection that it had hangs on at the node, and never reads again."""
        client = self.clients[who]
        if client.link is not None:
            client.link.alive = False
        client.link = Link(self, client)

    @rule(who=st.integers(0, 2), count=st.integers(1, 8))
    def read(self, who: int, count: int) -> None:
        link = self.clients[who].link
        if link is not None:
            link.read(count)

    @rule(who=st.integers(0, 1), behind=st.integers(0, 2))
    def acknowledge(self, who: int, behind: int) -> None:
        link = self.clients[who].link
        if link is not None and link.seq > behind:
            self.send_ack(link, link.seq - behind)

    def send_ack(self, link: Link, seq: int) -> None:
        """A reset may be on its way to the client: the number is of the epoch that the client knows."""
        link.session.acknowledge(seq, link.epoch if link.client.names_epoch else None)

    @rule(who=st.integers(0, 2))
    def heartbeat(self, who: int) -> None:
        link = self.clients[who].link
        if link is not None and link.session.epoch:
            link.ping()

    @rule(who=st.integers(0, 2), clean=st.booleans())
    def disconnect(self, who: int, clean: bool) -> None:
        link = self.clients[who].link
        if link is not None:
            link.end(clean)

    @rule(at=st.integers(0, 10))
    def notice(self, at: int) -> None:
        """The node finds out that a connection is dead."""
        dead = [link for link in self.links.values() if not link.alive or link.closed]
        if dead:
            dead[at % len(dead)].end(clean=False)

    @rule(who=st.integers(0, 2), writable=st.booleans())
    def socket(self, who: int, writable: bool) -> None:
        link = self.clients[who].link
        if link is not None and link.closed is None:
            link.writable = writable
            if writable:
                link.session.writable_again()

    # upkeep

    @rule()
    def reconcile(self) -> None:
        for link in list(self.links.values()):
            if link.session.epoch and not link.session.ended:
                seen = self.inbox.renew(link.session.lease(True))
                seen.addCallbacks(link.session.head_seen, lambda failure: failure.trap(Unavailable))

    # the end

    def come_to_rest(self) -> None:
        """Everything arrives, everybody reads and acknowledges, until nothing moves any more."""
        for _ in range(1000):
            while self.hints:
                self.tell(0, False, True)
            self.inbox.settle()
            before = [client.cursor for client in self.clients]
            for client in self.clients:
                link = client.link
                if link is None or link.closed is not None:
                    continue
                link.read(len(link.in_flight))
                if not link.writable:
                    link.writable = True
                    link.session.writable_again()
                if client.acknowledges and link.epoch:
                    self.send_ack(link, link.seq)
            quiet = before == [client.cursor for client in self.clients]
            if quiet and not (self.inbox.calls or self.inbox.answers):
                return
        raise AssertionError("it never comes to rest")

    def nothing_heard_is_forgotten(self) -> None:
        """A hint may be dropped, its number never: what any of them told is there without reconciling."""
        held = self.inbox.of(USER)
        for client in self.clients:
            link = client.link
            if link is not None and link.closed is None and held.epoch in link.heard:
                assert client.cursor is not None
                assert client.cursor[0] == held.epoch, "a new epoch was heard of, and forgotten"
                assert client.cursor[1] >= min(held.head, link.heard[held.epoch]), "a number was forgotten"

    def teardown(self) -> None:
        self.come_to_rest()
        if not self.lossy:
            self.nothing_heard_is_forgotten()
        if self.lossy or self.stormy:
            self.reconcile()
            self.come_to_rest()
        held = self.inbox.of(USER)
        for client in self.clients:
            link = client.link
            if link is None or link.closed is not None:
                continue
            assert client.cursor == (held.epoch, held.head), (client.name, client.cursor, held)
            if not client.told:
                assert client.first is not None
                expected = [(held.epoch, seq) for seq in range(client.first, held.head + 1)]
                assert sorted(set(client.have)) == expected, "something is missing"
                if client.sends_cursor:
                    assert client.have == expected, "something came twice"
        if not self.stormy:
            assert not any(client.told for client in self.clients), "a hole in a sound inbox"
        for link in list(self.links.values()):
            link.end(clean=False)
        self.inbox.settle()


class LossyStory(Story):
    lossy = True


class StormyStory(Story):
    stormy = True


class LossyStormyStory(Story):
    lossy = stormy = True


class SessionStoryTests(unittest.TestCase):
    def tell(self, story: type[Story]) -> None:
        examples = settings(
            max_examples=120,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        )
        run_state_machine_as_test(story, settings=examples)

    def test_reordered_and_repeated(self) -> None:
        """Without any loss each device gets 1 … n in order, once, and nobody has to reconcile."""
        self.tell(Story)

    def test_dropped(self) -> None:
        """Dropped hints and lost answers are made good by one look at the inbox."""
        self.tell(LossyStory)

    def test_back_in_time(self) -> None:
        """New epochs, trims and lost registrations: every hole is told, none is silent."""
        self.tell(StormyStory)

    def test_ack_crosses_a_reset(self) -> None:
        """Chance seldom finds it: an ack of the old epoch while a reset is on its way, then the end."""
        for who in (0, 1):
            story = StormyStory()
            story.place(count=5)
            story.come_back(who=who, clean=False)
            story.acknowledge(who=who, behind=2)
            story.go_back_and_tell(lost=0)
            story.acknowledge(who=who, behind=0)
            story.come_back(who=who, clean=False)
            self.assertEqual(story.clients[who].told, 1)
            story.teardown()

    def test_all_at_once(self) -> None:
        """All of it together."""
        self.tell(LossyStormyStory)
