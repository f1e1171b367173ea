"""Brings an archive that is older than the list of conversations into that list.

Nodes may run beside it. It goes on where an earlier run was stopped, and does nothing when all is done. A
cluster whose level is not the newest is refused: `imd upgrade --finish` comes first. The exit code is 0 when
all is done, 1 when it was refused, 2 when a server did not answer: give the command again.

examples:
  imd migrate etc/cluster.ini
  imd migrate etc/cluster.ini --rate 5000"""

from __future__ import annotations

import argparse
import time
from typing import Any

from imd.command.level_words import LevelWords
from imd.command.output import Output
from imd.config.settings import load
from imd.contracts.level import EVENTS
from imd.store.mongo.migrate import Walk, begin_walk, step

SLICE = 10_000
"""messages that are read together"""
SLOW_SECONDS = 1.0
"""after a slice that took longer, MongoDB has as long for others"""
TELL_SECONDS = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="FILE", help="the configuration of a node")
    parser.add_argument("--rate", type=_rate, default=20_000, help="messages a second, at most (20000)")


def _rate(text: str) -> int:
    rate = int(text)
    if rate < 1:
        raise argparse.ArgumentTypeError("a number above 0 is expected")
    return rate


def run(options: Any, output: Output) -> int:
    settings = load(options.config)
    if settings.node.backend != "cluster":
        output.line("one node with a file of its own: its list of conversations is complete")
        if output.as_json:
            output.value({"done": 0, "complete": True})
        return 0
    words = LevelWords(settings, 30.0)
    try:
        level = words.read().level
        if level < EVENTS:
            output.problem(
                f"the cluster's level is {level or 'unknown'}: nodes of older versions may still archive "
                "messages past the list; imd upgrade --finish comes first"
            )
            return 1
        walk = words.on_archive(begin_walk)
        return _walk(words, walk, options.rate, output)
    finally:
        words.close()


def _walk(words: LevelWords, walk: Walk, rate: int, output: Output) -> int:
    if not walk.complete and walk.after:
        output.line(f"{walk.done:,} messages were done before; going on")
    whole = words.on_archive(count)
    before = walk.done
    began_at = told_at = time.monotonic()
    while not walk.complete:
        slice_at = time.monotonic()
        done = walk.done
        walk = words.on_archive(step, walk, min(SLICE, rate))
        now = time.monotonic()
        if not walk.complete:
            pause = (walk.done - done) / rate - (now - slice_at)
            time.sleep(max(pause, now - slice_at if now - slice_at > SLOW_SECONDS else 0.0))
        if now - told_at >= TELL_SECONDS:
            told_at = now
            speed = (walk.done - before) / (now - began_at)
            left = max(0, whole - walk.done) / speed
            output.line(f"{walk.done:,} of about {whole:,} messages, some {left:,.0f} s to go")
    if output.as_json:
        output.value({"done": walk.done, "foreign": walk.foreign, "complete": True})
    output.line(f"the list of conversations is complete: {walk.done:,} messages were looked at", "green")
    if walk.foreign:
        output.line(
            f"{walk.foreign:,} documents are not as nodes write them; they were passed over", "yellow"
        )
    return 0


def count(archive: Any) -> int:
    """Messages and foreign documents, about."""
    return int(archive.estimated_document_count())
