"""Rules of edits, recalls and reactions that are wrong: each has its error, and changes nothing."""

from __future__ import annotations

import json
from typing import Any

from tests.protocol.changing import Changing

BAD, INVALID, TOO_LARGE, MISSING, FORBIDDEN = (
    "bad_frame", "invalid_message", "too_large", "not_found", "forbidden",
)  # fmt: skip

# As ids: "own" is one's own message, "theirs" one by the other of the pair, "strange" one between two
# others. A member with None is left out.
EDIT: dict[str, Any] = {"type": "edit", "clientMsgId": "b", "id": "own", "msg": "x"}
RECALL: dict[str, Any] = {"type": "recall", "clientMsgId": "b", "id": "own"}
REACT: dict[str, Any] = {"type": "react", "clientMsgId": "b", "id": "own", "reaction": "👍"}
WRONG: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (EDIT, {"clientMsgId": None}, INVALID),
    (EDIT, {"clientMsgId": ""}, INVALID),
    (EDIT, {"clientMsgId": 5}, BAD),
    (EDIT, {"clientMsgId": "x" * 65}, INVALID),
    (EDIT, {"id": None}, INVALID),
    (EDIT, {"id": ""}, INVALID),
    (EDIT, {"id": 5}, BAD),
    (EDIT, {"id": ["own"]}, BAD),
    (EDIT, {"id": "0" * 28}, MISSING),
    (EDIT, {"id": "0" * 27}, MISSING),
    (EDIT, {"id": "G" * 28}, MISSING),
    (EDIT, {"id": "strange"}, MISSING),
    (EDIT, {"id": "theirs"}, FORBIDDEN),
    (EDIT, {"msg": None}, INVALID),
    (EDIT, {"msg": ""}, INVALID),
    (EDIT, {"msg": 5}, BAD),
    (EDIT, {"msg": {"text": "x"}}, BAD),
    (EDIT, {"msg": "x" * 65537}, TOO_LARGE),
    (EDIT, {"msg": "ä" * 32769}, TOO_LARGE),
    (EDIT, {"contentType": []}, BAD),
    (EDIT, {"contentType": "x" * 129}, INVALID),
    (EDIT, {"mentions": "bob"}, BAD),
    (EDIT, {"mentions": [5]}, BAD),
    (EDIT, {"mentions": [""]}, INVALID),
    (EDIT, {"mentions": ["u\n"]}, INVALID),
    (EDIT, {"mentions": [f"u{n}" for n in range(51)]}, TOO_LARGE),
    (EDIT, {"mentions": ["@all", "bob"]}, INVALID),
    (EDIT, {"mentions": ["@all"]}, FORBIDDEN),
    (EDIT, {"data": []}, BAD),
    (EDIT, {"data": "text"}, BAD),
    (EDIT, {"data": 5}, BAD),
    (EDIT, {"data": {"a": "\ud800"}}, BAD),
    (EDIT, {"data": json.loads('{"a":' * 800 + "1" + "}" * 800)}, TOO_LARGE),
    (EDIT, {"data": {"a": "x" * 4096}}, TOO_LARGE),
    (EDIT, {"data": json.loads('{"a":' * 33 + "1" + "}" * 33)}, TOO_LARGE),
    (RECALL, {"clientMsgId": None}, INVALID),
    (RECALL, {"clientMsgId": {}}, BAD),
    (RECALL, {"id": None}, INVALID),
    (RECALL, {"id": {"own": 1}}, BAD),
    (RECALL, {"id": "own "}, MISSING),
    (RECALL, {"id": "strange"}, MISSING),
    (RECALL, {"id": "theirs"}, FORBIDDEN),
    (REACT, {"clientMsgId": None}, INVALID),
    (REACT, {"id": None}, INVALID),
    (REACT, {"id": "strange"}, MISSING),
    (REACT, {"reaction": None}, INVALID),
    (REACT, {"reaction": ""}, INVALID),
    (REACT, {"reaction": 5}, BAD),
    (REACT, {"reaction": ["👍"]}, BAD),
    (REACT, {"reaction": "ab"}, INVALID),
    (REACT, {"reaction": "👍👍"}, INVALID),
    (REACT, {"reaction": "\n"}, INVALID),
    (REACT, {"reaction": "a" + "\u0301" * 16}, INVALID),
    (REACT, {"reaction": "🇩🇪🇫🇷"}, INVALID),
    (REACT, {"reaction": "👍", "on": "yes"}, BAD),
    (REACT, {"reaction": "👍", "on": 1}, BAD),
]


class BadChangeRules(Changing):
    """None of them is accepted, delivered or archived."""

    async def test_bad_changes(self) -> None:
        """Each is answered with exactly one error of its code, and the connection stays usable."""
        alice, bob = await self.pair()
        carol, dave = await self.pair()
        ids = {
            "own": await self.said(alice, bob),
            "theirs": await self.said(bob, alice),
            "strange": await self.said(carol, dave),
        }
        wrong = []
        for base, change, code in WRONG:
            frame = {name: value for name, value in {**base, **change}.items() if value is not None}
            for stem, message in ids.items():
                if isinstance(frame.get("id"), str):
                    frame["id"] = frame["id"].replace(stem, message)
            alice.send(frame)
            answer = await alice.next()
            if (answer.get("type"), answer.get("code")) != ("error", code):
                wrong.append((base["type"], change, answer))
                continue
            self.assertIs(answer["temporary"], False)
            if isinstance(given := frame.get("clientMsgId"), str) and given:
                self.assertEqual(answer.get("clientMsgId"), given[:64], (change, answer))
        await alice.quiet()
        self.assertEqual(list(alice.frames), [])
        self.assertEqual(wrong, [])
        self.assertGreaterEqual(len(WRONG), 50)
        self.assertEqual((await self.entry(alice, ids["own"], all=True))["msg"], "hello")
        await bob.quiet()
        self.assertEqual(list(bob.frames), [])

    async def test_null_is_absent(self) -> None:
        """Null and empty mean absent, and a clientMsgId that was refused is free."""
        alice, bob = await self.pair()
        message = await self.said(alice, bob)
        error = await self.refusal(alice, {"type": "edit", "clientMsgId": "b", "id": message, "msg": ""})
        self.assertEqual(error["code"], "invalid_message")
        empty: dict[str, Any] = {"contentType": "", "mentions": [], "data": None}
        first = await self.changed(alice, "edit", message, clientMsgId="b", msg="x", **empty)
        self.assertEqual(await self.change(alice, "edit", message, clientMsgId="b", msg="x"), first)
        edit = await bob.take("message")
        self.assertEqual(set(edit) & set(empty), set())
        accepted = await self.changed(bob, "react", message, reaction="👍", on=None)
        event = await alice.take("message")
        self.assertEqual((event["id"], event["on"]), (accepted["id"], True))

    async def test_before_the_connect_signal(self) -> None:
        """The connect signal comes first."""
        client = await self.open()
        error = await self.refusal(client, {"type": "recall", "clientMsgId": "c", "id": "0" * 28})
        self.assertEqual((error["code"], error["clientMsgId"]), ("forbidden", "c"))
