"""The features that a client may ask for when it connects."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from imd.protocol.frames import ConnectFrame

EVENTS = "events"
SYNC = "sync"
STATE = "state"
KNOWN = (EVENTS, SYNC, STATE)


def chosen_features(frame: ConnectFrame) -> Sequence[str] | None:
    """The known features among those that a connect signal asks for; None if it asks for none."""
    return _known(frozenset(frame.features)) if frame.features else None


@lru_cache(maxsize=1000)
def _known(asked: frozenset[str]) -> Sequence[str]:
    """The same object for equal requests, as many connections keep it."""
    return tuple(name for name in KNOWN if name in asked)
