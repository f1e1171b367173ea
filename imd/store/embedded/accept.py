"""Placing messages, in the open transaction: resends, numbers, inboxes and the archive."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec

from imd.contracts.blocks import BETWEEN_THE_TWO
from imd.contracts.inbox import (
    LATE_MS,
    Conflict,
    Delivery,
    Duplicate,
    Failed,
    Late,
    NotAllowed,
    Outcome,
    Placed,
    PlacedPartly,
    Sent,
    Submission,
    TooManyNew,
)
from imd.protocol.events import RECALL
from imd.protocol.ids import is_older
from imd.protocol.message import (
    conversation_id,
    conversation_members,
    decode_message,
    is_visitor_id,
    visitor_of,
)
from imd.store.embedded import tables
from imd.store.embedded.desk import Desk
from imd.store.embedded.event_rows import archive_event
from imd.store.embedded.inboxes import Inboxes
from imd.store.embedded.rooms import RoomTables
from imd.store.embedded.state import State, User


class Use(NamedTuple):
    """The message that a clientMsgId was used for."""

    checksum: str
    number: int
    message_id: str
    send_time: int
    version: int = 0
    without: tuple[str, ...] = ()


UseKey = tuple[int, str, str]
"""the sender's uid, its device, the clientMsgId"""

_read_sent = msgspec.json.Decoder(list[tuple[int, str, str, Use]]).decode


@lru_cache(maxsize=50_000)
def _conversation(members: tuple[str, ...]) -> bytes:
    return bytes.fromhex(conversation_id(list(members)))


