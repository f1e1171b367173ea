"""Actions on rooms for tests, in the words of a client."""

from __future__ import annotations

from itertools import count
from typing import Any
from zlib import crc32

from imd.contracts.rooms import Action

_numbers = count(1)


def action(
    user: str,
    what: str,
    /,
    room: str = "r-1",
    users: Any = (),
    device: str = "phone",
    client_msg_id: str = "",
    **fields: Any,
) -> Action:
    """The action that `user` asks for. `users` holds user ids, or pairs of user id and role."""
    pairs = tuple((one, None) if isinstance(one, str) else tuple(one) for one in users)
    written = repr((what, room if what != "create" else "", pairs, sorted(fields.items())))
    return Action(
        room=room,
        action=what,
        user=user,
        device=device,
        user_type="USER_TYPE",
        client_msg_id=client_msg_id or f"c-{next(_numbers)}",
        checksum=f"{crc32(written.encode()):x}",
        users=pairs,
        **fields,
    )
