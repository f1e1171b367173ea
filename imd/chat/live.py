"""The connections whose devices have the feature `state`, and the parts of a node that follow them.

Of the others those that watch users can be sent to, and have nothing else here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from imd.chat.features import STATE
from imd.protocol.author import Author
from imd.protocol.frames import ConnectFrame


class Device(Protocol):
    """The part of a connection that its followers need."""

    features: Sequence[str] | None

    @property
    def author(self) -> Author: ...

    @property
    def is_open(self) -> bool:
        """False once the connection has ended."""

    @property
    def writable(self) -> bool:
        """False while the client does not take what was sent last."""

    def send(self, payload: bytes, /) -> None:
        """Send a frame now."""


class Follower(Protocol):
    """A part of the node that follows connections, such as the feeds of state."""

    def opened(self, channel: str, device: Device, frame: ConnectFrame) -> None:
        """A device with the feature has connected: `connected` has been sent."""

    def ended(self, channel: str) -> None:
        """A connection has ended, with the feature or without."""


class Live:
    """By channel. Followers are told in their order."""

    def __init__(self, followers: Sequence[Follower] = ()) -> None:
        self._followers = list(followers)
        self._devices: dict[str, Device] = {}

    def follow(self, follower: Follower) -> None:
        """Have one more part of the node told."""
        self._followers.append(follower)

    def opened(self, device: Device, frame: ConnectFrame, channel: str) -> None:
        """A connection's login is through."""
        if STATE not in (device.features or ()) or not device.is_open:
            return
        self._devices[channel] = device
        for follower in self._followers:
            follower.opened(channel, device, frame)

    def admit(self, device: Device, channel: str) -> None:
        """Have frames sent to a device that has asked for them without the feature. No follower is told."""
        self._devices.setdefault(channel, device)

    def ended(self, channel: str) -> None:
        """The connection is gone; called for all connections."""
        self._devices.pop(channel, None)
        for follower in self._followers:
            follower.ended(channel)

    def send(self, channel: str, payload: bytes) -> bool:
        """Send a frame to a device. False: it is not here, or does not take more now."""
        device = self._devices.get(channel)
        if device is None or not device.writable:
            return False
        device.send(payload)
        return True

    def send_all(self, channels: Sequence[str], payload: bytes) -> None:
        """Send a frame to those of these channels that are here."""
        for channel in channels:
            self.send(channel, payload)
