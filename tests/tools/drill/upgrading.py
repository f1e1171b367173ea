"""`scripts/drill upgrade`: nodes of 0.1.0 are replaced under load and faults, and the level is raised."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.command import PROGRAM
from tests.support.old_version import NoHistory, old_tree
from tests.support.servers import ServerError
from tests.tools.drill.cluster import Backends, DrillNode
from tests.tools.drill.drill import READY_SECONDS, Outcome, Plan, run, strike_rounds
from tests.tools.drill.faults import Fault, Stage
from tests.tools.drill.report import as_json, as_text
from tests.tools.drill.world import World

# Later versions bear more. These 0.1.0 bears.
BEARABLE = ("node-kill", "redis-kill", "redis-cut", "rabbit-kill", "mongo-kill", "net-rabbit-cut")
UPGRADE_SECONDS = 180.0
HEARD_SECONDS = 60
"""until all nodes must have heard of the level"""


async def roll(
    plan: Plan,
    faults: Sequence[Fault],
    stage: Stage,
    world: World,
    outcome: Outcome,
    say: Callable[[str], None],
) -> None:
    """A round of faults before each node is replaced; the level is raised; faults for `plan.seconds`."""
    one_round = dataclasses.replace(plan, seconds=0)

    def some() -> Sequence[Fault]:
        return [stage.rng.choice(faults)] if plan.is_brief else faults

    try:
        for node in stage.cluster.nodes:
            await strike_rounds(one_round, some(), stage, world, outcome, say)
            if outcome.troubles:
                return
            await _replace(node, stage)
            say(f"  {node.name} is of this version")
            await stage.cluster.until_ready(READY_SECONDS)
        await strike_rounds(one_round, some(), stage, world, outcome, say)
        await _raise(stage, outcome, say)
        if outcome.troubles:
            return
    except (TimeoutError, ServerError) as error:
        outcome.troubles.append(f"{type(error).__name__}: {error}")
        return
    await strike_rounds(plan, faults, stage, world, outcome, say)


async def _replace(node: DrillNode, stage: Stage) -> None:
    """Stop the old node, in good order or not, and start the new one in its place."""
    await asyncio.to_thread(stage.rng.choice((node.stop, node.kill)))
    node.old = False
    await asyncio.to_thread(node.start)


async def _raise(stage: Stage, outcome: Outcome, say: Callable[[str], None]) -> None:
    """`imd upgrade --finish`, which is killed somewhere first, and given again until it succeeds.

    A busy server may be later than the command waits.
    """
    command = [*PROGRAM, "upgrade", str(stage.cluster.nodes[0].folder / "node.ini"), "--finish"]
    command += ["--seconds", str(HEARD_SECONDS)]
    try:
        await asyncio.to_thread(
            subprocess.run, command, capture_output=True, timeout=stage.rng.uniform(0.3, 2.5)
        )
    except subprocess.TimeoutExpired:
        say("  imd upgrade was killed, and is given again")
    end = time.monotonic() + UPGRADE_SECONDS
    while True:
        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=UPGRADE_SECONDS
        )
        if not done.returncode or time.monotonic() > end:
            break
        say(f"  imd upgrade ended with {done.returncode}: {done.stdout.strip()}{done.stderr.strip()}")
        await asyncio.sleep(1.0)
    levels = [await asyncio.to_thread(node.metric, "imd_level") for node in stage.cluster.nodes]
    say(f"  {done.stdout.strip()}{done.stderr.strip()}")
    if done.returncode or set(levels) != {2.0}:
        outcome.troubles.append(f"imd upgrade ended with {done.returncode}, nodes are at {levels}")


def plan_of(seed: str, seconds: float, clients: int, hint_seconds: float) -> Plan:
    return Plan(
        "upgrade",
        list(BEARABLE),
        False,
        seconds=seconds,
        seed=seed,
        clients=clients,
        hint_seconds=hint_seconds,
        old=True,
    )


def main(argv: Sequence[str]) -> int:
    """Run it; 0 when nothing was violated, 1 when something was, 2 when it could not be run."""
    parser = argparse.ArgumentParser(
        prog="scripts/drill upgrade",
        description="Nodes of 0.1.0 are replaced under load and faults, and the level is raised.",
    )
    parser.add_argument("--seconds", type=float, default=30, help="of faults after the level was raised (30)")
    parser.add_argument("--seed", default=str(random.randrange(10**6)), help="default: by chance")
    parser.add_argument("--clients", type=int, default=60, help="devices, two for each user (60)")
    parser.add_argument("--hint-seconds", type=float, default=1.0, help="how soon hints must flow again (1)")
    parser.add_argument("--json", action="store_true", help="the report as JSON on the standard output")
    options = parser.parse_args(argv)

    def say(text: str) -> None:
        print(text, file=sys.stderr if options.json else sys.stdout, flush=True)

    folder = Path(tempfile.mkdtemp(prefix="imd-drill-"))
    backends = Backends(folder)
    try:
        old_tree()
        say(f"seed {options.seed}; starting servers in {folder} (some ten seconds)")
        backends.start()
        plan = plan_of(options.seed, options.seconds, options.clients, options.hint_seconds)
        outcome = asyncio.run(run(plan, backends, say, roll))
    except (NoHistory, ServerError, TimeoutError) as error:
        print(error, file=sys.stderr)
        return 2
    finally:
        backends.stop()
        shutil.rmtree(folder, ignore_errors=True)
    say(as_text(outcome))
    if options.json:
        print(json.dumps(as_json(outcome), indent=1))
    return int(not outcome.passed)
