"""The door for new visitors: how many may come from one address, and under which names."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Callable

from prometheus_client import Counter
from twisted.logger import Logger

from imd.entry.auth import new_visitor
from imd.entry.ratelimit import TokenBucket
from imd.observe.seldom import Seldom
from imd.protocol.errors import CLOSE_OVERLOADED, RATE_LIMITED, Closing, Refused

REFUSED = Counter("imd_visitors_refused_total", "New visitors refused: too many came from their address.")

MAX_ADDRESSES = 50_000
"""that are counted; beyond it, the one unused for longest is forgotten"""
HOUR_SECONDS = 3600
_HOST_BITS = 64
"""an IPv6 network of this size belongs to one customer, who may use any address in it"""


class Newcomers:
    """Admits new visitors. `seconds` is a monotonic clock; `per_hour` 0 means no limit.

    `choose` gets a function that draws an id, and returns an id that it drew.
    """

    log = Logger()

    def __init__(
        self, per_hour: int, seconds: Callable[[], float], choose: Callable[[Callable[[], str]], str]
    ) -> None:
        self._per_hour = per_hour
        self._seconds = seconds
        self._choose = choose
        self._seldom = Seldom(self.log, seconds)
        self._buckets: dict[str, TokenBucket] = {}
        """address → its bucket; the one unused for longest comes first"""

    def welcome(self, address: str) -> tuple[str, str, str]:
        """A new visitor's id, its token, and the token's hash.

        `address` is the client's; empty: it is not known, and nothing is counted. Raises Closing (4100) if
        too many have come from there.
        """
        if self._per_hour and address:
            early = self._bucket(_counted(address)).take(1.0)
            if early:
                raise self._too_many(address, early)
        return new_visitor(self._choose)

    def give_back(self, address: str) -> None:
        """A visitor that was welcome could not come in, for no fault of its own."""
        if self._per_hour and address:
            self._bucket(_counted(address)).owe(-1.0)

    def _bucket(self, counted: str) -> TokenBucket:
        buckets = self._buckets
        bucket = buckets.pop(counted, None)
        if bucket is None:
            bucket = TokenBucket(self._per_hour / HOUR_SECONDS, self._per_hour, self._seconds)
            if len(buckets) >= MAX_ADDRESSES:
                del buckets[next(iter(buckets))]
        buckets[counted] = bucket
        return bucket

    def _too_many(self, address: str, early: float) -> Closing:
        REFUSED.inc()
        why = f"too many new visitors from this address: {self._per_hour} an hour"
        self._seldom.warn(
            "a new visitor from {address} was refused: [limits] visitors_per_address is {per_hour} an hour",
            cause="refused",
            address=address,
            per_hour=self._per_hour,
        )
        return Closing(
            CLOSE_OVERLOADED, why, Refused(RATE_LIMITED, why, retry_after_ms=math.ceil(early * 1000))
        )


def _counted(address: str) -> str:
    """The address that is counted: an IPv6 address stands for its network."""
    if ":" not in address:
        return address
    try:
        return str(ipaddress.ip_network((address.partition("%")[0], _HOST_BITS), strict=False))
    except ValueError:
        return address
