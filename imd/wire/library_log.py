"""Autobahn's log: one line of a kind a minute, as strangers can cause any number of them."""

from __future__ import annotations

from twisted.logger import Logger, LogLevel

from imd.observe.seldom import Seldom

# The kind of a line is its beginning: addresses and the client's bytes come later in it.
_CAUSE_CHARS = 24
_MAX_CHARS = 500


class LibraryLog:
    """Replaces Autobahn's `log`. Control characters are replaced."""

    def __init__(self, log: Logger) -> None:
        self._seldom = Seldom(log)

    def trace(self, text: str, **fields: object) -> None:
        """Not logged."""

    debug = trace

    def info(self, text: str, **fields: object) -> None:
        self._say(LogLevel.info, text, fields)

    def warn(self, text: str, **fields: object) -> None:
        self._say(LogLevel.warn, text, fields)

    def error(self, text: str, **fields: object) -> None:
        self._say(LogLevel.error, text, fields)

    failure = critical = error

    def _say(self, level: object, text: str, fields: dict[str, object]) -> None:
        try:
            said = text.format(**fields)
        except (LookupError, ValueError):
            # Formatted already, with the client's braces in it.
            said = text
        said = "".join(char if char.isprintable() or char == "\n" else "?" for char in said[:_MAX_CHARS])
        say = {LogLevel.info: self._seldom.info, LogLevel.warn: self._seldom.warn}
        say.get(level, self._seldom.error)("{said}", cause=text[:_CAUSE_CHARS], said=said)
