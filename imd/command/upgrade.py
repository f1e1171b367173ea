"""Shows the level of a cluster, raises it when the last old node is gone, or lowers it again.

Beside nodes of 0.1 a node of this version does as they do. --finish ends that: it is refused while one of
them runs, and afterwards none of them gets ready. --undo is possible while no room was made, and nothing was
edited, recalled or reacted to. Both close the connections of all clients, which come back at once. A command
that was interrupted can be given again.

examples:
  imd upgrade etc/cluster.ini
  imd upgrade etc/cluster.ini --finish"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

from pika.exceptions import AMQPError

from imd.command.findings import say
from imd.command.judge import version_of
from imd.command.level_words import LevelWords
from imd.command.old_exchange import InUse, OldExchangeControl
from imd.command.output import Output
from imd.command.rabbit_client import cause, connect, length
from imd.command.table_reader import LOOK_SECONDS, NoTable, TableReader
from imd.config.settings import Settings, load
from imd.contracts.level import FIRST, NEWEST
from imd.protocol.errors import ConfigurationError
from imd.store.rabbit.archive_queue import ARCHIVE_QUEUE

LEAST_VERSION = (0, 2)
"""of nodes that know levels"""
ANSWER_SECONDS = 5.0
"""a server's deadline"""
QUIET_SECONDS = 7.0
"""the archive queue counts as empty after so long; consumers tell every three seconds what they hold"""


class Refused(Exception):
    """The level stays as it is; the text says why."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="FILE", help="the configuration of a node")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--finish", action="store_true", help="raise the level: no old node comes back")
    which.add_argument("--undo", action="store_true", help="lower it again, while nothing new was written")
    parser.add_argument("--seconds", type=float, default=30.0, help="until all nodes must have heard it (30)")


def run(options: Any, output: Output) -> int:
    settings = load(options.config)
    if settings.node.backend != "cluster":
        output.line("one node with a file of its own: it has the newest level, and needs no upgrade")
        if output.as_json:
            output.value({"level": NEWEST, "done": True})
        return 0
    upgrade = Upgrade(settings, options.seconds, output)
    try:
        if options.finish:
            return upgrade.finish()
        return upgrade.undo() if options.undo else upgrade.show()
    except Refused as refused:
        output.problem(str(refused))
        return 1
    except NoTable as problem:
        raise ConfigurationError(str(problem)) from None
    except (AMQPError, OSError) as error:
        raise ConfigurationError(f"rabbitmq: {say(cause(error))}") from None
    finally:
        upgrade.close()


class Upgrade:
    """One run of the command. Its methods return exit codes."""

    def __init__(self, settings: Settings, seconds: float, output: Output) -> None:
        self._settings = settings
        self._seconds = seconds
        self._output = output
        self._table = TableReader(settings, ANSWER_SECONDS)
        self._words = LevelWords(settings, ANSWER_SECONDS)
        self._exchange = OldExchangeControl(settings.rabbitmq.url, ANSWER_SECONDS)

    def close(self) -> None:
        self._table.close()
        self._words.close()
        self._exchange.disconnect()

    def show(self) -> int:
        """0 if the cluster has the newest level, else 1."""
        words, rows = self._words.read(), self._table.read().rows
        done = words.redis == words.mongodb == NEWEST
        nodes = {name: (row.version, row.level) for name, row in sorted(rows.items())}
        if self._output.as_json:
            self._output.value(
                {
                    "level": words.level,
                    "redis": words.redis,
                    "mongodb": words.mongodb,
                    "newest": NEWEST,
                    "done": done,
                    "nodes": {name: {"version": v, "level": level} for name, (v, level) in nodes.items()},
                }
            )
            return int(not done)
        self._output.line(f"level {words.level or 'unknown'} ({words}); this version knows {NEWEST}")
        for name, (version, level) in nodes.items():
            self._output.line(f"  {name}: version {version}, at level {level}")
        if not done:
            self._output.line("raise it by --finish when the last node of an older version is gone", "yellow")
        return int(not done)

    def finish(self) -> int:
        words = self._words.read()
        if words.level > NEWEST:
            raise Refused(f"the cluster has level {words.level}, and this version knows {NEWEST}")
        self._refuse_old_rows()
        # Before the level: with either step missing no node of 0.1 is beside one that writes what is new.
        try:
            self._exchange.close()
        except InUse:
            what = "a node of 0.1 is connected to RabbitMQ"
            raise Refused(f"{what}. Stop it; if it has crashed, its queue is gone within a minute") from None
        self._words.write(NEWEST)
        return self._tell(NEWEST, self._late_nodes(NEWEST))

    def undo(self) -> int:
        words = self._words.read()
        if words.level > NEWEST:
            raise Refused(f"the cluster has level {words.level}, and this version knows {NEWEST}")
        self._refuse_events()
        self._words.write(FIRST)
        try:
            if late := self._late_nodes(FIRST):
                raise Refused(f"not heard of the lower level: {', '.join(late)}; the level stays")
            self._wait_for_archive()
            self._refuse_events()
        except BaseException:
            # Events may have been written until the last node had heard it.
            self._words.write(NEWEST)
            raise
        self._exchange.open()
        return self._tell(FIRST, [])

    # from within

    def _refuse_old_rows(self) -> None:
        found = self._table.read()
        if found.rows:
            found = self._table.wait_for_table()
        old = [f"{row.name} ({row.version})" for row in found.rows.values() if _is_old(row.version)]
        if old:
            raise Refused(f"nodes of an older version run: {', '.join(sorted(old))}")
        if found.broken:
            raise Refused(f"rows of the table of nodes cannot be read: {', '.join(found.broken)}")

    def _refuse_events(self) -> None:
        if self._words.holds_events():
            what = "rooms or events were written, which older nodes would misread"
            raise Refused(f"{what}: a backup is the way back")

    def _late_nodes(self, level: int) -> list[str]:
        """The nodes in the table that still work at another level after `seconds`."""
        late: list[str] = []

        def all_heard() -> bool:
            rows = self._table.read().rows.values()
            late[:] = sorted(row.name for row in rows if row.level != level)
            return not late

        _within(self._seconds, all_heard)
        return late

    def _tell(self, level: int, late: list[str]) -> int:
        """0 if no node is late, else 1."""
        if self._output.as_json:
            self._output.value({"level": level, "done": not late, "late": late})
        elif late:
            names = ", ".join(late)
            self._output.line(f"the cluster's level is {level}; not heard of it: {names}", "yellow")
        else:
            self._output.line(f"the cluster's level is {level}")
        return int(bool(late))

    def _wait_for_archive(self) -> None:
        """Return when all that was accepted so far is in MongoDB, where events show."""
        quiet_since: list[float] = []
        connection = connect(self._settings.rabbitmq.url, ANSWER_SECONDS)

        def quiet() -> bool:
            waiting = length(connection, ARCHIVE_QUEUE)
            if (waiting is not None and waiting[0]) or self._words.count_held():
                quiet_since.clear()
                return False
            quiet_since.append(time.monotonic())
            return quiet_since[-1] - quiet_since[0] >= QUIET_SECONDS

        try:
            if not _within(self._seconds + QUIET_SECONDS, quiet):
                raise Refused(f"the archive is behind: {ARCHIVE_QUEUE} is not empty; the level stays")
        finally:
            connection.close()


def _is_old(version: str) -> bool:
    return version_of(version)[: len(LEAST_VERSION)] < LEAST_VERSION


def _within(seconds: float, condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while not (done := condition()) and time.monotonic() < end:
        time.sleep(LOOK_SECONDS)
    return done
