"""The frame watch."""

from __future__ import annotations

from imd.chat.features import STATE
from imd.chat.peer import Peer
from imd.chat.rate import pay
from imd.entry.admission import STAFF
from imd.protocol import frames
from imd.protocol.errors import FORBIDDEN, TOO_LARGE, Refused
from imd.protocol.message import check_id
from imd.protocol.state_frames import WatchFrame
from imd.protocol.state_out import PresenceFrame

MAX_USERS = 200
"""that one connection watches"""


def watch(peer: Peer, frame: WatchFrame) -> None:
    """Answer with the presence of the users named, and tell of changes from now on. Raises Refused."""
    session = peer.session
    if session is None:
        return
    try:
        users = _read(peer, frame)
    except Refused:
        # It can never succeed, whatever it holds.
        pay(peer.bucket)
        raise
    author, presence = peer.author, peer.services.presence
    channel, is_staff = session.channel, author.type in STAFF
    is_told = STATE in (peer.features or ())

    async def answer() -> bytes:
        shown = await presence.watch(channel, author.user, users, is_staff=is_staff, is_told=is_told)
        return frames.encode(PresenceFrame(ref=frames.given(frame.ref), users=shown))

    peer.services.asks.ask(peer, frame.ref, 1.0, answer)


def _read(peer: Peer, frame: WatchFrame) -> list[str]:
    """The users, each once. Raises Refused."""
    users = frame.users or []
    if peer.author.is_visitor:
        raise Refused(FORBIDDEN, "a visitor watches nobody")
    if len(users) > MAX_USERS:
        raise Refused(TOO_LARGE, f"users: at most {MAX_USERS}")
    for user in users:
        check_id("users", user)
    return list(dict.fromkeys(users))
