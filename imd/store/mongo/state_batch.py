"""A batch of changes of states, decided here and written together. Blocks.

Peers' documents are written before those of the users themselves. A node that dies in between has answered
nobody, and clients send their latest marks again; so a mark that a user has, the user's peer has, too. A
batch that meets another's writes is decided again, in a few rounds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from msgspec.structs import replace
from prometheus_client import Counter

from imd.contracts import state_rules
from imd.contracts.state import KEPT, Changes, Entry, Mark, Setting, UserState
from imd.protocol.errors import Refused, Unavailable
from imd.protocol.message import is_visitor_id
from imd.store.mongo.state import Change, Found, StateDocuments, returning

RACES = Counter("imd_state_races_total", "Batches of marks and settings that met others, and began anew.")
MOVED = Counter("imd_state_moved_total", "Conversations moved out of the states of users with very many.")

ROUNDS = 5
TOUCHED_AT_ONCE = 200
"""peers who are told that a user shows receipts again"""


class Job(NamedTuple):
    """One `StateStore.change`."""

    user: str
    marks: Sequence[Mark]
    setting: Setting | None
    since: int | None


class Done(NamedTuple):
    """The outcomes of jobs, the changes to tell, and the users whose states have become too large."""

    outcomes: list[Changes | Refused]
    told: list[Changes]
    heavy: list[str]


class Batch:
    """Does jobs with a database's documents."""

    def __init__(self, documents: StateDocuments, visitor_days: float) -> None:
        self._documents = documents
        self._visitor_days = visitor_days

    def run(self, jobs: Sequence[Job]) -> Done:
        """Raises Unavailable if others come first again and again."""
        named = _named(jobs)
        apart = self._documents.apart(
            {(job.user, mark.peer) for job in jobs for mark in job.marks if mark.peer}
        )
        overtaken: set[str] = set()
        for _ in range(ROUNDS):
            found = self._documents.parts(named)
            first = {user: one.state for user, one in found.items()}
            shown = _show(jobs, first, apart)
            if not self._write(found, shown):
                overtaken |= _changed(first, shown)
                continue
            found = {user: _written(found[user], state) for user, state in shown.items()}
            shown = {user: one.state for user, one in found.items()}
            last, refusals = _decide(jobs, shown)
            if not self._write(found, last):
                # Peers as well: what the first write gave them is no change for the next round.
                overtaken |= _changed(first, last)
                continue
            told = [Changes(user, last[user].version, last[user].version) for user in overtaken]
            for user, one in found.items():
                if one.owed or _shows_again(one.state, last[user]):
                    told += self._settle(user)
            outcomes, changes = self._answers(jobs, first, last, refusals)
            heavy = [user for user, state in last.items() if state.weight > state_rules.CUT_AT]
            return Done(outcomes, changes + told, heavy)
        raise Unavailable("MongoDB: the same users' states are changed elsewhere all the time")

    def versions(self, users: Sequence[str]) -> dict[str, int]:
        return self._documents.versions(users)

    def since(self, questions: Sequence[tuple[str, int | None]]) -> list[Changes]:
        """The answers of `StateStore.since`, each to a user and a version."""
        versions = self._documents.versions([user for user, _ in questions])
        behind = {user for user, version in questions if version != versions[user] or not version}
        found = self._documents.whole(behind)
        answers, receipts = [], dict.fromkeys(versions, True)
        for user, version in questions:
            if user not in found:
                answers.append(Changes(user, versions[user], versions[user]))
                continue
            if version is not None and version > found[user].state.version:
                # So low a version is only believed if no server has been voted out meanwhile.
                found[user] = self._documents.exactly(user)
            state = found[user].state
            receipts[user] = state.receipts
            answers.append(self._since(found[user], version))
        return self.shown(answers, receipts)

    def _since(self, found: Found, version: int | None) -> Changes:
        """All that a device lacks; `found` is whole, but for the entries that have left it."""
        changes = state_rules.since(found.state, version)
        if not (changes.all and found.old):
            return changes
        entries = {**self._documents.moved(changes.user), **found.state.entries}
        return state_rules.since(replace(found.state, entries=entries), version)

    def entries(self, user: str, conversations: Sequence[str]) -> dict[str, Entry]:
        """As `StateStore.entries`."""
        state = self._documents.parts({user: set(conversations)})[user].state
        named = tuple(entry for name, entry in state.entries.items() if name in conversations)
        changes = Changes(user, 0, state.version, named)
        (shown,) = self.shown([changes], {user: state.receipts})
        return {entry.conversation: entry for entry in shown.entries}

    def cleared(self, user: str) -> dict[str, str]:
        """As `StateStore.cleared`."""
        found = self._documents.with_cleared(user)
        if found is None:
            return {}
        moved = self._documents.moved(user) if found.old else {}
        entries = {**moved, **found.state.entries}
        return {name: entry.cleared for name, entry in entries.items() if entry.cleared}

    def touch(self, pairs: Sequence[tuple[str, str]]) -> list[Changes]:
        """As `StateStore.touch`; gives the changes to tell."""
        return self._touch([*pairs, *((other, one) for one, other in pairs)])

    def trim(self, user: str) -> None:
        """Move the oldest entries of a state that has become too large."""
        found = self._documents.whole([user])[user]
        leaving = state_rules.surplus(found.state)
        if leaving:
            self._documents.move(found, leaving, self._expiry)
            MOVED.inc(len(leaving))

    def shown(self, changes: Sequence[Changes], receipts: Mapping[str, bool]) -> list[Changes]:
        """Without the marks of peers that their users may not see. `receipts`: of these users."""
        pairs = {(one.user, peer) for one in changes for peer in state_rules.peers_of(one.entries)}
        hiding = self._documents.hiding({peer for _, peer in pairs})
        apart = self._documents.apart(pairs)
        hidden: dict[str, set[str]] = {}
        for user, peer in pairs:
            if peer in hiding or (user, peer) in apart:
                hidden.setdefault(user, set()).add(peer)
        return [state_rules.hide(one, hidden.get(one.user, ()), receipts[one.user]) for one in changes]

    # from within

    def _write(self, found: Mapping[str, Found], states: Mapping[str, UserState]) -> bool:
        """Write the states that differ from those found. False: others came first."""
        changes = []
        for user, after in states.items():
            before = found[user]
            if after is not before.state:
                shows = _shows_again(before.state, after)
                changes.append(Change(before, after, shows, self._expiry(user)))
        if self._documents.write(changes):
            return True
        RACES.inc()
        return False

    def _expiry(self, user: str) -> datetime | None:
        return datetime.now(UTC) + timedelta(days=self._visitor_days) if is_visitor_id(user) else None

    def _settle(self, user: str) -> list[Changes]:
        """Have the peers of a user who shows receipts again get that user's marks: as many as are kept."""
        found = self._documents.whole([user])[user]
        entries = {**(self._documents.moved(user) if found.old else {}), **found.state.entries}
        newest = sorted(entries.values(), key=lambda entry: -entry.v)
        peers = [peer for one in newest if (peer := one.selector.with_) not in ("", user)][:KEPT]
        told = []
        for start in range(0, len(peers), TOUCHED_AT_ONCE):
            told += self._touch([(peer, user) for peer in peers[start : start + TOUCHED_AT_ONCE]])
        self._documents.settle(user)
        return told

    def _touch(self, sides: Sequence[tuple[str, str]]) -> list[Changes]:
        """Raise the version of the first one's entry of each pair, if it has a mark of the second."""
        named: dict[str, set[str]] = {}
        for user, peer in sides:
            named.setdefault(user, set()).add(state_rules.pair_id(user, peer))
        for _ in range(ROUNDS):
            found = self._documents.parts(named)
            after = {user: state_rules.touch(found[user].state, named[user]).state for user in named}
            if self._write(found, after):
                touched = [(found[user].state, state) for user, state in after.items()]
                changes = [_told(before, state) for before, state in touched if state is not before]
                return self.shown(changes, {user: state.receipts for user, state in after.items()})
        raise Unavailable("MongoDB: the same users' states are changed elsewhere all the time")

    def _answers(
        self,
        jobs: Sequence[Job],
        first: Mapping[str, UserState],
        last: Mapping[str, UserState],
        refusals: Sequence[Refused | None],
    ) -> tuple[list[Changes | Refused], list[Changes]]:
        """The outcomes, and the changes to tell."""
        behind = {job.user for job in jobs if job.since is not None and _is_behind(job, first, last)}
        whole = self._documents.whole(behind) if behind else {}
        answers = []
        for job in jobs:
            state = last[job.user]
            if job.since is None:
                changes = Changes(state.user, state.version, state.version)
            elif job.user in whole:
                changes = self._since(whole[job.user], job.since)
            else:
                changes = state_rules.since(state, job.since)
            answers.append(state_rules.answer(changes, _present(job, state), job.setting, state.receipts))
        told = [_told(first[user], after) for user, after in last.items() if after is not first[user]]
        receipts = {user: state.receipts for user, state in last.items()}
        shown = self.shown([*answers, *told], receipts)
        outcomes: list[Changes | Refused] = [
            refused or answer for refused, answer in zip(refusals, shown[: len(jobs)], strict=True)
        ]
        return outcomes, shown[len(jobs) :]


