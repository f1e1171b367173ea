"""State and live hints of the user's conversations: the parts that one core has of them. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from imd.client.agenda import Agenda
from imd.client.conversation import Conversation, chosen, named, of_message
from imd.client.events import Refused
from imd.client.link import Link
from imd.client.live import Signals, TypingHints, Watching
from imd.client.numbered import Message
from imd.client.options import Options
from imd.client.outgoing import NO_STATE, Outgoing, Refusal
from imd.client.reconnect import Backoff
from imd.client.state import States
from imd.client.store import Saved, Store


class Messenger:
    def __init__(
        self,
        agenda: Agenda,
        link: Link,
        backoff: Backoff,
        store: Store,
        saved: Saved,
        options: Options,
    ) -> None:
        self.states = States(agenda, link, backoff, store, saved, options)
        self.watching = Watching(agenda, link, backoff)
        self.typing = TypingHints(agenda, link)
        self.signals = Signals(agenda, link)
        self._options = options
        self._me = options.user_id or saved.user_id or ""

    def chosen(self, with_: str | None, group: Any, room: str | None) -> Conversation:
        """The conversation that a program names. Raises ValueError unless exactly one is given."""
        return chosen(with_, group, room, self._me, self._options.visitor)

    def check(self) -> None:
        """Raises Refused (`unsupported`) in a client that does not ask for the feature `state`."""
        if "state" not in self._options.features:
            raise Refused(NO_STATE)

    # ---- from the core

    def signal_fields(self) -> dict[str, Any]:
        """For the connect signal."""
        return self.states.signal_fields()

    def opened(self, user_id: str) -> None:
        self._me = user_id
        self.states.flush()
        self.watching.flush()

    def lost(self) -> None:
        for part in (self.states, self.watching, self.typing, self.signals):
            part.lost()

    def forget(self) -> None:
        """Another user."""
        self.states.forget()
        self.watching.forget()

    def received(self, message: Message) -> bool:
        """A message of the inbox. True for one that was cleared away: the program is not to get it."""
        about = of_message(message, self._me, self._options.visitor)
        if message.user_id == self._me:
            self.states.wrote(about, message.id)
        else:
            self.typing.wrote(message.user_id, about)
        return self.states.hides(about, message.id)

    def sent(self, outgoing: Outgoing) -> None:
        """A message of this device was accepted."""
        about = Conversation()
        if not self._options.visitor:
            about = named(outgoing.to, outgoing.group, outgoing.room, self._me)
        self.states.wrote(about, outgoing.id)
        self.typing.sent(about)

    def got(self, frame: Mapping[str, Any]) -> None:
        """A frame of one of LIVE_KINDS. Raises KeyError."""
        _PARTS[frame["type"]](self, frame)

    def refused(self, ref: str | None, refusal: Refusal, temporary: bool, retry_seconds: float) -> bool:
        """False if the error answers another frame."""
        if not ref:
            return False
        return (
            self.states.refused(ref, refusal, temporary, retry_seconds)
            or self.watching.refused(ref, refusal, temporary, retry_seconds)
            or self.signals.refused(ref, refusal)
        )


_PARTS: dict[str, Callable[[Messenger, Mapping[str, Any]], None]] = {
    "state": lambda messenger, frame: messenger.states.got(frame),
    "presence": lambda messenger, frame: messenger.watching.got(frame),
    "typing": lambda messenger, frame: messenger.typing.got(frame),
    "signal": lambda messenger, frame: messenger.signals.got(frame),
}
LIVE_KINDS = tuple(_PARTS)
"""types of the node's frames that are for these parts"""
