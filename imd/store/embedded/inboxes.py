"""Putting messages into inboxes, in the open transaction: numbers, bounds, copies for one's own devices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from imd.contracts.inbox import Delivery, TooManyNew
from imd.store.embedded.opening import Opening
from imd.store.embedded.state import State, User
from imd.store.shared_metrics import OVERFLOWN


class Inboxes:
    """For messages to users and to rooms. Nothing is in the file before `state.write()`."""

    def __init__(self, state: State) -> None:
        self._state = state
        options = state.options
        self._unopened_messages = min(options.unopened_messages, options.max_messages)
        self._opening = Opening(options.new_ids)

    def put(
        self,
        names: Iterable[str],
        users: Mapping[str, User],
        number: int,
        body: bytes,
        now: int,
        deliveries: list[Delivery],
        *,
        only_live: bool = False,
    ) -> None:
        """Give a message the next number in each inbox, and add the deliveries.

        `only_live`: no deliveries to users without a live channel.
        """
        state = self._state
        by_user = state.channels.by_user
        live = state.channels.live
        unopened_messages = self._unopened_messages
        size = len(body)
        for name in names:
            user = users[name]
            seq = user.seq = user.seq + 1
            state.changed(user)
            state.inbox += (user.uid, seq, number, size)
            if seq - user.low > unopened_messages:
                self._bound(user)
            channels = live(name, now) if name in by_user else ()
            if channels or not only_live:
                deliveries.append(Delivery(name, user.epoch, seq, channels, body))

    def _bound(self, user: User) -> None:
        """Trim an inbox that is too full."""
        most = self._state.options.max_messages if user.opened else self._unopened_messages
        low = user.seq - most
        if low > user.low:
            OVERFLOWN.inc(low - user.low)
            self._state.trim(user, low)

    def wants_copy(self, user: User, device: str, now: int) -> bool:
        """Whether another device of the user wants what this one sends. An ephemeral one counts while it is
        connected."""
        # Read first: `sync` is known with the devices only.
        devices = self._state.devices(user)
        live = self._state.channels.live_devices(user.name, now)
        return any(name != device and (not devices[name].ephemeral or name in live) for name in user.sync)

    def refuse_openings(self, sender: str, names: Sequence[str], now: int) -> TooManyNew | None:
        """Why a sender may not begin inboxes of these users; None if it may, and then they are counted."""
        users = self._state.load(names)
        return self._opening.refuse(sender, [users[name] for name in names], now)

    def unmake(self, names: Iterable[str]) -> None:
        """Remove the rows of users that were made for messages which were refused."""
        users = self._state.load(())
        for user in map(users.__getitem__, names):
            if not user.seq and not user.opened:
                self._state.unmake(user)
