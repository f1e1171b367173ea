"""Devices of the embedded backend: connect (within limits), pull, ack, renew, leave; dropping unseen ones."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from imd.contracts.inbox import (
    Ack,
    ConnectOutcome,
    ConnectRequest,
    Head,
    Lease,
    Leave,
    Page,
    Registered,
    Superseded,
    TooManyChannels,
)
from imd.store.embedded.channels import Channel
from imd.store.embedded.state import Device, State, User

PAGE_BYTES = 256 * 1024
UNCONFIRMED = "-"
"""the epoch of a cursor whose device has not yet acknowledged anything after `recovered: false`"""

_read_page = msgspec.json.Decoder(list[tuple[int, str]]).decode


class Devices:
    """The requests of devices. All methods run in the open transaction."""

    def __init__(self, state: State) -> None:
        self._state = state

    def connect(self, request: ConnectRequest) -> ConnectOutcome:
        state = self._state
        now = state.clock.now_ms()
        user = state.user(request.user)
        live = state.channels.live_devices(request.user, now)
        old = live.pop(request.device, None)
        replaced = old.id if old is not None and old.id != request.channel else ""
        device = state.devices(user).get(request.device)
        newest = device.attempt if device is not None else None
        # SQLite's integers have 64 bits. A client's may have more.
        attempt = newest if request.attempt is None else max(-(2**63), min(request.attempt, 2**63 - 1))
        later = 0 if newest is None or attempt is None else attempt - newest
        # A channel that registers again yields to the present one, unless that one has an older attempt.
        if (later < 0 and (replaced or request.resume)) or (later == 0 and replaced and request.resume):
            return Superseded()
        if len(live) >= state.options.channels_per_user:
            return TooManyChannels()

        start, recovered = self._start(user, request)
        if not user.opened:
            # Before its first device an inbox keeps fewer messages, so some may have left.
            options = state.options
            recovered = recovered and not (user.low and options.unopened_messages < options.max_messages)
            user.opened = 1
            state.changed(user)
        # A channel that registers again may not have read yet that it was not recovered.
        unconfirmed = not recovered or (request.resume and device is not None and device.epoch == UNCONFIRMED)
        epoch = UNCONFIRMED if unconfirmed else user.epoch
        there = Device(epoch, start, now, attempt, request.ephemeral, request.sync)
        state.put_device(user, request.device, there)
        self._make_room(user, request.device, set(live), now)
        ends = now + state.lease_ms
        channel = Channel(request.channel, ends, request.answers_visitors, request.flags)
        state.channels.put(request.user, request.device, channel, now)
        state.channels.stir(request.user, now)
        self.trim_acknowledged(user, now)
        return Registered(start, recovered, replaced, self._page(user, start, request.page))

    def _start(self, user: User, request: ConnectRequest) -> tuple[int, bool]:
        """The number after which the device reads on, and whether that continues without a hole."""
        cursor = self._state.devices(user).get(request.device)
        if request.epoch is not None:
            if request.epoch == user.epoch and user.low <= request.seq <= user.seq:
                return request.seq, True
            recovered = False
        elif cursor is None:
            return user.low, True
        else:
            recovered = cursor.epoch == user.epoch and user.low <= cursor.seq <= user.seq
        if cursor is None:
            return user.low, recovered
        return min(max(cursor.seq, user.low), user.seq), recovered

    def _make_room(self, user: User, device: str, live: set[str], now: int) -> None:
        """Drop ephemeral devices that are gone. If a user then has too many devices, drop the ones unseen for
        longest; live ones come last."""
        state = self._state
        for name, other in list(state.devices(user).items()):
            gone = name != device and name not in live
            if gone and other.ephemeral and max(other.seen, state.start_ms) + state.lease_ms <= now:
                state.drop_device(user, name)
        others = [(name in live, d.seen, name) for name, d in state.devices(user).items() if name != device]
        others.sort()
        for _, _, name in others[: max(0, len(others) - state.options.devices)]:
            state.drop_device(user, name)

    def pull(self, user_name: str, epoch: str, after: int, limit: int) -> Page:
        user = self._state.user(user_name)
        if epoch != user.epoch:
            return Page(user.epoch, user.seq, ())
        return self._page(user, after, limit)

    def _page(self, user: User, after: int, limit: int) -> Page:
        first = max(after, user.low) + 1
        last = min(first + limit - 1, user.seq)
        if last < first:
            return Page(user.epoch, user.seq, ())
        if self._state.inbox:
            self._state.write()
        rows = self._state.connection.execute(
            "SELECT json_group_array(json_array(i.seq, m.body)) FROM (SELECT seq, message, "
            "SUM(size) OVER (ORDER BY seq) AS total FROM inbox WHERE uid = ? AND seq BETWEEN ? AND ?) i "
            "JOIN message m ON m.number = i.message WHERE i.total <= ? OR i.seq = ?",
            (user.uid, first, last, PAGE_BYTES, first),
        ).fetchone()[0]
        messages = sorted((seq, body.encode()) for seq, body in _read_page(rows))
        return Page(user.epoch, user.seq, messages)

    def ack(self, ack: Ack) -> Head:
        user = self._state.user(ack.user)
        held = self._holds(ack.user, ack.device, ack.channel)
        if held and ack.epoch == user.epoch:
            self._move_cursor(user, ack.device, ack.seq)
        return Head(held, user.epoch, user.seq)

    def _holds(self, user: str, device: str, channel: str) -> bool:
        registered = self._state.channels.get(user, device)
        return registered is not None and registered.id == channel

    def _move_cursor(self, user: User, device: str, seq: int) -> None:
        state = self._state
        now = state.clock.now_ms()
        old = state.devices(user).get(device)
        before = old.seq if old is not None and old.epoch in (user.epoch, UNCONFIRMED) else 0
        seq = max(before, min(seq, user.seq))
        if old is None:
            moved = Device(user.epoch, seq, now, None, ephemeral=False, sync=False)
        else:
            moved = replace(old, epoch=user.epoch, seq=seq, seen=now)
        state.put_device(user, device, moved)
        self.trim_acknowledged(user, now)

    def trim_acknowledged(self, user: User, now: int) -> None:
        """Trim what every device has acknowledged. Devices unseen for `keep_days` are dropped."""
        state = self._state
        devices = state.devices(user)
        unseen_since = now - state.keep_ms
        live = state.channels.live_devices(user.name, now)
        for name in [name for name, d in devices.items() if d.seen < unseen_since and name not in live]:
            state.drop_device(user, name)
        cursors = [device.seq for device in devices.values() if device.epoch in (user.epoch, UNCONFIRMED)]
        if cursors:
            state.trim(user, min(cursors))

    def renew(self, lease: Lease) -> Head:
        state = self._state
        now = state.clock.now_ms()
        user = state.user(lease.user)
        channel = state.channels.get(lease.user, lease.device)
        held = channel is not None and channel.id == lease.channel
        if channel is not None and channel.id == lease.channel and lease.renew:
            if channel.lease_end <= now:
                state.channels.stir(lease.user, now)
            ends = now + state.lease_ms
            renewed = channel._replace(lease_end=ends, answers_visitors=lease.answers_visitors)
            state.channels.put(lease.user, lease.device, renewed, now)
            device = state.devices(user).get(lease.device)
            if device is not None:
                state.put_device(user, lease.device, replace(device, seen=now))
        return Head(held, user.epoch, user.seq)

    def leave(self, leave: Leave) -> None:
        if not self._holds(leave.user, leave.device, leave.channel):
            return
        state = self._state
        now = state.clock.now_ms()
        user = state.user(leave.user)
        if leave.epoch == user.epoch:
            self._move_cursor(user, leave.device, leave.seq)
        state.channels.remove(leave.user, leave.device, now)
        state.channels.stir(leave.user, now)
        if leave.ephemeral:
            state.drop_device(user, leave.device)
            self.trim_acknowledged(user, now)
