"""A reply has a higher id than the message that it answers, whichever nodes they were sent by.

The archive and all pages of history go by ids. Ids of two nodes follow one clock, but only to within a
millisecond or more; a bot answers sooner. So the ids of what a device sends go on from those of what it was
given. That costs a delivery next to nothing: its session keeps the beginning of the last body alone.
"""

from __future__ import annotations

from imd.chat.peer import Peer

_ID_MARK = b'"id":"'
# An id is among the first members of a body: behind `{`, or behind the kind of an event.
_ID_BEGINS_WITHIN = 32
_ID_LENGTH = 28


def go_on_from_given(peer: Peer) -> None:
    """Have all later ids of this node be higher than those that this device was given."""
    session = peer.session
    if session is not None and session.given_last:
        beginning, session.given_last = session.given_last, b""
        peer.services.ids.continue_after_given(id_of(beginning))


def id_of(beginning: bytes) -> str:
    """The id of the message or event whose body begins so; another text if it has none."""
    start = beginning.find(_ID_MARK, 0, _ID_BEGINS_WITHIN) + len(_ID_MARK)
    return beginning[start : start + _ID_LENGTH].decode("latin-1")
