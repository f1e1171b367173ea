"""The frame watch."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.logger import Logger

from imd.chat.peer import Peer
from imd.chat.presence import BLOCKS
from imd.chat.rate import charged_if_refused
from imd.chat.services import Services
from imd.entry.admission import STAFF
from imd.observe.seldom import Seldom
from imd.protocol import frames
from imd.protocol.errors import FORBIDDEN, TOO_LARGE, Refused, Unavailable
from imd.protocol.message import check_id
from imd.protocol.state_frames import WatchFrame
from imd.protocol.state_out import PresenceFrame

_log = Seldom(Logger())

MAX_USERS = 200
"""that one connection watches"""


def watch(peer: Peer, frame: WatchFrame) -> None:
    """Answer with the presence of the users named, and tell of changes from now on. Raises Refused."""
    session = peer.session
    if session is None:
        return
    with charged_if_refused(peer.bucket):
        users = _read(peer, frame)
    author, presence = peer.author, peer.services.presence
    channel, is_staff = session.channel, author.type in STAFF
    peer.services.live.admit(peer, channel)

    async def answer() -> bytes:
        shown = await presence.watch(channel, author.user, users, is_staff=is_staff)
        return frames.encode(PresenceFrame(ref=frames.given(frame.ref), users=shown))

    peer.services.asks.ask(peer, frame.ref, 1.0, answer)


def say_blocks_changed(services: Services, users: Sequence[str]) -> None:
    """Have these users' connections ask anew who is hidden from them. They do so every minute anyway."""
    told = services.aims.channels(users).addCallback(
        lambda channels: services.signals.send(BLOCKS, channels, b"")
    )
    told.addErrback(lambda failure: failure.trap(Unavailable))
    told.addErrback(lambda failure: _log.failure("presence was not told of a block", failure))


def _read(peer: Peer, frame: WatchFrame) -> list[str]:
    """The users, each once. Raises Refused."""
    users = frame.users or []
    if len(users) > MAX_USERS:
        raise Refused(TOO_LARGE, f"users: at most {MAX_USERS}")
    for user in users:
        check_id("users", user)
    if peer.author.is_visitor:
        raise Refused(FORBIDDEN, "a visitor watches nobody")
    return list(dict.fromkeys(users))
