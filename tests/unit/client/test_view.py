"""A view shows the same, whatever the order in which things come, and however often."""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial import unittest

from imd.client import View
from imd.client.numbered import entry_of

MESSAGE = {"id": "m1", "userId": "bob", "to": "alice", "msg": "original", "sendTime": 1}
USERS = ["alice", "bob", "carol"]


def change(number: int, kind: str, user: str, reaction: str, on: bool) -> dict[str, Any]:
    frame = {"kind": kind, "id": f"e{number:02}", "of": "m1", "userId": user, "sendTime": 10 + number}
    more = {"edit": {"msg": f"text {number}"}, "react": {"reaction": reaction, "on": on}}
    return frame | more.get(kind, {})


@st.composite
def stories(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Changes in the order of their ids, and all entries in another order, some of them twice."""
    kinds = draw(st.lists(st.sampled_from(["edit", "edit", "react", "react", "react", "recall"]), max_size=8))
    changes = [
        change(n, kind, draw(st.sampled_from(USERS)), draw(st.sampled_from("👍🎉")), draw(st.booleans()))
        for n, kind in enumerate(kinds)
    ]
    entries = [MESSAGE, *changes]
    again = draw(st.lists(st.sampled_from(entries), max_size=4))
    return changes, draw(st.permutations(entries + again))


class ViewTests(unittest.TestCase):
    @given(stories())
    @settings(deadline=None, max_examples=300)
    def test_any_order(self, story: tuple[list[dict[str, Any]], list[dict[str, Any]]]) -> None:
        changes, entries = story
        view = View()
        for frame in entries:
            entry = entry_of(frame)
            assert entry is not None
            view.put(entry)
        [shown] = view.messages
        recalls = [frame["sendTime"] for frame in changes if frame["kind"] == "recall"]
        edits = [frame for frame in changes if frame["kind"] == "edit"]
        expected = edits[-1]["msg"] if edits else "original"
        self.assertEqual(shown.msg, "" if recalls else expected)
        self.assertEqual(shown.recalled, min(recalls, default=None))
        present: dict[str, set[str]] = {}
        for frame in changes:
            if frame["kind"] == "react":
                users = present.setdefault(frame["reaction"], set())
                (users.add if frame["on"] else users.discard)(frame["userId"])
        found = {each.reaction: (each.count, set(each.users)) for each in shown.reactions}
        self.assertEqual(found, {name: (len(users), users) for name, users in present.items() if users})

    @given(st.lists(st.booleans(), min_size=1, max_size=3), st.randoms(use_true_random=False))
    @settings(deadline=None, max_examples=100)
    def test_oneself_among_many(self, own: list[bool], random: Random) -> None:
        """Of many users who react alike twenty are named; oneself is, exactly if one's last word is yes."""
        users = [f"u{n}" for n in range(25)] + ["alice"] * len(own)
        random.shuffle(users)
        left = iter(own)
        changes = [
            change(n, "react", user, "👍", next(left) if user == "alice" else True)
            for n, user in enumerate(users)
        ]
        view = View("alice")
        for frame in random.sample([MESSAGE, *changes], len(changes) + 1):
            entry = entry_of(frame)
            assert entry is not None
            view.put(entry)
        [shown] = view.messages
        [reactions] = shown.reactions
        self.assertEqual("alice" in reactions.users, own[-1])
        self.assertEqual(reactions.count, 25 + own[-1])
        self.assertLessEqual(len(reactions.users), 20)

    def test_unknown_messages_are_bounded(self) -> None:
        view = View()
        for n in range(1500):
            entry = entry_of(change(n, "edit", "bob", "", True) | {"of": f"m{n}"})
            assert entry is not None
            view.put(entry)
        self.assertEqual(len(view._records), 1000)
