"""How long and how often."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.tools.bench.load import Shape
from tests.tools.bench.report import Row
from tests.tools.bench.rig import Rig


@dataclass
class Plan:
    """Sizes of all figures. Times are in seconds."""

    turns: int = 5
    warm_seconds: float = 2.0
    seconds: float = 5.0
    tries: int = 1
    """of each turn, while other work disturbs it"""
    shape: Shape = field(default_factory=Shape)
    rate: float = 1000.0
    """messages a second where latency is measured"""
    members: int = 500
    room_members: int = 1000
    room_connected: int = 200
    busy_rooms: int = 10
    room_rate: float = 2.0
    """messages a second in each busy room"""
    cold_senders: int = 50
    waiting: int = 10_000
    logins: int = 10_000
    nodes: tuple[int, ...] = (2, 4, 8)
    nodes_rate: float = 50.0
    """messages a second for each of many nodes, so that more nodes do not mean smaller batches"""
    conversations: int = 400
    """users that are written to for the first time where routings are compared"""
    presence_nodes: int = 8
    presence_users: int = 20_000
    presence_here: int = 1_000_000
    """at most so many of them in the bench's own process"""
    presence_watched: int = 50
    presence_seconds: float = 30.0
    presence_rate: float = 50.0
    """users a second who go; as many come back"""
    typing_rate: float = 2_000.0
    """`typing` frames a second"""
    counted: tuple[int, int] = (2_000, 12_000)
    """messages of the two runs whose instructions are counted"""


FULL = Plan()
QUICK = Plan(
    turns=1,
    warm_seconds=1.0,
    seconds=2.0,
    members=500,
    waiting=5_000,
    logins=2_000,
    nodes=(2, 4),
    conversations=100,
    presence_nodes=4,
    presence_users=2_000,
    presence_seconds=10.0,
)
TINY = Plan(
    turns=1,
    warm_seconds=0.1,
    seconds=0.3,
    shape=Shape(pairs=4, window=4),
    members=10,
    room_members=20,
    room_connected=4,
    busy_rooms=2,
    room_rate=10.0,
    cold_senders=5,
    waiting=200,
    logins=50,
    nodes=(2,),
    conversations=8,
    presence_nodes=2,
    presence_users=40,
    presence_here=30,
    presence_watched=5,
    presence_seconds=3.0,
    presence_rate=2.0,
    typing_rate=100.0,
    counted=(100, 400),
)

Say = Callable[[str], None]
Figure = Callable[[Rig, Plan, Say], Awaitable[list[Row]]]
