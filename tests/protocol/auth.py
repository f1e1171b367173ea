"""Rules of tokens, and of the handshake in open mode."""

from __future__ import annotations

import time
from typing import Any

import jwt

from tests.protocol.support import JWT_SECRET, LEEWAY_SECONDS, Rules
from tests.support.ws_client import WsClient


def token(
    sub: str, seconds: float = 600, key: str = JWT_SECRET, algorithm: str = "HS256", **claims: Any
) -> str:
    content = {"sub": sub, "loginType": "USER_TYPE", "exp": time.time() + seconds, **claims}
    kept = {name: value for name, value in content.items() if value is not None}
    return jwt.encode(kept, key, algorithm=algorithm)


class TokenRules(Rules):
    """auth.mode = jwt."""

    async def test_token_in_the_frame(self) -> None:
        """The token says who connects; userId may be left out or be the same."""
        for given in (False, True):
            user = self.name("alice")
            client = await self.login(user if given else None, "jwt", token=token(user))
            self.assertEqual(client.connected["userId"], user)
            await client.say(user, "hi")
            self.assertEqual((await client.take("message"))["userId"], user)

    async def test_token_in_the_header(self) -> None:
        """Authorization: Bearer serves too."""
        user = self.name("alice")
        client = await self.open(self.url("jwt"), headers={"Authorization": f"Bearer {token(user)}"})
        client.send({"isConnect": True})
        self.assertEqual((await client.expect("connected"))["userId"], user)

    async def test_roles_come_from_the_claims(self) -> None:
        """Roles in the frame do not count."""
        for claims, frame, expected in (
            (
                {"loginType": "CUSTOMER_TYPE"},
                {"loginType": "USER_TYPE", "isCustomerService": True},
                "CUSTOMER_TYPE",
            ),
            ({}, {"isCustomerService": True}, "USER_TYPE"),
            ({"isCustomerService": True}, {"isCustomerService": False}, "CUSTOMER_SERVICE"),
            ({"isCustomerService": True}, {"loginType": "customer"}, "CUSTOMER_SERVICE"),
            ({}, {"isVisitor": True, "loginType": None}, "USER_TYPE"),
        ):
            user = self.name("who")
            client = await self.login(None, "jwt", token=token(user, **claims), **frame)
            self.assertEqual(client.connected["fromUserType"], expected, (claims, frame))
            self.assertEqual(client.connected["userId"], user)
            await client.close()

    async def refused(self, frame: dict[str, Any], **options: Any) -> WsClient:
        client = await self.open(self.url("jwt"), **options)
        client.send({"isConnect": True, "loginType": "USER_TYPE", **frame})
        return client

    async def test_bad_tokens(self) -> None:
        """Missing, bad or expired: 4001."""
        user = self.name("alice")
        good = token(user)
        head, payload, signature = good.split(".")
        for bad in (
            None,
            "",
            "nonsense",
            "a.b.c",
            token(user, key="another secret, as long as the right one"),
            token(user, -LEEWAY_SECONDS - 5),
            token(user, algorithm="HS512"),
            jwt.encode({"sub": user, "loginType": "user", "exp": time.time() + 60}, None, algorithm="none"),
            token(user, exp=None),
            jwt.encode({"loginType": "user", "exp": time.time() + 60}, JWT_SECRET, algorithm="HS256"),
            token(user, nbf=time.time() + 600),
            f"{head}.{payload}.",
            f"{head}.{payload}",
            f"{head}.{payload}.{signature[:-4]}AAAA",
            good + "." + signature,
            "x" * 100_000,
        ):
            client = await self.refused({"userId": user} if bad is None else {"userId": user, "token": bad})
            self.assertEqual(await client.wait_closed(), 4001, str(bad)[:80])
            self.assertNotIn("connected", [frame["type"] for frame in client.frames])

    async def test_another_user(self) -> None:
        """A userId that is not the token's sub does not get in."""
        client = await self.refused({"userId": self.name("bob"), "token": token(self.name("alice"))})
        await client.wait_closed()
        self.assertEqual(client.close_code, 4001)
        self.assertNotIn("connected", [frame["type"] for frame in client.frames])

    async def test_a_token_for_a_visitors_name(self) -> None:
        """Even a token gives nobody a visitor's name."""
        client = await self.refused({"token": token("visitor-0123456789abcdef0123")})
        await client.wait_closed()
        self.assertNotIn("connected", [frame["type"] for frame in client.frames])

    async def test_visitors_need_no_token(self) -> None:
        """An anonymous visitor connects, and comes back with its visitorToken."""
        client = await self.login(None, "jwt", loginType=None, isVisitor=True)
        again = await self.login(
            None, "jwt", loginType=None, isVisitor=True, visitorToken=client.connected["visitorToken"]
        )
        self.assertEqual(again.connected["userId"], client.connected["userId"])

    async def login_that_expires(self, user: str, seconds: int = 2) -> tuple[WsClient, int]:
        """A client whose token ends so soon, or as soon as a login on this machine allows; and when."""
        for factor in (1, 2, 4, 8):
            exp = int(time.time()) + seconds * factor
            try:
                return await self.login(None, "jwt", token=token(user, exp=exp)), exp
            except ConnectionError:
                if time.time() < exp:
                    raise
        raise AssertionError("no login before its token ended")

    async def test_expiry(self) -> None:
        """A connection is closed with 4001 at `exp` plus the leeway, not earlier; `connected` tells `exp`."""
        client, exp = await self.login_that_expires(self.name("alice"))
        self.assertEqual(client.connected["exp"], exp * 1000)
        self.assertEqual(await client.wait_closed(), 4001)
        self.assertGreaterEqual(time.time(), exp + LEEWAY_SECONDS - 0.2)
        self.assertLess(time.time(), exp + LEEWAY_SECONDS + 60)

    async def test_clocks_that_differ(self) -> None:
        """Within the leeway a token is good before `nbf` and after `exp`; `iat` is no matter."""
        for claim, off in (("nbf", LEEWAY_SECONDS * 0.9), ("exp", -LEEWAY_SECONDS * 0.1), ("iat", 3600)):
            user = self.name("alice")
            client = await self.login_at_once(user, claim, off)
            self.assertEqual(client.connected["userId"], user)

    async def login_at_once(self, user: str, claim: str, off: float) -> WsClient:
        """Log in with a claim that is off by so much; again if this machine took too long for the leeway."""
        for _ in range(8):
            now = time.time()
            try:
                return await self.login(None, "jwt", token=token(user, **{claim: now + off}))
            except ConnectionError:
                if time.time() < now + LEEWAY_SECONDS * 0.8:
                    raise
        raise AssertionError("no login within the leeway")

    async def test_renewal(self) -> None:
        """A token frame renews: the answer has the new exp, and the old one no longer counts."""
        user = self.name("alice")
        client, old = await self.login_that_expires(user, 3)
        new = int(time.time()) + 600
        client.send({"type": "token", "token": token(user, exp=new)})
        answer = await client.expect("token")
        self.assertEqual(answer["exp"], new * 1000)

        async def old_one_is_over() -> bool:
            return time.time() > old + LEEWAY_SECONDS + 0.5

        await self.eventually(old_one_is_over)
        await client.quiet()
        self.assertFalse(client.closed)

    async def test_refused_renewals(self) -> None:
        """A renewal with a bad token, or another user's, is an error; the old one counts, till its exp."""
        user = self.name("alice")
        client, _ = await self.login_that_expires(user, 4)
        old = token(user, -LEEWAY_SECONDS - 1)
        for bad in ("nonsense", token(self.name("bob")), old, token(user, key="k" * 40)):
            error = await self.refusal(client, {"type": "token", "token": bad})
            self.assertIn(error["code"], ("forbidden", "invalid_message"))
        await client.say(user, "still here")
        self.assertEqual(await client.wait_closed(), 4001)

    async def test_renewal_to_a_shorter_time(self) -> None:
        """The newest token counts, also if it ends earlier."""
        user = self.name("alice")
        client = await self.login(None, "jwt", token=token(user))
        client.send({"type": "token", "token": token(user, 1)})
        await client.expect("token")
        self.assertEqual(await client.wait_closed(), 4001)


