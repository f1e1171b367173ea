"""Rules of frames that are wrong: each has its error, and the connection goes on."""

from __future__ import annotations

import json

from tests.protocol.support import Rules, record_raw

BAD, INVALID, UNKNOWN = "bad_frame", "invalid_message", "unknown_type"

# Each frame, and the codes that may answer it.
BAD_FRAMES: list[tuple[bytes, tuple[str, ...]]] = [
    (b"", (BAD,)),
    (b" ", (BAD,)),
    (b"nonsense", (BAD,)),
    (b"{", (BAD,)),
    (b'{"to":"bob"', (BAD,)),
    (b"{'to':'bob','msg':'x'}", (BAD,)),
    (b'{"to":"bob","msg":"x",}', (BAD,)),
    (b'{"to":"bob","msg":"x"} more', (BAD,)),
    (b'{"to":"bob","msg":"x"}{"to":"bob","msg":"x"}', (BAD,)),
    (b'\xef\xbb\xbf{"to":"bob","msg":"x"}', (BAD,)),
    (b"[]", (BAD,)),
    (b'[{"to":"bob","msg":"x"}]', (BAD,)),
    (b"42", (BAD,)),
    (b'"text"', (BAD,)),
    (b"null", (BAD,)),
    (b"true", (BAD,)),
    (b"[" * 10_000, (BAD,)),
    (b'{"to":"bob","msg":' + b'{"a":' * 10_000, (BAD,)),
    (b'{"to":"bob","msg":NaN}', (BAD,)),
    (b'{"to":"bob","msg":"\n"}', (BAD,)),
    (b'{"to":"bob","msg":"\\x"}', (BAD,)),
    (b'{"to":"bob","msg":"\\ud800"}', (BAD, INVALID)),
    (b'{"to":"\\udfff","msg":"x"}', (BAD, INVALID)),
    (b'{"to":5,"msg":"x"}', (BAD,)),
    (b'{"to":["bob"],"msg":"x"}', (BAD,)),
    (b'{"to":"bob","msg":5}', (BAD,)),
    (b'{"to":"bob","msg":{"text":"x"}}', (BAD,)),
    (b'{"group":"bob","msg":"x"}', (BAD,)),
    (b'{"group":[1],"msg":"x"}', (BAD,)),
    (b'{"group":[null],"msg":"x"}', (BAD,)),
    (b'{"group":{"bob":1},"msg":"x"}', (BAD,)),
    (b'{"clientMsgId":5,"to":"bob","msg":"x"}', (BAD,)),
    (b'{"contentType":[],"to":"bob","msg":"x"}', (BAD,)),
    (b'{"userId":7,"to":"bob","msg":"x"}', (BAD,)),
    (b'{"type":5}', (BAD,)),
    (b'{"type":["ack"]}', (BAD,)),
    (b'{"type":"nonsense"}', (UNKNOWN,)),
    (b'{"type":""}', (UNKNOWN,)),
    (b'{"type":"PING"}', (UNKNOWN,)),
    (b'{"type":"accepted","id":"x"}', (UNKNOWN,)),
    (b'{"type":"connected"}', (UNKNOWN,)),
    (b'{"type":"message","to":"bob","msg":"x"}', (UNKNOWN,)),
    (b'{"type":"ack"}', (BAD,)),
    (b'{"type":"ack","seq":"1"}', (BAD,)),
    (b'{"type":"ack","seq":1.5}', (BAD,)),
    (b'{"type":"ack","seq":true}', (BAD,)),
    (b'{"type":"ack","seq":null}', (BAD,)),
    (b'{"type":"ack","seq":-1}', (BAD, INVALID)),
    (b'{"type":"ack","seq":999}', (INVALID,)),
    (b'{"type":"ack","seq":9007199254740993}', (INVALID,)),
    (b'{"type":"ack","seq":100000000000000000000000}', (BAD, INVALID)),
    (b'{"type":"history","ref":"h"}', (INVALID, BAD)),
    (b'{"type":"history","with":"bob","all":true}', (INVALID, BAD)),
    (b'{"type":"history","with":"bob","group":["a"]}', (INVALID, BAD)),
    (b'{"type":"history","with":5}', (BAD,)),
    (b'{"type":"history","group":"bob"}', (BAD,)),
    (b'{"type":"history","with":"bob","limit":0}', (INVALID, BAD)),
    (b'{"type":"history","with":"bob","limit":201}', (INVALID, BAD)),
    (b'{"type":"history","with":"bob","limit":"50"}', (BAD,)),
    (b'{"type":"history","with":"bob","before":5}', (BAD,)),
    (b'{"type":"history","with":"","ref":"h"}', (INVALID,)),
    (b'{"type":"history","ref":5,"all":true}', (BAD,)),
    (b'{"type":"token"}', (BAD,)),
    (b'{"type":"token","token":5}', (BAD,)),
    (b'{"isConnect":"yes","userId":"x","loginType":"user"}', (BAD,)),
    (b'{"isConnect":true}', (BAD,)),
    (b'{"isConnect":true,"userId":"x","loginType":"user"}', (BAD,)),
]


