"""Builds that break marks and settings. See `broken`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tests.tools.drill.build import Build
from tests.tools.drill.seams import Did, Seams


def overwritten(seams: Seams) -> None:
    from msgspec.structs import replace

    from imd.contracts import state_rules
    from imd.contracts.state import Entry, Mark, Setting, UserState

    seams.attributes(Entry, "read")
    seams.attributes(UserState, "entries")
    seams.attributes(Mark, "conversation", "up_to")

    def make(decide: Callable[..., Any], did: Did) -> Callable[..., Any]:
        def whatever_came(state: UserState, marks: Sequence[Mark], setting: Setting | None) -> Any:
            entries = dict(state.entries)
            for mark in marks:
                entry = entries.get(mark.conversation)
                if entry is not None and mark.up_to < entry.read:
                    entries[mark.conversation] = replace(entry, read="")
                    did()
            if entries != state.entries:
                state = replace(state, entries=entries)
            return decide(state, marks, setting)

        return whatever_came

    seams.replace(state_rules, "decide", "state, marks, setting", make)


def not_compared(seams: Seams) -> None:
    from imd.chat.state_feed import Feeds
    from imd.chat.state_upkeep import StateUpkeep
    from imd.contracts.state import Changes

    def make(_: Callable[..., None], did: Did) -> Callable[..., None]:
        def lost(self: Feeds, changes: Iterable[Changes]) -> None:
            for _ in changes:
                did()

        return lost

    def never(_: Callable[..., Any], __: Did) -> Callable[..., None]:
        return lambda self: None

    seams.replace(Feeds, "changed", "self, changes", make)
    seams.replace(StateUpkeep, "_tick", "self", never)


STATE_BUILDS = {
    "marks-overwritten": Build(
        "sets a mark to the one that came last, not to the highest",
        "clients-vanish",
        "mark fell",
        frozenset({"mark lost"}),
        overwritten,
    ),
    "not-compared": Build(
        "loses all hints of state, and compares no versions",
        "clients-vanish",
        "behind",
        frozenset(),
        not_compared,
    ),
}
