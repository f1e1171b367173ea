"""Identities over the wire: no token and no name makes a client another user."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.hostile.raw import RawClient
from tests.hostile.support import (
    AUDIENCE,
    ISSUER,
    JWT_SECRET,
    LOOK_ALIKES,
    PRIVATE_KEYS,
    HostileCase,
    bystander,
)

UNAUTHORIZED = 4001


def token(key: Any = JWT_SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    """A token as the issuer would sign it, with `claims` changed; claims that are None are left out."""
    content = {
        "sub": "alice",
        "loginType": "USER_TYPE",
        "exp": time.time() + 600,
        "iss": ISSUER,
        "aud": AUDIENCE,
        **claims,
    }
    head = content.pop("head", None)
    return jwt.encode({k: v for k, v in content.items() if v is not None}, key, algorithm, headers=head)


def encoded(part: Any) -> bytes:
    return base64.urlsafe_b64encode(part if isinstance(part, bytes) else json.dumps(part).encode()).rstrip(
        b"="
    )


def hand_made(head: Any, claims: Any, secret: bytes | None = None) -> str:
    """A token with any head, signed by HMAC or not at all. PyJWT would refuse to make it."""
    body = encoded(head) + b"." + encoded(claims)
    signature = b"" if secret is None else hmac.digest(secret, body, hashlib.sha256)
    return (body + b"." + encoded(signature)).decode() if signature else (body + b".").decode()


def good_claims(**claims: Any) -> dict[str, Any]:
    return {
        "sub": "alice",
        "loginType": "USER_TYPE",
        "exp": time.time() + 600,
        "iss": ISSUER,
        "aud": AUDIENCE,
    } | claims


class IdentityCase(HostileCase):
    kind = "jwt"

    def connect(
        self, port: int | None = None, header: str | None = None, **fields: Any
    ) -> tuple[object, RawClient]:
        """The result of a connect signal: the userId, or the close code."""
        client = RawClient(port or self.node.port)
        self.addCleanup(client.socket.close)
        if header is None:
            client.open()
        else:
            client.open_with(Authorization=f"Bearer {header}")
        client.say({"isConnect": True, **fields})
        while True:
            came = client.next()
            assert came is not None, "gone without a word"
            if came.brief == "connected":
                return json.loads(came.payload)["userId"], client
            if isinstance(came.brief, int):
                return came.brief, client

    def assert_out(self, why: str, port: int | None = None, **fields: Any) -> None:
        """The token is refused in the frame and in the header."""
        self.assertEqual(self.connect(port, **fields)[0], UNAUTHORIZED, why)
        if "token" in fields and fields["token"].isascii():
            rest = {name: value for name, value in fields.items() if name != "token"}
            self.assertEqual(
                self.connect(port, fields["token"], **rest)[0], UNAUTHORIZED, f"{why}, in the header"
            )


class TokenTests(IdentityCase):
    def test_good_ones(self) -> None:
        """HS256, RS256 and EdDSA tokens get in on a node with the key; so does one of several audiences."""
        for kind, algorithm in (("jwt", "HS256"), ("rs256", "RS256"), ("eddsa", "EdDSA")):
            port = bystander(kind).node.port
            good = token(PRIVATE_KEYS.get(kind, JWT_SECRET), algorithm, aud=["other", AUDIENCE])
            self.assertEqual(self.connect(port, token=good)[0], "alice", kind)
            self.assertEqual(self.connect(port, good)[0], "alice", kind)

    def test_forged(self) -> None:
        """A token is refused if another signed it, or if it was changed, cut or not signed."""
        good = token()
        head, claims, signature = good.split(".")
        others = encoded(good_claims(sub="admin")).decode()
        for why, forged in {
            "another secret": token("another secret, of more than 32 bytes"),
            "an empty secret": hand_made({"alg": "HS256"}, good_claims(), b""),
            "other claims": f"{head}.{others}.{signature}",
            "cut": good[:-4],
            "no signature": f"{head}.{claims}.",
            "two parts": f"{head}.{claims}",
            "four parts": f"{good}.{signature}",
            "nothing": ".",
            "another hash": token(algorithm="HS512", key=JWT_SECRET * 2),
            "another hash of the same secret": hand_made(
                {"alg": "HS384"}, good_claims(), JWT_SECRET.encode()
            ),
            "a key of its own": token(
                "attacker's secret, more than 32 bytes",
                head={
                    "jwk": {"kty": "oct", "k": "YXR0YWNrZXI"},
                    "kid": "../../dev/null",
                    "jku": "http://127.0.0.1",
                },
            ),
        }.items():
            self.assert_out(why, token=forged)

    def test_no_algorithm(self) -> None:
        """`alg` none is refused in every spelling, with and without a signature."""
        for algorithm in ("none", "None", "NONE", "nOnE", "", None, 0, [], ["HS256"], "HS256 ", "hs256"):
            for secret in (None, JWT_SECRET.encode()):
                forged = hand_made({"alg": algorithm, "typ": "JWT"}, good_claims(), secret)
                self.assertEqual(self.connect(token=forged)[0], UNAUTHORIZED, (algorithm, secret))
        self.assert_out("no alg at all", token=hand_made({"typ": "JWT"}, good_claims()))

    def test_confused_algorithms(self) -> None:
        """A token does not choose its algorithm: neither HMAC with the public key nor another kind of key."""
        for kind, algorithm in (("rs256", "RS256"), ("eddsa", "EdDSA")):
            port = bystander(kind).node.port
            public = PRIVATE_KEYS[kind].public_key()
            spki = PublicFormat.SubjectPublicKeyInfo
            secrets = [public.public_bytes(Encoding.PEM, spki), public.public_bytes(Encoding.DER, spki)]
            secrets += [secrets[0].strip(), b""]
            for secret in secrets:
                for claimed in ("HS256", algorithm):
                    forged = hand_made({"alg": claimed}, good_claims(), secret)
                    self.assertEqual(self.connect(port, token=forged)[0], UNAUTHORIZED, (kind, claimed))
            self.assert_out("HS256 of the other nodes", port, token=token())
            self.assert_out("alg none", port, token=hand_made({"alg": "none"}, good_claims()))
            strangers = {
                "RS256": rsa.generate_private_key(65537, 2048),
                "EdDSA": ed25519.Ed25519PrivateKey.generate(),
                "ES256": ec.generate_private_key(ec.SECP256R1()),
            }
            for name, key in strangers.items():
                self.assert_out(f"{name} of a stranger", port, token=token(key, name))
        for kind in ("rs256", "eddsa"):
            algorithm = {"rs256": "RS256", "eddsa": "EdDSA"}[kind]
            self.assert_out(f"{algorithm} at a node for HS256", token=token(PRIVATE_KEYS[kind], algorithm))

    def test_times(self) -> None:
        """A token is refused if it is expired, not valid yet, without an end, or has no proper time."""
        now = time.time()
        for why, claims in {
            "expired": {"exp": now - 31},
            "long expired": {"exp": 0},
            "before all time": {"exp": -1e18},
            "no exp": {"exp": None},
            "exp as text": {"exp": str(now + 600)},
            "exp in milliseconds": {"exp": now * 1000},
            "exp true": {"exp": True},
            "exp a list": {"exp": [now + 600]},
            "exp beyond numbers": {"exp": 10**400},
            "not valid yet": {"nbf": now + 300},
            "nbf as text": {"nbf": "0"},
        }.items():
            self.assertEqual(
                self.connect(token=hand_made({"alg": "HS256"}, {k: v for k, v in good_claims(**claims).items()
                                                                if v is not None}, JWT_SECRET.encode()))[0],
                UNAUTHORIZED, why,
            )  # fmt: skip

    def test_issuers_and_audiences(self) -> None:
        """Tokens of another issuer, or for another audience, are refused."""
        for why, claims in {
            "no issuer": {"iss": None},
            "another issuer": {"iss": "https://evil.example"},
            "nearly the issuer": {"iss": ISSUER + "/"},
            "a longer issuer": {"iss": ISSUER + ".evil.example"},
            "no audience": {"aud": None},
            "another audience": {"aud": "other"},
            "a list without it": {"aud": ["other", AUDIENCE + "2"]},
            "an empty list": {"aud": []},
            "in capitals": {"aud": AUDIENCE.upper()},
        }.items():
            self.assert_out(why, token=token(**claims))

    def test_missing(self) -> None:
        """A missing or empty token, one that is no text, and a frame for open mode are refused."""
        self.assert_out("none", userId="alice", loginType="USER_TYPE")
        self.assert_out("empty", userId="alice", loginType="USER_TYPE", token="")
        self.assert_out("long", token="x" * 9000)

    def test_subjects(self) -> None:
        """A token without a subject is refused, and one whose subject is no user id."""
        for sub in ("", "x" * 129, "a\nb", "a\0b", "\ud800", 5, ["alice"], {"id": "alice"}, True,
                    "visitor-0123456789abcdef0123", "visitor-"):  # fmt: skip
            forged = hand_made({"alg": "HS256"}, good_claims(sub=sub), JWT_SECRET.encode())
            self.assertEqual(self.connect(token=forged)[0], UNAUTHORIZED, sub)
        without = {name: value for name, value in good_claims().items() if name != "sub"}
        self.assert_out("no sub", token=hand_made({"alg": "HS256"}, without, JWT_SECRET.encode()))

    def test_another_user(self) -> None:
        """A token admits its own user only, and the connection stays that user's."""
        for other in (
            "bob",
            "Alice",
            "alice ",
            "alice\u200b",
            "\uff41lice",
            "visitor-0123456789abcdef0123",
            "",
        ):
            self.assert_out(other, userId=other, token=token())
        user, client = self.connect(token=token())
        self.assertEqual(user, "alice")
        client.say({"userId": "bob", "to": "carol", "msg": "not from bob"})
        self.assertEqual(client.next_text()["code"], "forbidden")
        for renewal in (token(sub="bob"), token(isCustomerService=True), token(exp=time.time() - 35), "x", "",
                        hand_made({"alg": "none"}, good_claims())):  # fmt: skip
            client.say({"type": "token", "token": renewal})
            self.assertEqual(client.next_text()["code"], "forbidden", renewal)


