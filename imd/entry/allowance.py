"""What frames cost a connection that are no messages: next to nothing for who asks now and then.

A connection that has spent all is asking for the sake of asking, and is closed with 4100. Messages have a
rate of their own, and `rate_limited` and `unavailable` cost nothing: a client may have done nothing wrong.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import Counter

from imd.entry.ratelimit import TokenBucket
from imd.protocol.errors import RATE_LIMITED, UNAVAILABLE, Refused

SPENT = Counter(
    "imd_allowance_spent_total", "Connections closed (4100) for too many frames that are no messages."
)

PER_SECOND = 100.0
AT_ONCE = 1000.0

# A ping or a pong, of the protocol or of WebSocket.
PING = 1.0
# A fragment of a message of fewer bytes than these.
FRAGMENT = 0.5
SMALL_FRAGMENT_BYTES = 128
# An acknowledgement of nothing new; others are as many as the messages that they are for.
IDLE_ACK = 0.05
# A frame that is answered with an error.
ERROR = 2.0
# Token frames have a signature checked, and so an allowance of their own: these, and one a second more.
# One that is refused was not worth it.
TOKENS_AT_ONCE = 100.0
TOKEN = 1.0
REFUSED_TOKEN = 3.0

# So many errors before the login, and it is no client.
MAX_STRANGERS_ERRORS = 32


class Allowance:
    """One connection's. `seconds` is a monotonic clock."""

    __slots__ = ("_bucket", "_seconds", "_tokens")

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._bucket = TokenBucket(PER_SECOND, AT_ONCE, seconds)
        self._seconds = seconds
        self._tokens: TokenBucket | None = None

    def spend(self, cost: float) -> bool:
        """False if there is not so much left."""
        if self._bucket.take(cost) == 0.0:
            return True
        SPENT.inc()
        return False

    def spend_for_token(self) -> None:
        """Raises Refused (`rate_limited`) before the signature is looked at."""
        if self._tokens is None:
            self._tokens = TokenBucket(1.0, TOKENS_AT_ONCE, self._seconds)
        early = self._tokens.take(TOKEN)
        if early:
            raise Refused(RATE_LIMITED, "too many tokens", retry_after_ms=max(1, int(early * 1000)))

    def token_refused(self) -> None:
        """The one that was spent for last."""
        if self._tokens is not None:
            self._tokens.owe(REFUSED_TOKEN)


def cost_of(refused: Refused) -> float:
    """What an error answer costs."""
    return 0.0 if refused.code in (RATE_LIMITED, UNAVAILABLE) else ERROR
