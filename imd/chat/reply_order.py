"""A reply has a higher id than the message that it answers, whichever nodes they were sent by.

The archive and all pages of history go by ids. Ids of two nodes follow one clock, but only to within a
millisecond or more; a bot answers sooner. So the ids of what a device sends go on from those of what it was
given. That costs a delivery next to nothing: its session keeps the beginning of the last body alone.
"""

from __future__ import annotations

from imd.chat.peer import Peer
from imd.protocol.ids import id_in


def go_on_from_given(peer: Peer) -> None:
    """Have all later ids of this node be higher than those that this device was given."""
    session = peer.session
    if session is not None and session.given_last:
        beginning, session.given_last = session.given_last, b""
        peer.services.ids.continue_after_given(id_in(beginning))
