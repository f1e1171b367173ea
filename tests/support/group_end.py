"""The end of a group of tests: nodes and servers that only the group shares end with it.

A node that nobody uses costs processor time all the same, and its servers, too. `scripts/lib/trial.py` runs
`GroupEnd` in a process after each group of tests; without it everything ends with the process.
"""

from __future__ import annotations

import atexit
import contextlib
from collections.abc import Callable
from functools import cache
from typing import TypeVar

from twisted.trial import unittest

Function = TypeVar("Function", bound=Callable[..., object])

_ends = contextlib.ExitStack()


def at_group_end(function: Callable[..., object], *arguments: object, **options: object) -> None:
    """Call it at the end of the group, or of the process; what was given last is called first."""
    _ends.callback(function, *arguments, **options)


def group_cache(function: Function) -> Function:
    """As functools.cache; the values are forgotten at the end of the group."""
    cached = cache(function)

    def called(*arguments: object) -> object:
        if not cached.cache_info().currsize:
            at_group_end(cached.cache_clear)
        return cached(*arguments)

    return called  # type: ignore[return-value]


def end_group() -> None:
    """Raises the last error of what was to be called, when all was."""
    _ends.close()


atexit.register(end_group)


class GroupEnd(unittest.SynchronousTestCase):
    """Run as a test where the group was run, and counted as none."""

    def test_end(self) -> None:
        end_group()
