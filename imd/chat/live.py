"""The connections whose devices have the feature `state`, and the parts of a node that follow them.

Of the others those that watch users can be sent to, and have nothing else here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


class Live:
    """By channel. `opened` is told of each device with the feature that has connected and got `connected`."""

    def __init__(self, opened: Callable[[str, Device, ConnectFrame], None]) -> None:
        self._opened = opened
        self._ended: list[Callable[[str], None]] = []
        self._devices: dict[str, Device] = {}

    def when_ended(self, *told: Callable[[str], None]) -> None:
        """Have these told the channel of each connection that has ended, with the feature or without."""
        self._ended += told

    def opened(self, device: Device, frame: ConnectFrame, channel: str) -> None:
        """A connection's login is through."""
        if STATE not in (device.features or ()) or not device.is_open:
            return
        self._devices[channel] = device
        self._opened(channel, device, frame)

    def admit(self, device: Device, channel: str) -> None:
        """Have frames sent to a device that has asked for them without the feature, and nothing else."""
        self._devices.setdefault(channel, device)

    def ended(self, channel: str) -> None:
        """The connection is gone; called for all connections."""
        self._devices.pop(channel, None)
        for told in self._ended:
            told(channel)

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
