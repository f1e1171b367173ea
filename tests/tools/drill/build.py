"""A node's fault, made on purpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tests.tools.drill.seams import Seams


class Build(NamedTuple):
    """A node's fault. `under` names the drill's faults that bring it to light, with commas.

    `finds` is the one kind of violation that it is there for; `also` are kinds that may follow from it.
    """

    wrong: str
    under: str
    finds: str
    also: frozenset[str]
    break_it: Callable[[Seams], None]
