"""The limit inside: a connection's allowance for frames other than messages.

Each such frame has a cost, which is next to nothing at an honest client's rate. A connection that has spent
all is closed with 4100. Messages have a rate of their own. Answers `rate_limited` and `unavailable` cost
nothing, as the client may have done nothing wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

from prometheus_client import Counter

from imd.entry.ratelimit import TokenBucket
from imd.protocol.errors import RATE_LIMITED, UNAVAILABLE, Refused

SPENT = Counter(
    "imd_allowance_spent_total", "Connections closed (4100) for too many frames that are no messages."
)

PER_SECOND = 100.0
AT_ONCE = 1000.0

# A ping or a pong, of this protocol or of WebSocket.
PING = 1.0
# A fragment with fewer bytes than these.
FRAGMENT = 0.5
SMALL_FRAGMENT_BYTES = 128
# An acknowledgement of nothing new. Others are free, as messages bound their number.
IDLE_ACK = 0.05
# A frame that is answered with an error.
ERROR = 2.0
# Token frames have an allowance of their own, as each costs the check of a signature: these at once, and one
# more each second. A refused token costs more.
TOKENS_AT_ONCE = 100.0
TOKEN = 1.0
REFUSED_TOKEN = 3.0

# A connection with so many errors before its login is closed.
MAX_STRANGERS_ERRORS = 32


class Allowance:
    """The allowance of one connection. `seconds` is a monotonic clock."""

    __slots__ = ("_bucket", "_seconds", "_tokens")

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._bucket = TokenBucket(PER_SECOND, AT_ONCE, seconds)
        self._seconds = seconds
        self._tokens: TokenBucket | None = None

    def spend(self, cost: float) -> bool:
        """Take `cost`. Return False if less than that is left."""
        if self._bucket.take(cost) == 0.0:
            return True
        SPENT.inc()
        return False

    def spend_for_token(self) -> None:
        """Take a token frame's cost before its signature is checked. Raises Refused (`rate_limited`)."""
        if self._tokens is None:
            self._tokens = TokenBucket(1.0, TOKENS_AT_ONCE, self._seconds)
        early = self._tokens.take(TOKEN)
        if early:
            raise Refused(RATE_LIMITED, "too many tokens", retry_after_ms=max(1, ceil(early * 1000)))

    def token_refused(self) -> None:
        """Take the further cost of the last token frame, which was refused."""
        if self._tokens is not None:
            self._tokens.owe(REFUSED_TOKEN)


def cost_of(refused: Refused) -> float:
    """The cost of a frame that is answered with this error."""
    return 0.0 if refused.code in (RATE_LIMITED, UNAVAILABLE) else ERROR
