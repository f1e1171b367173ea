"""A message frame: checked, paid for, made a message, and submitted."""

from __future__ import annotations

from imd.chat.compose import check, compose
from imd.chat.peer import Peer
from imd.chat.rate import rate_cost, too_fast
from imd.chat.reply_order import go_on_from_given
from imd.chat.room_messages import post_to_room
from imd.observe.trace import TRACE
from imd.protocol.errors import Refused
from imd.protocol.frames import MessageFrame


def post(peer: Peer, frame: MessageFrame) -> None:
    """Submit the message that `frame` asks for, or refuse it in its turn."""
    services = peer.services
    limits = services.settings.limits
    author = peer.admission.author
    try:
        check(frame, author, limits)
    except Refused as refused:
        # It can never become a message, so its size is not charged.
        early = peer.bucket.take(1.0)
        peer.refuse(frame.client_msg_id, too_fast(peer.bucket.per_second, early) if early else refused)
        return
    go_on_from_given(peer)
    if frame.room:
        post_to_room(peer, frame)
        return
    early = peer.bucket.take(rate_cost(frame)) if limits.messages_per_second else 0.0
    if early:
        peer.refuse(frame.client_msg_id, too_fast(limits.messages_per_second, early))
        return
    submission = compose(frame, author, services.ids)
    if TRACE.on and peer.session is not None:
        TRACE.received(submission, peer.session.channel)
    submission.origin = peer
    peer.submit(submission)
