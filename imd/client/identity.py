"""The user and the device: kept in the store, and told to the node in the connect signal. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from imd.client.hint import user_of_token
from imd.client.options import Options
from imd.client.store import Saved, Store


class Identity:
    """`wall` is the time of day, in seconds."""

    def __init__(self, options: Options, store: Store, saved: Saved, wall: Callable[[], float]) -> None:
        self.device = options.device or saved.device
        self._options = options
        self._store = store
        self._wall = wall
        self._owner = saved.user_id
        """the user of cursor and outbox; None: nobody yet"""
        self._visitor_token = saved.visitor_token
        self._as_new = False
        """the node has refused the visitor's token: come as a new visitor, until one is connected"""
        self._attempt = saved.attempt

    def begin(self) -> None:
        """The program starts the client: a visitor's token is tried, also one that was refused before."""
        self._as_new = False

    def connect_signal(
        self, token: str | None, cursor: tuple[str | None, int], known: dict[str, Any]
    ) -> dict[str, Any]:
        """The first frame of a connection, with an `attempt` that is stored and above all earlier ones.

        `cursor`: epoch and number; epoch None: the node's own cursor counts. `known`: further fields about
        the user's data on this device.
        """
        options = self._options
        self._attempt = max(self._attempt + 1, int(self._wall() * 1000))
        self._store.put_attempt(self._attempt)
        frame: dict[str, Any] = {"isConnect": True, "v": 1, "ack": True}
        frame |= {"device": self.device, "attempt": self._attempt}
        if options.visitor:
            frame["isVisitor"] = True
            if self._visitor_token is not None and not self._as_new:
                frame["visitorToken"] = self._visitor_token
        else:
            frame["loginType"] = options.login_type
            frame["isCustomerService"] = options.customer_service
            if options.user_id is not None:
                frame["userId"] = options.user_id
        if token is not None:
            frame["token"] = token
        if options.features:
            frame["features"] = list(options.features)
        if options.ephemeral:
            frame["ephemeral"] = True
        if not options.presence:
            frame["presence"] = False
        if self._as_new:
            # Cursor and data are the refused visitor's.
            return frame
        epoch, seq = cursor
        if epoch is not None:
            frame["cursor"] = {"epoch": epoch, "seq": seq}
        return frame | known

    def hint(self, token: str | None, last: str | None) -> str | None:
        """The user that the next connection will most likely be; None if nothing tells, or nobody may know.

        `last`: the user of the connection before.
        """
        options = self._options
        if not options.hint:
            return None
        if options.visitor:
            return user_of_token(None if self._as_new else self._visitor_token)
        return options.user_id or user_of_token(token) or last

    def confirmed(self, user_id: str, visitor_token: str | None) -> str | None:
        """Take the node's word for the user. Gives the user before, if that was another one."""
        old, self._owner, self._as_new = self._owner, user_id, False
        if visitor_token is None and old == user_id:
            visitor_token = self._visitor_token
        if old != user_id or visitor_token != self._visitor_token:
            self._visitor_token = visitor_token
            self._store.put_user(user_id, visitor_token)
        return old if old != user_id else None

    def become_new(self) -> bool:
        """Come back as a new visitor; False if that was tried, or if there is no visitor's token.

        The token is kept until the node gives another one: it may admit no visitors now.
        """
        if not self._options.visitor or self._visitor_token is None or self._as_new:
            return False
        self._as_new = True
        return True
