"""The part of a connection that the handlers of its frames need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from twisted.internet.defer import Deferred

from imd.chat.batch import Entry
from imd.chat.questions import Questions
from imd.chat.services import Services
from imd.chat.session import Session
from imd.entry.admission import Admission
from imd.entry.allowance import Allowance
from imd.entry.auth import Identity
from imd.entry.ratelimit import TokenBucket
from imd.protocol.author import Author
from imd.protocol.errors import Refused


class Peer(Protocol):
    """One client that has logged in."""

    services: Services
    session: Session | None
    admission: Admission
    bucket: TokenBucket
    """the rate of its messages and events"""
    features: Sequence[str] | None
    """that it asked for and got; None if it asked for none"""
    questions: Questions | None
    """made for the first one"""

    @property
    def author(self) -> Author: ...

    @property
    def allowance(self) -> Allowance:
        """For frames that are no messages."""

    @property
    def is_open(self) -> bool:
        """False once the connection has ended."""

    @property
    def writable(self) -> bool:
        """False while the client does not take what was sent last."""

    def send(self, payload: bytes, /) -> None:
        """Send a frame now."""

    def send_error(self, refused: Refused, client_msg_id: str | None = None, ref: str | None = None) -> None:
        """Send an error frame now."""

    def refuse(self, client_msg_id: str | None, refused: Refused, ref: str | None = None) -> None:
        """Answer with an error; without a `ref`, after the answers that earlier messages still wait for."""

    def submit(self, entry: Entry) -> None:
        """Have a frame answered in its turn."""

    def caught_up(self) -> Deferred[None]:
        """Fires when all frames that were submitted before have been answered."""

    def hold(self) -> Callable[[], None]:
        """Later frames wait until the function that this returns is called, once."""

    def spend(self, cost: float) -> None:
        """Take the cost of a frame that is no message. Closes with 4100 when the allowance is spent."""

    def watch_expiry(self, identity: Identity) -> None:
        """The connection lasts until this identity's token expires."""
