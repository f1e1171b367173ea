"""Whether load balancers are to send clients here: `/serving`, apart from whether messages go through.

A node that alone has lost Redis sends its clients away, as others can serve them. One that shares its trouble
with most others does not: there is nowhere to go, and clients are told `unavailable`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

FAILING_SECONDS = 5.0
"""how long Redis must have failed this node before it sends its clients away"""
ASK_SECONDS = 3.0
"""how long Redis must have failed this node before it asks the others: their answers are there in time"""
FRESH_SECONDS = 2.0
"""how old another node's report may be"""


class RedisTrouble:
    """Redis as this node and the others see it. `seconds` is a monotonic clock."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._failing_since: float | None = None
        self._passed_at = float("-inf")
        self._well: dict[str, float] = {}

    # from this node's probe

    def passed(self) -> None:
        """Redis answered this node."""
        self._failing_since = None
        self._passed_at = self._seconds()
        self._well.clear()

    def failed(self, asked_at: float) -> None:
        """Redis did not answer a probe of this time, or refused it."""
        if self._failing_since is None:
            self._failing_since = asked_at

    # from and for the bus

    def others_are_to_be_asked(self) -> bool:
        return self._failing_seconds() >= ASK_SECONDS

    def may_answer(self) -> bool:
        """Whether this node may tell another that Redis is well."""
        return self._failing_since is None and self._seconds() - self._passed_at <= FRESH_SECONDS

    def heard(self, node: str) -> None:
        """Another node says that its probe passed lately."""
        self._well[node] = self._seconds()

    # for /serving

    def is_ours_alone(self, others: Collection[str]) -> bool:
        """True if clients are better off elsewhere. `others` are the live nodes, as `heard` names them.

        At least half of all live nodes, this one among them, have to be well. Without others it never is.
        """
        if self._failing_seconds() < FAILING_SECONDS:
            return False
        fresh = self._seconds() - FRESH_SECONDS
        well = sum(self._well.get(node, float("-inf")) >= fresh for node in others)
        return well > 0 and 2 * well >= len(others) + 1

    def _failing_seconds(self) -> float:
        return 0.0 if self._failing_since is None else self._seconds() - self._failing_since


def reason_not_to_serve(
    listening: bool, draining: bool, name_taken: bool, trouble: RedisTrouble | None, others: Collection[str]
) -> str | None:
    """Why `/serving` says 503; None: it says 200. `trouble` is None where there is no Redis."""
    if name_taken:
        return "another live node has this name"
    if draining:
        return "draining"
    if not listening:
        return "not listening"
    if trouble is not None and trouble.is_ours_alone(others):
        return "Redis answers others, and not this node"
    return None
