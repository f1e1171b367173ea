"""The methods of a client about state, the list of conversations, presence, typing, signals and blocks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from types import EllipsisType
from typing import Any

from imd.client.conversation import Conversation
from imd.client.core import Core
from imd.client.events import ConversationPage

MOST_NAME = 64


class Conversing(ABC):
    """A part of Program. A conversation is named by one of `with_`, `group` and `room`; a visitor names none.

    All but the questions raise ValueError for what no node would take, and Refused (`unsupported`) in a
    client that does not ask for the feature `state`.
    """

    _core: Core

    # ---- marks and settings

    @property
    def receipts(self) -> bool:
        """Others see up to where the user has read, and the user sees theirs."""
        return self._core.messenger.states.receipts

    @property
    def known_conversations(self) -> list[Conversation]:
        """Conversations with marks or settings, in no order."""
        return self._core.messenger.states.all

    def conversation(
        self, with_: str | None = None, *, group: Sequence[str] | None = None, room: str | None = None
    ) -> Conversation:
        """A conversation's marks and settings, with those that the node has not confirmed yet."""
        messenger = self._core.messenger
        return messenger.states.shown(messenger.chosen(with_, group, room))

    def read(
        self,
        with_: str | None = None,
        *,
        up_to: str,
        group: Sequence[str] | None = None,
        room: str | None = None,
    ) -> None:
        """The user has read up to a message's id. It also ends `marked`.

        The latest mark is kept until the node has confirmed it; a mark that does not rise is not sent.
        """
        messenger = self._core.messenger
        messenger.check()
        messenger.states.read(messenger.chosen(with_, group, room), up_to)
        self._pump()

    def settings(
        self,
        with_: str | None = None,
        *,
        group: Sequence[str] | None = None,
        room: str | None = None,
        muted: bool | int | None = None,
        pinned: bool | None = None,
        hidden: str | EllipsisType | None = ...,
        cleared: str | None = None,
        marked: bool | None = None,
        receipts: bool | None = None,
    ) -> None:
        """Change what is given: of a conversation, or `receipts` without one.

        `muted`: also a time in milliseconds since the epoch. `hidden`, `cleared`: ids; `hidden=None` shows
        the conversation again. They count at once, and are kept until the node has confirmed them; a
        FrameRefused takes them back.
        """
        messenger = self._core.messenger
        messenger.check()
        given = {"muted": muted, "pinned": pinned, "cleared": cleared, "marked": marked}
        fields: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if not isinstance(hidden, EllipsisType):
            fields["hidden"] = hidden or None
        if receipts is not None:
            if fields or with_ or group or room:
                raise ValueError("receipts: no conversation, and nothing else, is expected")
            messenger.states.set_receipts(receipts)
        else:
            messenger.states.set(messenger.chosen(with_, group, room), fields)
        self._pump()

    # ---- the list

    def conversations(
        self, *, limit: int = 30, before: str | None = None, pinned: bool | None = None
    ) -> Awaitable[ConversationPage]:
        """A page of one's own conversations, newest first, older than a place (`at`); or the pinned ones.

        Raises Refused, Unanswered or Ended.
        """
        return self._ask("conversations", limit=limit, before=before, pinned=pinned or None)

    # ---- live

    @property
    def present(self) -> Mapping[str, bool]:
        """The watched users, and whether each is online; empty while the client is not connected."""
        return self._core.messenger.watching.present

    def watch(self, users: Iterable[str]) -> None:
        """Watch these users (at most 200) instead of those before: `Presence` tells of them."""
        self._core.messenger.check()
        self._core.messenger.watching.watch(users)
        self._pump()

    def typing(
        self, with_: str | None = None, *, group: Sequence[str] | None = None, room: str | None = None
    ) -> None:
        """The user is writing. Call it as often as you like: one in 2 seconds is sent, if connected."""
        messenger = self._core.messenger
        messenger.check()
        messenger.typing.say(messenger.chosen(with_, group, room))
        self._pump()

    def signal(
        self,
        name: str,
        data: Mapping[str, Any] | None = None,
        *,
        with_: str | None = None,
        room: str | None = None,
    ) -> bool:
        """Send a signal of the program's own to everybody else who is connected there, and own devices.

        Best effort: nobody stores it. False while the client is not connected. FrameRefused tells of errors.
        """
        messenger = self._core.messenger
        messenger.check()
        if not 1 <= len(name) <= MOST_NAME:
            raise ValueError(f"name: 1 to {MOST_NAME} characters are expected")
        sent = messenger.signals.send(messenger.chosen(with_, None, room), name, data)
        self._pump()
        return sent

    # ---- blocks

    def block(self, user_id: str, on: bool = True) -> Awaitable[None]:
        """Block a user, or no longer; done when it is stored. Raises Refused, Unanswered or Ended."""
        return self._ask("block", userId=user_id, on=on)

    def blocked(self) -> Awaitable[list[str]]:
        """The users that one blocks. Raises Refused, Unanswered or Ended."""
        return self._ask("blocked")

    # ---- from the driver

    @abstractmethod
    def _pump(self) -> None: ...

    @abstractmethod
    def _ask(self, kind: str, **fields: Any) -> Any:
        """Ask a question of `requests.KINDS`; a promise of its answer."""