def _named(jobs: Sequence[Job]) -> dict[str, set[str]]:
    """By user, the conversations whose entries the jobs are about."""
    named: dict[str, set[str]] = {}
    for job in jobs:
        named.setdefault(job.user, set()).update(state_rules.named(job.marks, job.setting))
        for mark in job.marks:
            if mark.peer:
                named.setdefault(mark.peer, set()).add(mark.conversation)
    return named


def _show(
    jobs: Sequence[Job], states: Mapping[str, UserState], apart: Collection[tuple[str, str]]
) -> dict[str, UserState]:
    """The states once peers have the marks that are to be set. Of pairs in `apart` one blocks the other.

    A mark is shown by the receipts of both at its turn, after the jobs before it.
    """
    after = dict(states)
    in_turn = dict(states)
    for job in jobs:
        state = in_turn[job.user]
        try:
            decided = state_rules.decide(state, job.marks, job.setting)
        except Refused:
            continue
        in_turn[job.user] = decided.state
        for mark in decided.raised if state.receipts else ():
            if in_turn[mark.peer].receipts and (job.user, mark.peer) not in apart:
                peer = state_rules.take_peer(after[mark.peer], job.user, mark.conversation, mark.up_to)
                after[mark.peer] = peer.state
    return after


def _decide(
    jobs: Sequence[Job], states: Mapping[str, UserState]
) -> tuple[dict[str, UserState], list[Refused | None]]:
    """The states once the jobs are done, and the refusals of jobs."""
    after = dict(states)
    refusals: list[Refused | None] = []
    for job in jobs:
        try:
            after[job.user] = state_rules.decide(after[job.user], job.marks, job.setting).state
            refusals.append(None)
        except Refused as refused:
            refusals.append(refused)
    return after, refusals


