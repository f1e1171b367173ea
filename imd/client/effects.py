"""Effects: the core's orders to a shell. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from imd.client.events import Event
from imd.client.numbered import Entry


@dataclass(frozen=True, slots=True)
class AskToken:
    """Get a token, then call `token_given` or `token_failed`."""


@dataclass(frozen=True, slots=True)
class Dial:
    """Open a WebSocket. All inputs about it carry the number `connection`."""

    connection: int


@dataclass(frozen=True, slots=True)
class Transmit:
    """Send a text frame."""

    text: str


@dataclass(frozen=True, slots=True)
class HangUp:
    """Close with code 1000."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Give the connection up at once, open or not. Inputs about it are ignored from now on."""


@dataclass(frozen=True, slots=True)
class Emit:
    """Tell the program of an event."""

    event: Event


@dataclass(frozen=True, slots=True)
class Deliver:
    """Give an entry of the inbox to the program. Call `handled` when the program is done with it."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer the `ask` that gave this ref."""

    ref: str
    result: Any
    """an answer of imd.client.events, a list of messages, or a ClientError"""


Effect = AskToken | Dial | Transmit | HangUp | Drop | Emit | Deliver | Answer
