"""What the core has a shell do. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

from imd.client.events import ClientError, Event, Message, Page


@dataclass(frozen=True, slots=True)
class AskToken:
    """Get a token, then `token_given` or `token_failed`."""


@dataclass(frozen=True, slots=True)
class Dial:
    """Open a WebSocket; what is said of it names `connection`."""

    connection: int


@dataclass(frozen=True, slots=True)
class Transmit:
    text: str


@dataclass(frozen=True, slots=True)
class HangUp:
    """Close in good order, with 1000."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Give the connection up at once, open or not. Nothing needs to be said of it any more."""


@dataclass(frozen=True, slots=True)
class Emit:
    event: Event


@dataclass(frozen=True, slots=True)
class Deliver:
    """A message for the program; `handled` when it is done with it."""

    message: Message


@dataclass(frozen=True, slots=True)
class Answer:
    """To `ask_history`."""

    ref: str
    result: Page | ClientError


Effect = AskToken | Dial | Transmit | HangUp | Drop | Emit | Deliver | Answer