def _read_body(body: bytes) -> tuple[str, list[str]] | Failed:
    """The text of a body, and the members of its conversation."""
    try:
        return body.decode(), conversation_members(decode_message(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Failed(f"the body is no message: {error}")


class Placing:
    """Places batches of messages."""

    def __init__(
        self,
        state: State,
        inboxes: Inboxes,
        desk: Desk,
        rooms: RoomTables,
        ids_now: Callable[[], int],
    ) -> None:
        """`ids_now`: the time of the clock that ids are made by, ms."""
        self._ids_now = ids_now
        self._state = state
        self._inboxes = inboxes
        self._desk = desk
        self._rooms = rooms

    def accept(self, batch: Sequence[Submission]) -> list[Outcome]:
        """One outcome for each message, in order. Nothing is in the file before `state.write()`."""
        state = self._state
        now = state.clock.now_ms()
        names_of_senders = [submission.sender for submission in batch]
        names = list(names_of_senders)
        for submission in batch:
            names += submission.recipients
        users = state.load(names)
        self._load_devices(users, names_of_senders)
        uses = self._uses(batch, [users[submission.sender] for submission in batch], now)
        unplaced: list[str] = []
        oldest = self._ids_now() - LATE_MS
        # Ids rise, so the first tells whether any is too old.
        any_late = is_older(batch[0].message_id, oldest)
        outcomes: list[Outcome] = []
        for submission in batch:
            sender = users[submission.sender]
            key = None
            if submission.client_msg_id is not None:
                key = (sender.uid, submission.device, submission.client_msg_id)
                use = uses.get(key)
                if use is not None:
                    outcomes.append(self._again(submission, sender, key, use, now))
                    continue
            if any_late and is_older(submission.message_id, oldest):
                unplaced += submission.recipients
                outcomes.append(Late())
                continue
            if submission.room is None:
                outcome = self._place(submission, users, uses, key, now)
                if type(outcome) is TooManyNew:
                    unplaced += submission.recipients
            else:
                number = state.next_number
                outcome = self._rooms.place(submission, submission.room, now)
                if key is not None and type(outcome) is Placed:
                    message_id, at = submission.message_id, submission.send_time
                    uses[key] = Use(submission.checksum, number, message_id, at, outcome.version)
            outcomes.append(outcome)
        self._desk.cap_waiting()
        if unplaced:
            self._inboxes.unmake(set(unplaced).difference(names_of_senders))
        return outcomes

    def _place(
        self,
        submission: Submission,
        users: Mapping[str, User],
        uses: dict[UseKey, Use],
        key: UseKey | None,
        now: int,
    ) -> Outcome:
        """Place a message that is neither a resend nor to a room."""
        state = self._state
        sender = users[submission.sender]
        read = _read_body(submission.body)
        if isinstance(read, Failed):
            return read
        text, members = read
        agent: User | None = None
        deliveries: list[Delivery] = []
        recipients = submission.recipients
        for_desk = submission.for_desk
        without = self._left_out(sender, submission) if sender.blocked else ()
        if without:
            if len(recipients) == 1 and not submission.of_list:
                return NotAllowed(BETWEEN_THE_TWO)
            recipients = [name for name in recipients if name not in without]
        if for_desk:
            found = self._agent_for(sender, submission, now)
            if isinstance(found, NotAllowed | Failed):
                return found
            agent, deliveries = found
            if agent is not None:
                recipients = (agent.name,)
        elif not all(users[name].seq for name in recipients):
            refused = self._inboxes.refuse_openings(sender.name, recipients, now)
            if refused is not None:
                return refused

        number = state.new_number()
        self._inboxes.put(recipients, users, number, submission.body, now, deliveries)
        if len(recipients) == 1 and not submission.kind:
            user = users[recipients[0]]
            if user.agent is not None and user.agent == submission.sender:
                self._desk.answered(user, number)
        copied = sender.sync and submission.mirror and sender.name not in recipients
        if copied and self._inboxes.wants_copy(sender, submission.device, now):
            self._inboxes.put((sender.name,), users, number, submission.body, now, deliveries)
        if agent is not None:
            state.owe(sender, number, len(submission.body))
        elif for_desk:
            self._desk.wait(sender, number, len(submission.body))

        people = dict.fromkeys([*(users[name].uid for name in recipients), sender.uid])
        if submission.kind:
            archived = submission.archived
            archive_event(state, submission.body, number, sender.uid, people, now, archived, without)
        else:
            row = (number, submission.message_id, sender.uid, _conversation(tuple(members)), now, text)
            self._archive(row, people, without, is_listed=not visitor_of(members))
        if key is not None:
            message_id, at = submission.message_id, submission.send_time
            uses[key] = Use(submission.checksum, number, message_id, at, 0, without)
            state.sent += (state.new_use(), *key, submission.checksum, number, now)
        if without:
            return PlacedPartly(deliveries, "", without=without)
        return Placed(deliveries, agent.name if agent is not None else "")

    def _archive(
        self,
        row: tuple[int, str, int, bytes, int, str],
        people: Iterable[int],
        without: Sequence[str],
        *,
        is_listed: bool,
    ) -> None:
        """Archive a plain message: its row, its participants by uid, and who was left out."""
        state = self._state
        number, message_id, _, conversation, *_ = row
        state.messages += row
        for uid in people:
            state.participants += (uid, message_id, number)
        for name in without:
            state.left_out += (number, name)
        if is_listed:
            state.talks.note(conversation, message_id, number, without)

    def _left_out(self, sender: User, submission: Submission) -> tuple[str, ...]:
        """Recipients with a block between them and the sender. Recalls of one's own messages pass."""
        if submission.kind == RECALL:
            return ()
        return tuple(name for name in submission.recipients if name in sender.blocked)

    def _agent_for(
        self, sender: User, submission: Submission, now: int
    ) -> NotAllowed | Failed | tuple[User | None, list[Delivery]]:
        """See `Desk.agent_for`; Failed for a sender that is no visitor."""
        if not is_visitor_id(submission.sender):
            return Failed("nobody is to get it")
        return self._desk.agent_for(sender, submission.visitor_to, now)

    def _load_devices(self, users: Mapping[str, User], names: Iterable[str]) -> None:
        """Load the devices of these users that are not in memory."""
        missing = [name for name in dict.fromkeys(names) if users[name].devices is None]
        if missing:
            self._state.load_devices(missing)

    def sent_before(self, user: str, device: str, client_msg_id: str) -> Sent | None:
        """The use of a clientMsgId within `dedup_seconds`."""
        state = self._state
        uid = state.uid_of(user)
        if uid is None:
            return None
        oldest = state.clock.now_ms() - state.dedup_ms
        use = self._read_uses([uid, device, client_msg_id], oldest).get((uid, device, client_msg_id))
        return Sent(use.checksum, *use[2:]) if use is not None else None

    def _uses(self, batch: Sequence[Submission], senders: Sequence[User], now: int) -> dict[UseKey, Use]:
        """Uses of the batch's clientMsgIds within `dedup_seconds`."""
        state = self._state
        keys: list[int | str] = []
        for submission, sender in zip(batch, senders, strict=True):
            if submission.client_msg_id is not None:
                keys += (sender.uid, submission.device, submission.client_msg_id)
        return self._read_uses(keys, now - state.dedup_ms)

    def _read_uses(self, keys: list[int | str], oldest: int) -> dict[UseKey, Use]:
        state = self._state
        uses = {}
        for rows in tables.GET_SENT.read(state.connection, keys, (oldest,)):
            for uid, device, client_msg_id, use in _read_sent(rows):
                uses[uid, device, client_msg_id] = use
        return uses

    def _again(self, submission: Submission, sender: User, key: UseKey, use: Use, now: int) -> Outcome:
        if use.checksum != submission.checksum:
            return Conflict()
        state = self._state
        state.sent += (state.new_use(), *key, use.checksum, use.number, now)
        agent = self._desk.present_agent(sender, now) or "" if submission.for_desk else ""
        return Duplicate(use.message_id, use.send_time, agent, use.version, use.without)
