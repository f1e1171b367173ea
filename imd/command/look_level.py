"""The cluster's level, as the doctor sees it: do both stores and all nodes agree on it?"""

from __future__ import annotations

from collections.abc import Iterator

from imd.command.findings import Finding, note, ok, problem, warning
from imd.command.level_words import LevelWords, Words
from imd.command.table_reader import NoTable, TableReader
from imd.config.settings import Settings
from imd.contracts.level import NEWEST
from imd.gateway.nodes import Row
from imd.protocol.errors import ConfigurationError

PART = "level"
FINISH = "imd upgrade --finish, when the last node of an older version is gone. docs/how-to/upgrade.md."


def look(settings: Settings, seconds: float) -> Iterator[Finding]:
    try:
        stores = LevelWords(settings, seconds)
        try:
            words = stores.read()
        finally:
            stores.close()
        table = TableReader(settings, seconds)
        try:
            rows = sorted(table.read().rows.values(), key=lambda row: row.name)
        finally:
            table.close()
    except (ConfigurationError, NoTable) as error:
        yield problem(PART, f"cannot be told: {error}")
        return
    yield from _words(words)
    yield from _nodes(words, rows)


def _words(words: Words) -> Iterator[Finding]:
    if not words.level:
        yield note(PART, "no node has begun yet that knows levels")
    elif words.level > NEWEST:
        what = f"the cluster's level is {words.level}; this version knows {NEWEST}"
        yield problem(PART, what, "Install a newer one.")
    elif words.redis != words.mongodb:
        advice = "The higher one counts. Give imd upgrade --finish or --undo again: one was interrupted."
        yield warning(PART, f"the stores differ: {words}", advice)
    elif words.level < NEWEST:
        yield note(PART, f"the cluster's level is {words.level}: new features are off", FINISH)
    else:
        yield ok(PART, f"the cluster's level is {words.level}, the newest")


def _nodes(words: Words, rows: list[Row]) -> Iterator[Finding]:
    versions: dict[str, list[str]] = {}
    for row in rows:
        versions.setdefault(row.version, []).append(row.name)
    if len(versions) > 1:
        said = "; ".join(f"{version}: {', '.join(names)}" for version, names in sorted(versions.items()))
        yield note(PART, f"nodes of several versions run ({said})", "Replace the older ones.")
    late = [row.name for row in rows if words.level and row.level != words.level]
    if late:
        advice = "They look once a second. Can they read Redis and MongoDB? Do they serve another cluster?"
        yield warning(PART, f"nodes that work at another level: {', '.join(late)}", advice)
