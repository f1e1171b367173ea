"""A client of the protocol: a core without I/O, in one shell for asyncio and another for Twisted.

Take `Client` from `imd.client.asyncio` or from `imd.client.twisted`. Nothing here imports the daemon.
"""

from imd.client.events import (
    Accepted,
    ClientError,
    Connected,
    Ended,
    Failed,
    Gap,
    Leaving,
    Message,
    OutboxFull,
    Outgoing,
    Page,
    Refusal,
    Refused,
    State,
    StateChanged,
    Unanswered,
)
from imd.client.options import Options
from imd.client.store import MemoryStore, SqliteStore, Store

__all__ = [
    "Accepted",
    "ClientError",
    "Connected",
    "Ended",
    "Failed",
    "Gap",
    "Leaving",
    "MemoryStore",
    "Message",
    "Options",
    "OutboxFull",
    "Outgoing",
    "Page",
    "Refusal",
    "Refused",
    "SqliteStore",
    "State",
    "StateChanged",
    "Store",
    "Unanswered",
]
