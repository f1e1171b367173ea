"""What all backends share. The domain knows contracts; imd.tap alone knows who implements them.

Each Deferred of a contract fails with imd.protocol.errors.Unavailable, and nothing else, if the backend does
not answer. It fails within the backend's own deadline.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred


class Backend(Protocol):
    """What all backends share."""

    def start(self) -> Deferred[None]:
        """Begin to connect, and go on for ever with back-off; fires when it is usable for the first time.

        Fails only with imd.protocol.errors.ConfigurationError.
        """

    def stop(self) -> Deferred[None]:
        """Finish what is under way and let go of everything. Never fails."""

    def problem(self) -> str | None:
        """Why it cannot be used at the moment; None when it can."""