def _changed(before: Mapping[str, UserState], after: Mapping[str, UserState]) -> set[str]:
    return {user for user, state in after.items() if state is not before[user]}


def _written(found: Found, state: UserState) -> Found:
    if state is found.state:
        return found
    changed = {name for name, entry in state.entries.items() if entry.v > found.state.version}
    state = replace(state, weight=state.weight + returning(found, state))
    return found._replace(state=state, is_new=False, moved=found.moved - changed)


def _shows_again(before: UserState, after: UserState) -> bool:
    return after.receipts and not before.receipts


def _told(before: UserState, after: UserState) -> Changes:
    changed = tuple(entry for entry in after.entries.values() if entry.v > before.version)
    return state_rules.told(before, state_rules.Decided(after, changed))


def _is_behind(job: Job, first: Mapping[str, UserState], last: Mapping[str, UserState]) -> bool:
    """Whether the device lacks more than the entries that were read."""
    before, after = first[job.user], last[job.user]
    return job.since is None or not max(before.version, after.floor) <= job.since <= after.version


def _present(job: Job, state: UserState) -> list[Entry]:
    """The entries that a job names, as they are."""
    named = state_rules.named(job.marks, job.setting)
    return [state.entries.get(name) or Entry(name, selector) for name, selector in named.items()]
