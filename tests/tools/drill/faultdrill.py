"""`scripts/drill faults`: the options, the parts, the exit code."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import logging
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.support.servers import ServerError
from tests.tools.drill.broken import BUILDS, check
from tests.tools.drill.builds import verdict
from tests.tools.drill.cluster import ROUTINGS, Backends, have_faketime
from tests.tools.drill.drill import LOSING, Outcome, Plan, run
from tests.tools.drill.faults import FAULTS
from tests.tools.drill.report import as_json, as_text
from tests.tools.drill.seams import Gone

_PART_SECONDS = 600.0
# Nodes follow the table within a second or so, and a home that has moved does not answer for one.
HINT_SECONDS = {"search": 1.0, "gateway": 3.0, "mixed": 3.0}


def parts_of(wanted: str, usable: Sequence[str]) -> list[tuple[str, list[str], bool]]:
    """Name, faults and whether they are mixed, for each part. Raises ValueError for an unknown fault."""
    mixed = ("mixed", [name for name in usable if name not in LOSING], True)
    losing = ("mixed-loss", list(usable), True)
    if wanted == "mixed":
        return [mixed]
    if wanted == "mixed-loss":
        return [losing]
    if wanted == "all":
        return [*((name, [name], False) for name in usable), mixed, losing]
    names = [name for name in wanted.split(",") if name and name != "none"]
    for name in names:
        if name not in usable:
            raise ValueError(f"{name}: no such fault, or it cannot be done here")
    return [(wanted, names, False)]


def main(argv: Sequence[str]) -> int:
    """Run the drill; 0 when nothing was violated, 1 when something was, 2 when it could not be run.

    A broken build that is not found out as it should be counts as a drill that could not be run.
    """
    options = _parser().parse_args(argv)
    if options.list:
        print(_listed())
        return 0
    usable = _usable(options.routing)
    if options.build:
        options.faults = options.faults or BUILDS[options.build].under
    try:
        if options.build:
            check(options.build)
        parts = parts_of(options.faults or "mixed", usable)
    except (Gone, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    options.seed = options.seed or str(random.randrange(10**6))
    plans = _plans(options, parts)

    def say(text: str) -> None:
        print(text, file=sys.stderr if options.json else sys.stdout, flush=True)

    say(f"seed {options.seed}; {len(usable)} of {len(FAULTS)} faults can be done here")
    # It tells of sockets that were written to while they broke, which is what this is about.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(options.folder or tempfile.mkdtemp(prefix="imd-drill-")).resolve()
    if folder.exists() and any(folder.iterdir()):
        print(f"{folder} is not empty", file=sys.stderr)
        return 2
    try:
        outcomes = _run_parts(plans, folder, options.redis, say)
    except (ServerError, TimeoutError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    if options.json:
        print(json.dumps([as_json(outcome) for outcome in outcomes], indent=1))
    return _conclude(options, outcomes, say)


def _usable(routing: str) -> list[str]:
    """The faults that can be done here."""
    clock, gateway = have_faketime(), routing != "search"
    return [
        name
        for name, fault in FAULTS.items()
        if (clock or not fault.needs_clock) and (gateway or not fault.needs_gateway)
    ]


def _plans(options: argparse.Namespace, parts: list[tuple[str, list[str], bool]]) -> list[Plan]:
    plan = Plan(
        "",
        [],
        False,
        seconds=options.seconds,
        seed=options.seed,
        clients=options.clients,
        rate=options.rate,
        build=options.build or "",
        classic_queue=options.queue == "classic",
        mongo_options=f"?{options.mongo}" if options.mongo else "",
        hint_seconds=options.hint_seconds or HINT_SECONDS[options.routing],
        routing=options.routing,
    )
    return [dataclasses.replace(plan, name=name, faults=faults, mixed=mixed) for name, faults, mixed in parts]


def _conclude(options: argparse.Namespace, outcomes: list[Outcome], say: Callable[[str], None]) -> int:
    """Say which parts passed; returns the exit code."""
    unproved = [one for outcome in outcomes if options.build for one in verdict(options.build, outcome)]
    for one in unproved:
        say(f"NOT AS IT SHOULD BE: {one}")
    failed = [outcome.plan.name for outcome in outcomes if not outcome.passed]
    say(
        f"{len(outcomes) - len(failed)} of {len(outcomes)} parts passed"
        + (f"; failed: {', '.join(failed)}" * bool(failed))
    )
    if unproved:
        return 2
    return 1 if failed else 0


def _run_parts(
    plans: Sequence[Plan], folder: Path, appendfsync: str, say: Callable[[str], None]
) -> list[Outcome]:
    outcomes = []
    backends = Backends(folder, appendfsync)
    try:
        say(f"starting servers in {folder} (some ten seconds)")
        backends.start()
        for plan in plans:
            build = f", build {plan.build}" if plan.build else ""
            say(f"{plan.name}{build}: {plan.seconds:g} s, {plan.clients} clients")
            outcome = asyncio.run(run(plan, backends, say))
            say(as_text(outcome))
            outcomes.append(outcome)
            # A part that could not undo its fault must not spoil the next.
            for server in backends.all:
                server.start()
    finally:
        backends.stop()
    return outcomes


def _listed() -> str:
    lines = ["faults:"]
    lines += [f"  {fault.name:<16} {fault.what}" for fault in FAULTS.values()]
    lines += ["", "broken builds (--build), the fault that shows them, and what is found:"]
    lines += [f"  {name:<16} {build.wrong} ({build.under}): {build.finds}" for name, build in BUILDS.items()]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/drill",
        description="Faults on a real cluster under load, and the whole history checked.",
    )
    parser.add_argument(
        "--faults",
        help="names with commas, mixed, mixed-loss, all (each alone, then both), none; default: mixed",
    )
    parser.add_argument("--seconds", type=float, default=60, help="of load in each part (60)")
    parser.add_argument("--seed", help="of the schedule and the clients; default: by chance")
    parser.add_argument("--clients", type=int, default=60, help="devices, two for each user (60)")
    parser.add_argument("--rate", type=float, default=2.0, help="messages a second from each device (2)")
    parser.add_argument("--build", choices=sorted(BUILDS), help="nodes that are broken on purpose")
    parser.add_argument(
        "--redis",
        choices=("always", "everysec", "off"),
        default="always",
        help="Redis' appendfsync; off: nothing is kept",
    )
    parser.add_argument(
        "--queue", choices=("quorum", "classic"), default="quorum", help="kind of the archive queue"
    )
    parser.add_argument("--mongo", metavar="OPTIONS", help="of MongoDB's url, such as w=1")
    parser.add_argument(
        "--routing",
        choices=ROUTINGS,
        default="search",
        help="of the nodes; gateway and mixed: clients come through HAProxy with sync (search)",
    )
    parser.add_argument(
        "--hint-seconds", type=float, help="how soon hints must flow again (1; behind a gateway 3)"
    )
    parser.add_argument("--folder", help="keep data and logs here")
    parser.add_argument("--json", action="store_true", help="the report as JSON on the standard output")
    parser.add_argument("--list", action="store_true", help="list the faults and the broken builds")
    return parser
