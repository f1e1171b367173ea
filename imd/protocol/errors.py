"""Error codes and close codes of the wire protocol, and what each means for a client."""

from __future__ import annotations

BAD_FRAME = "bad_frame"
INVALID_MESSAGE = "invalid_message"
UNKNOWN_TYPE = "unknown_type"
FORBIDDEN = "forbidden"
NOT_FOUND = "not_found"
CONFLICT = "conflict"
TOO_LARGE = "too_large"
RATE_LIMITED = "rate_limited"
UNAVAILABLE = "unavailable"

ERROR_CODES = (
    BAD_FRAME,
    INVALID_MESSAGE,
    UNKNOWN_TYPE,
    FORBIDDEN,
    NOT_FOUND,
    CONFLICT,
    TOO_LARGE,
    RATE_LIMITED,
    UNAVAILABLE,
)

# 4000-4099: a client does not come back as it is. 4100-4199: it backs off. 4200-4299: it comes back at once.
CLOSE_BAD_FRAMES = 4000
CLOSE_UNAUTHORIZED = 4001
CLOSE_NO_CONNECT = 4002
CLOSE_REPLACED = 4003
CLOSE_ENDED = 4004
CLOSE_OVERLOADED = 4100
CLOSE_PING_TIMEOUT = 4101
CLOSE_LEAVING = 4200


class Refused(Exception):
    """One frame is answered with an `error` frame; the connection stays open.

    `code` is one of ERROR_CODES. `reason` is for people. `retry_after_ms` says when the same frame may be
    sent again; only temporary refusals have one.
    """

    def __init__(self, code: str, reason: str, *, retry_after_ms: int | None = None) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason
        self.retry_after_ms = retry_after_ms

    @property
    def temporary(self) -> bool:
        return self.code in (UNAVAILABLE, RATE_LIMITED)


def unavailable(reason: str) -> Refused:
    """The refusal of a frame that may be sent again in a second."""
    return Refused(UNAVAILABLE, reason, retry_after_ms=1000)


class Closing(Exception):
    """The connection is closed with `code` (one of CLOSE_*) and `reason`, after `refused` if given."""

    def __init__(self, code: int, reason: str, refused: Refused | None = None) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason
        self.refused = refused


class Unavailable(Exception):
    """A backend is down, was too slow, or refused a call. The text says which backend, and why.

    The text is for the log: it may hold an address, or the words of a driver.
    It is not known whether the call was done; the caller may repeat it.
    """


class ConfigurationError(Exception):
    """The configuration cannot be used. The text names the file, section and key, and what was expected."""
