"""The conversation of a room."""

from __future__ import annotations

from hashlib import blake2b

import msgspec


def room_conversation_id(room: str) -> str:
    """A hash of an object. Ids of other conversations are hashes of lists, so none of them is equal."""
    return blake2b(msgspec.json.encode({"room": room}), digest_size=16).hexdigest()
