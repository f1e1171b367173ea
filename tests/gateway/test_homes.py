"""The whole gateway: real nodes, HAProxy and sync as the commands set them up, and users at their homes."""

from __future__ import annotations

import hashlib
import shutil
import time
import zlib
from urllib.parse import quote

import jwt

from imd.gateway.runtime import RuntimeProblem
from tests.gateway.gateway import Gateway
from tests.gateway.haproxy import Haproxy, folder
from tests.gateway.support import until
from tests.gateway.test_membership import GATEWAY, MembershipCase
from tests.hostile.raw import RawClient, handshake
from tests.support.nodes import NodeServer
from tests.support.servers import HOST

SECRET = "a secret that only this test knows of"
JWT = {"auth": {"mode": "jwt", "secret": SECRET}, "websocket": {"trusted_proxies": HOST}}
# It only rises: connections may end meanwhile, as their users are moved home.
OPENED = 'imd_handshakes_total{result="opened"}'
USERS = [f"{stem}{number}" for number in range(14) for stem in ("alice", "ольга ", "小明+")][:40]


def ranked(user: str, names: list[str]) -> list[str]:
    """The nodes by a user's preference, as docs/gateway.md has it; with no code of the project."""
    slot = zlib.crc32(user.encode()) % 1024
    return sorted(names, key=lambda name: hashlib.sha256(f"{slot}:{name}".encode()).digest(), reverse=True)


class HomeCase(MembershipCase):
    def gateway(self, nodes: list[NodeServer]) -> Haproxy:
        """HAProxy and sync, by the commands."""
        path = folder()
        self.addCleanup(shutil.rmtree, path)
        gateway = Gateway(path, nodes[0].folder / "node.ini")
        self.addCleanup(gateway.kill)
        gateway.start(node.name for node in nodes)
        return gateway.haproxy

    @staticmethod
    def token(user: str) -> str:
        claims = {"sub": user, "exp": time.time() + 600, "loginType": "USER_TYPE"}
        return jwt.encode(claims, SECRET, "HS256")

    def come(self, port: int, user: str, hint: str) -> RawClient:
        """A client that is connected until the test is over. `hint`: the query of its URL."""
        client = RawClient(port)
        self.addCleanup(client.socket.close)
        head = client.open(handshake(path=f"/ws{hint}"))
        self.assertTrue(head.startswith(b"HTTP/1.1 101"), head)
        client.say({"isConnect": True, "ack": True, "device": client.user, "token": self.token(user)})
        self.assertEqual(client.next_text()["userId"], user)
        return client


class HomeTests(HomeCase):
    def lands_at(self, nodes: list[NodeServer], proxy: Haproxy, user: str) -> str:
        """The node that a user's client reaches through HAProxy."""
        before = {node.name: node.metric(OPENED) for node in nodes}
        self.come(proxy.port, user, f"?user={quote(user, safe='')}")
        [place] = [node.name for node in nodes if node.metric(OPENED) > before[node.name]]
        return place

    def test_homes(self) -> None:
        """Forty users in three scripts are at home; of a node that is killed, its users alone move."""
        nodes = [self.start({**GATEWAY, **JWT}) for _ in range(3)]
        names = [node.name for node in nodes]
        proxy = self.gateway(nodes)
        homes = {user: ranked(user, names) for user in USERS}
        self.assertEqual(
            {user: self.lands_at(nodes, proxy, user) for user in USERS},
            {user: home[0] for user, home in homes.items()},
        )
        # A client without a hint is served on some node, and gets what is sent to it.
        stray = self.come(proxy.port, USERS[0], "")
        sender = self.come(proxy.port, USERS[1], f"?user={quote(USERS[1], safe='')}")
        sender.say({"to": USERS[0], "msg": "hi"})
        self.assertEqual(stray.next_text()["msg"], "hi")

        dead = nodes.pop()
        dead.kill()
        until(lambda: proxy.states().get(dead.name) != "up", "HAProxy sees that it is gone")
        moved = [user for user in USERS if homes[user][0] == dead.name]
        self.assertGreater(len(moved), 3)
        for user in moved:
            self.assertEqual(self.lands_at(nodes, proxy, user), homes[user][1], user)
        until(lambda: set(self.rows()) == {node.name for node in nodes}, "its lease is over")

        def forgotten() -> bool:
            try:
                return dead.name not in proxy.runtime.map(proxy.folder / "first.map").values()
            except RuntimeProblem:
                return False

        until(forgotten, "the map is without it")
        for user in USERS[::4]:
            place = next(name for name in homes[user] if name != dead.name)
            self.assertEqual(self.lands_at(nodes, proxy, user), place, user)
