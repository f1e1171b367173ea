"""The user and the device behind a connection: they are the sender of each of its frames."""

from __future__ import annotations

from imd.protocol.message import FromUserType


class Author:
    """`type_name` and `is_visitor` follow from `type`: each message needs both."""

    __slots__ = ("device", "is_visitor", "type", "type_name", "user")

    def __init__(self, user: str, device: str, type: FromUserType) -> None:
        self.user = user
        self.device = device
        self.type = type
        self.type_name = type.value
        self.is_visitor = type is FromUserType.VISITOR_TYPE
