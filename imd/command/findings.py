"""Findings: the parts that were looked at, how they are, and what can be done."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding. `what` and `advice` are sentences for people."""

    level: Level
    part: str
    what: str
    advice: str = ""


def ok(part: str, what: str) -> Finding:
    return Finding(Level.OK, part, what)


def note(part: str, what: str, advice: str = "") -> Finding:
    return Finding(Level.NOTE, part, what, advice)


def warning(part: str, what: str, advice: str = "") -> Finding:
    return Finding(Level.WARNING, part, what, advice)


def problem(part: str, what: str, advice: str = "") -> Finding:
    return Finding(Level.PROBLEM, part, what, advice)


def say(error: BaseException) -> str:
    """An error in one short line."""
    text = str(error).partition("\n")[0]
    return (f"{type(error).__name__}: {text}" if text else type(error).__name__)[:200]
