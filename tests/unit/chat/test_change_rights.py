"""Rights to change a message, and who hears of it: by examples, and for any message and user."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial import unittest

from imd.chat.change_form import Change
from imd.chat.change_rights import Actor, address, judge
from imd.config.settings import Messages
from imd.contracts.archive import Scope, Target
from imd.protocol.errors import CONFLICT, FORBIDDEN, TOO_LARGE, Refused
from imd.protocol.events import Edit, React, Recall

NOW = 1_764_000_000_000
USERS = ("alice", "bob", "carol", "dave")
REACTIONS = tuple("👍🎉😀😮🙈")


def target(author: str = "alice", to: str = "bob", **fields: Any) -> Target:
    group = fields.pop("group", None)
    people = {author, to, *(group or ())} - {""}
    values: dict[str, Any] = {
        "message_id": "0" * 28,
        "author": author,
        "from_user_type": "USER_TYPE",
        "send_time": NOW,
        "to": "" if group else to,
        "group": group,
        "is_visitor": False,
        "recalled": False,
        "scope": Scope("c", tuple(sorted(people - {""}))),
        "reactions": {},
        "different": frozenset(),
    }
    return Target(**values | fields)


def outcome(change: Change, of: Target, actor: Actor, now: int = NOW, windows: Messages | None = None) -> Any:
    """True, False, or the code of the refusal."""
    try:
        return judge(change, of, actor, now, windows or Messages())
    except Refused as refused:
        return refused.code


@st.composite
def targets(draw: st.DrawFn) -> Target:
    author = draw(st.sampled_from(USERS))
    others = [user for user in USERS if user != author]
    group = draw(st.none() | st.lists(st.sampled_from(USERS), min_size=1, max_size=4).map(tuple))
    room = draw(st.sampled_from(("", "", "r-1")))
    own = {user: frozenset(draw(st.sets(st.sampled_from(REACTIONS), max_size=3))) for user in USERS}
    to = "" if group or room else draw(st.sampled_from(others))
    people = () if room else tuple(sorted({author, to, *(group or ())} - {""}))
    return target(
        author,
        to,
        group=None if room else group,
        recalled=draw(st.booleans()),
        send_time=NOW - draw(st.integers(0, 200)) * 1000,
        scope=Scope("c", people, room=room, version=3 if room else 0),
        reactions=own,
        different=frozenset().union(*own.values()),
    )


changes = st.one_of(
    st.builds(Edit, msg=st.just("x"), mentions=st.sampled_from((None, ["@all"], ["bob"]))),
    st.builds(Recall),
    st.builds(React, reaction=st.sampled_from(REACTIONS), on=st.booleans()),
)
windows = st.builds(
    Messages, edit_seconds=st.sampled_from((-1, 0, 100)), recall_seconds=st.sampled_from((-1, 0, 100))
)
actors = st.builds(Actor, st.sampled_from(USERS), leads=st.booleans(), closed=st.booleans())


class JudgeTests(unittest.TestCase):
    def test_windows(self) -> None:
        """To the millisecond."""
        bounds = Messages(edit_seconds=10, recall_seconds=5)
        for seconds, edit, recall in (
            (5, True, True),
            (5.001, True, FORBIDDEN),
            (10.001, FORBIDDEN, FORBIDDEN),
        ):
            later = NOW + int(seconds * 1000)
            self.assertEqual(outcome(Edit(), target(), Actor("alice"), later, bounds), edit)
            self.assertEqual(outcome(Recall(), target(), Actor("alice"), later, bounds), recall)

    def test_limits_of_reactions(self) -> None:
        many = frozenset(chr(0x1F600 + n) for n in range(50))
        full = target(different=many)
        self.assertEqual(outcome(React(reaction="👍", on=True), full, Actor("bob")), TOO_LARGE)
        self.assertIs(outcome(React(reaction="\U0001f600", on=True), full, Actor("bob")), True)
        own = target(reactions={"bob": frozenset("👍🎉😀")}, different=frozenset("👍🎉😀"))
        self.assertEqual(outcome(React(reaction="😮", on=True), own, Actor("bob")), TOO_LARGE)
        self.assertIs(outcome(React(reaction="👍", on=True), own, Actor("bob")), False)
        self.assertIs(outcome(React(reaction="👍", on=False), own, Actor("bob")), True)
        self.assertIs(outcome(React(reaction="😮", on=False), own, Actor("bob")), False)

    @given(changes, targets(), actors, windows)
    def test_any(self, change: Change, of: Target, actor: Actor, bounds: Messages) -> None:
        """Right, time, state, sameness: the first that stands against it decides."""
        found = outcome(change, of, actor, NOW, bounds)
        is_author = actor.user == of.author
        if isinstance(change, React):
            has_right = True
        else:
            seconds = bounds.edit_seconds if isinstance(change, Edit) else bounds.recall_seconds
            in_time = seconds == -1 or (seconds > 0 and NOW - of.send_time <= seconds * 1000)
            has_right = in_time and (is_author or (isinstance(change, Recall) and actor.leads))
            if isinstance(change, Edit) and change.mentions == ["@all"]:
                has_right = has_right and actor.leads
        if not has_right:
            self.assertEqual(found, FORBIDDEN)
        elif isinstance(change, Recall):
            self.assertIs(found, not of.recalled)
        elif actor.closed or of.recalled:
            self.assertEqual(found, CONFLICT)
        elif isinstance(change, Edit):
            self.assertIs(found, True)
        else:
            own = of.reactions[actor.user]
            is_same = (change.reaction in own) is (change.on is not False)
            expected = TOO_LARGE if len(own) == 3 and not is_same and change.on else not is_same
            self.assertEqual(found, expected)


class AddressTests(unittest.TestCase):
    @given(changes, targets(), st.sampled_from(USERS))
    def test_the_others(self, change: Change, of: Target, user: str) -> None:
        """Everybody else in the conversation hears of it, and nobody else."""
        people = of.scope.participants
        if people and user not in people:
            return
        recipients = address(change, of, Actor(user))
        if of.scope.room:
            self.assertEqual((recipients, change.room, change.to, change.group), ([], "r-1", "", None))
            return
        self.assertEqual(set(recipients) - {user}, set(people) - {user})
        self.assertEqual(len(recipients), len(set(recipients)))
        self.assertTrue(bool(change.to) != bool(change.group) or not recipients)
        if user == of.author:
            self.assertEqual((change.to, tuple(change.group or ()) or None), (of.to, of.group))

    def test_visitor(self) -> None:
        """A visitor's change names nobody; an agent's names the visitor, whoever wrote the message."""
        scope = Scope("c", ("agent", "visitor-1"), visitor="visitor-1")
        for author, to in (("visitor-1", ""), ("agent", "visitor-1"), ("earlier", "visitor-1")):
            of = target(author, to, scope=scope)
            recall = Recall()
            self.assertEqual(address(recall, of, Actor("visitor-1", is_visitor=True)), [])
            self.assertEqual((recall.to, recall.is_visitor), ("", True))
            react = React(reaction="👍")
            self.assertEqual(address(react, of, Actor("agent")), ["visitor-1"])
            self.assertEqual((react.to, react.is_visitor), ("visitor-1", False))
