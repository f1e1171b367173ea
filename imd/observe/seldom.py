"""Log lines about lasting trouble: at most one a minute for each cause, with the number left out."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

SECONDS = 60.0
"""between two lines of one cause"""
MAX_CAUSES = 100
"""that have lines of their own; further ones share one"""
_MAX_CAUSE = 120

_numbers = re.compile(r"\d+")


class Seldom:
    """A log that repeats itself seldom. Each object is used by one thread.

    A line's cause is its text without the numbers, unless the caller names it.
    """

    def __init__(self, log: Logger, seconds: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._seconds = seconds
        self._causes: dict[str, tuple[float, int]] = {}
        """cause → when its last line was written, and how many were left out since"""

    def warn(self, text: str, cause: str = "", **fields: Any) -> None:
        """`text` is a format for these fields, as for a Logger."""
        self._say(LogLevel.warn, text, cause, fields)

    def error(self, text: str, cause: str = "", **fields: Any) -> None:
        self._say(LogLevel.error, text, cause, fields)

    def info(self, text: str, cause: str = "", **fields: Any) -> None:
        self._say(LogLevel.info, text, cause, fields)

    def failure(self, text: str, failure: Failure, **fields: Any) -> None:
        """Log a failure with its traceback. The cause is the text and the exception's type."""
        left_out = self._turn(f"{text} {failure.type}")
        if left_out is not None:
            self._log.failure(text + _and_more(left_out), failure, left_out=left_out, **fields)

    def _say(self, level: Any, text: str, cause: str, fields: dict[str, Any]) -> None:
        left_out = self._turn(cause or _without_numbers(text.format(**fields)))
        if left_out is not None:
            self._log.emit(level, text + _and_more(left_out), left_out=left_out, **fields)

    def _turn(self, cause: str) -> int | None:
        """The number of lines of the cause left out since its last; None if this one is left out, too."""
        now = self._seconds()
        if cause not in self._causes and len(self._causes) >= MAX_CAUSES:
            self._forget(now - SECONDS)
            if len(self._causes) >= MAX_CAUSES:
                cause = ""
        logged_at, left_out = self._causes.get(cause, (float("-inf"), 0))
        if now - logged_at < SECONDS:
            self._causes[cause] = logged_at, left_out + 1
            return None
        self._causes[cause] = now, 0
        return left_out

    def _forget(self, before: float) -> None:
        for cause, (logged_at, _) in list(self._causes.items()):
            if logged_at <= before:
                del self._causes[cause]


def _without_numbers(text: str) -> str:
    return _numbers.sub("#", text)[:_MAX_CAUSE]


def _and_more(left_out: int) -> str:
    return " ({left_out} more since the last such line)" if left_out else ""
