"""The contract of all backends. The domain knows contracts; imd.tap alone knows who implements them.

Each Deferred of a contract fails with imd.protocol.errors.Unavailable, and nothing else, if the backend does
not answer. It fails within the backend's own deadline.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred


class Backend(Protocol):
    """The part that all backends share."""

    def start(self) -> Deferred[None]:
        """Connect, and connect again for ever with backoff. Fires when it is usable for the first time.

        Fails only with imd.protocol.errors.ConfigurationError.
        """

    def stop(self) -> Deferred[None]:
        """Finish the calls in flight and release everything. Never fails."""

    def problem(self) -> str | None:
        """Why it cannot be used at the moment, from the backend's name on; None if it can."""
