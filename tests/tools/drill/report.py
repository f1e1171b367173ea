"""A drill's outcome for people and for programs."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.tools.drill.checker import KINDS
from tests.tools.drill.drill import Outcome
from tests.tools.drill.history import Answer, Got, Reset, Send

SHOWN = 5


def numbers(outcome: Outcome) -> dict[str, Any]:
    """Counts of the events of a part. Times in milliseconds where the name says so, else in seconds."""
    history = outcome.history
    first_sent: dict[str, float] = {}
    waits: list[float] = []
    codes: Counter[str] = Counter()
    sends = deliveries = repeats = resets = 0
    seen: set[tuple[str, str, str]] = set()
    accepted: set[str] = set()
    for connection in history.connections:
        sent_at: dict[str, float] = {}
        resets += bool(connection.epoch) and not connection.recovered
        for event in connection.events:
            if type(event) is Send:
                sends += 1
                first_sent.setdefault(event.key, event.at)
                sent_at[event.key] = event.at
            elif type(event) is Answer:
                if event.message_id:
                    waits.append(event.at - sent_at.get(event.key, event.at))
                    accepted.add(event.key)
                else:
                    codes[event.code] += 1
            elif type(event) is Got:
                deliveries += 1
                which = (connection.user, connection.device, event.message_id)
                repeats += which in seen
                seen.add(which)
            elif type(event) is Reset:
                resets += 1
    waits.sort()
    kinds = [history.messages[key].kind for key in accepted]
    return {
        "seconds": round(outcome.load_seconds, 1),
        "settle_seconds": round(outcome.settle_seconds, 1),
        "connections": len(history.connections),
        "messages": len(first_sent),
        "sends": sends,
        "accepted": len(accepted),
        "accepted_in_rooms": sum(kind == "message" for kind in kinds),
        "accepted_changes_of_rooms": sum(kind == "room" for kind in kinds),
        "accepted_changes_of_messages": sum(kind in ("edit", "recall", "react") for kind in kinds),
        "refused": dict(codes),
        "accepted_p50_ms": round(_quantile(waits, 0.5) * 1000, 1),
        "accepted_p99_ms": round(_quantile(waits, 0.99) * 1000, 1),
        "deliveries": deliveries,
        "repeats_over_connections": repeats,
        "told_of_loss": resets,
        "marks": sum(change.answered_at is not None for change in history.state_changes.values()),
        "states": sum(len(connection.states) for connection in history.connections),
        "archived": len(history.archive),
        "read_back": sum(map(len, history.read.values())),
    }


def as_json(outcome: Outcome) -> dict[str, Any]:
    plan = outcome.plan
    return {
        "part": plan.name,
        "seed": plan.seed,
        "build": plan.build,
        "sabotaged": outcome.sabotaged,
        "passed": outcome.passed,
        **numbers(outcome),
        "faults": [
            {
                "names": one.names,
                "where": one.where,
                "lasted": round(one.lasted, 2),
                "ready": round(one.ready, 2),
                "hints": round(one.hints, 2),
            }
            for one in outcome.struck
        ],
        "violations": Counter(violation.kind for violation in outcome.violations),
        "examples": [list(violation) for violation in _examples(outcome)],
        "troubles": outcome.troubles,
    }


def as_text(outcome: Outcome) -> str:
    plan, found = outcome.plan, numbers(outcome)
    refused = ", ".join(f"{count} {code}" for code, count in found["refused"].items()) or "none"
    worst = max(outcome.struck, key=lambda one: one.ready, default=None)
    slowest = max(outcome.struck, key=lambda one: one.hints, default=None)
    lines = [
        f"{plan.name}, seed {plan.seed}: {len(outcome.struck)} rounds of faults in {found['seconds']:g} s,"
        f" settled in {found['settle_seconds']:g} s",
        f"  {found['accepted']} of {found['messages']} messages accepted ({found['sends']} sends over"
        f" {found['connections']} connections; refused: {refused});"
        f" accepted after p50 {found['accepted_p50_ms']:g} ms, p99 {found['accepted_p99_ms']:g} ms",
        f"  among them {found['accepted_in_rooms']} messages in rooms,"
        f" {found['accepted_changes_of_rooms']} changes of rooms,"
        f" {found['accepted_changes_of_messages']} edits, recalls and reactions",
        f"  {found['deliveries']} deliveries, {found['repeats_over_connections']} of them again on a later"
        f" connection; told of a loss: {found['told_of_loss']}",
        f"  {found['marks']} frames with marks or settings answered, {found['states']} frames of state",
        f"  {found['archived']} in the archive, {found['read_back']} read back by history",
    ]
    if worst is not None and slowest is not None:
        lines.append(
            f"  ready again after {worst.ready:.1f} s at most ({'+'.join(worst.names)}), hints then after"
            f" {slowest.hints:.2f} s at most ({'+'.join(slowest.names)})"
        )
    counts = Counter(violation.kind for violation in outcome.violations)
    for kind, count in counts.items():
        lines.append(f"  VIOLATED {count} x {kind}: {KINDS[kind]}")
        shown = [violation.what for violation in outcome.violations if violation.kind == kind][:SHOWN]
        lines += [f"      {what}" for what in shown]
    lines += [f"  TROUBLE {trouble}" for trouble in outcome.troubles]
    if outcome.kept is not None:
        lines.append(f"  judge it again: scripts/drill judge {outcome.kept}")
    if plan.build:
        lines += [f"  build {name}: sabotaged {times} times" for name, times in outcome.sabotaged.items()]
    lines.append("  passed" if outcome.passed else "  FAILED")
    return "\n".join(lines)


def _examples(outcome: Outcome) -> list[Any]:
    shown: Counter[str] = Counter()
    examples = []
    for violation in outcome.violations:
        shown[violation.kind] += 1
        if shown[violation.kind] <= SHOWN:
            examples.append(violation)
    return examples


def _quantile(ordered: list[float], part: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else 0.0
