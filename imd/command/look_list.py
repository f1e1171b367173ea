"""The list of conversations, as the doctor sees it: does it hold all that is archived?"""

from __future__ import annotations

from collections.abc import Iterator

from imd.command.findings import Finding, note, ok, warning
from imd.command.level_words import LevelWords
from imd.config.settings import Settings
from imd.contracts.level import EVENTS
from imd.protocol.errors import ConfigurationError
from imd.store.mongo.level import holds_nothing
from imd.store.mongo.migrate import read_walk

PART = "list"
ADVICE = "imd migrate brings them in, while nodes run. docs/how-to/migrate.md."


def look(settings: Settings, seconds: float) -> Iterator[Finding]:
    try:
        words = LevelWords(settings, seconds)
        try:
            level, walk = words.read().level, words.on_archive(read_walk)
            empty = words.on_archive(holds_nothing)
        finally:
            words.close()
    except ConfigurationError as error:
        # The look at the level has the same stores, and says that it is a problem.
        yield note(PART, f"cannot be told: {error}")
        return
    if level < EVENTS:
        yield note(PART, "the cluster's level has no list of conversations yet")
    elif empty or (walk is not None and walk.complete):
        yield ok(PART, "the list of conversations is complete")
    elif walk is None:
        yield warning(PART, "the list lacks conversations that are older than the cluster's level", ADVICE)
    else:
        what = f"imd migrate was stopped after {walk.done:,} messages: the list lacks older conversations"
        yield warning(PART, what, f"Give it again, it goes on there. {ADVICE}")
