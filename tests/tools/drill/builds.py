"""Does the checker find what it is there for? Each broken build under its faults, and these unbroken.

scripts/drill builds [--only NAME,...] [--seed SEED] [--seconds S]
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.support.servers import ServerError
from tests.tools.drill.broken import BUILDS, check
from tests.tools.drill.cluster import Backends
from tests.tools.drill.doings import USUAL, Shares
from tests.tools.drill.drill import LOSING, Outcome, Plan, run
from tests.tools.drill.faults import FAULTS
from tests.tools.drill.report import as_text
from tests.tools.drill.seams import Gone

# A short run may give a build no occasion to do wrong, or none that shows: another seed is tried, for longer.
TRIES = 5


# A run goes on until each of its builds has done wrong so often. Not each time shows.
SABOTAGES = 6


class Load(NamedTuple):
    """Messages a second from each client, and what these are: each costs processor time in all nodes.

    `seconds`: the load lasts so long, at least.
    """

    rate: float = 2.5
    shares: Shares = USUAL
    seconds: float = 0.0


# More would wait for one another, and be refused.
CHANGING = Shares(to_a_room=0.25, of_a_room=0.1, of_a_message=0.13)
UNBROKEN = Load(3.0, CHANGING)
# Where these messages would give a build too few occasions.
LOADS = {
    "cursor-on-send+unordered+marks-overwritten+not-compared": Load(5.0, seconds=6.0),
    "arrival-order": Load(2.5, Shares(to_a_room=0.1, of_a_room=0.02, of_a_message=0.4)),
    "went-back": Load(2.5, Shares(to_a_room=0.2, of_a_room=0.15, of_a_message=0.1)),
    "overtaken": Load(3.0, Shares(to_a_room=0.3, of_a_room=0.25, of_a_message=0.02)),
    "stale-loader+no-sweep": Load(2.5, CHANGING),
    "swapped-versions+judged-anew+tells-newcomers": Load(2.5, CHANGING),
}
# These share a cluster: each is found by a kind of its own.
TOGETHER = (
    "skips-gaps+unpublished+no-dedup",
    "cursor-on-send+unordered+marks-overwritten+not-compared",
    "stale-loader+no-sweep",
    "swapped-versions+judged-anew+tells-newcomers",
)


def grouped(names: Sequence[str]) -> list[str]:
    """The runs for these builds: some together, the others alone."""
    together = [group for group in TOGETHER if set(group.split("+")) <= set(names)]
    in_groups = {name for group in together for name in group.split("+")}
    return [*(name for name in names if name not in in_groups), *together]


def under(names: str) -> str:
    """The faults under which these builds, with + between them, are shown."""
    return ",".join(dict.fromkeys(BUILDS[name].under for name in names.split("+")))


def short_plan(names: str, seed: str = "1", seconds: float = 3.0) -> Plan:
    """For these builds: so short that it can be run again and again, and busy enough that each shows."""
    faults, load = under(names), LOADS.get(names, Load())
    # No speed is asserted here: a busy machine may take its time.
    return Plan(
        faults,
        faults.split(","),
        False,
        seconds=max(seconds, load.seconds),
        seed=seed,
        clients=20,
        rate=load.rate,
        shares=load.shares,
        sabotages=SABOTAGES,
        nodes=2,
        hint_seconds=60,
    )


def verdict(name: str, outcome: Outcome) -> list[str]:
    """The objections to the run of broken builds; none when the drill found each of them out."""
    kinds = Counter(violation.kind for violation in outcome.violations)
    wrong = []
    known: set[str] = set()
    for one in name.split("+"):
        build = BUILDS[one]
        known |= {build.finds, *build.also}
        if not outcome.sabotaged.get(one):
            wrong.append(f"the sabotage of {one} never took place: the run proves nothing")
        if not kinds[build.finds]:
            wrong.append(f"not found: {build.finds}")
    if others := sorted(set(kinds) - known):
        wrong.append(f"found beside it, for no known reason: {', '.join(others)}")
    return [f"{name}: {one}" for one in [*wrong, *outcome.troubles]]


def missed(name: str, outcome: Outcome) -> bool:
    """Whether all that is wrong with the run is that a build did no wrong, or none that showed."""
    kinds = {violation.kind for violation in outcome.violations}
    builds = [BUILDS[one] for one in name.split("+")]
    if outcome.troubles or kinds - {kind for build in builds for kind in (build.finds, *build.also)}:
        return False
    return any(not outcome.sabotaged.get(one) or BUILDS[one].finds not in kinds for one in name.split("+"))


def told(name: str, outcome: Outcome) -> str:
    """A line on the run of broken builds."""
    kinds = Counter(violation.kind for violation in outcome.violations)
    finds = {one: BUILDS[one].finds for one in name.split("+")}
    rest = ", ".join(f"{kind} {n}" for kind, n in sorted(kinds.items()) if kind not in finds.values())
    return "; ".join(
        f"{one}: sabotaged {outcome.sabotaged.get(one, 0)} times; found {kind} {kinds[kind]} times"
        for one, kind in finds.items()
    ) + f" (and {rest})" * bool(rest)


class Proof:
    """Runs builds on servers that they share.

    Three unbroken runs serve all builds: one with the faults after which Redis lacks data, one with those
    that need short leases, which a busy node may lose, and one with all others.
    """

    def __init__(
        self, backends: Backends, say: Callable[[str], None], names: Sequence[str] = tuple(BUILDS)
    ) -> None:
        self._backends = backends
        self._say = say
        self._names = names
        self._clean: dict[tuple[bool, bool], list[str]] = {}

    def prove(self, name: str, plan: Plan) -> list[str]:
        """The objections; none when the build is found out, and its faults without it leave no trace.

        Raises Gone when the build's target is gone.
        """
        for one in name.split("+"):
            check(one)
        kind = _kind_of(plan.faults)
        if kind not in self._clean:
            self._clean[kind] = self._unbroken(plan)
        clean = self._clean[kind]
        for attempt in range(1, TRIES + 1):
            if attempt > 1:
                more = {"seconds": 2 * plan.seconds, "sabotages": 2 * plan.sabotages}
                plan = dataclasses.replace(plan, seed=f"{plan.seed}.{attempt}", **more)
            began = time.monotonic()
            outcome = self._run(dataclasses.replace(plan, build=name))
            wrong = clean + verdict(name, outcome)
            self._say(f"{told(name, outcome)}; seed {plan.seed}, {time.monotonic() - began:.0f} s")
            if clean or not missed(name, outcome):
                break
        if wrong:
            self._say(as_text(outcome))
        return wrong

    def _unbroken(self, plan: Plan) -> list[str]:
        """The objections to a run like that of the plan, with the faults of all builds that it stands for."""
        unders = dict.fromkeys(under(name) for name in grouped(self._names))
        alike = [one.split(",") for one in unders if _kind_of(one.split(",")) == _kind_of(plan.faults)]
        chosen = list(dict.fromkeys(fault for faults in alike for fault in faults))
        load = {"rate": UNBROKEN.rate, "shares": UNBROKEN.shares}
        plan = dataclasses.replace(plan, name=",".join(chosen), faults=chosen, **load)
        began = time.monotonic()
        outcome = self._run(plan)
        if not outcome.passed:
            self._say(as_text(outcome))
        self._say(
            f"unbroken under {plan.name}: {len(outcome.violations)} violations, "
            f"{len(outcome.history.messages)} messages; {time.monotonic() - began:.0f} s"
        )
        kinds = sorted({violation.kind for violation in outcome.violations})
        found = [f"unbroken under {plan.name}: {kind}" for kind in kinds]
        return found + [f"unbroken under {plan.name}: {trouble}" for trouble in outcome.troubles]

    def _run(self, plan: Plan) -> Outcome:
        outcome = asyncio.run(run(plan, self._backends, lambda _: None))
        # A run that could not undo its fault must not spoil the next.
        for server in self._backends.all:
            server.start()
        return outcome


def _kind_of(faults: Sequence[str]) -> tuple[bool, bool]:
    """Whether Redis loses data, and whether leases are short."""
    return not LOSING.isdisjoint(faults), any(FAULTS[name].short_lease for name in faults)


def main(argv: Sequence[str]) -> int:
    """0 when every build was found out; 1 when not; 2 when that could not be tried."""
    parser = argparse.ArgumentParser(
        prog="scripts/drill builds",
        description="Each build that is broken on purpose, and each plan unbroken.",
    )
    parser.add_argument("--only", metavar="NAME,...", default=",".join(BUILDS), help=", ".join(BUILDS))
    parser.add_argument("--seed", default="1", help="of the schedule and the clients (1)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of load in each run, at least (3)")
    options = parser.parse_args(argv)
    names = options.only.split(",")
    for name in names:
        if name not in BUILDS:
            parser.error(f"{name}: no such build")
    folder = Path(tempfile.mkdtemp(prefix="imd-drill-"))
    backends = Backends(folder)
    wrong: list[str] = []
    try:
        for name in names:
            check(name)
        backends.start()
        proof = Proof(backends, lambda text: print(text, flush=True), names)
        for group in grouped(names):
            wrong += proof.prove(group, short_plan(group, options.seed, options.seconds))
    except (Gone, ServerError, TimeoutError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        backends.stop()
        shutil.rmtree(folder, ignore_errors=True)
    for one in dict.fromkeys(wrong):
        print(one)
    print(f"{len(names)} builds: " + ("not as it should be" if wrong else "each is found out"))
    return 1 if wrong else 0
