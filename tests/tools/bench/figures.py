"""The figures by their names, as `--only` takes them."""

from __future__ import annotations

from tests.tools.bench.catching_up import catching_up
from tests.tools.bench.instructions import instructions
from tests.tools.bench.latency import latency
from tests.tools.bench.lists import group
from tests.tools.bench.logins import logins
from tests.tools.bench.nodes import across, many
from tests.tools.bench.one_to_one import one_to_one
from tests.tools.bench.plan import Figure
from tests.tools.bench.presence import presence
from tests.tools.bench.profile import profile
from tests.tools.bench.rooms import rooms
from tests.tools.bench.routings import routings
from tests.tools.bench.typists import typing

FIGURES: dict[str, Figure] = {
    "cluster": lambda rig, plan, say: one_to_one(rig, plan, say, ("cluster",)),
    "embedded": lambda rig, plan, say: one_to_one(rig, plan, say, ("embedded",)),
    "one-to-one": lambda rig, plan, say: one_to_one(rig, plan, say, ("cluster", "apart", "embedded")),
    "latency": latency,
    "logins": logins,
    "group": group,
    "rooms": rooms,
    "across": across,
    "nodes": many,
    "routings": routings,
    "catching-up": catching_up,
    "presence": presence,
    "typing": typing,
    "instructions": instructions,
    "profile": profile,
}
STANDARD = [
    "one-to-one",
    "latency",
    "logins",
    "group",
    "rooms",
    "across",
    "nodes",
    "catching-up",
    "instructions",
]
QUICK_ONES = ["one-to-one", "latency", "across"]
