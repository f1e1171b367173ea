"""A mark in the acceptor's queue: it is passed when all before it has been answered."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from imd.chat.batch import Answer


class Fence:
    """`passed` fires once, whatever becomes of the entries before. It may be cancelled."""

    def __init__(self) -> None:
        self.passed: Deferred[None] = Deferred()

    def entry(self) -> Answer:
        """The entry to submit: an answer that nobody gets."""
        return Answer(self, None, b"")

    def frame_answered(self, payload: bytes) -> None:
        self.passed.callback(None)
