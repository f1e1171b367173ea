"""Where a broken build lays its hand on a node: seams that are checked before anything is replaced.

A build whose seam has gone breaks nothing, and would prove nothing: `Gone` says so at once.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

Did = Callable[[], None]
"""notes that the sabotage took place once more"""


class Gone(Exception):
    """A build's target is not there any more, or is called in another way."""


def nothing_noted() -> None:
    """The `Did` of a check, in which nothing takes place."""


class Seams:
    """`replaces` is False for a check: everything is looked up, and nothing replaced."""

    def __init__(self, build: str, did: Did = nothing_noted, *, replaces: bool) -> None:
        self.build = build
        self._did = did
        self._replaces = replaces

    def replace(
        self, owner: Any, name: str, parameters: str, make: Callable[[Callable[..., Any], Did], Any]
    ) -> None:
        """Put what `make` makes of a method in its place. Raises Gone unless it has these parameters."""
        self.expect(owner, name, parameters)
        if self._replaces:
            setattr(owner, name, make(getattr(owner, name), self._did))

    def expect(self, owner: Any, name: str, parameters: str) -> None:
        """Raises Gone unless the owner has a method of this name with these parameters, in this order."""
        where = f"{getattr(owner, '__module__', '')}.{getattr(owner, '__qualname__', owner)}"
        method = vars(owner).get(name)
        if method is None:
            raise Gone(f"{self.build}: {where}.{name} is gone")
        found = ", ".join(inspect.signature(method).parameters)
        if found != parameters:
            raise Gone(f"{self.build}: {where}.{name} takes ({found}), not ({parameters})")

    def rewrite(self, passage: str, other: str) -> None:
        """Put another text in the place of one in Redis' scripts. Raises Gone unless one has it."""
        from imd.store.redis import connection

        load = connection.load_scripts
        if not any(passage in text.decode() for text in load().values()):
            raise Gone(f"{self.build}: no script has {passage!r}")

        def rewritten() -> dict[str, bytes]:
            return {name: text.decode().replace(passage, other).encode() for name, text in load().items()}

        if self._replaces:
            connection.load_scripts = rewritten

    def attributes(self, owner: Any, *names: str) -> None:
        """Raises Gone unless the class has these attributes (fields of structs and slots are such)."""
        for name in names:
            if not hasattr(owner, name):
                raise Gone(f"{self.build}: {owner.__module__}.{owner.__qualname__}.{name} is gone")


def noted_in(path: str) -> Did:
    """One byte more in the file for each time. It holds what was noted before a kill -9."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def did() -> None:
        os.write(file, b".")

    return did


def times_noted(path: Path) -> int:
    """How often the processes that note in this file have done it."""
    return path.stat().st_size if path.exists() else 0
