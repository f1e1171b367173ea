"""Writes HAProxy's configuration, and keeps a running HAProxy in step with the nodes.

config writes haproxy.cfg and two maps into a folder. sync runs beside each HAProxy (a unit is in
etc/systemd): it looks at the nodes and at what HAProxy holds, every second, and renews files, maps and
servers. A table of nodes that is empty or new changes nothing: both wait for it, sync without --once for
as long as it takes. The exit code of --once is 1 if anything could not be done.

examples:
  imd gateway config etc/cluster.ini --bind 0.0.0.0:443 --cert /etc/imd/site.pem --out /var/lib/imd/gateway
  imd gateway sync etc/cluster.ini --out /var/lib/imd/gateway"""

from __future__ import annotations

import argparse
import time
from typing import Any, NoReturn

from imd.command.output import Output
from imd.command.table_reader import NoTable, TableReader, cluster_settings, why_not
from imd.gateway.haproxy import Folder, wanted
from imd.gateway.sync import Outcome, Sync, servers_of
from imd.gateway.table import LastTable, serving
from imd.protocol.errors import ConfigurationError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", dest="action", required=True)
    config = actions.add_parser("config", help="write haproxy.cfg and its maps")
    config.add_argument("--bind", required=True, metavar="HOST:PORT", help="where HAProxy listens")
    config.add_argument("--cert", metavar="FILE", help="for TLS: a PEM file with certificates and key")
    sync = actions.add_parser("sync", help="keep a running HAProxy in step")
    sync.add_argument("--once", action="store_true", help="one round; 1 if anything could not be done")
    sync.add_argument("--every", type=float, default=1.0, metavar="SECONDS", help="between two rounds (1)")
    for action in (config, sync):
        action.add_argument("config", metavar="FILE", help="the configuration of a node")
        action.add_argument("--out", required=True, metavar="FOLDER", help="HAProxy's files")
        # Also behind the action; left out there, the one before it counts.
        action.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help="JSON instead of text"
        )


def run(options: Any, output: Output) -> int:
    settings = cluster_settings(options.config)
    folder = Folder(options.out)
    reader = TableReader(settings)
    try:
        if options.action == "config":
            return write(reader, folder, options.bind, options.cert, output)
        if not folder.configuration.exists():
            raise ConfigurationError(f"{folder.configuration}: not there yet; imd gateway config writes it")
        if options.once:
            return once(reader, Sync(folder), output)
        return Keeper(reader, Sync(folder), output).run(max(0.1, options.every))
    finally:
        reader.close()


def write(reader: TableReader, folder: Folder, bind: str, certificate: str | None, output: Output) -> int:
    """Write all files for the nodes that there are."""
    try:
        found = reader.wait_for_table()
    except NoTable as problem:
        raise ConfigurationError(str(problem)) from None
    if not found.stands and folder.configuration.exists():
        raise ConfigurationError(f"{why_not(found)}; the files in {folder.path} stay as they are")
    outcome = Outcome()
    rows = found.rows.values() if found.stands else []
    servers = servers_of(rows, outcome)
    there = {server.name for server in servers}
    try:
        folder.create(bind, certificate, wanted(servers, there.intersection(serving(rows))))
    except OSError as error:
        raise ConfigurationError(f"--out {folder.path}: {error}") from None
    if not found.stands:
        outcome.problems.append(f"{why_not(found)}: HAProxy has no servers until imd gateway sync finds some")
    if output.as_json:
        output.value(
            {"written": str(folder.configuration), "servers": sorted(there), "problems": outcome.problems}
        )
    else:
        output.line(f"{folder.configuration}: {len(there)} servers ({', '.join(sorted(there)) or 'none'})")
        output.line(f"try it: haproxy -c -f {folder.configuration}")
        _tell(Outcome(problems=outcome.problems), output)
    return int(bool(outcome.problems))


def once(reader: TableReader, sync: Sync, output: Output) -> int:
    """One round, when there is a table to act on."""
    try:
        found = reader.wait_for_table()
    except NoTable as problem:
        outcome = Outcome(problems=[str(problem)])
    else:
        if found.stands:
            outcome = sync.round(found.rows.values(), serving(found.rows.values()))
        else:
            outcome = Outcome(problems=[why_not(found)])
    _tell(outcome, output)
    return int(bool(outcome.problems))


class Keeper:
    """Rounds, one after the other. It tells of changes, and of problems when they are others than before."""

    def __init__(self, reader: TableReader, sync: Sync, output: Output) -> None:
        self._reader = reader
        self._sync = sync
        self._output = output
        self._last = LastTable()
        self._problems: list[str] = []

    def run(self, every: float) -> NoReturn:
        """Do rounds until the process ends."""
        while True:
            self.round()
            time.sleep(every)

    def round(self) -> None:
        """The present table, or the last one that could be acted upon."""
        problems = []
        try:
            found = self._reader.read()
        except NoTable as problem:
            problems.append(str(problem))
        else:
            if not self._last.take(found, time.monotonic()):
                # Without its age, which would make the line a new one each second.
                problems.append("no table of nodes to act on yet: it is empty or new")
            problems += [f"{name}: its row in the table cannot be read" for name in found.broken]
        outcome = Outcome(problems=problems)
        if self._last.rows:
            done = self._sync.round(self._last.rows.values(), sorted(self._last.members))
            outcome.changes += done.changes
            outcome.problems += done.problems
        ended = self._problems and not outcome.problems
        new = [problem for problem in outcome.problems if problem not in self._problems]
        self._problems = outcome.problems
        _tell(Outcome(outcome.changes, new), self._output)
        if ended:
            _tell(Outcome(["all is well again"]), self._output)


def _tell(outcome: Outcome, output: Output) -> None:
    if output.as_json:
        if outcome.changes or outcome.problems:
            output.value({"changes": outcome.changes, "problems": outcome.problems})
        return
    for change in outcome.changes:
        output.line(change)
    for problem in outcome.problems:
        output.line(f"problem: {problem}", "yellow")
