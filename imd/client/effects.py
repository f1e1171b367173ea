"""Effects: the core's orders to a shell. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

from imd.client.events import ClientError, Event, Message, Page


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
    """Give a message to the program. Call `handled` when the program is done with it."""

    message: Message


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer the `ask_history` that gave this ref."""

    ref: str
    result: Page | ClientError


Effect = AskToken | Dial | Transmit | HangUp | Drop | Emit | Deliver | Answer
