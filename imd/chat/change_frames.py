"""The handler of the frames edit, recall and react."""

from __future__ import annotations

from functools import partial

from imd.chat.batch import Entry
from imd.chat.change_form import Change, ChangeFrame, read_change
from imd.chat.peer import Peer
from imd.chat.rate import pay
from imd.chat.refusals import told
from imd.chat.reply_order import go_on_from_given
from imd.chat.slow import answer_slowly
from imd.contracts.inbox import Submission
from imd.observe.trace import TRACE
from imd.protocol.errors import Refused, unavailable


def change_message(peer: Peer, frame: ChangeFrame) -> None:
    """Make the change that `frame` asks for, or refuse it in its turn."""
    services = peer.services
    try:
        pay(peer.bucket)
        change = read_change(frame, peer.author, services.settings.limits)
        problem = services.changes.problem()
        if problem is not None:
            raise unavailable(told(problem))
    except Refused as refused:
        peer.refuse(frame.client_msg_id, refused)
        return
    go_on_from_given(peer)
    answer_slowly(peer, services.call_later, frame.client_msg_id, _decide(peer, change))


async def _decide(peer: Peer, change: Change) -> Entry:
    entry = await peer.services.changes.decide(change, peer.author, peer, partial(pay, peer.bucket))
    if TRACE.on and type(entry) is Submission and peer.session is not None:
        TRACE.received(entry, peer.session.channel)
    return entry
