"""The answer to a connect signal that was accepted."""

from __future__ import annotations

from imd.chat.session import Session
from imd.config.settings import Settings
from imd.contracts.inbox import Registered
from imd.entry.admission import Admission
from imd.protocol import frames


def connected(
    admission: Admission, session: Session, registered: Registered, settings: Settings, now_ms: int
) -> bytes:
    """The encoded `connected` frame. `now_ms` is the servers' common time."""
    limits, author, exp = settings.limits, admission.author, admission.identity.exp
    ping_seconds = settings.websocket.ping_seconds
    return frames.encode(
        frames.Connected(
            v=1,
            user_id=author.user,
            from_user_type=author.type.value,
            device=author.device,
            channel=session.channel,
            epoch=registered.page.epoch,
            seq=registered.seq,
            recovered=registered.recovered,
            server_time=now_ms,
            limits=frames.Limits(
                limits.message_bytes, limits.group_members, limits.ack_window, limits.messages_per_second
            ),
            ping_seconds=int(ping_seconds) if ping_seconds == int(ping_seconds) else ping_seconds,
            visitor_token=admission.visitor_token,
            exp=int(exp * 1000) if exp is not None else None,
        )
    )
