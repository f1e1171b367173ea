"""A node for hostile tests, a client that chats meanwhile, and a check of the log."""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import jwt
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.trial import unittest

from tests.hostile.raw import RawClient
from tests.support.group_end import at_group_end, group_cache
from tests.support.nodes import Ini, NodeServer

JWT_SECRET = "a secret of the hostile tests, 32 bytes or more"
ISSUER, AUDIENCE = "https://login.example", "imd"
PRIVATE_KEYS: dict[str, Any] = {
    "rs256": rsa.generate_private_key(65537, 2048),
    "eddsa": ed25519.Ed25519PrivateKey.generate(),
}
ALGORITHMS = {"jwt": "HS256", "rs256": "RS256", "eddsa": "EdDSA"}
_CLAIMS = {"mode": "jwt", "issuer": ISSUER, "audience": AUDIENCE}

# A bystander answers no pings while nobody reads for it. Strangers are ended by what is tested, not by time.
_PATIENT = {"connect_seconds": 600, "ping_seconds": 3600, "pong_seconds": 3600}

KINDS: dict[str, Ini] = {
    "plain": {"limits": {"messages_per_second": 0, "message_bytes": 4096}, "websocket": _PATIENT},
    "jwt": {
        "auth": {**_CLAIMS, "secret": JWT_SECRET},
        "limits": {"messages_per_second": 0},
        "websocket": _PATIENT,
    },
    "rs256": {
        "auth": {**_CLAIMS, "public_key": "rs256.pem"},
        "websocket": {**_PATIENT, "origins": "https://*.example.com, http://localhost:*"},
    },
    "eddsa": {"auth": {**_CLAIMS, "public_key": "eddsa.pem"}, "websocket": _PATIENT},
    # Short deadlines, though a client that is well may need seconds on a busy machine. A client without a
    # login is pinged, too, and has to be ended for that first. See `bystander`.
    "hasty": {
        "websocket": {"connect_seconds": 3, "ping_seconds": 1, "pong_seconds": 4},
        "limits": {"messages_per_second": 0},
    },
    "tight": {"limits": {"messages_per_second": 0, "unfinished_bytes": 1 << 20}, "websocket": _PATIENT},
    "small": {
        "limits": {"connections": 8, "connections_per_address": 4, "connections_per_user": 2},
        "websocket": _PATIENT,
    },
}

LOOK_ALIKES = (
    *("Jo\u00e9", "Joe\u0301", "jo\u00e9", "JO\u00c9", "Joe", "joe", "joe ", " joe", "j\u200boe", "\uff4aoe"),
    *("stra\u00dfe", "strasse", "\u0130", "i\u0307", "\u212a", "k", "K", "\u00c5", "\u212b", "A\u030a"),
    *("{joe}", "joe}", "joe{", "joe*", "jo?", "[j]oe", "joe%", "joe%20", "%6Aoe", "joe.", "joe.#", "#", "*"),
    *("joe:inbox", "joe/", "joe\\", "joe'", 'joe"', "joe;", "joe\u00a0", "joe\u202e", "Visitor-1"),
    *("x" * 127 + "a", "x" * 127 + "b", "\U0001f389" * 128),
)
"""user ids and devices that differ only for those who look closely"""

# A node never logs these because of what clients do.
_TROUBLE = re.compile(r"Traceback|Unhandled|Unexpected|#(?:error|critical)\]|Exception|MemoryError")


def resident_bytes(node: NodeServer) -> int:
    """The resident memory of a node's process."""
    pages = Path(f"/proc/{node.pid}/statm").read_text().split()[1]
    return int(pages) * 4096


def token_for(user: str, kind: str) -> str:
    """A token that is valid on a node of this kind."""
    claims = {"sub": user, "loginType": "USER_TYPE", "exp": time.time() + 600, "iss": ISSUER, "aud": AUDIENCE}
    return jwt.encode(claims, PRIVATE_KEYS.get(kind, JWT_SECRET), ALGORITHMS.get(kind, "HS256"))


class Bystander(NamedTuple):
    """A node that lives as long as this process, and a well-behaved client of it."""

    node: NodeServer
    client: RawClient


@group_cache
def bystander(kind: str) -> Bystander:
    """The bystander of this kind (a key of KINDS). It is started by the first call."""
    node = NodeServer(Path(tempfile.mkdtemp(prefix="imd-hostile-")), KINDS[kind])
    at_group_end(shutil.rmtree, node.folder, ignore_errors=True)
    at_group_end(node.kill)
    if kind in PRIVATE_KEYS:
        public = PRIVATE_KEYS[kind].public_key()
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (node.folder / f"{kind}.pem").write_bytes(pem)
    node.start()
    client = RawClient(node.port)
    auth = KINDS[kind].get("auth", {})
    if kind == "hasty":
        # Nobody reads for it meanwhile, and the node would close it for an unanswered ping.
        client.socket.close()
        return Bystander(node, client)
    return Bystander(node, client.login(token=token_for(client.user, kind)) if auth else client.login())


class HostileCase(unittest.SynchronousTestCase):
    """After each test the bystander can still chat, and the node's log has no errors."""

    kind = "plain"

    def setUp(self) -> None:
        self.node, self.bystander = bystander(self.kind)

    def tearDown(self) -> None:
        self.chat()
        text = self.node.log.read_text(errors="replace")
        found = _TROUBLE.search(text)
        if found is not None:
            self.fail(f"the node's log: {text[max(0, found.start() - 300) : found.start() + 2000]}")

    def chat(self) -> None:
        """The bystander writes to itself and gets its message. On a hasty node a new client does."""
        if self.kind == "hasty":
            with RawClient(self.node.port).login() as client:
                self.talk(client)
        else:
            self.talk(self.bystander)

    def talk(self, client: RawClient) -> None:
        client.say({"to": client.user, "msg": self.id()})
        kinds = {client.next_text()["type"], client.next_text()["type"]}
        self.assertEqual(kinds, {"accepted", "message"})

    def raw(self, receive_buffer: int | None = None) -> RawClient:
        """A new connection on which nothing was sent. It is closed after the test."""
        client = RawClient(self.node.port, receive_buffer)
        self.addCleanup(client.socket.close)
        return client

    def login(self, receive_buffer: int | None = None) -> RawClient:
        return self.raw(receive_buffer).login()