class VisitorTests(IdentityCase):
    def visitor(self, **fields: Any) -> tuple[str, str]:
        """A new visitor's id and token."""
        with RawClient(self.node.port) as client:
            client.open()
            client.say({"isConnect": True, "isVisitor": True, **fields})
            answer = client.next_text()
            return answer["userId"], answer["visitorToken"]

    def test_tokens_of_others(self) -> None:
        """Only a visitor's own token admits it: no other secret, no guess, no user id."""
        (one, mine), (other, others) = self.visitor(), self.visitor()
        self.assertNotEqual(one, other)
        secret = mine.partition(".")[2]
        for why, stolen in {
            "my secret for another": f"{other}.{secret}",
            "a guess": f"{other}.{'x' * 43}",
            "nobody's": f"visitor-{'0' * 20}.{secret}",
            "a user's": f"alice.{secret}",
            "no secret": f"{other}.",
            "only the name": other,
            "in capitals": others.upper(),
            "with a line feed": others + "\n",
            "with a space": " " + others,
            "two": others + others,
            "a pattern": "visitor-*.*",
            "a JWT": token(),
        }.items():
            self.assertEqual(self.connect(isVisitor=True, visitorToken=stolen)[0], UNAUTHORIZED, why)
        self.assertEqual(self.connect(isVisitor=True, visitorToken=mine)[0], one)
        self.assertNotIn(self.connect(isVisitor=True, visitorToken="")[0], (UNAUTHORIZED, one, other))

    def test_claimed_names(self) -> None:
        """A visitor's id is the node's choice, not the frame's userId. No user becomes a visitor."""
        one, mine = self.visitor(userId="alice")
        self.assertRegex(one, r"\Avisitor-[0-9a-f]{20}\Z")
        again, _ = self.visitor(userId="visitor-0123456789abcdef0123")
        self.assertNotIn(again, (one, "visitor-0123456789abcdef0123"))
        self.assertEqual(self.connect(isVisitor=True, userId="alice", visitorToken=mine)[0], one)
        self.assert_out("a visitor's token for a user", loginType="USER_TYPE", userId="alice", token=mine)

    def test_foreign_conversations(self) -> None:
        """History has only conversations of the user who asks."""
        clients = {}
        for name in ("hist-alice", "hist-bob", "hist-eve"):
            user, clients[name] = self.connect(token=token(sub=name))
            self.assertEqual(user, name)
        alice, bob, eve = clients.values()
        alice.say({"to": "hist-bob", "msg": "between us"})
        accepted = alice.next_text()
        alice.say({"group": ["hist-bob", "hist-carol"], "msg": "between three"})
        self.assertEqual(alice.next_text()["type"], "accepted")
        bob.say({"type": "history", "with": "hist-alice"})
        while (page := bob.next_text())["type"] != "history":
            pass
        self.assertEqual([message["msg"] for message in page["messages"]], ["between us"])
        visitor, mine = self.visitor()
        _, visiting = self.connect(isVisitor=True, visitorToken=mine)
        visiting.say({"msg": "is anyone there?"})
        self.assertEqual(visiting.next_text()["type"], "accepted")
        for query in (
            {"with": "hist-alice"}, {"with": "hist-bob"}, {"all": True}, {"with": "hist-eve"},
            {"group": ["hist-alice", "hist-bob"]}, {"group": ["hist-bob", "hist-carol"]},
            {"group": ["hist-alice", "hist-bob", "hist-carol"]}, {"group": ["hist-alice"]},
            {"with": "hist-bob", "before": accepted["id"] + "f"}, {"all": True, "before": "z"},
            {"with": "*"}, {"with": "hist-%"}, {"with": '{"$ne":null}'}, {"with": "' OR 1=1 --"},
            {"with": visitor}, {"group": [visitor]}, {"group": ["hist-eve", visitor]},
            {"with": "hist-alice", "userId": "hist-bob"}, {"with": "hist-alice", "all": False},
        ):  # fmt: skip
            eve.say({"type": "history", **query})
            page = eve.next_text()
            self.assertEqual(page.get("messages", []), [], query)
            self.assertIn(page["type"], ("history", "error"))


