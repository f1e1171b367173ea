"""The part that is the same in all doubles of backends."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed

from imd.protocol.errors import Unavailable


class Backed:
    """A backend that is there from the start. `down`: the answer of `problem`."""

    down: str | None = None

    def start(self) -> Deferred[None]:
        raise NotImplementedError("doubles are there from the start")

    def stop(self) -> Deferred[None]:
        raise NotImplementedError("doubles need no end")

    def problem(self) -> str | None:
        return self.down

    def probe(self) -> Deferred[Any]:
        return succeed(0) if self.down is None else fail(Unavailable(self.down))
