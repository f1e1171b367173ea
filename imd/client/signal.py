"""The connect signal: who comes, and where its device stopped."""

from __future__ import annotations

from typing import Any

from imd.client.options import Options


def connect_signal(
    options: Options,
    device: str,
    attempt: int,
    token: str | None,
    visitor_token: str | None,
    cursor: tuple[str | None, int],
) -> dict[str, Any]:
    """The first frame of a connection. `cursor`: epoch (None: the node's own cursor counts) and number."""
    frame: dict[str, Any] = {"isConnect": True, "v": 1, "ack": True, "device": device, "attempt": attempt}
    if options.visitor:
        frame["isVisitor"] = True
        if visitor_token is not None:
            frame["visitorToken"] = visitor_token
    else:
        frame["loginType"] = options.login_type
        frame["isCustomerService"] = options.customer_service
        if options.user_id is not None:
            frame["userId"] = options.user_id
    if token is not None:
        frame["token"] = token
    if options.ephemeral:
        frame["ephemeral"] = True
    epoch, seq = cursor
    if epoch is not None:
        frame["cursor"] = {"epoch": epoch, "seq": seq}
    return frame
