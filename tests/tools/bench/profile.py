"""Where a node's time goes: py-spy looks at a node under load, and each stack is put down to a stage."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.tools.bench.clients import Wrong
from tests.tools.bench.load import Ran, saturate
from tests.tools.bench.machine import cpu_seconds, thread_seconds
from tests.tools.bench.plan import Plan, Say
from tests.tools.bench.report import Row
from tests.tools.bench.rig import PinnedNode, Rig
from tests.tools.bench.turns import costs

SAMPLES_PER_SECOND = 100

# A thread that ends in one of these waits. (py-spy leaves idle threads out, but does not know all of them.)
_IDLE = ("doPoll (", "wait (threading", "_run (pymongo/periodic", "_worker (concurrent", "recv_into (pymongo")

# The innermost frame that one of these knows decides: part of a path, part of a function's name, stage.
_STAGES = [
    ("twisted/internet/tcp.py", "writeSomeData", "socket write"),
    ("twisted/internet/abstract.py", "", "socket write"),
    ("twisted/internet/tcp.py", "doRead", "socket read"),
    ("twisted/internet/tcp.py", "write", "socket write"),
    ("imd/protocol/frames.py", "decode", "decode"),
    ("imd/protocol/frames.py", "", "frame out"),
    ("imd/chat/compose.py", "", "check"),
    ("imd/chat/rate.py", "", "check"),
    ("imd/protocol/message.py", "", "check"),
    ("imd/protocol/ids.py", "", "check"),
    ("imd/entry/ratelimit.py", "", "check"),
    ("imd/entry/allowance.py", "", "check"),
    ("imd/chat/rate.py", "", "check"),
    ("imd/chat/patience.py", "", "check"),
    ("imd/chat/accept.py", "answer", "frame out"),
    ("imd/chat/accept.py", "", "accept"),
    ("imd/chat/router.py", "", "hint"),
    ("imd/chat/cursor.py", "", "ack"),
    ("imd/chat/session.py", "ack", "ack"),
    ("imd/chat/session.py", "", "hint"),
    ("imd/chat/handlers.py", "ack", "ack"),
    ("imd/chat/handlers.py", "", "frame in"),
    ("imd/chat/connection.py", "message_accepted", "frame out"),
    ("imd/chat/connection.py", "", "frame in"),
    ("imd/wire/outgoing.py", "write_now", "socket write"),
    ("imd/wire/outgoing.py", "", "frame out"),
    ("imd/wire/listener.py", "", "frame out"),
    ("imd/wire/flow.py", "", "socket write"),
    ("imd/wire/twisted_internals.py", "", "socket write"),
    ("imd/wire/autobahn_internals.py", "sendData", "frame out"),
    ("imd/wire/", "", "frame in"),
    ("imd/chat/", "", "hint"),
    ("autobahn/", "", "frame in"),
    ("imd/store/embedded/devices.py", "ack", "ack"),
    ("imd/store/embedded", "", "file"),
    ("imd/store/redis/inbox.py", "ack", "ack"),
    ("imd/store/redis", "", "script"),
    ("txredisapi", "", "script"),
    ("imd/store/rabbit/archive_queue.py", "", "publish"),
    ("imd/store/archiver", "", "archive"),
    ("imd/store/mongo", "", "archive"),
    ("pymongo/", "", "archive"),
    ("bson/", "", "archive"),
    ("imd/store/rabbit/bus.py", "", "hint"),
    ("prometheus_client/", "", "metrics"),
]
# Modules that serve several stages: they count if no frame of the stack decides.
_SHARED = [("pika/", "AMQP in"), ("imd/store/rabbit", "AMQP in"), ("twisted/internet/", "reactor")]
PATHS = [(path, name) for path, name, _ in _STAGES] + [(path, "") for path, _ in _SHARED]
"""the paths above, each with the function"""


def stage(stack: str) -> str:
    """The stage of a folded stack, `outermost (file);…;innermost (file)`."""
    frames = stack.split(";")
    for frame in reversed(frames):
        function, _, file = frame.partition(" (")
        for path, name, found in _STAGES:
            if path in file and name in function:
                return found
    for path, found in _SHARED:
        if path in stack:
            return found
    return "other"


@dataclass
class Samples:
    """Stacks of the threads that were busy, and how often each was seen; the reactor's and all others'."""

    reactor: Counter[str]
    others: Counter[str]

    @classmethod
    def read(cls, folded: str) -> Samples:
        """From py-spy's raw format with `--threads`."""
        samples = cls(Counter(), Counter())
        for line in folded.splitlines():
            stack, _, count = line.rpartition(" ")
            if any(idle in stack.rpartition(";")[2] for idle in _IDLE):
                continue
            into = samples.reactor if "MainThread" in stack.partition(";")[0] else samples.others
            into[stack] += int(count)
        return samples

    def stages(self, reactor: float, others: float) -> dict[str, float]:
        """The time of the reactor's thread and of the others, split over stages; the longest first."""
        taken: Counter[str] = Counter()
        for stacks, whole in ((self.reactor, reactor), (self.others, others)):
            total = sum(stacks.values())
            for stack, count in stacks.items():
                taken[stage(stack)] += whole * count / total
        return dict(taken.most_common())

    @staticmethod
    def hottest(stacks: Counter[str], most: int = 20) -> list[tuple[str, float]]:
        """The functions that were seen most, each with its part of all samples."""
        ends: Counter[str] = Counter()
        for stack, count in stacks.items():
            ends[stack.rpartition(";")[2]] += count
        total = sum(ends.values())
        return [(name, count / total) for name, count in ends.most_common(most)]


