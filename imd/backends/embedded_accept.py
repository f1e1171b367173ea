"""Placing messages: resends, numbers, inboxes and the archive row, in the open transaction."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec

from imd.backends import embedded_tables as tables
from imd.backends.embedded_desk import Desk
from imd.backends.embedded_state import State, User
from imd.backends.fullness import OVERFLOWN
from imd.interfaces import Conflict, Delivery, Duplicate, Failed, NotAllowed, Outcome, Placed, Submission
from imd.message import conversation_id, conversation_members, decode_message, is_visitor_id

_read_sent = msgspec.json.Decoder(list[tuple[int, str, str, str, int, str, int]]).decode


class Use(NamedTuple):
    """What a clientMsgId has been used for."""

    content: str
    number: int
    message_id: str
    send_time: int


@lru_cache(maxsize=50_000)
def _conversation(members: tuple[str, ...]) -> bytes:
    return bytes.fromhex(conversation_id(list(members)))


class Placing:
    """Places batches of messages."""

    def __init__(self, state: State, desk: Desk) -> None:
        self._state = state
        self._desk = desk

    def accept(self, batch: Sequence[Submission]) -> list[Outcome]:
        """One outcome per message, in order. Nothing is in the file before `state.write()`."""
        state = self._state
        now = state.clock.now_ms()
        names = [submission.sender for submission in batch]
        for submission in batch:
            names += submission.recipients
        users = state.load(names)
        uses = self._uses(batch, [users[submission.sender] for submission in batch], now)
        by_user = state.channels.by_user
        live = state.channels.live
        max_messages = state.options.max_messages
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
            try:
                text = submission.body.decode()
                members = conversation_members(decode_message(submission.body))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                outcomes.append(Failed(f"the body is no message: {error}"))
                continue

            size = len(submission.body)
            agent: User | None = None
            deliveries: list[Delivery] = []
            recipients = submission.recipients
            if not recipients:
                if not is_visitor_id(submission.sender):
                    outcomes.append(Failed("nobody is to get it"))
                    continue
                try:
                    agent, deliveries = self._desk.agent_for(sender, submission.visitor_to, now)
                except PermissionError as error:
                    outcomes.append(NotAllowed(str(error)))
                    continue
                if agent is not None:
                    recipients = (agent.name,)

            number = state.new_number()
            message_id = submission.message_id
            taking_part = {sender.uid}
            for name in recipients:
                user = users[name]
                seq = user.seq = user.seq + 1
                state.changed(user)
                state.inbox += (user.uid, seq, number, size)
                if seq - user.low > max_messages:
                    OVERFLOWN.inc(seq - max_messages - user.low)
                    state.trim(user, seq - max_messages)
                taking_part.add(user.uid)
                channels = live(name, now) if name in by_user else ()
                deliveries.append(Delivery(name, user.epoch, seq, channels, submission.body))
            if not recipients:
                self._desk.wait(sender, number, size)

            state.messages += (
                number, message_id, sender.uid, _conversation(tuple(members)), now, text
            )  # fmt: skip
            for uid in taking_part:
                state.participants += (uid, message_id, number)
            if key is not None:
                uses[key] = Use(submission.content, number, message_id, submission.send_time)
                state.sent += (state.new_use(), *key, submission.content, number, now)
            outcomes.append(Placed(deliveries, agent.name if agent is not None else ""))
        self._desk.cap_waiting()
        return outcomes

    def _uses(
        self, batch: Sequence[Submission], senders: Sequence[User], now: int
    ) -> dict[tuple[int, str, str], Use]:
        """What the batch's clientMsgIds have been used for within the time that they are remembered."""
        state = self._state
        keys: list[int | str] = []
        for submission, sender in zip(batch, senders, strict=True):
            if submission.client_msg_id is not None:
                keys += (sender.uid, submission.device, submission.client_msg_id)
        uses = {}
        oldest = now - state.dedup_ms
        for rows in tables.GET_SENT.read(state.connection, keys, (oldest,)):
            for uid, device, client_msg_id, content, number, message_id, send_time in _read_sent(rows):
                uses[uid, device, client_msg_id] = Use(content, number, message_id, send_time)
        return uses

    def _again(
        self, submission: Submission, sender: User, key: tuple[int, str, str], use: Use, now: int
    ) -> Outcome:
        if use.content != submission.content:
            return Conflict()
        state = self._state
        state.sent += (state.new_use(), *key, use.content, use.number, now)
        agent = "" if submission.recipients else self._desk.present_agent(sender, now) or ""
        return Duplicate(use.message_id, use.send_time, agent)
