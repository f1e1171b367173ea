"""One row of the table of nodes: what a node says of itself, and how it is written."""

from __future__ import annotations

from typing import Annotated

import msgspec

from imd.config.reachable import MAX_NAME_CHARS, NAME, parse_address

# Nodes without a gateway may have an @ in their names.
_Name = Annotated[str, msgspec.Meta(pattern=rf"\A[A-Za-z0-9_.:@-]{{1,{MAX_NAME_CHARS}}}\Z")]
_Count = Annotated[int, msgspec.Meta(ge=0)]


class Row(msgspec.Struct, frozen=True, rename="camel", omit_defaults=False):
    """A node, as it announces itself. Equal rows describe the same state."""

    name: _Name
    bus: str
    """its address on the bus: name and boot id, another one after each start"""
    websocket: str
    """HOST:PORT where clients, or the gateway for them, connect; empty: others cannot"""
    tls: bool
    proxy: bool
    http: str
    """HOST:PORT of its health answers; empty: others cannot ask"""
    version: str
    started: _Count
    """milliseconds since the epoch"""
    connections: _Count
    draining: bool
    level: _Count = 1
    """the feature level that it works at; older versions do not tell"""
    archived: _Count = 0
    """up to when the node vouches that what it took is archived, ms since the epoch; 0: it does not say"""

    def is_routable(self) -> bool:
        """A gateway can send clients there: by a name that HAProxy takes, and with addresses."""
        return bool(self.websocket and self.http and NAME.fullmatch(self.name))

    def encode(self) -> bytes:
        """JSON. `decode` is its reverse."""
        return msgspec.json.encode(self)


_decoder = msgspec.json.Decoder(Row)


def decode(text: bytes) -> Row:
    """A row from the table. Raises ValueError for anything that no node would write."""
    try:
        row = _decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    for address in filter(None, (row.websocket, row.http)):
        parse_address(address)
    return row
