"""The frames block and blocked: users of whom one wants to hear nothing."""

from __future__ import annotations

from imd.chat.peer import Peer
from imd.chat.presence_frames import say_blocks_changed
from imd.protocol import frames
from imd.protocol.author import Author
from imd.protocol.errors import FORBIDDEN, INVALID_MESSAGE, Refused
from imd.protocol.message import check_id, is_visitor_id
from imd.protocol.state_frames import BlockedFrame, BlockFrame
from imd.protocol.state_out import BlockAnswer, BlockedList


def block(peer: Peer, frame: BlockFrame) -> None:
    """Block a user, or no longer, and answer when that is obeyed. Raises Refused."""
    other, on = frame.user_id or "", frame.on is not False
    _check_other(other, peer.author)
    _check_author(peer.author)
    services, user = peer.services, peer.author.user

    async def work() -> bytes:
        outcome = await services.blocks.block(user, other, on)
        if isinstance(outcome, Refused):
            raise outcome
        if outcome:
            say_blocks_changed(services, (user, other))
        if not on:
            # Also if nothing has changed: the first answer may have been lost before.
            await services.states.touch([(user, other)])
        return frames.encode(BlockAnswer(ref=frames.given(frame.ref), user_id=other, on=on))

    services.asks.ask(peer, frame.ref, 1.0, work)


def list_blocked(peer: Peer, frame: BlockedFrame) -> None:
    """Answer with the users that one blocks. Raises Refused."""
    _check_author(peer.author)
    services, user = peer.services, peer.author.user

    async def work() -> bytes:
        return frames.encode(BlockedList(ref=frames.given(frame.ref), users=await services.blocks.of(user)))

    services.asks.ask(peer, frame.ref, 1.0, work)


def _check_other(other: str, author: Author) -> None:
    if not other:
        raise Refused(INVALID_MESSAGE, "userId: must not be empty")
    check_id("userId", other)
    if is_visitor_id(other):
        raise Refused(INVALID_MESSAGE, "userId: a visitor cannot be blocked")
    if other == author.user:
        raise Refused(INVALID_MESSAGE, "userId: nobody blocks oneself")


def _check_author(author: Author) -> None:
    if author.is_visitor:
        raise Refused(FORBIDDEN, "a visitor blocks nobody")
