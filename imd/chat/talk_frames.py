"""The handler of the frame that asks for one's list of conversations."""

from __future__ import annotations

from functools import partial

from imd.chat.asking import questions_of
from imd.chat.peer import Peer
from imd.protocol.errors import FORBIDDEN, Refused
from imd.protocol.questions import check_limit, check_place
from imd.protocol.state_frames import TalksFrame

MAX_TALKS = 50


def list_talks(peer: Peer, frame: TalksFrame) -> None:
    """Answer with a page of one's own conversations. Raises Refused."""
    check_limit(frame.limit, most=MAX_TALKS)
    check_place("before", frame.before)
    if peer.author.is_visitor:
        raise Refused(FORBIDDEN, "a visitor has one conversation")
    find = partial(peer.services.talks.page, peer.author, frame)
    questions_of(peer).ask(frame.ref, find, 1 + frame.limit / 10)
