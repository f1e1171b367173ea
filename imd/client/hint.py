"""The hint in a WebSocket's URL: the user of the connection, so that a gateway can route it.

Nobody believes it; it only has to be the same id that the node will see.
"""

from __future__ import annotations

import base64
import binascii
import json
from urllib.parse import quote, urlsplit, urlunsplit

PARAMETER = "user"


def with_hint(url: str, user: str | None) -> str:
    """The URL with `user=<id>`; unchanged for no id, for an id that is no Unicode, or if it has a hint."""
    parts = urlsplit(url)
    pieces = [piece for piece in parts.query.split("&") if piece]
    if not user or any(piece.partition("=")[0] == PARAMETER for piece in pieces):
        return url
    try:
        pieces.append(f"{PARAMETER}={quote(user, safe='')}")
    except UnicodeEncodeError:
        return url
    return urlunsplit(parts._replace(query="&".join(pieces)))


def user_of_token(token: str | None) -> str | None:
    """The id that a token names: `sub` of a JWT, or the visitor of a visitor's token. Nothing is verified."""
    if not token:
        return None
    first, *rest = token.split(".")
    if len(rest) == 1 and first.startswith("visitor-"):
        return first
    if len(rest) != 2:
        return None
    try:
        payload = json.loads(base64.urlsafe_b64decode(rest[0] + "=" * (-len(rest[0]) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return None
    sub = payload.get("sub") if isinstance(payload, dict) else None
    return sub if isinstance(sub, str) and sub else None
