"""Real WebSockets through a real HAProxy to a real node: TLS, PROXY, reloads, addresses."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jwt
from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from imd.gateway.haproxy import Folder, Server, wanted
from tests.gateway.haproxy import Haproxy, folder
from tests.gateway.support import until
from tests.hostile.raw import RawClient
from tests.support.certificate import tls_endpoint
from tests.support.nodes import NodeServer
from tests.support.servers import HOST
from tests.support.ws_client import WsClient

SECRET = "a secret of the gateway's tests, long enough"


def token(user: str) -> str:
    claims = {"sub": user, "exp": int(time.time()) + 600, "loginType": "USER_TYPE"}
    return jwt.encode(claims, SECRET, "HS256")


class WebSocketTests(unittest.TestCase):
    timeout = 300

    def setUp(self) -> None:
        self.path = folder()
        self.addCleanup(shutil.rmtree, self.path)
        tls_endpoint(self.path, 0)
        pem = self.path / "both.pem"
        pem.write_text((self.path / "cert.pem").read_text() + (self.path / "key.pem").read_text())
        self.pem = str(pem)

    def start(
        self, listen: str = "", certificate: str | None = None, per_address: int = 0, **kind: Any
    ) -> Haproxy:
        """A node whose listener is of this kind, and HAProxy in front of it. Blocking."""
        node = NodeServer(
            Path(self.mktemp()).absolute(), {"auth": {"mode": "jwt", "secret": SECRET}}, name="n1"
        )
        node.ini["http"] = {"pages": "no"}
        node.ini["limits"] = {"connections_per_address": per_address}
        if listen:
            node.ini["websocket"] = {"listen": listen.replace("PORT", str(node.port))}
        node.ini.setdefault("websocket", {})["trusted_proxies"] = HOST
        self.addCleanup(node.kill)
        node.start()
        server = Server("n1", HOST, node.port, HOST, node.http_port, **kind)
        proxy = Haproxy(self.path)
        place = Folder(str(self.path))
        place.create(f"{HOST}:{proxy.port}", certificate, wanted([server], ["n1"]))
        self.addCleanup(proxy.kill)
        proxy.start()
        until(lambda: proxy.states() == {"n1": "up"}, "HAProxy sees the node")
        return proxy

    async def talk(
        self, proxy: Haproxy, scheme: str = "ws", users: tuple[str, str] = ("alice", "小明")
    ) -> tuple[WsClient, WsClient]:
        """Two users with a hint in their URLs write to one another."""
        clients = []
        for user in users:
            url = f"{scheme}://{HOST}:{proxy.port}/ws?user={quote(user, safe='')}"
            client = await WsClient.login(url, token=token(user))
            self.addCleanup(client.protocol.transport.abortConnection)
            self.assertEqual(client.connected["userId"], user)
            clients.append(client)
        await clients[0].say(users[1], "你好")
        self.assertEqual((await clients[1].take("message"))["msg"], "你好")
        return clients[0], clients[1]

    async def test_plain_and_reload(self) -> None:
        """Connections outlive a reload of HAProxy; new ones come to the new process."""
        proxy = await deferToThread(self.start)
        one, other = await self.talk(proxy)
        await deferToThread(proxy.reload)
        await one.say("小明", "still here")
        self.assertEqual((await other.take("message"))["msg"], "still here")
        await self.talk(proxy, users=("carol", "小红"))

    async def test_wss(self) -> None:
        """TLS ends at HAProxy, or goes on to the node."""
        proxy = await deferToThread(self.start, "", self.pem)
        await self.talk(proxy, "wss")

    async def test_tls_node(self) -> None:
        inner = tls_endpoint(self.path, 0).replace("ssl:0:", "ssl:PORT:")
        proxy = await deferToThread(self.start, inner, self.pem, tls=True)
        await self.talk(proxy, "wss")

    async def test_proxy_protocol(self) -> None:
        """A listener that takes the PROXY protocol gets it."""
        listen = f"haproxy:tcp:PORT:interface={HOST}"
        proxy = await deferToThread(self.start, listen, None, proxy=True)
        await self.talk(proxy)

    async def test_addresses(self) -> None:
        """Limits by address count the client, not HAProxy, by X-Forwarded-For and by the PROXY protocol."""

        def come(proxy: Haproxy, address: str) -> object:
            client = RawClient(proxy.port, address=address)
            self.addCleanup(client.socket.close)
            self.assertTrue(client.open().startswith(b"HTTP/1.1 101"))
            client.say({"isConnect": True, "device": client.user, "token": token("alice")})
            came = client.next_but_pings()
            return came.brief if came is not None else None

        for listen, proxied in (("", False), (f"haproxy:tcp:PORT:interface={HOST}", True)):
            proxy = await deferToThread(self.start, listen, None, 1, proxy=proxied)
            for address, answers in (("127.0.0.2", ["connected", 4100]), ("127.0.0.3", ["connected", 4100])):
                found = [await deferToThread(come, proxy, address) for _ in answers]
                self.assertEqual(found, answers, (listen, address))
            await deferToThread(proxy.kill)

    async def test_foreign_hint(self) -> None:
        """A hint is a hint: who somebody is comes from the token."""
        proxy = await deferToThread(self.start)
        url = f"ws://{HOST}:{proxy.port}/ws?user=mallory"
        client = await WsClient.login(url, token=token("alice"))
        self.addCleanup(client.protocol.transport.abortConnection)
        self.assertEqual(client.connected["userId"], "alice")