class HandshakeRules(Rules):
    """Open mode: from this machine only, as far as that can be seen."""

    async def denied(self, status: int, url: str | None = None, **options: Any) -> None:
        """The handshake is refused with this HTTP status."""
        try:
            client = await WsClient.open(url or self.url(), **options)
        except ConnectionError as error:
            self.assertIn(str(status), str(error))
        else:
            await client.close()
            self.fail(f"{options} {url} got in")

    async def test_foreign_origins(self) -> None:
        """A page from elsewhere may not connect."""
        for origin in (
            "http://evil.example",
            "https://evil.example:443",
            "http://127.0.0.1.evil.example",
            "null",
        ):
            await self.denied(403, origin=origin)

    async def test_own_origin(self) -> None:
        """The same host may, at any port."""
        for origin in ("http://127.0.0.1", "http://127.0.0.1:8080", "https://127.0.0.1:1"):
            client = await self.open(origin=origin)
            client.send({"isConnect": True, "userId": self.name("a"), "loginType": "user"})
            await client.expect("connected")

    async def test_foreign_host(self) -> None:
        """A name that is not this machine's does not get in: somebody's DNS may point here."""
        port = self.url().split(":")[2]
        await self.denied(403, f"ws://evil.example:{port}")
        await self.denied(403, f"ws://127.0.0.1.evil.example:{port}")
        client = await self.open(f"ws://localhost:{port}")
        await client.close()

    async def test_proxies(self) -> None:
        """A request through a proxy may come from anywhere."""
        for header in ("X-Forwarded-For", "X-Forwarded-Host", "Forwarded", "X-Real-IP"):
            await self.denied(403, headers={header: "127.0.0.1"})

    async def test_other_paths(self) -> None:
        """There is a WebSocket at /ws and nowhere else."""
        await self.denied(404, self.url() + "2")
        await self.denied(404, self.url().removesuffix("ws"))
