"""The bus that carries hints between nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from imd.contracts.backend import Backend


class Hint(msgspec.Struct, gc=False):
    """Tells a channel that its inbox reaches up to `seq`. `body` is message `seq`, if it came along."""

    channel: str
    epoch: str
    seq: int
    body: bytes | None


class Signal(msgspec.Struct, gc=False):
    """An unnumbered word for channels, which may be lost.

    `kind` tells the part of the node that takes the payload.
    """

    kind: str
    payload: bytes
    channels: list[str]


class Bus(Backend, Protocol):
    """Carries hints between nodes. It may lose hints; `problem` says when it does.

    `address` is this node's own. Other nodes' addresses come with their hints.
    """

    address: str

    def listen(
        self,
        hints: Callable[[str, list[Hint]], None],
        searched: Callable[[str, list[Hint]], None],
        found: Callable[[str, list[str]], None],
        replaced: Callable[[list[str]], None],
        back: Callable[[], None],
        returned: Callable[[list[str]], None],
    ) -> None:
        """Name the functions that get what arrives. Their first argument is the sender's address.

        `replaced` gets channels only. `back` is called when a node receives again, this one or another, after
        it may have missed something. `returned` gets the channels of an `ask` that had nowhere to go.
        """

    def listen_health(self, asked: Callable[[str], None], well: Callable[[str], None]) -> None:
        """`asked(address)`: that node asks who gets answers from the store of inboxes; `well(address)`: that
        node gets them."""

    def ask_who_is_well(self, addresses: Sequence[str]) -> None:
        """Ask these nodes whether they get answers from the store of inboxes."""

    def say_well(self, address: str) -> None:
        """Tell the node that asked: this node gets answers."""

    def send_hints(self, address: str, hints: list[Hint]) -> None:
        """Send hints to the node that has these channels."""

    def search(self, hints: list[Hint]) -> None:
        """Send hints to all nodes: the node that has a channel takes its hint and answers `found`."""

    def ask(self, address: str, hints: list[Hint]) -> None:
        """The same, to one node. If that is gone, `returned` is called."""

    def send_found(self, address: str, channels: list[str]) -> None:
        """Tell the node that searched: these channels are here."""

    def send_replaced(self, channels: list[str]) -> None:
        """Tell all nodes: these channels have lost their device."""

    def listen_signals(
        self, signals: Callable[[list[Signal]], None], looks: Callable[[list[str]], None]
    ) -> None:
        """Name the functions that get signals, and users whose presence has to be looked at again."""

    def has_room(self) -> bool:
        """False while the least important has to be left out, so that there is room for hints."""

    def has_room_for_typing(self) -> bool:
        """The same for `typing`, which costs nothing to leave out: False as soon as a hint would wait."""

    def send_signals(self, address: str, signals: list[Signal]) -> None:
        """Send signals to the node that has these channels."""

    def send_looks(self, address: str, users: list[str]) -> None:
        """Tell a node that watches these users: they may have come or gone."""
