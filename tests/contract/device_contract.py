"""The contract of an Inbox: channels, cursors and acknowledgements of devices."""

from __future__ import annotations

from typing import Any

from imd.contracts.inbox import Registered, Superseded, TooManyChannels
from tests.contract.support import InboxHarness, numbers_of

DAY_SECONDS = 86_400


class DeviceContract(InboxHarness):
    """`connect`, `ack`, `renew` and `leave`."""

    assertEqual: Any
    assertIsInstance: Any
    assertTrue: Any
    assertFalse: Any

    async def starts_at(self, user: str, device: str, **request: Any) -> tuple[int, bool]:
        """Where a device that connects is told to read on, and whether it is recovered."""
        outcome = await self.connect(user, device, **request)
        self.assertIsInstance(outcome, Registered)
        self.assertEqual(numbers_of(outcome.page)[:1], [outcome.seq + 1][: outcome.page.head - outcome.seq])
        return outcome.seq, outcome.recovered

    # where reading starts

    async def test_first_connect_of_all(self) -> None:
        """A user who never got anything starts at 0, recovered, with an empty page."""
        await self.begin()
        outcome = await self.connect("bob")
        self.assertEqual((outcome.seq, outcome.recovered, outcome.replaced), (0, True, ""))
        self.assertEqual((outcome.page.head, list(outcome.page.messages)), (0, []))

    async def test_new_device_starts_before_the_oldest(self) -> None:
        """A device without any cursor gets all that the inbox holds."""
        await self.begin(max_messages=3)
        await self.send_many("alice", "bob", 5)
        outcome = await self.connect("bob")
        self.assertEqual((outcome.seq, outcome.recovered), (2, True))
        self.assertEqual(numbers_of(outcome.page), [3, 4, 5])

    async def test_first_page(self) -> None:
        """The answer holds no more than the page asked for."""
        await self.begin()
        await self.send_many("alice", "bob", 5)
        self.assertEqual(numbers_of((await self.connect("bob", page=2)).page), [1, 2])

    async def test_servers_cursor(self) -> None:
        """Without a cursor of its own the device goes on where it acknowledged."""
        await self.begin()
        await self.send_many("alice", "bob", 5)
        await self.connect("bob", "tablet")
        await self.visit("bob", "phone", 3)
        self.assertEqual(await self.starts_at("bob", "phone"), (3, True))

    async def test_clients_cursor(self) -> None:
        """A cursor that the inbox can continue from counts, before or after the server's own."""
        await self.begin()
        await self.send_many("alice", "bob", 5)
        epoch = (await self.connect("bob", "tablet")).page.epoch
        await self.visit("bob", "phone", 3)
        for seq in (0, 1, 4, 5):
            self.assertEqual(await self.starts_at("bob", "phone", epoch=epoch, seq=seq), (seq, True))
        await self.leave("bob", seq=0)
        self.assertEqual(await self.starts_at("bob", "phone"), (5, True))

    async def test_clients_cursor_that_cannot_be_continued(self) -> None:
        """Another epoch, a number not yet given out or one long trimmed: not recovered, and the server's
        own cursor counts; without one, all that there is."""
        await self.begin(max_messages=4)
        await self.send_many("alice", "bob", 6)
        epoch = (await self.connect("bob", "tablet")).page.epoch
        await self.visit("bob", "phone", 4)
        for wrong in (
            {"epoch": "feedc0de", "seq": 5},
            {"epoch": epoch, "seq": 7},
            {"epoch": epoch, "seq": 1},
        ):
            self.assertEqual(await self.starts_at("bob", "phone", **wrong), (4, False))
        for n, wrong in enumerate(({"epoch": "feedc0de", "seq": 5}, {"epoch": epoch, "seq": 7})):
            self.assertEqual(await self.starts_at("bob", f"new {n}", **wrong), (2, False))

    async def test_device_that_stopped_before_the_oldest(self) -> None:
        """A device whose next message has left a full inbox is told that there is a hole."""
        await self.begin(max_messages=3)
        await self.send_many("alice", "bob", 2)
        await self.visit("bob", "phone", 1)
        await self.send_many("alice", "bob", 5)
        self.assertEqual(await self.starts_at("bob", "phone"), (4, False))

    async def behind(self) -> str:
        """A phone that was told of a hole: it is to go on behind 4. Gives the epoch."""
        await self.begin(max_messages=3)
        await self.send_many("alice", "bob", 2)
        await self.visit("bob", "phone", 1)
        await self.send_many("alice", "bob", 5)
        self.assertEqual(await self.starts_at("bob", "phone"), (4, False))
        return self.held["bob", "phone"][1]

    async def test_told_again(self) -> None:
        """A device that has not confirmed its start after a hole is told again after any end."""
        await self.behind()
        self.assertEqual(await self.starts_at("bob", "phone"), (4, False))
        await self.leave("bob", start_confirmed=False)
        self.assertEqual(await self.starts_at("bob", "phone"), (4, False))

    async def test_told_and_acknowledged(self) -> None:
        """An acknowledgement shows that it was read, be it only of where the device begins."""
        await self.behind()
        for device, seq in (("phone", 4), ("tablet", 5)):
            await self.connect("bob", device, epoch="feedc0de")
            await self.ack("bob", seq, device, start_confirmed=True)
            await self.leave("bob", device, start_confirmed=False)
            self.assertEqual(await self.starts_at("bob", device), (seq, True))

    async def test_told_and_left(self) -> None:
        """So does leaving with one."""
        await self.behind()
        await self.leave("bob", seq=4)
        self.assertEqual(await self.starts_at("bob", "phone"), (4, True))

    async def test_told_and_comes_with_a_cursor(self) -> None:
        """So does a cursor that the inbox can go on from."""
        epoch = await self.behind()
        self.assertEqual(await self.starts_at("bob", "phone", epoch=epoch, seq=4), (4, True))
        await self.leave("bob", start_confirmed=False)
        self.assertEqual(await self.starts_at("bob", "phone"), (4, True))

    async def test_told_and_registered_again(self) -> None:
        """A channel that only registers again shows nothing, and its device's place stays."""
        epoch = await self.behind()
        channel = self.held["bob", "phone"][0]
        again = await self.connect("bob", channel=channel, epoch=epoch, seq=4, resume=True)
        self.assertEqual((again.seq, again.recovered), (4, True))
        await self.leave("bob", start_confirmed=False)
        self.assertEqual(await self.starts_at("bob", "phone"), (4, False))

    async def test_told_of_an_unknown_cursor(self) -> None:
        """A device that the inbox does not know, and that came with a cursor of another time, is told
        again if it comes without."""
        await self.begin()
        await self.send_many("alice", "bob", 3)
        self.assertEqual(await self.starts_at("bob", "phone", epoch="feedc0de", seq=2), (0, False))
        await self.leave("bob", start_confirmed=False)
        self.assertEqual(await self.starts_at("bob", "phone"), (0, False))
        await self.ack("bob", 1, start_confirmed=True)
        self.assertEqual(await self.starts_at("bob", "phone"), (1, True))

    async def test_what_it_was_not_told_waits(self) -> None:
        """A device that has yet to read that there is a hole holds messages back like any other."""
        await self.behind()
        await self.leave("bob", start_confirmed=False)
        await self.connect("bob", "tablet")
        await self.ack("bob", 7, "tablet")
        self.assertEqual(numbers_of(await self.read("bob")), [5, 6, 7])

    # acknowledging

    async def test_ack_trims_to_the_least_cursor(self) -> None:
        """A message leaves the inbox when every device has it."""
        await self.begin()
        await self.send_many("alice", "bob", 5)
        await self.connect("bob", "phone")
        await self.connect("bob", "tablet")
        head = await self.ack("bob", 4, "phone")
        self.assertEqual((head.held, head.seq), (True, 5))
        self.assertEqual(numbers_of(await self.read("bob")), [1, 2, 3, 4, 5])
        await self.ack("bob", 2, "tablet")
        self.assertEqual(numbers_of(await self.read("bob")), [3, 4, 5])
        await self.ack("bob", 5, "tablet")
        self.assertEqual(numbers_of(await self.read("bob")), [5])

    async def test_ack_never_goes_back_nor_too_far(self) -> None:
        """An older number is ignored, and one past the head counts as the head."""
        await self.begin()
        await self.send_many("alice", "bob", 3)
        await self.connect("bob", "tablet")
        await self.connect("bob")
        await self.ack("bob", 2)
        await self.ack("bob", 1)
        await self.leave("bob")
        self.assertEqual(await self.starts_at("bob", "phone"), (2, True))
        await self.ack("bob", 99)
        await self.send_many("alice", "bob", 1)
        await self.leave("bob")
        self.assertEqual(await self.starts_at("bob", "phone"), (3, True))

    async def test_ack_of_another_epoch(self) -> None:
        """An acknowledgement of another epoch does nothing; the answer names the present one."""
        await self.begin()
        await self.send_many("alice", "bob", 3)
        epoch = (await self.connect("bob")).page.epoch
        head = await self.ack("bob", 2, epoch="feedc0de")
        self.assertEqual((head.held, head.epoch, head.seq), (True, epoch, 3))
        self.assertEqual(numbers_of(await self.read("bob")), [1, 2, 3])

    async def test_ack_of_a_channel_that_was_replaced(self) -> None:
        """A channel that no longer has its device moves no cursor, and is told."""
        await self.begin()
        await self.send_many("alice", "bob", 3)
        await self.connect("bob", channel="old")
        await self.connect("bob", channel="new")
        self.assertFalse((await self.ack("bob", 3, channel="old")).held)
        self.assertEqual(numbers_of(await self.read("bob")), [1, 2, 3])

    async def test_devices_unseen_for_long(self) -> None:
        """A device unseen for keep_days no longer holds messages back."""
        await self.begin(keep_days=2 / DAY_SECONDS)
        await self.send_many("alice", "bob", 3)
        await self.visit("bob", "lost", 0)
        await self.connect("bob")
        await self.advance(4.5)
        await self.send_many("alice", "bob", 1)
        await self.ack("bob", 3)
        self.assertEqual(numbers_of(await self.read("bob")), [4])

    async def test_number_of_devices(self) -> None:
        """Of more devices than a user may have, the one unseen longest loses its cursor."""
        await self.begin(devices=2)
        await self.send_many("alice", "bob", 3)
        for device in ("a", "b", "c"):
            await self.connect("bob", device)
        for device, seq in (("a", 2), ("b", 1), ("c", 3)):
            await self.leave("bob", device, seq)
            await self.advance(1.1)
        self.assertEqual(await self.starts_at("bob", "d"), (1, True))
        # a is a new device again; that it is here drops b.
        self.assertEqual(await self.starts_at("bob", "a"), (1, True))
        await self.leave("bob", "a", 3)
        self.assertEqual(await self.starts_at("bob", "c"), (3, True))

    async def test_live_devices_give_way_last(self) -> None:
        """A device that is connected keeps its cursor before one that is not, however long unseen."""
        await self.begin(devices=1)
        await self.send_many("alice", "bob", 3)
        await self.connect("bob", "live")
        await self.ack("bob", 2, "live")
        await self.advance(1.1)
        await self.visit("bob", "gone", 1)
        await self.connect("bob", "new")
        self.assertEqual(await self.starts_at("bob", "live"), (2, True))

    # channels

    async def test_live_channels_are_told(self) -> None:
        """A message comes with the channels of the recipient's devices, until they leave."""
        await self.begin()
        self.assertEqual(await self.channels_told("bob"), [])
        await self.connect("bob", "phone", channel="one")
        await self.connect("bob", "tablet", channel="two")
        self.assertEqual(await self.channels_told("bob"), ["one", "two"])
        await self.leave("bob", "phone")
        self.assertEqual(await self.channels_told("bob"), ["two"])

    async def test_channels_end_with_their_lease(self) -> None:
        """A channel lives as long as it is renewed, lease_seconds after the last time."""
        await self.begin(lease_seconds=40)
        await self.connect("bob", channel="one")
        await self.advance(20)
        self.assertTrue((await self.renew("bob")).held)
        await self.advance(25)
        self.assertEqual(await self.channels_told("bob"), ["one"])
        await self.advance(45)
        self.assertEqual(await self.channels_told("bob"), [])

    async def test_renewal_tells_the_head(self) -> None:
        """Whether it renews or only looks, it says how far the inbox reaches."""
        await self.begin()
        epoch = (await self.connect("bob")).page.epoch
        await self.send_many("alice", "bob", 3)
        for renew in (True, False):
            head = await self.renew("bob", renew=renew)
            self.assertEqual((head.held, head.epoch, head.seq), (True, epoch, 3))

    async def test_renewal_never_brings_a_channel_back(self) -> None:
        """A channel that left, or that another replaced, is not held, and stays away."""
        await self.begin()
        await self.connect("bob", channel="one")
        await self.leave("bob")
        self.assertFalse((await self.renew("bob")).held)
        self.assertEqual(await self.channels_told("bob"), [])
        await self.connect("bob", channel="two")
        two = self.held["bob", "phone"]
        await self.connect("bob", channel="three")
        self.held["bob", "phone"] = two
        self.assertFalse((await self.renew("bob")).held)
        self.assertEqual(await self.channels_told("bob"), ["three"])

    async def test_replaced(self) -> None:
        """A new channel of a device takes the old one's place and says which it was; the old one's leaving
        does nothing to it."""
        await self.begin()
        await self.send_many("alice", "bob", 3)
        self.assertEqual((await self.connect("bob", channel="one")).replaced, "")
        one = self.held["bob", "phone"]
        self.assertEqual((await self.connect("bob", channel="two")).replaced, "one")
        self.assertEqual((await self.connect("bob", channel="two")).replaced, "")
        two, self.held["bob", "phone"] = self.held["bob", "phone"], one
        await self.leave("bob", seq=3)
        self.held["bob", "phone"] = two
        self.assertEqual(await self.channels_told("bob"), ["two"])
        self.assertEqual(numbers_of(await self.read("bob")), [1, 2, 3, 4])
        await self.leave("bob")
        self.assertEqual((await self.connect("bob", channel="three")).replaced, "")

    async def test_attempts(self) -> None:
        """An older attempt never replaces the channel of a newer one; an equal, a newer, or one that
        says nothing does."""
        await self.begin()
        await self.connect("bob", channel="one", attempt=1_764_000_000_010)
        self.assertEqual(await self.connect("bob", attempt=1_764_000_000_009), Superseded())
        self.assertEqual(await self.channels_told("bob"), ["one"])
        for channel, attempt in (("two", 1_764_000_000_010), ("three", 1_764_000_000_011), ("four", None)):
            self.assertIsInstance(await self.connect("bob", channel=channel, attempt=attempt), Registered)
            self.assertEqual(await self.channels_told("bob"), [channel])

    async def test_attempts_below_zero(self) -> None:
        """They are compared like others."""
        await self.begin()
        await self.connect("bob", channel="one", attempt=-1)
        self.assertEqual(await self.connect("bob", attempt=-5), Superseded())
        self.assertIsInstance(await self.connect("bob", channel="two", attempt=0), Registered)
        self.assertEqual(await self.connect("bob", attempt=-3), Superseded())
        self.assertEqual(await self.channels_told("bob"), ["two"])

    async def test_older_attempt_when_nobody_is_there(self) -> None:
        """An attempt says nothing about a device that has no channel: clocks are set back."""
        await self.begin()
        await self.connect("bob", attempt=10)
        await self.leave("bob")
        self.assertIsInstance(await self.connect("bob", attempt=9), Registered)

    async def test_resuming(self) -> None:
        """A channel that was registered before does not get its device back from one with the same or a newer
        attempt, nor after one."""
        await self.begin()
        await self.connect("bob", channel="one", attempt=5)
        await self.connect("bob", channel="two", attempt=6)
        self.assertEqual(await self.connect("bob", channel="one", attempt=5, resume=True), Superseded())
        self.assertEqual(await self.connect("bob", channel="x", attempt=6, resume=True), Superseded())
        self.assertEqual(await self.connect("bob", channel="x", resume=True), Superseded())
        self.assertIsInstance(await self.connect("bob", channel="two", attempt=6, resume=True), Registered)
        await self.leave("bob")
        self.assertEqual(await self.connect("bob", channel="one", attempt=5, resume=True), Superseded())
        self.assertIsInstance(await self.connect("bob", channel="two", attempt=6, resume=True), Registered)

    async def test_resume_after_an_old_connect_frame(self) -> None:
        """A connect with an older attempt, made while the device had no channel, yields to the newer one that
        registers again, and does not take the device back."""
        await self.begin()
        await self.connect("bob", channel="new", attempt=7)
        await self.leave("bob")
        self.assertIsInstance(await self.connect("bob", channel="old", attempt=6), Registered)
        self.assertIsInstance(await self.connect("bob", channel="new", attempt=7, resume=True), Registered)
        self.assertEqual(await self.connect("bob", channel="old", attempt=6, resume=True), Superseded())

    async def test_number_of_channels(self) -> None:
        """A user has no more than channels_per_user; a device that has one may always replace it."""
        await self.begin(channels_per_user=2)
        await self.connect("bob", "a")
        await self.connect("bob", "b")
        self.assertEqual(await self.connect("bob", "c"), TooManyChannels())
        self.assertIsInstance(await self.connect("bob", "a"), Registered)
        self.assertIsInstance(await self.connect("carol", "c"), Registered)
        await self.leave("bob", "b")
        self.assertIsInstance(await self.connect("bob", "c"), Registered)

    async def test_leaving_acknowledges(self) -> None:
        """The last acknowledgement comes with a device's leaving, if the epoch is right."""
        await self.begin()
        await self.send_many("alice", "bob", 3)
        await self.connect("bob")
        await self.leave("bob", seq=2)
        self.assertEqual(numbers_of(await self.read("bob")), [3])
        await self.connect("bob")
        channel, epoch = self.held["bob", "phone"]
        self.held["bob", "phone"] = (channel, "feedc0de")
        await self.leave("bob", seq=3)
        self.assertEqual(numbers_of(await self.read("bob")), [3])
        self.assertEqual(await self.starts_at("bob", "phone", epoch=epoch, seq=2), (2, True))

    async def test_ephemeral_devices(self) -> None:
        """An ephemeral device leaves no cursor behind, and no longer holds messages back."""
        await self.begin()
        await self.send_many("alice", "bob", 3)
        await self.visit("bob", "phone", 2)
        await self.connect("bob", "page", ephemeral=True)
        await self.send_many("alice", "bob", 1)
        await self.connect("bob", "phone")
        await self.ack("bob", 3)
        self.assertEqual(numbers_of(await self.read("bob")), [3, 4])
        await self.leave("bob", "page", 2, ephemeral=True)
        self.assertEqual(numbers_of(await self.read("bob")), [4])
        self.assertEqual(await self.starts_at("bob", "page", ephemeral=True), (3, True))
