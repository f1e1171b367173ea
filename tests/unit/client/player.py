"""Plays a scenario of tests/scenarios with the Python core; imd.js plays the same ones."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

from imd.client import (
    Accepted,
    ClientError,
    Connected,
    ConversationPage,
    ConversationsChanged,
    ConversationsView,
    Edit,
    Failed,
    FrameRefused,
    Gap,
    Leaving,
    Member,
    Message,
    Outgoing,
    Presence,
    Reaction,
    Recall,
    Refusal,
    RoomEvent,
    RoomPage,
    RoomsView,
    Signal,
    SqliteStore,
    StateChanged,
    Typing,
    View,
    effects,
)
from imd.client.numbered import entry_of
from imd.client.requests import listed, result_of
from tests.unit.client.shapes import Mismatch, as_frame, code_of, snake
from tests.unit.client.support import Clock, Pipe

TIME_MS = 1_764_000_000_000
"""the node's time, and the time of day, when a scenario begins"""
COMPLETE = f"{TIME_MS:012x}" + "0" * 16
SILENT = ("state", "connected", "error")

_OPTIONS = {
    "userId": "user_id",
    "isVisitor": "visitor",
    "isCustomerService": "customer_service",
    "dedupSeconds": "dedup_seconds",
    "maxOutbox": "max_outbox",
    "features": "features",
    "presence": "presence",
    "pingSeconds": "ping_seconds",
    "pongSeconds": "pong_seconds",
    "historySeconds": "history_seconds",
    "connectSeconds": "connect_seconds",
}
_TYPES = {Edit: "edit", Recall: "recall", Reaction: "react", RoomEvent: "room"}


class Day(Clock):
    """The time of day goes on evenly, until it is set."""

    @property
    def elapsed_ms(self) -> int:
        return round((self.now - Clock.now) * 1000)

    def wall(self) -> float:
        return (TIME_MS + self.elapsed_ms + self.set_by) / 1000

    set_by = 0


