"""Reading from the archive which events left the inbox unseen, after a gap. No I/O.

The inbox brings every event while it is continuous. So the client remembers an id, `complete`: events up to
it are known. After a gap it asks for the `changes` since then. Rooms are asked one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any

from imd.client.agenda import Agenda
from imd.client.effects import Deliver
from imd.client.events import ClientError
from imd.client.link import Link
from imd.client.numbered import Recall
from imd.client.options import Options
from imd.client.receiving import Receiving
from imd.client.requests import Requests, question
from imd.client.store import Saved, Store

Asking = Generator[dict[str, Any], Any, None]
"""yields questions, and gets their answers"""

PAGE = 200
AGAIN_SECONDS = 15.0
"""pause before the archive is asked again, when it is behind or did not answer"""
OLD_MS = 24 * 3600 * 1000
"""a `complete` of that age is renewed"""
LEEWAY_MS = 10_000
"""for the clocks of two nodes"""


class CatchUp:
    """`recalled` is called with the id of each recalled message."""

    def __init__(
        self,
        agenda: Agenda,
        link: Link,
        requests: Requests,
        receiving: Receiving,
        store: Store,
        saved: Saved,
        options: Options,
        recalled: Callable[[str], None],
    ) -> None:
        self._agenda = agenda
        self._link = link
        self._requests = requests
        self._receiving = receiving
        self._store = store
        self._complete = saved.complete
        self._behind = saved.behind
        self._rooms = not options.visitor
        self._seconds = options.history_seconds
        self._recalled = recalled
        self._round = 0
        """rises with each connection and reading; an answer to an older one is ignored"""
        self._given: set[str] = set()
        """ids of events that the program has from the archive, and has not handled yet"""
        self._reached = ""
        """the value of `complete` when they are handled"""
        self._still_behind = False
        self._newer: tuple[str, int] | None = None
        """a newer `complete`, and the node's time when it was told, in milliseconds"""

    # ---- from the core

    def opened(self, gap: bool) -> None:
        """The client is connected. `gap`: entries left the inbox unseen."""
        self._newer = None
        if gap:
            self._mark()
        if not self._link.has_events:
            return
        if self._behind:
            self._begin(self._server_ms())
        elif not self._complete or self._server_ms() - _time_of(self._complete) > OLD_MS:
            self._ask_complete()

    def gap(self) -> None:
        """Entries left the inbox unseen, on an open connection."""
        self._newer = None
        self._mark()
        if self._behind and self._link.is_open and self._link.has_events:
            self._begin(self._server_ms())

    def _mark(self) -> None:
        if self._complete and not self._behind:
            self._put(self._complete, True)

    def lost(self) -> None:
        self._round += 1

    def forget(self) -> None:
        """Another user: another inbox."""
        self._round += 1
        self._complete, self._behind, self._newer = "", False, None
        self._given.clear()

    def numbered(self, entry_id: str) -> None:
        """The inbox, without a hole until here, has brought this entry."""
        if self._newer is not None and not self._behind and _time_of(entry_id) > self._newer[1] + LEEWAY_MS:
            # It was placed after the answer, so every event up to `complete` was placed before it.
            self._put(self._newer[0], False)
            self._newer = None

    def handled(self, entry_id: str) -> None:
        if entry_id in self._given:
            self._given.discard(entry_id)
            self._look_if_handled()

    # ---- one reading

    def _ask_complete(self) -> None:
        turn = self._round = self._round + 1

        def answered(answer: Any) -> None:
            if turn != self._round or isinstance(answer, ClientError):
                return
            if self._complete:
                self._newer = answer["complete"], self._server_ms()
            else:
                self._put(answer["complete"], False)

        self._requests.ask(question("changes", all=True, limit=0), self._seconds, answered)

    def _begin(self, since: int) -> None:
        """Read everything after `complete`, one page after the other.

        There is another round until the archive has everything from before `since`, a time of the node in ms.
        """
        turn = self._round = self._round + 1
        reading = self._read(self._complete)
        least = ""

        def go_on(answer: Any) -> None:
            nonlocal least
            if turn != self._round:
                return
            try:
                if isinstance(answer, ClientError):
                    # Of a room: most likely it was left. Otherwise there is another round.
                    frame = reading.throw(answer)
                else:
                    if answer is not None and "complete" in answer:
                        least = min(least or answer["complete"], answer["complete"])
                    frame = reading.send(answer)
            except StopIteration:
                self._end(least, since)
            except ClientError:
                self._agenda.later("catch up", AGAIN_SECONDS, lambda: self._begin(since))
            else:
                self._requests.ask(frame, self._seconds, go_on)

        go_on(None)

    def _read(self, after: str) -> Asking:
        yield from self._pages({"all": True}, after)
        if not self._rooms:
            return
        last: str | None = None
        more = True
        while more:
            answer = yield question("rooms", after=last, limit=PAGE)
            rooms = [each["room"] for each in answer["rooms"]]
            more = bool(answer["more"]) and bool(rooms)
            last = rooms[-1] if rooms else last
            for room in rooms:
                try:
                    yield from self._pages({"room": room}, after)
                except ClientError as error:
                    if getattr(getattr(error, "refusal", None), "code", "") != "not_found":
                        raise

    def _pages(self, selector: dict[str, Any], after: str) -> Asking:
        more = True
        while more:
            answer = yield question("changes", **selector, after=after, limit=PAGE)
            for frame in answer["events"]:
                self._give(frame)
                after = frame["id"]
            more = bool(answer["more"]) and bool(answer["events"])

    def _give(self, frame: Mapping[str, Any]) -> None:
        entry = self._receiving.offer(frame)
        if entry is not None:
            self._given.add(entry.id)
            if isinstance(entry, Recall):
                self._recalled(entry.of)
            self._agenda.add(Deliver(entry))

    def _end(self, complete: str, since: int) -> None:
        # An event of the lost inbox may be on its way to the archive. It is older than the gap's discovery.
        self._still_behind = _time_of(complete) < since + LEEWAY_MS
        self._reached = complete
        if self._still_behind:
            self._agenda.later("catch up", AGAIN_SECONDS, lambda: self._begin(since))
        self._look_if_handled()

    def _look_if_handled(self) -> None:
        if self._reached and not self._given:
            self._put(max(self._reached, self._complete), self._still_behind)
            self._reached = ""

    def _put(self, complete: str, behind: bool) -> None:
        self._complete, self._behind = complete, behind
        self._store.put_complete(complete, behind)

    def _server_ms(self) -> int:
        return int(self._agenda.seconds() * 1000 + self._link.server_ahead_ms)


def _time_of(entry_id: str) -> int:
    """Milliseconds since the epoch, from an id; 0 for one that is none."""
    try:
        return int(entry_id[:12], 16)
    except ValueError:
        return 0
