"""The bus that carries hints between nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from imd.contracts.backend import Backend


class Hint(msgspec.Struct, gc=False):
    """Tells a channel that its inbox reaches up to `seq`; `body` is message `seq`, if it came along."""

    channel: str
    epoch: str
    seq: int
    body: bytes | None


class Bus(Backend, Protocol):
    """Carries hints between nodes; may lose any of them, and says so through `problem`.

    `address` is this node's own; addresses of others come with what they send.
    """

    address: str

    def listen(
        self,
        hints: Callable[[str, list[Hint]], None],
        searched: Callable[[str, list[Hint]], None],
        found: Callable[[str, list[str]], None],
        replaced: Callable[[list[str]], None],
        back: Callable[[], None],
    ) -> None:
        """Who gets what arrives. The first argument is the sender's address, except for `replaced`.

        `back()`: a node, or this one, hears again after it may have missed something.
        """

    def send_hints(self, address: str, hints: list[Hint]) -> None:
        """To the node that has these channels."""

    def search(self, hints: list[Hint]) -> None:
        """To all nodes: whoever has a channel takes its hint and says so."""

    def send_found(self, address: str, channels: list[str]) -> None:
        """To the node that searched: these channels are here."""

    def send_replaced(self, channels: list[str]) -> None:
        """To all nodes: these channels have lost their device."""
