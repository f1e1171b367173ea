"""Shows the nodes of a cluster: where they are, how many clients they have, which share of the users.

The nodes announce themselves in Redis. The exit code is 1 if there are none, if the table is too new to be
acted upon, or if a row cannot be read.

example:
  imd nodes etc/cluster.ini"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from typing import Any

import msgspec

from imd.command.output import Output
from imd.command.table_reader import NoTable, TableReader, cluster_settings, why_not
from imd.gateway.nodes import Row
from imd.gateway.slots import Slots
from imd.gateway.table import Reading, serving
from imd.protocol.errors import ConfigurationError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="FILE", help="the configuration of a node")


def run(options: Any, output: Output) -> int:
    reader = TableReader(cluster_settings(options.config))
    try:
        found = reader.read()
    except NoTable as problem:
        raise ConfigurationError(str(problem)) from None
    finally:
        reader.close()
    show(found, time.time(), output)
    return int(not found.stands or bool(found.broken))


def show(found: Reading, now: float, output: Output) -> None:
    """`now` is in seconds since the epoch."""
    slots = Counter(Slots(serving(found.rows.values())).first)
    rows = sorted(found.rows.values(), key=lambda row: row.name)
    if output.as_json:
        nodes = [{**msgspec.to_builtins(row), "slots": slots[row.name]} for row in rows]
        output.value(
            {
                "stands": found.stands,
                "ageSeconds": round(found.age_seconds, 3),
                "nodes": nodes,
                "broken": list(found.broken),
            }
        )
        return
    if rows:
        places = ("node", "clients at", "health at")
        headers = (*places, "version", "level", "up for", "connections", "slots", "state")
        output.table(headers, [_cells(row, slots[row.name], now) for row in rows])
    if not found.stands:
        output.line(why_not(found), "yellow")
    for name in found.broken:
        output.line(f"{name}: its row cannot be read", "yellow")


def _cells(row: Row, slots: int, now: float) -> tuple[object, ...]:
    where = row.websocket + (" TLS" if row.tls else "") + (" PROXY" if row.proxy else "")
    up = _duration(now - row.started / 1000)
    state = "draining" if row.draining else "serving" if row.is_routable() else "serving, not for a gateway"
    return row.name, where or "-", row.http or "-", row.version, row.level, up, row.connections, slots, state


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
