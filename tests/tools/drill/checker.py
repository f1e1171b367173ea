"""Judges a history: everything that was promised, held against everything that was seen. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from tests.tools.drill.event_checker import EventCheck, is_final
from tests.tools.drill.history import Answer, Connection, Got, History, Message, Reset, Send
from tests.tools.drill.model import Model
from tests.tools.drill.state_checker import StateCheck
from tests.tools.drill.talk_checker import check_talks

Device = tuple[str, str]


class Violation(NamedTuple):
    """A promise that was broken: which, and where."""

    kind: str
    what: str


KINDS = {
    "hole": "a number was left out on a connection",
    "repeat": "a number came twice on a connection",
    "number reused": "a number of an epoch stood for two messages",
    "cursor": "a device was not continued from the cursor that it named",
    "false alarm": "a device was told of a loss that there was not",
    "lost": "an accepted message did not arrive, and its device was not told or history lacks it",
    "twice": "a message arrived under two ids",
    "stranger": "a message arrived that was not meant for the device",
    "content": "a message arrived or was archived with other content",
    "order": "messages of one sender arrived in another order than that of their acceptance",
    "answers": "answers came in another order than their messages, or more than one for a message",
    "unanswered": "a message had no answer although its connection lived",
    "never accepted": "a message was not accepted although everything was well again",
    "refused": "a message was refused for a reason that is not a fault's",
    "id changed": "a message sent again was answered with another id or time",
    "not archived": "an accepted message is not in the archive",
    "archived twice": "a message is in the archive under two ids",
    "unknown document": "the archive has what nobody sent",
    "participants": "the archive has wrong participants for a message",
    "dead": "a good message is among the dead letters",
    "history": "history gives a message twice, out of order, or not at all",
    "thrown out": "a connection was replaced although there was no newer one",
    "stale": "a room was as it had been before an accepted change",
    "newcomer": "a change told somebody of a message from before they came",
    "versions": "versions of a room are missing, made twice, or out of order in an inbox",
    "answered anew": "a frame sent again was judged again although it had been done",
    "shown": "a message is shown otherwise than its edits, recalls and reactions make it",
    "recalled text": "the text of a recalled message is still in the archive, or a dead letter",
    "view": "a device's view, built from its frames, is not what its user reads",
    "changes": "`changes` lacks an event, gives one twice, or one that is not the user's",
    "room": "a room's members, roles or rules are not those that its changes make",
    "mark fell": "a device saw a mark, or the version of its user's state, fall",
    "mark lost": "an answered mark or setting is gone, or a device or the other user does not know it",
    "strange mark": "a state has a mark that its user has not set",
    "badge": "a place, a mark or a count of unread messages in `conversations` is not what MongoDB has",
    "behind": "a device's state at the end is not the one that MongoDB has",
}
_TEMPORARY = {"unavailable"}
# A connected device is told of a loss within this time.
TELLING_SECONDS = 5.0


def check(history: History) -> list[Violation]:
    """All violations, by kind and then in the order of finding."""
    return _Check(history).run()


class _Check:
    def __init__(self, history: History) -> None:
        self.history = history
        self.model = Model(history)
        self.found: list[Violation] = []
        # Each device's frames in the order it sent them: where a message was first sent, and where accepted.
        self.first_sent: dict[str, tuple[int, float]] = {}
        self.accepted_at: dict[str, tuple[int, float]] = {}
        self.ids: dict[str, set[str]] = defaultdict(set)
        # Events and messages to rooms that were refused for good, or had nothing to change.
        self.ended: set[str] = set()
        # Waiting for an agent when Redis lost its data: nobody's but the visitor's.
        self.waited: set[str] = set()
        self.waited_ids: set[str] = set()
        self.by_device: dict[Device, list[Connection]] = defaultdict(list)
        for connection in history.connections:
            self.by_device[connection.user, connection.device].append(connection)

    def run(self) -> list[Violation]:
        for connections in self.by_device.values():
            self._answers(connections)
            self._numbers(connections)
            self._replacements(connections)
        self._numbers_of_users()
        self._find_waited()
        self._accepted()
        self._deliveries()
        self._archive()
        self._reading()
        EventCheck(self.history, self.model, self._note).run()
        StateCheck(self.history, self._note).run()
        check_talks(self.history, self.model, self._note)
        order = list(KINDS)
        return sorted(self.found, key=lambda violation: order.index(violation.kind))

    def _note(self, kind: str, what: str) -> None:
        self.found.append(Violation(kind, what))

    def _lost_after(self, at: float) -> bool:
        """Redis lost data at some time after this one."""
        return any(last >= at for _, last in self.history.losses)

    def _lost_before(self, at: float) -> bool:
        return any(first <= at for first, _ in self.history.losses)

    # what a sender saw

    def _answers(self, connections: list[Connection]) -> None:
        index = 0
        for connection in connections:
            sent: list[tuple[int, str]] = []
            answered, in_order = 0, True
            for event in connection.events:
                if type(event) is Send:
                    self.first_sent.setdefault(event.key, (index, event.at))
                    sent.append((index, event.key))
                    index += 1
                elif type(event) is Answer and in_order:
                    in_order = answered < len(sent) and sent[answered][1] == event.key
                    if in_order:
                        self._one_answer(connection, event, sent[answered][0])
                        answered += 1
                    else:
                        wanted = sent[answered][1] if answered < len(sent) else "nothing"
                        self._note("answers", f"{_name(connection)}: {event.key} instead of {wanted}")
            # The last try of a message that was given up may be on its way when the run ends.
            due = [key for _, key in sent[answered:] if not self.history.messages[key].given_up]
            if in_order and connection.live and due:
                self._note("unanswered", f"{_name(connection)}: {due[0]} and what follows")

    def _one_answer(self, connection: Connection, answer: Answer, index: int) -> None:
        if answer.message_id:
            self.accepted_at.setdefault(answer.key, (index, answer.at))
            ids = self.ids[answer.key]
            if ids and answer.message_id not in ids and not self._lost_after(self.first_sent[answer.key][1]):
                self._note("id changed", f"{answer.key}: {answer.message_id}, before {sorted(ids)}")
            ids.add(answer.message_id)
        elif self._is_event(answer.key):
            if is_final(answer.code):
                self.ended.add(answer.key)
        elif answer.code not in _TEMPORARY:
            self._note("refused", f"{_name(connection)}: {answer.key}: {answer.code}")

    def _accepted(self) -> None:
        for key in self.first_sent:
            message = self.history.messages[key]
            if key in self.accepted_at or key in self.ended or message.given_up:
                continue
            if not self._sender_gone(message):
                self._note("never accepted", key)

    def _is_event(self, key: str) -> bool:
        message = self.history.messages.get(key)
        return message is not None and bool(message.kind)

    def _sender_gone(self, message: Message) -> bool:
        """A visitor whose token was lost with Redis comes back as another one."""
        connections = self.by_device.get((message.sender, message.device), [])
        return bool(connections) and not any(connection.live for connection in connections)

    # what a device saw

    def _numbers(self, connections: list[Connection]) -> None:
        seen: dict[str, int] = {}
        for connection in connections:
            if not connection.epoch:
                continue
            self._start(connection, seen)
            epoch, last = connection.epoch, connection.seq
            for event in connection.events:
                if type(event) is Reset:
                    epoch, last = event.epoch, event.seq
                    if not self._lost_before(event.at):
                        self._note("false alarm", f"{_name(connection)}: reset to {epoch} {last}")
                elif type(event) is Got:
                    if event.seq > last + 1:
                        self._note("hole", f"{_name(connection)}: {event.seq} after {last} in {epoch}")
                    elif event.seq <= last:
                        self._note("repeat", f"{_name(connection)}: {event.seq} after {last} in {epoch}")
                    last = event.seq
                    seen[epoch] = max(seen.get(epoch, 0), last)

    def _start(self, connection: Connection, seen: dict[str, int]) -> None:
        if not connection.recovered:
            if not self._lost_before(connection.connected_at):
                self._note("false alarm", f"{_name(connection)}: recovered: false from {connection.asked}")
        elif connection.asked is not None:
            if (connection.epoch, connection.seq) != connection.asked:
                now = (connection.epoch, connection.seq)
                self._note("cursor", f"{_name(connection)}: {now} instead of {connection.asked}")
        elif connection.seq > seen.get(connection.epoch, connection.seq):
            # The server's own cursor may be behind what the device has, never ahead of it.
            had = seen[connection.epoch]
            self._note("cursor", f"{_name(connection)}: begins after {connection.seq}, it had {had}")

    def _replacements(self, connections: list[Connection]) -> None:
        for connection in connections:
            if connection.close_code == 4003 and not any(
                other.attempt > connection.attempt and other.opened_at <= (connection.closed_at or 0)
                for other in connections
            ):
                self._note("thrown out", _name(connection))

    def _numbers_of_users(self) -> None:
        """A number of an inbox's epoch stands for one message, on all devices of its user."""
        numbers: dict[tuple[str, str, int], str] = {}
        for connection in self.history.connections:
            for epoch, event in _by_epoch(connection):
                known = numbers.setdefault((connection.user, epoch, event.seq), event.message_id)
                if known != event.message_id:
                    what = f"{event.seq} in {epoch} is {event.message_id} and {known}"
                    self._note("number reused", f"{_name(connection)}: {what}")

    def _deliveries(self) -> None:
        owed = self.model.owed({*self.accepted_at, *self.model.made()})
        for (user, device), connections in self.by_device.items():
            first_connected = min((c.connected_at for c in connections if c.epoch), default=None)
            if first_connected is None or not any(connection.live for connection in connections):
                # Never there, or a visitor that Redis forgot: it came back as another one.
                continue
            got = self._received(user, device, connections)
            told = self._told(connections)
            read = set(self.history.read.get(user, ()))
            for key in sorted(owed.get(user, ())):
                if key in got or self.first_sent[key][1] < first_connected:
                    continue
                sent_at = self.first_sent[key][1]
                if not (told >= sent_at or self._is_new_to_redis(connections, sent_at)):
                    self._note("lost", f"{user}/{device} never got {key}, and was not told")
                elif not self._is_event(key) and not self.ids[key] & read and key not in self.waited:
                    self._note("lost", f"{user}/{device} never got {key}, and history lacks it")

    def _is_new_to_redis(self, connections: list[Connection], sent_at: float) -> bool:
        """Redis had forgotten the device when the message came, or forgot both together.

        A device that names a cursor when it comes back, or is connected all the while, is told even then.
        A device that does neither is a new one: it begins with the messages that the inbox still holds.
        """
        if any(connection.asked is not None for connection in connections):
            return False
        for first, last in self.history.losses:
            if last >= sent_at:
                # It was here when they were lost, and long enough after that to be told.
                here = [c for c in connections if c.epoch and c.connected_at < first]
                if not any((c.closed_at or first) > last + TELLING_SECONDS for c in here):
                    return True
            elif not any(
                c.epoch
                and c.connected_at <= sent_at
                and (c.connected_at > last or c.closed_at is None or c.closed_at > last + TELLING_SECONDS)
                for c in connections
            ):
                return True
        return False

    def _told(self, connections: list[Connection]) -> float:
        """The last time that the device was told of a loss."""
        times = [c.connected_at for c in connections if c.epoch and not c.recovered]
        times += [event.at for c in connections for event in c.events if type(event) is Reset]
        return max(times, default=float("-inf"))

    def _received(self, user: str, device: str, connections: list[Connection]) -> set[str]:
        """Judge each message that the device got; one that came again counts where it came first."""
        ids: dict[str, str] = {}
        # Two primaries keep two inboxes for a moment.
        latest_first: dict[str, dict[Device, tuple[int, str]]] = defaultdict(dict)
        for connection in connections:
            for epoch, event in _by_epoch(connection):
                message = self.history.messages.get(event.key)
                if message is None or user not in self.model.may_get(event.key):
                    kind = self._strange(user, message)
                    self._note(kind, f"{user}/{device}: {event.key} {event.message_id}")
                    continue
                seen = (event.sender, event.text, event.extras)
                if seen != (message.sender, message.text, message.extras):
                    self._note("content", f"{user}/{device}: {event.key}: {seen}, not {message.extras}")
                if event.key in ids:
                    if ids[event.key] != event.message_id and not self._lost_after(
                        self.first_sent[event.key][1]
                    ):
                        self._note("twice", f"{user}/{device}: {event.key} as {event.message_id}, too")
                    continue
                ids[event.key] = event.message_id
                self._in_order(user, device, message, latest_first[epoch])
        return set(ids)

    def _strange(self, user: str, message: Message | None) -> str:
        """Why the user should not have got it."""
        target = message if message is None or message.kind == "message" else self.model.target(message)
        if target is None or not target.room:
            return "stranger"
        states = self.model.rooms[target.room].states
        if message is not None and message.kind != "message" and user in states[-1].members:
            return "newcomer"
        return "stale" if any(user in state.members for state in states) else "stranger"

    def _in_order(
        self, user: str, device: str, message: Message, latest_first: dict[Device, tuple[int, str]]
    ) -> None:
        """A message that was accepted before another was first sent comes before it, in each inbox.

        A message that was sent again may stand anywhere between its first sending and its acceptance.
        """
        sender = (message.sender, message.device)
        before = latest_first.get(sender, (-1, ""))
        accepted = self.accepted_at.get(message.key)
        if accepted is not None and accepted[0] < before[0]:
            self._note("order", f"{user}/{device}: {message.key} after {before[1]}")
        latest_first[sender] = max(before, (self.first_sent[message.key][0], message.key))

    def _find_waited(self) -> None:
        for document in self.history.archive:
            message = self.history.messages.get(document.key)
            if message is None or not message.desk or document.participants != {message.sender}:
                continue
            if document.key in self.first_sent and self._lost_after(self.first_sent[document.key][1]):
                self.waited.add(document.key)
                self.waited_ids.add(document.message_id)

    # what stayed

    def _archive(self) -> None:
        by_key: dict[str, list[str]] = defaultdict(list)
        for document in self.history.archive:
            message = self.history.messages.get(document.key)
            if message is None or document.key not in self.first_sent:
                self._note("unknown document", f"{document.message_id}: {document.key}")
                continue
            by_key[document.key].append(document.message_id)
            if (document.user, document.kind, document.room) != (message.sender, message.kind, message.room):
                self._note("content", f"archive: {document.key}: {document.user}: {document.kind}")
            if message.room:
                continue
            people = message.recipients | {message.sender}
            if document.key in self.waited:
                people = frozenset({message.sender})
            if (
                document.recipients not in (message.recipients, frozenset())
                or document.participants != people
            ):
                self._note("participants", f"{document.key}: {sorted(document.participants)}")
        for key, ids in self.ids.items():
            if self.history.messages[key].kind not in ("", "message"):
                continue
            for missing in ids - set(by_key[key]):
                self._note("not archived", f"{key} as {missing}")
        for key, found in by_key.items():
            if len(found) > 1 and not self._lost_after(self.first_sent[key][1]):
                self._note("archived twice", f"{key} as {sorted(found)}")
        for key in self.history.dead:
            self._note("dead", key)

    def _reading(self) -> None:
        involved: dict[str, set[str]] = defaultdict(set)
        for key, ids in self.ids.items():
            message = self.history.messages[key]
            if message.kind:
                continue
            for user in message.recipients | {message.sender}:
                involved[user] |= ids
        for user, read in self.history.read.items():
            if read != sorted(read):
                self._note("history", f"{user}: not in the order of ids")
            repeated = [message_id for message_id, count in Counter(read).items() if count > 1]
            if repeated:
                self._note("history", f"{user}: {len(repeated)} come twice, as {repeated[0]}")
            missing = involved[user] - set(read) - self.waited_ids
            if missing:
                self._note("history", f"{user}: {len(missing)} are missing, as {min(missing)}")


def _by_epoch(connection: Connection) -> Iterator[tuple[str, Got]]:
    """Each message that came, and the epoch of the inbox that it came from."""
    epoch = connection.epoch
    for event in connection.events:
        if type(event) is Reset:
            epoch = event.epoch
        elif type(event) is Got:
            yield epoch, event


def _name(connection: Connection) -> str:
    return f"{connection.user}/{connection.device} #{connection.attempt} at {connection.node}"
