"""The methods of a client that programs call, but for connecting and receiving."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Any

from imd.client import events
from imd.client.conversing import Conversing
from imd.client.core import Core
from imd.client.numbered import Message, RoomEvent
from imd.client.outgoing import Outgoing, extras
from imd.client.requests import selector
from imd.client.rooms import Rooms


class Program(Conversing):
    """The base of Driver, which has the core and keeps the promises."""

    _core: Core

    # ---- the outbox

    @property
    def outbox(self) -> tuple[Outgoing, ...]:
        return self._core.outbox.all

    def send(
        self,
        msg: str,
        *,
        to: str = "",
        group: Sequence[str] = (),
        room: str = "",
        content_type: str | None = None,
        reply_to: str | None = None,
        mentions: Sequence[str] = (),
        data: Mapping[str, Any] | None = None,
        client_msg_id: str | None = None,
    ) -> Outgoing:
        """Queue a message, to be sent until the node has accepted it or refused it for good.

        `reply_to`: the id of a message. `mentions`: user ids, or "@all". `data`: the program's own, as JSON.
        Raises OutboxFull, ValueError for a message that no node would take, which includes lone surrogates
        and `data` of more than 4,096 bytes or 32 levels, and Refused (`unsupported`) for
        a room or one of the last three in a cluster that does not know them.
        """
        fields = extras(reply_to, mentions, data)
        outgoing = Outgoing(client_msg_id or "", msg, to, tuple(group), content_type)
        outgoing.room, outgoing.fields = room, fields
        return self._post(outgoing)

    def reply(
        self, message: Message, msg: str, content_type: str | None = None, *, quote: bool = False
    ) -> Outgoing:
        """Answer the sender of a message, or its group or room. `quote`: the answer names the message."""
        me = self._core.user_id or ""
        others = sorted({message.user_id, *message.group} - {me}) if message.group else []
        return self.send(
            msg,
            to="" if others or message.room else message.user_id,
            group=others,
            room=message.room,
            content_type=content_type,
            reply_to=message.id if quote else None,
            client_msg_id=self._core.next_reply(message),
        )

    def edit(
        self,
        message: Message | Outgoing | str,
        msg: str,
        *,
        content_type: str | None = None,
        mentions: Sequence[str] = (),
        data: Mapping[str, Any] | None = None,
    ) -> Outgoing:
        """Replace text, content type, mentions and data of a message of one's own. Raises as `send`."""
        if not msg:
            raise ValueError("a text is expected")
        fields = extras(None, mentions, data)
        return self._post(
            Outgoing("", msg, content_type=content_type, kind="edit", of=id_of(message), fields=fields)
        )

    def recall(self, message: Message | Outgoing | str) -> Outgoing:
        """Remove a message for everybody, for good. Raises as `send`."""
        return self._post(Outgoing("", kind="recall", of=id_of(message)))

    def react(self, message: Message | Outgoing | str, reaction: str, on: bool = True) -> Outgoing:
        """Add a reaction to a message, or take it back. Raises as `send`."""
        if not reaction:
            raise ValueError("a reaction is expected")
        fields = {"reaction": reaction, "on": on}
        return self._post(Outgoing("", kind="react", of=id_of(message), fields=fields))

    @property
    def rooms(self) -> Rooms:
        """Rooms: making, changing and listing them."""
        return Rooms(self._post, self._ask)

    def cancel(self, outgoing: Outgoing) -> bool:
        """Forget an entry that failed or was never sent; False for any other."""
        return self._core.cancel(outgoing.client_msg_id)

    def retry(self, outgoing: Outgoing) -> bool:
        """Send a failed entry again, as the last of the outbox."""
        done = self._core.retry(outgoing.client_msg_id)
        self._pump()
        return done

    # ---- questions

    def history(
        self,
        with_: str | None = None,
        *,
        group: Sequence[str] | None = None,
        room: str | None = None,
        everything: bool = False,
        before: str | None = None,
        after: str | None = None,
        around: str | None = None,
        limit: int = 50,
    ) -> Awaitable[events.Page]:
        """A page of a conversation: the newest messages, or those before, after or around a message id.

        Raises Refused, Unanswered or Ended; ValueError unless exactly one conversation is named, and at most
        one place in it, and for a lone surrogate.
        """
        if [before, after, around].count(None) < 2:
            raise ValueError("one of before, after and around is expected")
        conversation = selector(with_, group, room, everything)
        return self._ask("history", limit=limit, **conversation, before=before, after=after, around=around)

    def fetch(self, ids: Iterable[str]) -> Awaitable[list[Message | RoomEvent]]:
        """The messages and changes of rooms with these ids, at most 50, that one may read.

        Raises as `history`.
        """
        return self._ask("messages", ids=list(ids))

    def changes(
        self,
        with_: str | None = None,
        *,
        group: Sequence[str] | None = None,
        room: str | None = None,
        everything: bool = False,
        after: str | None = None,
        limit: int = 200,
    ) -> Awaitable[events.Changes]:
        """The events of a conversation after an id, but no messages. Raises as `history`."""
        return self._ask("changes", **selector(with_, group, room, everything), after=after, limit=limit)

    # ---- of the driver

    def _post(self, outgoing: Outgoing) -> Outgoing:
        outgoing = self._core.post(outgoing)
        self._pump()
        return outgoing


def id_of(message: Message | Outgoing | str) -> str:
    """Raises ValueError for a message that was not accepted yet."""
    found = message if isinstance(message, str) else message.id
    if not found:
        raise ValueError("the message has no id yet: wait until it is accepted")
    return found