class LookAlikeTests(IdentityCase):
    IDS = LOOK_ALIKES

    def test_two_users(self) -> None:
        """Ids that differ at all are different users: each gets only its own messages."""
        clients = {}
        for name in self.IDS:
            user, clients[name] = self.connect(token=token(sub=name), ack=True)
            self.assertEqual(user, name)
        sender = self.bystander_login()
        for name in self.IDS:
            sender.say({"to": name, "msg": f"for {name}", "clientMsgId": str(self.IDS.index(name))})
            self.assertEqual(sender.next_text()["type"], "accepted")
        for name, client in clients.items():
            message = client.next_text()
            self.assertEqual((message["to"], message["msg"], message["seq"]), (name, f"for {name}", 1))
            client.say({"type": "ping"})
            self.assertEqual(client.next_text()["type"], "pong")
            client.say({"type": "history", "all": True})
            self.assertEqual([m["to"] for m in client.next_text()["messages"]], [name])

    def bystander_login(self) -> RawClient:
        return self.connect(token=token(sub="the sender of all"))[1]

    def test_devices(self) -> None:
        """Device names that differ at all are different devices: none replaces another."""
        clients = []
        devices = self.IDS[:16]
        for device in devices:
            user, client = self.connect(token=token(sub="one of many devices"), device=device)
            self.assertEqual(user, "one of many devices")
            clients.append(client)
        for client in clients:
            client.say({"type": "ping"})
            self.assertEqual(client.next_text()["type"], "pong")

    def test_clients_own_ids(self) -> None:
        """A clientMsgId belongs to its user and device, even if the three texts run together."""
        seen = set()
        for sub, device, message in (
            *(("a", "b:c", "d"), ("a:b", "c", "d"), ("a", "b", "c:d"), ("a:b:c", "d", "x")),
            *(("a", "b%3Ac", "d"), ("a%", "b", "d"), ("a", "%b", "d"), ("a", "b", "d\n")),
        ):
            _, client = self.connect(token=token(sub=sub), device=device)
            client.say({"to": "nobody in particular", "msg": "x", "clientMsgId": message})
            answer = client.next_text()
            self.assertEqual((answer["type"], answer["clientMsgId"]), ("accepted", message))
            seen.add(answer["id"])
        self.assertEqual(len(seen), 8)