class BadFrameRules(Rules):
    """Any bad frame gets an error, never an exception, never a closed connection without a reason."""

    async def test_bad_frames(self) -> None:
        """Each is answered with exactly one error of its code; the connection stays usable after it."""
        client = await self.login(self.name("alice"))
        raw = record_raw(client)
        wrong = []
        for number, (payload, codes) in enumerate(BAD_FRAMES):
            client.send_raw(payload)
            client.send({"type": "ping"})
            answer = await client.next()
            if answer.get("type") != "error" or answer.get("code") not in codes:
                wrong.append((payload[:60], answer))
                continue
            self.assertIsInstance(answer["reason"], str)
            self.assertIs(answer["temporary"], False)
            self.assertTrue(raw[-1].startswith(b'{"type":"'), raw[-1])
            await client.expect("pong")
            if number % 10 == 0:
                user = client.connected["userId"]
                await client.say(user, "still here")
                self.assertEqual((await client.take("message"))["msg"], "still here")
                client.send({"type": "ack", "seq": 0})
        self.assertEqual(wrong, [])

    async def test_every_kind_leaves_the_first_message_deliverable(self) -> None:
        """Bad frames between good ones cost the good ones nothing."""
        alice = await self.login(self.name("alice"))
        bob = await self.login(self.name("bob"), ack=True)
        for number in range(20):
            alice.send_raw(BAD_FRAMES[number * 3][0])
            alice.send({"clientMsgId": f"c-{number}", "to": bob.connected["userId"], "msg": str(number)})
        messages = await bob.messages(20)
        self.assertEqual([message["msg"] for message in messages], [str(n) for n in range(20)])

    async def test_error_names_the_message(self) -> None:
        """As long as it can be read, the error carries the clientMsgId, whatever else is wrong."""
        client = await self.login(self.name("alice"))
        for frame in (
            {"clientMsgId": "c-9", "to": 5, "msg": "x"},
            {"to": "bob", "msg": [], "clientMsgId": "c-9"},
            {"clientMsgId": "c-9", "group": ["a", 1], "msg": "x"},
            {"clientMsgId": "c-9", "to": "bob", "msg": ""},
        ):
            error = await self.refusal(client, frame)
            self.assertEqual(error["clientMsgId"], "c-9", frame)
        deep = b"[" * 1200 + b"]" * 1200
        for data, code in ((b'{"x":"\\ud800"}', "bad_frame"), (b'{"x":%b}' % deep, "too_large")):
            client.send_raw(b'{"clientMsgId":"c-9","to":"bob","msg":"hi","data":%b,"ref":"r-9"}' % data)
            error = await client.expect("error")
            self.assertEqual((error["code"], error["clientMsgId"], error["ref"]), (code, "c-9", "r-9"))

    async def test_history_error_names_its_request(self) -> None:
        """A refused history request is answered under its ref."""
        client = await self.login(self.name("alice"))
        error = await self.refusal(client, {"type": "history", "ref": "h-7", "with": "bob", "limit": 1000})
        self.assertEqual(error["ref"], "h-7")

    async def test_binary_behind_the_connect_signal(self) -> None:
        """It waits for the login as other frames do."""
        client = await self.open()
        client.send({"isConnect": True, "loginType": "USER_TYPE", "userId": self.name("alice")})
        client.send_raw(b"{}", binary=True)
        client.send({"type": "ping"})
        for kind in ("connected", "error", "pong"):
            await client.expect(kind)

    async def test_binary(self) -> None:
        """A binary frame is a bad frame, even if it holds a good message."""
        client = await self.login(self.name("alice"))
        user = client.connected["userId"]
        client.send_raw(json.dumps({"to": user, "msg": "x"}).encode(), binary=True)
        self.assertEqual((await client.expect("error"))["code"], "bad_frame")
        client.send_raw(b"", binary=True)
        self.assertEqual((await client.expect("error"))["code"], "bad_frame")
        await client.say(user, "text")
        self.assertEqual((await client.take("message"))["msg"], "text")

    async def test_bytes_that_are_no_text(self) -> None:
        """Text that is not UTF-8 is refused: as a bad frame, or with the WebSocket's own 1007."""
        client = await self.login(self.name("alice"))
        client.send_raw(b'{"to":"bob","msg":"\xff\xfe"}')
        client.send({"type": "ping"})
        try:
            self.assertEqual((await client.next())["code"], "bad_frame")
        except ConnectionError:
            self.assertEqual(client.close_code, 1007)

    async def test_again_and_again(self) -> None:
        """A client that sends nothing but bad frames is closed with 4000."""
        client = await self.login(self.name("alice"))
        for _ in range(200):
            if client.closed:
                break
            client.send_raw(b"nonsense")
        self.assertEqual(await client.wait_closed(), 4000)
        self.assertEqual({frame["code"] for frame in client.frames}, {"bad_frame"})

    async def test_before_connect_too(self) -> None:
        """Bad frames before the connect signal: errors, then 4000."""
        client = await self.open()
        client.send_raw(b"nonsense")
        self.assertEqual((await client.expect("error"))["code"], "bad_frame")
        client.send_raw(b"\x00", binary=True)
        self.assertEqual((await client.expect("error"))["code"], "bad_frame")
        for _ in range(200):
            if client.closed:
                break
            client.send_raw(b"[]")
        self.assertEqual(await client.wait_closed(), 4000)
