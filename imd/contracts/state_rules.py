"""The rules of marks and settings: they make a user's new state of the present one. No I/O.

A state may hold only the entries that a change names; its counts are of all entries.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from imd.contracts.state import KEPT, MAX_PINNED, Changes, Entry, Mark, Setting, UserState
from imd.protocol.errors import TOO_LARGE, Refused
from imd.protocol.message import conversation_id, is_visitor_id
from imd.protocol.selector import Selector

CUT_AT = 300
"""the weight of entries that are kept together; past it the oldest leave until CUT_TO is left"""
CUT_TO = 250


class Decided(NamedTuple):
    """The new state. `changed` are its entries that differ; `raised`, the marks that their peers lack."""

    state: UserState
    changed: tuple[Entry, ...] = ()
    raised: tuple[Mark, ...] = ()


def decide(state: UserState, marks: Sequence[Mark], setting: Setting | None) -> Decided:
    """Raise marks, then apply a setting. Raises Refused (`too_large`).

    Without a change `state` is the same object. A mark only rises, and ends `marked`.
    """
    changed: dict[str, Entry] = {}
    raised = []
    for mark in marks:
        entry = changed.get(mark.conversation) or _entry(state, mark.conversation, mark.selector)
        if mark.up_to > entry.read and mark.peer:
            raised.append(mark)
        if mark.up_to > entry.read or entry.marked:
            changed[mark.conversation] = replace(entry, read=max(entry.read, mark.up_to), marked=False)
    receipts = state.receipts
    if setting is not None:
        if setting.conversation:
            name = setting.conversation
            entry = changed.get(name) or _entry(state, name, setting.selector)
            if (after := _set(entry, setting)) != entry:
                changed[name] = after
        elif setting.receipts is not None:
            receipts = setting.receipts
    changed = {name: entry for name, entry in changed.items() if entry != state.entries.get(name)}
    return _apply(state, changed, receipts, tuple(raised))


def take_peer(state: UserState, user: str, conversation: str, up_to: str) -> Decided:
    """The state of a peer to whom `user` shows a mark."""
    entry = _entry(state, conversation, peers_selector(user, state.user))
    if up_to <= entry.peer:
        return Decided(state)
    by = "" if entry.selector.with_ else user
    return _apply(state, {conversation: replace(entry, peer=up_to, by=by)}, state.receipts)


def touch(state: UserState, conversations: Collection[str]) -> Decided:
    """The entries with a peer's mark count as changed, so that every device gets them."""
    found = (state.entries.get(conversation) for conversation in conversations)
    return _apply(
        state, {one.conversation: one for one in found if one is not None and one.peer}, state.receipts
    )


def told(before: UserState, decided: Decided) -> Changes:
    """The changes to tell live. Marks of peers in it are those that the user may see, or none is."""
    after = decided.state
    if after.floor > before.floor:
        # A device that is told of this asks for everything.
        return Changes(after.user, after.version, after.version)
    receipts = after.receipts if after.receipts != before.receipts else None
    return Changes(after.user, before.version, after.version, decided.changed, receipts)


def named(marks: Sequence[Mark], setting: Setting | None) -> dict[str, Selector]:
    """The conversations that a change names, by id."""
    found = {mark.conversation: mark.selector for mark in marks}
    if setting is not None and setting.conversation:
        found.setdefault(setting.conversation, setting.selector)
    return found


def pair_id(user: str, peer: str) -> str:
    """The conversation of two users; of a visitor and an agent, the visitor's."""
    for one in (user, peer):
        if is_visitor_id(one):
            return conversation_id([one])
    return conversation_id(sorted({user, peer}))


def peers_selector(user: str, peer: str) -> Selector:
    """How `peer` names the conversation that it has with `user` alone."""
    return Selector() if is_visitor_id(peer) else Selector(with_=user)