class Player:
    """`path`: of a file for the store."""

    def __init__(self, scenario: dict[str, Any], path: Path) -> None:
        self.scenario = scenario
        self.path = path
        self.clock = Day()
        self.names: dict[str, Any] = {}
        self.store: SqliteStore | None = None
        self.begin()

    def begin(self) -> None:
        """A new process."""
        if self.store is not None:
            self.store.close()
        self.store = SqliteStore(self.path)
        options = dict(self.scenario.get("options", {}))
        self.holds, self.asks = options.pop("holds", False), options.pop("asks", False)
        self.tokens = options.pop("tokens", None)
        named = {_OPTIONS[name]: value for name, value in options.items()} | {"device": "d"}
        if options.get("isVisitor") or self.tokens is not None:
            named.setdefault("user_id", None)
        self.pipe = Pipe(self.clock, self.store, has_token=self.tokens is not None, **named)
        self.sent: list[dict[str, Any]] = []
        self.acked: list[Any] | None = None
        self.events: list[dict[str, Any]] = []
        self.errors: list[str] = []
        self.view = View("alice")
        self.rooms = RoomsView("alice")
        self.list = ConversationsView("alice")
        self.answers: dict[str, Any] = {}
        self.seen = 0
        self.pipe.core.start()
        self.look()

    def play(self) -> None:
        for number, step in enumerate(self.scenario["steps"]):
            kind = next(iter(step))
            try:
                getattr(self, f"do_{kind}")(step[kind], step)
                self.look()
            except (Mismatch, AttributeError, KeyError, IndexError, ClientError, ValueError) as error:
                raise AssertionError(f"{self.scenario['name']}: step {number} {step}: {error!r}") from error
        assert self.store is not None
        self.store.close()

    # ---- what the client did

    def look(self) -> None:
        while True:
            self.pipe.run()
            todo, self.seen = self.pipe.done[self.seen :], len(self.pipe.done)
            if not todo:
                return
            for effect in todo:
                self.note(effect)

    def note(self, effect: effects.Effect) -> None:
        match effect:
            case effects.Transmit(text):
                self.frame(json.loads(text))
            case effects.AskToken():
                if self.tokens:
                    self.pipe.core.token_given(self.tokens.pop(0))
                else:
                    self.pipe.core.token_failed("there is none")
            case effects.Answer(ref, result):
                self.answers[ref] = result
            case effects.Deliver(entry):
                kind = _TYPES.get(type(entry)) or ("sent" if entry.elsewhere else "message")
                self.events.append({"type": kind} | as_frame(entry))
                self.view.put(entry)
                self.list.add(entry)
                if isinstance(entry, RoomEvent):
                    self.rooms.apply(entry)
                if not self.holds:
                    self.pipe.core.handled(entry.id)
            case effects.Emit(event):
                self.happened(event)

    def frame(self, frame: dict[str, Any]) -> None:
        if frame.get("isConnect"):
            self.signal = frame
        elif frame.get("type") == "ack":
            self.acked = [frame["epoch"], frame["seq"]]
        elif frame.get("type") == "ping":
            if not self.scenario.get("silent"):
                self.pipe.gets(type="pong")
        elif frame.get("type") == "changes" and frame.get("limit") == 0 and not self.asks:
            answer = {"events": [], "more": False, "complete": COMPLETE}
            self.pipe.gets(type="changes", ref=frame["ref"], **answer)
        else:
            self.sent.append(frame)

    def happened(self, event: Any) -> None:
        match event:
            case Refusal(code):
                self.errors.append(code)
            case Accepted(outgoing, entry_id, send_time):
                told = {"id": entry_id, "sendTime": send_time, "changed": outgoing.changed}
                room = {"room": outgoing.room, "version": outgoing.version}
                self.events.append({"type": "accepted", "clientMsgId": outgoing.client_msg_id} | told | room)
                self.view.accepted(event, "alice")
                self.rooms.accepted(event)
                self.list.accepted(event)
            case Failed(outgoing, refusal):
                told = {"clientMsgId": outgoing.client_msg_id, "code": refusal.code}
                self.events.append({"type": "failed"} | told)
            case Gap():
                self.events.append({"type": "gap"})
            case Leaving(seconds):
                self.events.append({"type": "leaving", "reconnectMs": seconds * 1000})
            case ConversationsChanged():
                self.events.append({"type": "conversations"} | as_frame(event))
                self.list.changed(event)
            case Presence() | Typing() | Signal():
                self.events.append({"type": type(event).__name__.lower()} | as_frame(event))
            case FrameRefused(frame, refusal):
                self.events.append({"type": "refused", "code": refusal.code, "frame": frame})
            case StateChanged() | Connected():
                pass
            case _:
                raise Mismatch(f"unexpected: {event}")

    # ---- comparing

    def filled(self, value: Any) -> Any:
        """With names in place of their values."""
        if isinstance(value, str) and value.startswith("$"):
            return self.names[value]
        if isinstance(value, list):
            return [self.filled(each) for each in value]
        if isinstance(value, dict):
            return {name: self.filled(each) for name, each in value.items()}
        return value

    def match(self, expected: Any, found: Any, exact: bool = False) -> None:
        if isinstance(expected, str) and expected.startswith("$"):
            if not found or self.names.setdefault(expected, found) != found:
                raise Mismatch(f"{expected}: {self.names.get(expected)!r}, not {found!r}")
        elif isinstance(expected, dict):
            if not isinstance(found, dict) or (exact and found.keys() != expected.keys()):
                raise Mismatch(f"{found!r}, not {expected!r}")
            for name, value in expected.items():
                self.match(value, found.get(name), exact)
        elif isinstance(expected, list):
            if not isinstance(found, list) or len(found) != len(expected):
                raise Mismatch(f"{found!r}, not {expected!r}")
            for one, other in zip(expected, found, strict=True):
                self.match(one, other, exact)
        elif expected is None:
            if found not in (None, "", False, [], 0):
                raise Mismatch(f"{found!r}, not nothing")
        elif expected != found:
            raise Mismatch(f"{found!r}, not {expected!r}")

    # ---- steps: what happens

    def do_open(self, fields: dict[str, Any] | None, step: dict[str, Any]) -> None:
        core = self.pipe.core
        if core.state != "connecting":
            raise Mismatch(f"{core.state}")
        core.opened(core.connection)
        self.look()
        self.match(step.get("signal", {}), self.signal)
        if fields is None:
            return
        fields = dict(self.filled(fields))
        limits = {"messageBytes": 1000, "groupMembers": 5, "ackWindow": 8, "messagesPerSecond": 0}
        connected = {"v": 1, "userId": "alice", "device": "d", "epoch": "e", "seq": 0, "recovered": True}
        connected |= {"serverTime": TIME_MS + self.clock.elapsed_ms, "pingSeconds": 25}
        state = ["state"] if fields.pop("state", False) else []
        if fields.pop("events", bool(state)):
            newer = {"dataBytes": 4096, "roomMembers": 1000, "editSeconds": 86400, "recallSeconds": 86400}
            limits |= newer
            connected["features"] = ["events", "sync", *state]
        self.pipe.gets(type="connected", **(connected | {"limits": limits} | fields))

    def do_repeat(self, count: int, step: dict[str, Any]) -> None:
        for number in range(count):
            todo = json.loads(json.dumps(step["do"]).replace("#", str(number)))
            kind = next(iter(todo))
            getattr(self, f"do_{kind}")(todo[kind], todo)

    def do_refused(self, ms: int, step: dict[str, Any]) -> None:
        while (frame := self.sent.pop(0))["msg"] != step["until"]:
            refusal = {"code": "rate_limited", "reason": "", "temporary": True, "retryAfterMs": ms}
            self.pipe.gets(type="error", clientMsgId=frame["clientMsgId"], **refusal)
            self.look()
        self.pipe.gets(type="accepted", clientMsgId=frame["clientMsgId"], id="x", sendTime=1)
        self.look()
        self.events.clear()

    def do_taken(self, count: int, step: dict[str, Any]) -> None:
        for number in range(count):
            taken = self.sent.pop(0)["clientMsgId"]
            self.pipe.gets(type="accepted", clientMsgId=taken, id=f"x{number}", sendTime=1)
            self.look()

    def do_node(self, frames: Any, step: dict[str, Any]) -> None:
        for frame in frames if isinstance(frames, list) else [frames]:
            self.pipe.gets(**self.filled(frame))
            self.look()

    def do_close(self, code: int | None, step: dict[str, Any]) -> None:
        self.pipe.lose(code)

    def do_wait(self, ms: int, step: dict[str, Any]) -> None:
        core, clock = self.pipe.core, self.clock
        end = clock.now + ms / 1000
        while (at := core.deadline()) is not None and at <= end:
            clock.now = max(clock.now, at)
            core.tick()
            self.look()
        clock.now = end

    def do_clock(self, ms: int, step: dict[str, Any]) -> None:
        self.clock.set_by = ms

    def do_reload(self, _: Any, step: dict[str, Any]) -> None:
        self.begin()

    def do_older(self, entry: dict[str, Any], step: dict[str, Any]) -> None:
        """An entry that an older version has stored; a `reload` finds it."""
        given = dict(entry)
        named = {"client_msg_id": given.pop("clientMsgId"), "msg": given.pop("msg"), "to": given.pop("to")}
        assert self.store is not None
        self.store.put_outgoing(Outgoing(**named, queued_at=TIME_MS, fields=given))

    def do_start(self, _: Any, step: dict[str, Any]) -> None:
        self.pipe.core.start()

    def do_stop(self, _: Any, step: dict[str, Any]) -> None:
        self.pipe.core.stop()
        self.look()
        if self.pipe.core.state != "closed":
            self.pipe.lose(1000)

    def do_handled(self, entry_id: str, step: dict[str, Any]) -> None:
        self.pipe.core.handled(entry_id)

    def do_call(self, name: str, step: dict[str, Any]) -> None:
        try:
            result = self.call(name, self.filled(step.get("args", {})))
        except (ClientError, ValueError) as error:
            self.match(step.get("fails"), code_of(error))
            return
        if "fails" in step:
            raise Mismatch("it did not fail")
        if "as" in step:
            self.names[step["as"]] = result
        if "gives" in step:
            self.match(step["gives"], as_frame(result))

    def call(self, name: str, args: dict[str, Any]) -> Any:
        shell = self.pipe.program
        if name in ("cancel", "retry"):
            core = self.pipe.core
            return (core.cancel if name == "cancel" else core.retry)(args["clientMsgId"])
        given = {snake(key): value for key, value in args.items()}
        if name in ("edit", "recall", "react"):
            return getattr(shell, name)(given.pop("id"), **given)
        if name == "messages":
            return shell.fetch(given["ids"])
        if name.startswith("rooms."):
            if "users" in given:
                given["users"] = [Member(each["userId"], each.get("role", "")) for each in given["users"]]
                given["users"] = [each if each.role else each.user_id for each in given["users"]]
            return getattr(shell.rooms, name.removeprefix("rooms."))(**given)
        return getattr(shell, name)(**given)

    # ---- steps: what is expected

    def do_sent(self, frames: list[Any], step: dict[str, Any]) -> None:
        found, self.sent = self.sent, []
        self.match(frames, found, exact=True)

    def do_acked(self, expected: Any, step: dict[str, Any]) -> None:
        found, self.acked = self.acked, None
        self.match(expected, found)

    def do_events(self, expected: list[Any], step: dict[str, Any]) -> None:
        found, self.events = self.events, []
        self.match(expected, found)

    def do_errors(self, expected: list[Any], step: dict[str, Any]) -> None:
        found, self.errors = self.errors, []
        self.match(expected, found)

    def do_state(self, expected: str, step: dict[str, Any]) -> None:
        self.match(expected, str(self.pipe.core.state))

    def do_outbox(self, expected: list[Any], step: dict[str, Any]) -> None:
        self.match(expected, [as_frame(outgoing) for outgoing in self.pipe.core.outbox.all])

    def do_answer(self, name: str, step: dict[str, Any]) -> None:
        result = self.answers[self.names[name]]
        if isinstance(result, Exception) or "fails" in step:
            self.match(step.get("fails"), code_of(result))
        else:
            self.match(step["is"], as_frame(result))

    def stored(self) -> str:
        with sqlite3.connect(self.path) as file:
            return "\n".join(file.iterdump())

    def do_keeps(self, texts: list[str], step: dict[str, Any]) -> None:
        for text in texts:
            if text not in self.stored():
                raise Mismatch(f"{text} is not in the store")

    def do_lacks(self, texts: list[str], step: dict[str, Any]) -> None:
        for text in texts:
            if text in self.stored():
                raise Mismatch(f"{text} is in the store")

    def do_page(self, frames: list[Any], step: dict[str, Any]) -> None:
        for entry in map(entry_of, frames):
            if isinstance(entry, Message):
                self.view.put(entry)

    def do_view(self, expected: list[Any], step: dict[str, Any]) -> None:
        self.match(expected, as_frame(self.view.messages))

    def do_page_of_list(self, page: dict[str, Any], step: dict[str, Any]) -> None:
        found = [listed(self.filled(each)) for each in page["conversations"]]
        self.list.put(ConversationPage(found, page["more"]))

    def do_list(self, expected: list[Any], step: dict[str, Any]) -> None:
        self.match(expected, as_frame(self.list.all))
        if "unread" in step:
            self.match(step["unread"], self.list.unread(TIME_MS + self.clock.elapsed_ms))
        if "incomplete" in step:
            self.match(step["incomplete"], self.list.incomplete)

    def do_known(self, expected: list[Any], step: dict[str, Any]) -> None:
        program = self.pipe.program
        found = sorted(program.known_conversations, key=lambda each: each.key)
        self.match(expected, as_frame(found))
        self.match(step.get("receipts", True), program.receipts)

    def do_present(self, expected: dict[str, bool], step: dict[str, Any]) -> None:
        if self.pipe.program.present != expected:
            raise Mismatch(f"{self.pipe.program.present}")

    def do_page_of_rooms(self, page: dict[str, Any], step: dict[str, Any]) -> None:
        found = result_of({"type": "rooms", **page})
        assert isinstance(found, RoomPage)
        self.rooms.put(found)

    def do_rooms(self, expected: list[Any], step: dict[str, Any]) -> None:
        self.match(expected, as_frame(self.rooms.all))
