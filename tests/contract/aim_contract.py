"""The contract of channels that may be told: by typing and signals, by news of state, by presence."""

from __future__ import annotations

from typing import Any

from imd.contracts.aim import Aim, Aimed, TooMany
from imd.contracts.inbox import Closed, NotAllowed, NotMember
from imd.contracts.presence import Seen
from imd.protocol.selector import Selector, Target
from tests.contract.block_contract import BlockHarness
from tests.contract.room_contract import room_id

VISITOR = "visitor-" + "a" * 32


def to_user(user: str) -> Target:
    return Target("c", Selector(with_=user), (user,))


def to_list(*users: str) -> Target:
    return Target("c", Selector(group=users), users)


def to_room(room: str) -> Target:
    return Target("c", Selector(room=room), room=room)


def to_visitor(visitor: str) -> Target:
    return Target("c", Selector(with_=visitor), visitor=visitor)


class AimContract(BlockHarness):
    """`aims` is the AimStore and the PresenceStore of the registry. Keys have 'bob %' in another form."""

    aims: Any

    async def make_aims(self) -> Any:
        """Called after the rooms were made."""
        raise NotImplementedError

    async def begin_aims(self, **options: Any) -> None:
        await self.begin_blocks(**options)
        self.aims = await self.make_aims()
        self.changed: list[tuple[str, list[str]]] = []
        self.aims.listen_presence(lambda user, at: self.changed.append((user, sorted(at))))

    async def log_in(self, user: str, device: str = "phone", flags: str = "s", **more: Any) -> None:
        await self.connect(user, device, channel=f"{user.split()[0]}/{device}", flags=flags, **more)

    async def aim(self, target: Target, sender: str = "alice", most: int = 50) -> Any:
        outcome = await self.aims.aim(Aim(sender, f"{sender}/phone", target, most))
        if not isinstance(outcome, Aimed):
            return outcome
        return {user: sorted(channels) for user, channels in outcome.others.items()}, sorted(outcome.own)

    async def look(self, *users: str, address: str = "n.1") -> Any:
        """Users online; a star is for staff."""
        seen = await self.aims.look(users, address)
        return [f"{user}{'*' * one.is_staff}" for user, one in zip(users, seen, strict=True) if one.lasts_ms]

    async def test_pairs_and_lists(self) -> None:
        """Live channels with the feature get it; the sender's other ones are told apart; nobody else."""
        await self.begin_aims(lease_seconds=60)
        await self.log_in("alice")
        await self.log_in("alice", "tablet")
        await self.log_in("alice", "old", flags="t")
        await self.log_in("bob %")
        await self.log_in("bob %", "desktop", flags="hs")
        await self.log_in("bob %", "old", flags="")
        await self.log_in("carol")
        self.assertEqual(
            await self.aim(to_user("bob %")), ({"bob %": ["bob/desktop", "bob/phone"]}, ["alice/tablet"])
        )
        self.assertEqual(await self.aim(to_user("nobody")), ({}, ["alice/tablet"]))
        self.assertEqual(await self.aim(to_user("alice")), ({}, ["alice/tablet"]))
        self.assertEqual((await self.aim(to_list("bob %", "carol")))[0].keys(), {"bob %", "carol"})
        self.assertEqual(await self.aim(to_list("bob %", "carol"), most=1), TooMany())
        found = await self.aims.channels(["carol", "nobody", "bob %"])
        self.assertEqual({user: len(some) for user, some in found.items()}, {"carol": 1, "bob %": 2})
        await self.leave("carol")
        await self.advance(70)
        await self.log_in("bob %", "phone")
        self.assertEqual(await self.aim(to_list("bob %", "carol")), ({"bob %": ["bob/phone"]}, []))

    async def test_blocks(self) -> None:
        """With a block in either direction nobody is aimed at in a pair, nobody of the two in a list."""
        await self.begin_aims()
        for user in ("alice", "bob %", "carol"):
            await self.log_in(user)
        await self.log_in("alice", "tablet")
        self.assertEqual(await self.aims.hidden("alice", ["bob %", "carol"]), [])
        await self.block("bob %", "alice")
        for sender, other in (("alice", "bob %"), ("bob %", "alice")):
            self.assertEqual(await self.aim(to_user(other), sender), ({}, []))
            self.assertEqual((await self.aim(to_list(other, "carol"), sender))[0].keys(), {"carol"})
            self.assertEqual(await self.aims.hidden(sender, [other, "carol", "x"]), [other])
        self.assertEqual(await self.aims.hidden("carol", ["bob %", "alice"]), [])
        await self.block("bob %", "alice", False)
        self.assertEqual((await self.aim(to_user("bob %")))[0].keys(), {"bob %"})
        self.assertEqual(await self.aims.hidden("alice", ["bob %"]), [])

    async def test_rooms(self) -> None:
        """Members who may write reach the others."""
        await self.begin_aims()
        for user in ("olga", "mary", "mike"):
            await self.log_in(user)
        room = await self.make("mary", "mike", "away")
        self.assertEqual((await self.aim(to_room(room), "mary"))[0].keys(), {"olga", "mike"})
        self.assertEqual(await self.aim(to_room(room), "eve"), NotMember())
        self.assertEqual(await self.aim(to_room(room), "mary", most=3), TooMany())
        self.assertEqual((await self.aim(to_room(room), "mary", most=4))[0].keys(), {"olga", "mike"})
        await self.change(room, "olga", "set", posting="admins")
        self.assertEqual(type(await self.aim(to_room(room), "mary")), NotAllowed)
        self.assertEqual((await self.aim(to_room(room), "olga"))[0].keys(), {"mary", "mike"})
        await self.change(room, "olga", "close")
        self.assertEqual(await self.aim(to_room(room), "olga"), Closed())
        self.assertNotEqual(type(await self.aim(to_room(room_id()), "olga")), Aimed)

    async def test_visitors(self) -> None:
        """A visitor reaches its agent, and an agent the visitor."""
        await self.begin_aims()
        await self.log_in(VISITOR)
        self.assertEqual(await self.aim(to_visitor(VISITOR), VISITOR), ({}, []))
        await self.log_in("gert", flags="st", answers_visitors=True)
        await self.send(self.message(VISITOR))
        self.assertEqual(await self.aim(to_visitor(VISITOR), VISITOR), ({"gert": ["gert/phone"]}, []))
        self.assertEqual(await self.aim(to_visitor(VISITOR), "gert"), ({VISITOR: [f"{VISITOR}/phone"]}, []))

    async def test_resume_keeps_flags(self) -> None:
        """Neither a renewed lease nor an acknowledgement takes the device's flags away."""
        await self.begin_aims()
        await self.log_in("bob", flags="st")
        await self.renew("bob")
        await self.ack("bob", 0)
        self.assertEqual((await self.aim(to_user("bob")))[0].keys(), {"bob"})
        self.assertEqual(await self.look("bob"), ["bob*"])

    async def test_presence(self) -> None:
        """A channel that may be seen, and whose lease has not ended, makes its user online."""
        await self.begin_aims(lease_seconds=60)
        await self.log_in("bob %", flags="t")
        await self.log_in("carol", flags="sh")
        await self.log_in("dora", flags="")
        self.assertEqual(await self.look("bob %", "carol", "dora", "eve"), ["bob %*", "dora"])
        await self.log_in("carol", "tablet", flags="s")
        self.assertEqual(await self.look("carol"), ["carol"])
        (seen,) = await self.aims.look(["bob %"], "n.1")
        await self.leave("carol", "tablet")
        await self.advance(40)
        await self.renew("bob %")
        await self.advance(40)
        self.assertEqual(await self.look("bob %", "carol", "dora"), ["bob %*"])
        await self.advance(30)
        self.assertEqual(await self.look("bob %"), [])
        self.assertEqual(await self.aims.look(["eve"], "n.1"), [Seen()])
        self.assertTrue(30_000 < seen.lasts_ms <= 60_000, seen.lasts_ms)

    async def test_watchers_are_told(self) -> None:
        """Coming, going and coming back after the lease are told to nodes as long as they watch."""
        await self.begin_aims(lease_seconds=60)
        await self.log_in("bob %")
        self.assertEqual(self.changed, [])
        self.assertEqual(await self.look("bob %", address=self.here), ["bob %"])
        await self.log_in("bob %", "tablet")
        await self.leave("bob %", "tablet")
        self.assertEqual(self.changed, 2 * [("bob %", [self.here])])
        await self.renew("bob %")
        self.assertEqual(len(self.changed), 2)
        await self.advance(70)
        await self.renew("bob %")
        self.assertEqual(len(self.changed), 3)
        await self.advance(130)
        await self.leave("bob %")
        self.assertEqual(len(self.changed), 3)

    here = "n.1"
    """the address of a node"""
