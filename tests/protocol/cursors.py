"""Rules of devices and their cursors: where a device goes on."""

from __future__ import annotations

import socket

from tests.protocol.support import Rules, record_pings


class CursorRules(Rules):
    """Messages for a device that comes back."""

    async def filled(self, count: int, kind: str = "plain") -> str:
        """A user with `count` messages ("1", "2", …) in the inbox and no device yet."""
        user = self.name("alice")
        sender = await self.login(self.name("sender"), kind)
        for number in range(1, count + 1):
            sender.send({"clientMsgId": f"c-{number}", "to": user, "msg": str(number)})
        for _ in range(count):
            await sender.take("accepted")
        await sender.close()
        return user

    async def trimmed(self, user: str) -> None:
        """25 more messages for a user of the node whose inboxes hold few: the oldest leave."""
        sender = await self.login(self.name("sender"), "small")
        for number in range(25):
            await sender.say(user, f"later {number}")

    async def trimmed_behind_a_device(self) -> tuple[str, str]:
        """A user whose device stopped before what the inbox still holds, and the node's address."""
        user, url = await self.filled(5, "small"), self.url("small")
        first = await self.login(user, url=url, ack=True)
        await first.messages(2)
        await first.close()
        await self.trimmed(user)
        return user, url

    async def test_new_device_starts_before_the_oldest(self) -> None:
        """Without a cursor of any kind a device gets all that the inbox holds, from 1 on."""
        user = await self.filled(5)
        client = await self.login(user, ack=True)
        self.assertEqual((client.connected["seq"], client.connected["recovered"]), (0, True))
        messages = await client.messages(5)
        self.assert_seqs(messages, 1)
        self.assertEqual([message["msg"] for message in messages], ["1", "2", "3", "4", "5"])

    async def test_goes_on_from_its_cursor(self) -> None:
        """The client's cursor counts: what follows starts at seq + 1, and nothing is lost."""
        user = await self.filled(5)
        first = await self.login(user, ack=True)
        await first.expect("message")
        epoch = first.connected["epoch"]
        await self.dropped(first)
        for seq in (0, 2, 4, 5):
            client = await self.login(user, ack=True, cursor={"epoch": epoch, "seq": seq})
            self.assertEqual(client.connected["epoch"], epoch)
            self.assertEqual((client.connected["seq"], client.connected["recovered"]), (seq, True))
            client.acks = False
            messages = await client.messages(5 - seq)
            self.assert_seqs(messages, seq + 1)
            await client.quiet()
            self.assertEqual(list(client.frames), [])
            await self.dropped(client)

    async def test_cursor_of_an_unknown_epoch(self) -> None:
        """recovered: false, and the inbox from the server's own cursor on."""
        user = await self.filled(3)
        client = await self.login(user, ack=True, cursor={"epoch": "unknown", "seq": 2})
        self.assertIs(client.connected["recovered"], False)
        self.assertEqual(client.connected["seq"], 0)
        self.assert_seqs(await client.messages(3), 1)

    async def test_cursor_ahead_of_the_inbox(self) -> None:
        """A cursor past the last number cannot be continued: recovered: false."""
        user = await self.filled(3)
        first = await self.login(user, ack=True)
        await self.dropped(first)
        client = await self.login(user, ack=True, cursor={"epoch": first.connected["epoch"], "seq": 100})
        self.assertIs(client.connected["recovered"], False)
        self.assertLessEqual(client.connected["seq"], 3)
        messages = await client.messages(3 - client.connected["seq"])
        self.assert_seqs(messages, client.connected["seq"] + 1)
        sender = await self.login(self.name("sender"))
        await sender.say(user, "next")
        self.assertEqual((await client.take("message"))["seq"], 4)

    async def test_negative_cursor(self) -> None:
        """A cursor below 0 is no place: refused or not recovered, never a hole."""
        user = await self.filled(2)
        first = await self.login(user, ack=True)
        await self.dropped(first)
        client = await self.open()
        connect = {"isConnect": True, "userId": user, "loginType": "USER_TYPE", "ack": True}
        client.send({**connect, "cursor": {"epoch": first.connected["epoch"], "seq": -5}})
        answer = await client.next()
        if answer["type"] == "connected":
            self.assertIs(answer["recovered"], False)
            self.assertEqual((await client.take("message"))["seq"], answer["seq"] + 1)
        else:
            self.assertIn(answer["code"], ("bad_frame", "invalid_message"))

    async def test_trimmed_by_max_messages(self) -> None:
        """Past max_messages the oldest leave; a cursor before them is not recovered, no number repeats."""
        user = await self.filled(5, "small")
        first = await self.login(user, "small", ack=True)
        epoch = first.connected["epoch"]
        await first.messages(2)
        await first.quiet()
        await self.dropped(first)
        await self.trimmed(user)
        client = await self.login(user, "small", ack=True, cursor={"epoch": epoch, "seq": 2})
        self.assertIs(client.connected["recovered"], False)
        self.assertEqual(client.connected["seq"], 10)
        messages = await client.messages(20)
        self.assert_seqs(messages, 11)
        self.assertEqual(messages[-1]["msg"], "later 24")

    async def test_trimmed_under_the_servers_cursor(self) -> None:
        """The server's own cursor, too, may have been trimmed away: recovered: false."""
        user, url = await self.trimmed_behind_a_device()
        client = await self.login(user, url=url, ack=True)
        self.assertIs(client.connected["recovered"], False)
        self.assertEqual(client.connected["seq"], 10)
        self.assert_seqs(await client.messages(20), 11)

    async def test_told_until_it_was_read(self) -> None:
        """A device without a cursor of its own is told `recovered: false` until it acknowledges something,
        be it only the number that it begins at."""
        user, url = await self.trimmed_behind_a_device()
        for ending in ("drop", "close", "acknowledge", ""):
            client = await self.open(url)
            client.acks = False
            client.send({"isConnect": True, "userId": user, "loginType": "USER_TYPE", "ack": True})
            connected = await client.expect("connected")
            self.assertEqual((connected["seq"], connected["recovered"]), (10, ending == ""))
            if ending == "acknowledge":
                client.send({"type": "ack", "seq": 10, "epoch": connected["epoch"]})
                await client.quiet()
            await (self.dropped(client) if ending == "drop" else client.close())

    async def test_told_until_a_pong(self) -> None:
        """A client that never acknowledges is told until it answers a ping, which comes at once."""
        user = await self.filled(1)
        url = self.url()
        cursor = {"cursor": {"epoch": "unknown", "seq": 9}}
        client = await self.open(url)
        client.answers_pings = False
        client.send({"isConnect": True, "userId": user, "loginType": "USER_TYPE", **cursor})
        self.assertIs((await client.expect("connected"))["recovered"], False)
        await self.dropped(client)
        client = await self.login(user, url=url)
        self.assertIs(client.connected["recovered"], False)
        # After the first the node's ping is here and answered, after the second the node has read the answer.
        await client.quiet()
        await client.quiet()
        await self.dropped(client)
        client = await self.login(user, url=url)
        self.assertIs(client.connected["recovered"], True)

    async def test_ack_names_its_epoch(self) -> None:
        """An ack of the present epoch counts; one of any other is passed over, whatever its number."""
        user = await self.filled(3)
        url = self.url()
        client = await self.login(user, url=url, ack=True)
        client.acks = False
        await client.messages(3)
        client.send({"type": "ack", "seq": 1, "epoch": client.connected["epoch"]})
        client.send({"type": "ack", "seq": 3, "epoch": "another"})
        client.send({"type": "ack", "seq": 99, "epoch": "another"})
        await client.quiet()
        self.assertEqual(list(client.frames), [])
        client.send({"type": "ack", "seq": 99, "epoch": client.connected["epoch"]})
        self.assertEqual((await client.expect("error"))["code"], "invalid_message")
        await client.close()
        again = await self.login(user, url=url, ack=True)
        self.assertEqual(again.connected["seq"], 1)

    async def test_new_device_after_trimming(self) -> None:
        """A device that was never here starts before the oldest that is left."""
        user = await self.filled(30, "small")
        client = await self.login(user, "small", ack=True, device="new")
        self.assertEqual((client.connected["seq"], client.connected["recovered"]), (10, True))
        self.assert_seqs(await client.messages(20), 11)

    async def test_servers_own_cursor(self) -> None:
        """Without a cursor a device goes on behind what it acknowledged last."""
        user = await self.filled(4)
        url = self.url()
        first = await self.login(user, url=url, ack=True)
        await first.messages(3)
        await first.quiet()
        await first.close()
        client = await self.login(user, url=url, ack=True)
        self.assertEqual((client.connected["seq"], client.connected["recovered"]), (3, True))
        self.assert_seqs(await client.messages(1), 4)

    async def test_each_device_has_its_own_cursor(self) -> None:
        """A message that one device acknowledged is still there for another."""
        user = await self.filled(3)
        url = self.url()
        phone = await self.login(user, url=url, device="phone", ack=True)
        desk = await self.login(user, url=url, device="desk", ack=True)
        await phone.messages(3)
        await phone.quiet()
        await phone.close()
        self.assert_seqs(await desk.messages(3), 1)
        again = await self.login(user, url=url, device="phone", ack=True)
        self.assertEqual(again.connected["seq"], 3)

    async def test_ephemeral_leaves_no_cursor(self) -> None:
        """An ephemeral device starts anew each time, one that is not goes on."""
        user = await self.filled(3)
        url = self.url()
        holder = await self.login(user, url=url, device="holder", ack=True)
        for ephemeral, start in ((True, 0), (True, 0), (False, 0), (False, 3)):
            client = await self.login(user, url=url, device="tab", ack=True, ephemeral=ephemeral)
            self.assertEqual(client.connected["seq"], start)
            await client.messages(3 - start)
            await client.quiet()
            await client.close()
        await holder.quiet()

    async def test_ephemeral_does_not_hold_the_inbox(self) -> None:
        """When an ephemeral device is gone, it no longer keeps messages that all others acknowledged."""
        user = await self.filled(3)
        url = self.url()
        tab = await self.login(user, url=url, device="tab", ack=True, ephemeral=True)
        await tab.quiet()
        await tab.close()
        main = await self.login(user, url=url, device="main", ack=True)
        await main.messages(3)
        await main.quiet()
        await main.close()
        new = await self.login(user, url=url, device="new", ack=True)
        self.assertEqual(new.connected["seq"], 3)

    async def test_limit_of_devices(self) -> None:
        """The device unseen longest gives way when there are more than limits.devices (3) others."""
        user = await self.filled(3, "small")
        url = self.url("small")
        for device in ("d1", "d2", "d3"):
            await self.dropped(await self.login(user, url=url, device=device, ack=True))
        first = await self.login(user, url=url, device="d0", ack=True)
        await first.messages(3)
        await first.quiet()
        await first.close()
        back = await self.login(user, url=url, device="d0", ack=True)
        self.assertEqual(back.connected["seq"], 3)
        await back.close()
        # Now d0 is the one unseen longest, and there are four others than d4.
        for device in ("d1", "d2", "d3", "d4"):
            await self.dropped(await self.login(user, url=url, device=device, ack=True))
        pushed_out = await self.login(user, url=url, device="d0", ack=True)
        self.assertEqual(pushed_out.connected["seq"], 0)
        self.assert_seqs(await pushed_out.messages(3), 1)

    async def test_pong_counts_for_a_seed_client(self) -> None:
        """A client that never acknowledges: a pong to a ping sent after it says that a message arrived."""
        user = await self.filled(3, "small")
        url = self.url("small")
        client = await self.login(user, url=url)
        self.assert_seqs(await client.messages(3), 1)
        pings = record_pings(client)

        async def pinged_twice() -> bool:
            return len(pings) >= 2

        await self.eventually(pinged_twice)
        await client.quiet()
        await self.dropped(client)
        again = await self.login(user, url=url)
        self.assertEqual((again.connected["seq"], again.connected["recovered"]), (3, True))

    async def test_clean_close_counts_for_a_seed_client(self) -> None:
        """On a clean close all that was written counts as acknowledged."""
        user = await self.filled(3)
        url = self.url()
        client = await self.login(user, url=url)
        client.answers_pings = False
        await client.messages(3)
        await client.close()
        again = await self.login(user, url=url)
        self.assertEqual(again.connected["seq"], 3)

    async def test_abort_does_not_count_for_a_seed_client(self) -> None:
        """A connection that breaks proves nothing: everything comes again."""
        user = await self.filled(3)
        url = self.url()
        client = await self.open(url)
        client.answers_pings = False
        client.send({"isConnect": True, "userId": user, "loginType": "USER_TYPE"})
        await client.messages(3)
        await self.dropped(client)
        again = await self.login(user, url=url)
        self.assertEqual(again.connected["seq"], 0)
        self.assert_seqs(await again.messages(3), 1)

    async def test_close_of_one_that_is_gone(self) -> None:
        """A close frame with the end of the connection right behind it: nobody read what was written."""
        user = await self.filled(3)
        url = self.url()
        client = await self.open(url)
        client.answers_pings = False
        client.send({"isConnect": True, "userId": user, "loginType": "USER_TYPE"})
        await client.messages(3)
        wire = client.protocol.transport.socket
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        wire.send(bytes.fromhex("8882 00000000 03e8"))
        wire.shutdown(socket.SHUT_WR)
        await client.wait_closed()
        again = await self.login(user, url=url)
        self.assertEqual(again.connected["seq"], 0)
        self.assert_seqs(await again.messages(3), 1)

    async def test_clean_close_does_not_count_for_an_acknowledging_client(self) -> None:
        """With ack: true only acknowledgements count."""
        user = await self.filled(3)
        url = self.url()
        client = await self.login(user, url=url, ack=True)
        client.acks = False
        await client.messages(3)
        client.send({"type": "ack", "seq": 1})
        await client.quiet()
        await client.close()
        again = await self.login(user, url=url, ack=True)
        self.assertEqual(again.connected["seq"], 1)
        self.assert_seqs(await again.messages(2), 2)
