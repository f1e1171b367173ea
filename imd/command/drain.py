"""Drains a running node: new clients go to other nodes, and its own are told to.

The node stays up, empty and draining, until it is stopped, restarted, or --undo. The command returns when
the node has said so in the table of nodes; its clients leave in the seconds after that (imd nodes counts
them).

example:
  imd drain etc/cluster.ini east"""

from __future__ import annotations

import argparse
import time
from typing import Any

from imd.command.output import Output
from imd.command.table_reader import LOOK_SECONDS, NoTable, TableReader, cluster_settings
from imd.gateway.table import wish
from imd.protocol.errors import ConfigurationError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="FILE", help="the configuration of a node")
    parser.add_argument("node", metavar="NODE", help="its name")
    parser.add_argument("--undo", action="store_true", help="let it serve again")
    parser.add_argument("--seconds", type=float, default=15.0, help="until the node must have heard it (15)")


def run(options: Any, output: Output) -> int:
    reader = TableReader(cluster_settings(options.config))
    try:
        return drain(reader, options.node, not options.undo, options.seconds, output)
    except NoTable as problem:
        raise ConfigurationError(str(problem)) from None
    finally:
        reader.close()


def drain(reader: TableReader, name: str, draining: bool, seconds: float, output: Output) -> int:
    """0 when the node's row says so; 1 if it still does not after `seconds`."""
    if reader.run(wish(name, "drain" if draining else "undo")) is None:
        known = ", ".join(sorted(reader.read().rows)) or "none"
        raise ConfigurationError(f"{name}: no such node runs; those that do: {known}")
    end = time.monotonic() + seconds
    while True:
        row = reader.read().rows.get(name)
        done = row is not None and row.draining == draining
        if done or time.monotonic() > end:
            break
        time.sleep(LOOK_SECONDS)
    state = "draining" if draining else "serving"
    if output.as_json:
        output.value({"node": name, "state": state, "done": done})
    elif done:
        output.line(f"{name} is {state}")
    else:
        output.line(f"{name} has not said within {seconds:g} s that it is {state}", "yellow")
    return int(not done)
