"""Measures, prints, and writes what was asked for: `scripts/bench --help`."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import imd
from tests.support.servers import ServerError
from tests.tools.bench import chart, document, report
from tests.tools.bench.clients import Wrong
from tests.tools.bench.compare import COMPARED, compare
from tests.tools.bench.figures import FIGURES, QUICK_ONES, STANDARD
from tests.tools.bench.machine import description, raise_open_files, stay_on_load_core
from tests.tools.bench.plan import FULL, QUICK, TINY
from tests.tools.bench.rig import ROOT, Rig
from tests.tools.bench.turns import foreign

OPEN_FILES = 65536
DOCUMENT = ROOT / "docs" / "performance.md"


def options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="Measures imd against references in the same run."
    )
    parser.add_argument("--quick", action="store_true", help="about a minute, and noisier")
    parser.add_argument("--tiny", action="store_true", help="a few seconds: whether it runs at all")
    parser.add_argument("--turns", type=int, metavar="N", help="how often each is measured")
    parser.add_argument("--seconds", type=float, metavar="S", help="how long each time")
    parser.add_argument("--tries", type=int, metavar="N", help="repeat a disturbed turn up to N times in all")
    parser.add_argument("--only", metavar="NAME,...", help=", ".join(FIGURES))
    parser.add_argument("--profile", action="store_true", help="where a node's time goes, by stage (py-spy)")
    parser.add_argument(
        "--compare",
        metavar="REF",
        help=f"this version against another, turn by turn; --only of {', '.join(COMPARED)}",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="everything, turn by turn")
    parser.add_argument(
        "--gather", type=Path, nargs="+", metavar="FILE", help="measure nothing: take these files of --json"
    )
    parser.add_argument("--document", action="store_true", help="all of it, into docs/performance.md")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="the chart of docs/performance.md")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="the table of docs/performance.md")
    chosen = parser.parse_args(arguments)
    chosen.names = chosen.only.split(",") if chosen.only else QUICK_ONES if chosen.quick else STANDARD
    if chosen.profile:
        chosen.names = ["profile"]
    elif chosen.document and not chosen.only:
        chosen.names = [*STANDARD, "profile"]
    if chosen.gather:
        chosen.names = []
    known: Sequence[str] = tuple(FIGURES)
    if chosen.compare:
        known = COMPARED
        chosen.names = chosen.only.split(",") if chosen.only else list(COMPARED)
        if chosen.document or chosen.profile or chosen.svg:
            parser.error("--compare goes with neither --document nor --profile nor --svg")
    for name in chosen.names:
        if name not in known:
            parser.error(f"--only: {name} is none of {', '.join(known)}")
    return chosen


def say(text: str) -> None:
    print(text, flush=True)


async def measure(chosen: argparse.Namespace, rig: Rig) -> tuple[list[report.Row], list[str]]:
    """The rows, and the names of the figures that failed."""
    plan = TINY if chosen.tiny else QUICK if chosen.quick else FULL
    asked = {"turns": chosen.turns, "tries": chosen.tries, "seconds": chosen.seconds}
    plan = replace(plan, **{name: value for name, value in asked.items() if value})
    rows: list[report.Row] = []
    failed = []
    for name in chosen.names:
        say(f"== {name}")
        try:
            if chosen.compare:
                rows += await compare(rig, plan, say, chosen.compare, (name,))
            else:
                rows += await FIGURES[name](rig, plan, say)
        except (Wrong, ServerError) as error:
            say(f"FAILED: {error}")
            failed.append(name)
            rig.stop_nodes()
    return rows, failed


def write_document(rows: list[report.Row], complete: bool) -> None:
    """docs/performance.md and its chart; the chart and the table only from all figures together."""
    day = time.strftime("%Y-%m-%d")
    about = f"Measured on {day}: {description()}; imd {imd.__version__}."
    DOCUMENT.write_text(document.update(DOCUMENT.read_text(), rows, about, foreign, complete))
    if complete:
        DOCUMENT.with_suffix(".svg").write_text(chart.svg(rows))


def gather(files: Sequence[Path]) -> tuple[list[report.Row], list[str]]:
    """The rows of earlier runs, and the names of their figures."""
    rows: list[report.Row] = []
    names: list[str] = []
    for file in files:
        found = json.loads(file.read_text())
        rows += report.rows_of(found)
        names += found["names"]
        foreign.extend((node, load) for node, load in found["foreign"])
    return rows, names


def run(chosen: argparse.Namespace) -> tuple[list[report.Row], list[str]]:
    """Measure, with servers and nodes of this run's own; the rows, and the names of what failed."""
    raise_open_files(OPEN_FILES)
    stay_on_load_core()
    # Ended by whatever signal: nothing stays behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    rig = Rig()
    try:
        return asyncio.run(measure(chosen, rig))
    finally:
        rig.end()


def main() -> int:
    chosen = options(sys.argv[1:])
    say(description())
    began = time.monotonic()
    failed: list[str] = []
    try:
        if chosen.gather:
            rows, chosen.names = gather(chosen.gather)
        else:
            rows, failed = run(chosen)
    except KeyboardInterrupt:
        return 130
    say(f"\n{report.text(rows)}\n\n{time.monotonic() - began:.0f} s")
    if chosen.json:
        about = {"machine": description(), "day": time.strftime("%Y-%m-%d"), "quick": chosen.quick}
        about |= {"names": [name for name in chosen.names if name not in failed], "foreign": foreign}
        if chosen.compare:
            about["reference"] = chosen.compare
        chosen.json.write_text(json.dumps(report.document(rows, **about), indent=1) + "\n")
    if chosen.markdown:
        chosen.markdown.write_text(report.markdown(rows))
    if chosen.document:
        write_document(rows, set(STANDARD) <= set(chosen.names) and not failed)
    if chosen.svg:
        chosen.svg.write_text(chart.svg(rows))
    if failed:
        say(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
