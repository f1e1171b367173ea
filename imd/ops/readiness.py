"""Whether a message would be accepted now: by looks that need no traffic, and by how messages fare."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import Gauge
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.observe.seldom import Seldom
from imd.protocol.errors import Unavailable

READY = Gauge("imd_ready", "1 while /readyz says 200, else 0; looked at once a second.")

LOOK_SECONDS = 1.0
# A look that takes longer says that messages do, too.
SLOW_SECONDS = 2.0
# A part that fails now and then is not well in between.
STEADY_SECONDS = 2.0
# One look may meet a good moment. Two that a late node makes at once are one.
_APART_SECONDS = 0.9 * LOOK_SECONDS

Probe = Callable[[], Deferred[Any]]
"""fires if a message would get through this part; fails with Unavailable, which says why it would not

It fires with the run of the part. Between two looks that find different runs the part was not well.
"""


class _Part:
    """One part of a message's way."""

    def __init__(self, name: str, probe: Probe) -> None:
        self.name = name
        self.probe = probe
        self.looking: Deferred[None] | None = None
        self.asked_at = 0.0
        self.failed_at = float("-inf")
        self.reason: str | None = None
        self.run: Any = None
        self.well_since: float | None = None
        """the beginning of the present series of good looks that found the same run"""


class Readiness:
    """Looks at each part once a second, and remembers why the last call of a message failed.

    A bad look refuses no message: each message is tried, and refused by its own call. So an outdated look
    only makes /readyz wrong for a moment.
    """

    log = Logger()

    def __init__(
        self,
        clock: Any,
        probes: Mapping[str, Probe],
        others: Callable[[], dict[str, str]] = dict,
        looked: Callable[[str, float | None], None] = lambda *_: None,
    ) -> None:
        """`probes` by part. `others`: what the parts say of themselves, without being asked anything.

        `looked` is told of each look at a part: when it was asked, if it failed or is slow, else None.
        """
        self._clock = clock
        self._parts = {name: _Part(name, probe) for name, probe in probes.items()}
        self._others = others
        self._looked = looked
        self._seldom = Seldom(self.log, clock.seconds)
        self._ready: bool | None = None
        self._not_ready_since = 0.0
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock

    # from the node

    def start(self) -> None:
        """The backends are there. The first look is made at once."""
        self._loop.start(LOOK_SECONDS, now=True).addErrback(
            lambda failure: self.log.failure("readiness is no longer checked", failure)
        )

    def stop(self) -> None:
        if self._loop.running:
            self._loop.stop()
        for part in self._parts.values():
            if part.looking is not None:
                part.looking.cancel()
        READY.set(0)

    def problems(self) -> dict[str, str]:
        """Why a message would not be accepted, by part; empty if it would."""
        problems = self._others()
        for part in self._parts.values():
            reason = self._reason(part)
            if reason is not None and part.name not in problems:
                problems[part.name] = reason
        return problems

    # from accept

    def failed(self, name: str, reason: str) -> None:
        """A message's call of this part failed."""
        part = self._parts.get(name)
        if part is not None:
            part.failed_at = self._clock.seconds()
            part.reason = reason
            part.well_since = None

    # from within

    def _reason(self, part: _Part) -> str | None:
        if part.reason is None and part.looking is not None:
            seconds = self._clock.seconds() - part.asked_at
            if seconds > SLOW_SECONDS:
                return f"{part.name}: slow, no answer for {seconds:.0f} s"
        return part.reason

    def _look(self) -> None:
        for part in self._parts.values():
            if part.looking is None:
                part.asked_at = self._clock.seconds()
                part.looking = looking = part.probe()
                looking.addCallbacks(self._well, self._ill, callbackArgs=(part,), errbackArgs=(part,))
                looking.addErrback(lambda failure: self._seldom.failure("a readiness check failed", failure))
            elif self._clock.seconds() - part.asked_at > SLOW_SECONDS:
                self._looked(part.name, part.asked_at)
        self._tell()

    def _well(self, run: object, part: _Part) -> None:
        part.looking = None
        if part.asked_at < part.failed_at:
            return
        if part.well_since is None or run != part.run:
            part.run, part.well_since = run, part.asked_at
        is_steady = part.asked_at - part.well_since >= _APART_SECONDS
        if is_steady and part.asked_at - part.failed_at >= STEADY_SECONDS:
            part.reason = None
        self._looked(part.name, None)

    def _ill(self, failure: Failure, part: _Part) -> None:
        part.looking = None
        if failure.check(CancelledError):
            return
        self.failed(part.name, failure.getErrorMessage())
        self._looked(part.name, part.asked_at)
        failure.trap(Unavailable)

    def _tell(self) -> None:
        """Log each change; only now and then while the state goes to and fro."""
        problems = self.problems()
        ready = not problems
        READY.set(ready)
        if ready == self._ready:
            return
        now = self._clock.seconds()
        if ready and self._ready is not None:
            seconds = now - self._not_ready_since
            self._seldom.info("ready again after {seconds:.0f} s", cause="ready", seconds=seconds)
        elif not ready:
            self._not_ready_since = now
            name, reason = next(iter(problems.items()))
            self._seldom.warn("not ready: {part}: {reason}", part=name, reason=reason)
        self._ready = ready
