"""How a device comes to a node: straight to one of them, or through a gateway by its user's hint."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple
from urllib.parse import quote

import jwt

from imd.gateway.slots import Slots, name_at_home
from tests.gateway.gateway import Gateway
from tests.support.nodes import NodeServer

# Nodes refuse proxies in open mode, so behind a gateway there are tokens.
SECRET = "a secret of the drill, of thirty-two bytes or more"
# Longer than any step of a node's clock.
TOKEN_SECONDS = 86400
# Most come as they should. The others see that nothing depends on it.
BY_GATEWAY, WITHOUT_A_HINT = 0.8, 0.1


class Way(NamedTuple):
    """Where to connect, and the path of the URL. `name` is for reports."""

    name: str
    port: int
    path: str = "/ws"


class Ways:
    """The nodes, and the gateways in front of them; without gateways clients pick any node."""

    def __init__(self, nodes: Sequence[NodeServer], gateways: Sequence[Gateway] = ()) -> None:
        self.nodes = nodes
        self.gateways = list(gateways)
        """may change while devices come and go"""
        self._has_tokens = bool(gateways)
        self._tokens: dict[str, str] = {}

    def pick(self, rng: random.Random, user: str, pinned: int | None) -> Way:
        """For a device's next connection. `pinned`: the number of the only node that it uses."""
        hint = f"/ws?user={quote(user, safe='')}" if user and self.gateways else "/ws"
        if pinned is not None:
            return Way(self.nodes[pinned].name, self.nodes[pinned].port, hint)
        if self.gateways and (draw := rng.random()) < BY_GATEWAY + WITHOUT_A_HINT:
            gateway = rng.choice(self.gateways)
            return Way(gateway.name, gateway.port, hint if draw < BY_GATEWAY else "/ws")
        node = rng.choice(self.nodes)
        return Way(node.name, node.port, hint)

    def token(self, user: str, is_agent: bool) -> str | None:
        """Behind a gateway: a token for this user."""
        if not self._has_tokens:
            return None
        if user not in self._tokens:
            claims = {
                "sub": user,
                "exp": int(time.time()) + TOKEN_SECONDS,
                "loginType": "USER_TYPE",
                "isCustomerService": is_agent,
            }
            self._tokens[user] = jwt.encode(claims, SECRET, "HS256")
        return self._tokens[user]

    def probers(self) -> list[tuple[str, int]]:
        """Users, and the number of the node of each: its home, but for a stray behind a gateway."""
        count = len(self.nodes)
        slots = Slots(node.name for node in self.nodes)
        found = []
        # The home of the stray does not answer when it is asked, so that all nodes are.
        for place, home in [(n, n) for n in range(count)] + [(0, 1)] * bool(self.gateways and count > 1):
            draws = itertools.count()
            draw = partial(self._draw, f"probe{place}{home}", draws)
            found.append((name_at_home(slots, self.nodes[home].name, draw), place))
        return found

    @staticmethod
    def _draw(stem: str, draws: Iterator[int]) -> str:
        return f"{stem}-{next(draws)}"