async def profile(rig: Rig, plan: Plan, say: Say) -> list[Row]:
    """One-to-one load on the cluster and on embedded: microseconds of the node's CPU in each stage."""
    spy = shutil.which("py-spy", path=sysconfig.get_path("scripts"))
    if spy is None:
        raise Wrong("py-spy is not installed (pip install py-spy)")
    rows = []
    for kind in ("cluster", "embedded"):
        node = rig.embedded() if kind == "embedded" else rig.cluster()[0]
        samples, ran, reactor, others = await _watched(rig, plan, node, spy)
        rig.stop(node)
        say(f"{kind}: {costs(ran)}")
        for whose, micros, stacks in (
            ("the reactor's thread", reactor, samples.reactor),
            ("other threads", others, samples.others),
        ):
            say(f"  {whose}: {micros:.1f} µs a message; most of it in")
            for name, share in samples.hottest(stacks):
                say(f"    {share:6.1%}  {name}")
        for name, micros in samples.stages(reactor, others).items():
            rows.append(Row(f"{kind}-stage-{name}", f"{kind}: {name}", "µs/message", values=[micros]))
    return rows


async def _watched(rig: Rig, plan: Plan, node: PinnedNode, spy: str) -> tuple[Samples, Ran, float, float]:
    """With microseconds a message of the reactor's thread and of all others."""
    out = Path(node.folder, "folded.txt")
    spying: list[subprocess.Popen[bytes]] = []
    seen: list[tuple[int, float, float]] = []

    def look(accepted: int) -> float:
        reactor = thread_seconds(node.pid)
        seen.append((accepted, reactor, cpu_seconds(node.pid) - reactor))
        if not spying:
            command = [spy, "record", "--pid", str(node.pid), "--format", "raw", "--output", str(out)]
            command += ["--threads", "--nolineno", "--rate", str(SAMPLES_PER_SECOND)]
            command += ["--duration", f"{plan.seconds:.0f}"]
            spying.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return 0.0

    urls = [(node.url, node.url)]
    ran = await saturate(urls, plan.shape, plan.warm_seconds, plan.seconds + 1, rig.cpu, look=look)
    spying[0].wait(60)
    (before, *first), (after, *last) = seen
    count = after - before
    reactor, others = (1e6 * (late - early) / count for early, late in zip(first, last, strict=True))
    return _read(out), ran, reactor, others


def _read(out: Path) -> Samples:
    return Samples.read(out.read_text())
