"""The table of clients' frames: each one's name in metrics, and the function that handles it.

A handler answers the frame, or raises Refused or Closing. The connection itself handles the connect signal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from imd.chat.asking import ask_changes, ask_history, ask_messages
from imd.chat.block_frames import block, list_blocked
from imd.chat.change_frames import change_message
from imd.chat.peer import Peer
from imd.chat.posting import post
from imd.chat.presence_frames import watch
from imd.chat.renewal import renew
from imd.chat.room_frames import change_room, list_members, list_rooms
from imd.chat.signal_frames import send_signal, tell_typing
from imd.chat.state_frames import set_marks, set_settings
from imd.chat.talk_frames import list_talks
from imd.entry.allowance import IDLE_ACK, PING
from imd.protocol import frames
from imd.protocol.requests import (
    ChangesFrame,
    EditFrame,
    HistoryFrame,
    MembersFrame,
    MessagesFrame,
    ReactFrame,
    RecallFrame,
    RoomFrame,
    RoomsFrame,
)
from imd.protocol.state_frames import (
    BlockedFrame,
    BlockFrame,
    ReadFrame,
    SettingsFrame,
    SignalFrame,
    TalksFrame,
    TypingFrame,
    WatchFrame,
)

Handler = Callable[[Any, Any], None]


def _ack(peer: Peer, frame: frames.AckFrame) -> None:
    if (session := peer.session) is not None:
        before = session.cursor.acked
        session.acknowledge(frame.seq, frame.epoch)
        if session.cursor.acked == before:
            peer.spend(IDLE_ACK)


def _ping(peer: Peer, frame: frames.PingFrame) -> None:
    peer.spend(PING)
    peer.send(frames.encode(frames.Pong(peer.services.clock.now_ms())))


def _token(peer: Peer, frame: frames.TokenFrame) -> None:
    peer.spend(PING)
    authenticator = peer.services.authenticator
    identity = renew(frame, peer.admission.identity, authenticator, peer.allowance)
    peer.watch_expiry(identity)
    peer.send(frames.encode(frames.TokenRenewed(int((identity.exp or 0) * 1000))))


HANDLERS: Mapping[type, tuple[str, Handler]] = {
    frames.MessageFrame: ("message", post),
    frames.AckFrame: ("ack", _ack),
    HistoryFrame: ("history", ask_history),
    frames.PingFrame: ("ping", _ping),
    frames.TokenFrame: ("token", _token),
    MessagesFrame: ("messages", ask_messages),
    ChangesFrame: ("changes", ask_changes),
    EditFrame: ("edit", change_message),
    RecallFrame: ("recall", change_message),
    ReactFrame: ("react", change_message),
    RoomFrame: ("room", change_room),
    RoomsFrame: ("rooms", list_rooms),
    MembersFrame: ("members", list_members),
    TypingFrame: ("typing", tell_typing),
    SignalFrame: ("signal", send_signal),
    ReadFrame: ("read", set_marks),
    SettingsFrame: ("settings", set_settings),
    WatchFrame: ("watch", watch),
    TalksFrame: ("conversations", list_talks),
    BlockFrame: ("block", block),
    BlockedFrame: ("blocked", list_blocked),
}