def since(state: UserState, version: int | None) -> Changes:
    """All that has changed after a version that a device has. `state` holds all entries."""
    if version is None or version > state.version or version < state.floor:
        newest = sorted(state.entries.values(), key=lambda entry: -entry.v)
        kept = newest[:KEPT] + [entry for entry in newest[KEPT:] if entry.pinned or entry.muted]
        return Changes(state.user, 0, state.version, tuple(kept), state.receipts, all=True)
    entries = tuple(entry for entry in state.entries.values() if entry.v > version)
    receipts = state.receipts if state.receipts_v > version else None
    return Changes(state.user, version, state.version, entries, receipts)


def answer(changes: Changes, named: Sequence[Entry], setting: Setting | None, receipts: bool) -> Changes:
    """The changes, with all that a frame named, also what is as it was: entries, the user's own setting."""
    changed = {entry.conversation for entry in changes.entries}
    others = tuple(entry for entry in named if entry.conversation not in changed)
    is_own = setting is not None and not setting.conversation
    told = receipts if is_own and changes.receipts is None else changes.receipts
    return replace(changes, entries=changes.entries + others, receipts=told)


def hide(changes: Changes, hidden: Collection[str], receipts: bool) -> Changes:
    """Without the marks of peers in `hidden`; without any if the user itself hides its own."""
    entries = tuple(
        replace(entry, peer="") if entry.peer and (not receipts or _author(entry) in hidden) else entry
        for entry in changes.entries
    )
    return replace(changes, entries=entries)


def peers_of(entries: Iterable[Entry]) -> list[str]:
    """The users of whom the entries have a mark."""
    return list(dict.fromkeys(author for one in entries if one.peer and (author := _author(one))))


def surplus(state: UserState) -> list[Entry]:
    """The entries that leave a state that has become too large, the oldest first. It holds all entries."""
    weight = sum(map(weight_of, state.entries.values()))
    leaving: list[Entry] = []
    if weight > CUT_AT:
        for entry in sorted(state.entries.values(), key=lambda entry: entry.v):
            if weight <= CUT_TO:
                break
            if not (entry.pinned or entry.muted or entry.marked):
                leaving.append(entry)
                weight -= weight_of(entry)
    return leaving


def weight_of(entry: Entry) -> int:
    """The share of an entry in CUT_AT: 1, but for long lists."""
    return 1 + len(entry.selector.group) // 16


def _author(entry: Entry) -> str:
    """The user whose mark `peer` is."""
    return entry.selector.with_ or entry.by


def _entry(state: UserState, conversation: str, selector: Selector) -> Entry:
    return state.entries.get(conversation) or Entry(conversation, selector)


def _set(entry: Entry, setting: Setting) -> Entry:
    given = {
        name: value
        for name in ("muted", "pinned", "hidden", "marked")
        if (value := getattr(setting, name)) is not None
    }
    if setting.cleared is not None:
        given["cleared"] = max(entry.cleared, setting.cleared)
    return replace(entry, **given)


def _apply(
    state: UserState, changed: dict[str, Entry], receipts: bool, raised: tuple[Mark, ...] = ()
) -> Decided:
    if not changed and receipts == state.receipts:
        return Decided(state, (), raised)
    version = state.version + 1
    after = {name: replace(entry, v=version) for name, entry in changed.items()}
    before = [entry for name in changed if (entry := state.entries.get(name)) is not None]
    pins = state.pins + sum(one.pinned for one in after.values()) - sum(one.pinned for one in before)
    if pins > MAX_PINNED and pins > state.pins:
        raise Refused(TOO_LARGE, f"pinned: at most {MAX_PINNED} conversations")
    new = replace(
        state,
        version=version,
        pins=pins,
        weight=state.weight + sum(map(weight_of, after.values())) - sum(map(weight_of, before)),
        entries={**state.entries, **after},
    )
    if receipts != state.receipts:
        # Shown again, the marks of all peers come back, which no entry's version tells.
        floor = version if receipts else state.floor
        new = replace(new, receipts=receipts, receipts_v=version, floor=floor)
    return Decided(new, tuple(after.values()), raised)
