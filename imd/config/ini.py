"""The syntax of configuration files: from text to entries with line numbers, which errors name.

It is the syntax of `configparser` without interpolation and without a default section. The meaning of values
is in imd.config.settings.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from imd.protocol.errors import ConfigurationError

MAX_BYTES = 1 << 20
"""of a configuration file, or of a file that a value names"""

_INLINE_COMMENT = re.compile(r"(?:^|\s);")
_SECTION = re.compile(r"\[\s*([\w.-]{1,80})\s*\]")
_DELIMITER = re.compile(r"[=:]")


class Entry(NamedTuple):
    """One `key = value` of the file. The lines of a value are joined by line feeds."""

    section: str
    key: str
    text: str
    line: int


class Ini:
    """A parsed configuration file. `entries` are in the file's order, each key once."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.sections: dict[str, int] = {}
        """section → the line it begins at"""
        self.entries: dict[tuple[str, str], Entry] = {}
        self._parse(text)

    def error(self, line: int | None, what: str) -> ConfigurationError:
        """An error about a line of this file, or about the file if `line` is None."""
        return ConfigurationError(f"{self.path}:{line}: {what}" if line else f"{self.path}: {what}")

    def wrong(self, section: str, key: str, found: str | None, expected: str) -> ConfigurationError:
        """An error about a value. `found` is None if it may be a secret."""
        entry = self.entries.get((section, key))
        found = "a value that is not shown here" if found is None else shorten(found)
        line = entry.line if entry else None
        return self.error(line, f"[{section}] {key}: found {found}, expected {expected}")

    def resolve(self, entry: Entry) -> str:
        """The value of an entry: the text itself, or what `env:NAME` or `file:PATH` refer to.

        A relative PATH begins at the configuration file's folder. A reference in a value found this way is
        text.
        """
        if entry.text.startswith("env:"):
            value = os.environ.get(entry.text.removeprefix("env:"))
            if value is None:
                raise self.wrong(entry.section, entry.key, entry.text, "an environment variable that is set")
            return value
        if entry.text.startswith("file:"):
            path = Path(self.path).parent / entry.text.removeprefix("file:")
            try:
                return read_text(path).strip()
            except (OSError, ValueError) as error:
                expected = f"a file that can be read ({reason(error)})"
                raise self.wrong(entry.section, entry.key, entry.text, expected) from None
        return entry.text

    def _parse(self, text: str) -> None:
        section: str | None = None
        last: tuple[str, str] | None = None
        indent = 0
        for number, line in enumerate(text.split("\n"), start=1):
            if line.lstrip().startswith(("#", ";")):
                continue
            comment = _INLINE_COMMENT.search(line)
            content = (line[: comment.start()] if comment else line).rstrip()
            if not content:
                continue
            depth = len(content) - len(content.lstrip())
            content = content.lstrip()
            if last is not None and depth > indent:
                self._continue(last, content)
                continue
            indent = depth
            if content.startswith("["):
                section, last = self._begin_section(content, number), None
            else:
                last = self._add(section, content, number)

    def _begin_section(self, content: str, line: int) -> str:
        match = _SECTION.fullmatch(content)
        if match is None:
            raise self.error(line, "expected [section], its name of letters, alone on the line")
        section = match[1]
        if section in self.sections:
            raise self.error(line, f"[{section}] is there twice, first in line {self.sections[section]}")
        self.sections[section] = line
        return section

    def _add(self, section: str | None, content: str, line: int) -> tuple[str, str]:
        # No error repeats the line, which may be a piece of a secret.
        key, *value = _DELIMITER.split(content, maxsplit=1)
        key = key.strip().lower()
        if not key or not value:
            raise self.error(
                line, f"{f'[{section}] ' if section else ''}expected key = value, [section] or a comment"
            )
        if section is None:
            raise self.error(line, f"{name(key)} is outside any section: expected a [section] before it")
        first = self.entries.get((section, key))
        if first is not None:
            raise self.error(
                line, f"[{section}] {name(key)} is there twice, first in line {first.line}: expected it once"
            )
        self.entries[section, key] = Entry(section, key, value[0].strip(), line)
        return section, key

    def _continue(self, name: tuple[str, str], content: str) -> None:
        entry = self.entries[name]
        self.entries[name] = entry._replace(text=f"{entry.text}\n{content}")


def read(path: str) -> Ini:
    """Read and parse a configuration file. Raises ConfigurationError."""
    try:
        text = read_text(Path(path))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: cannot be read: {reason(error)}") from None
    return Ini(path, text)


def read_text(path: Path) -> str:
    """Read a file of UTF-8 text of at most MAX_BYTES. Raises OSError or ValueError."""
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES} bytes")
    return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")


def reason(error: Exception) -> str:
    """The reason why a file could not be read, in few words, and with nothing of its content."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    return str(error)


def name(key: str) -> str:
    """A key as an error may show it: anything else may be a piece of a secret of several lines."""
    return key if re.fullmatch(r"[a-z0-9_.-]{1,32}", key) else "what stands here"


def shorten(text: str) -> str:
    """A text of the file as an error may show it: on one line, and not too long."""
    if not text:
        return "nothing"
    return repr(text if len(text) <= 80 else f"{text[:77]}...")
