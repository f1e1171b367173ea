"""Log lines about what goes on for long: one for each cause now and then, with how many were left out."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

SECONDS = 60.0
"""between two lines about the same cause"""
MAX_CAUSES = 100
"""that are told apart; past it they share their lines"""
_MAX_CAUSE = 120

_numbers = re.compile(r"\d+")


class Seldom:
    """Belongs to one part of the program, and to one thread.

    A cause is the text of a line, without its numbers, unless the caller names it.
    """

    def __init__(self, log: Logger, seconds: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._seconds = seconds
        self._causes: dict[str, tuple[float, int]] = {}
        """when each was last told of, and how often it was left out since"""

    def warn(self, text: str, cause: str = "", **fields: Any) -> None:
        """`text` is a format, as a Logger takes it, of these fields."""
        self._say(LogLevel.warn, text, cause, fields)

    def error(self, text: str, cause: str = "", **fields: Any) -> None:
        self._say(LogLevel.error, text, cause, fields)

    def info(self, text: str, cause: str = "", **fields: Any) -> None:
        self._say(LogLevel.info, text, cause, fields)

    def failure(self, text: str, failure: Failure, **fields: Any) -> None:
        """With its traceback. The cause is the kind of the exception."""
        left_out = self._turn(f"{text} {failure.type}")
        if left_out is not None:
            self._log.failure(text + _and_more(left_out), failure, left_out=left_out, **fields)

    def _say(self, level: Any, text: str, cause: str, fields: dict[str, Any]) -> None:
        left_out = self._turn(cause or _without_numbers(text.format(**fields)))
        if left_out is not None:
            self._log.emit(level, text + _and_more(left_out), left_out=left_out, **fields)

    def _turn(self, cause: str) -> int | None:
        """How many lines about the cause were left out since the last one; None if this one is to be, too."""
        now = self._seconds()
        if cause not in self._causes and len(self._causes) >= MAX_CAUSES:
            self._forget(now - SECONDS)
            if len(self._causes) >= MAX_CAUSES:
                cause = ""
        told_at, left_out = self._causes.get(cause, (float("-inf"), 0))
        if now - told_at < SECONDS:
            self._causes[cause] = told_at, left_out + 1
            return None
        self._causes[cause] = now, 0
        return left_out

    def _forget(self, before: float) -> None:
        for cause, (told_at, _) in list(self._causes.items()):
            if told_at <= before:
                del self._causes[cause]


def _without_numbers(text: str) -> str:
    return _numbers.sub("#", text)[:_MAX_CAUSE]


def _and_more(left_out: int) -> str:
    return " ({left_out} more since the last such line)" if left_out else ""
