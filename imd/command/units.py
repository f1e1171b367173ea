"""The systemd units of nodes that are installed on this machine: how long systemd lets a node stop."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

FOLDER = Path("/etc/systemd/system")
DEFAULT_SECONDS = 90.0
"""systemd's own, for a unit that does not say"""

_NODE = re.compile(r"imd(@.*)?\.service(\.d/.*\.conf)?")
_LINE = re.compile(r"(?m)^\s*Timeout(?:Stop)?Sec\s*=\s*(.*?)\s*$")
_SPAN = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)")
_UNITS = {"": 1.0, "s": 1.0, "sec": 1.0, "ms": 0.001, "m": 60.0, "min": 60.0, "h": 3600.0, "hr": 3600.0}


class Unit(NamedTuple):
    """`file` is the one that sets the time; `stop_seconds` is infinite where systemd waits for ever."""

    file: Path
    stop_seconds: float


def node_units(folder: Path = FOLDER) -> Iterator[Unit]:
    """Units of nodes, and drop-ins that set the time for one."""
    for file in sorted([*folder.glob("imd*.service"), *folder.glob("imd*.service.d/*.conf")]):
        name = str(file.relative_to(folder))
        if not _NODE.fullmatch(name):
            continue
        try:
            found = _LINE.findall(file.read_text(errors="replace"))
        except OSError:
            continue
        if found or name.endswith(".service"):
            yield Unit(file, parse_span(found[-1]) if found else DEFAULT_SECONDS)


def parse_span(text: str) -> float:
    """A time span of systemd's, such as `1min 30s` or `infinity`, in seconds; the default for nonsense."""
    if text == "infinity" or text == "0":
        return math.inf
    parts = _SPAN.findall(text)
    if not parts or any(unit not in _UNITS for _, unit in parts):
        return DEFAULT_SECONDS
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
