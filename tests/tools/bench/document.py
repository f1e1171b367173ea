"""docs/performance.md: what stands between its markers is written by `scripts/bench --document`."""

from __future__ import annotations

import re
from statistics import median

from tests.tools.bench.report import Row, markdown, number, shown

_PROFILE = re.compile(r"(cluster|embedded)-stage-(.+)")
_WHOLE, _PART = "one-to-one-cluster-cpu-all", re.compile(r"one-to-one-cluster-cpu-(.+)")


def put(text: str, name: str, content: str) -> str:
    """The text with `content` between `<!-- name -->` and `<!-- /name -->`. ValueError without these."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{begin} and {end} are expected")
    return f"{before}{begin}\n{content.strip()}\n{end}{after}"


def stages(rows: list[Row]) -> str:
    """A table of the profile's rows: stages, and what they cost on each backend."""
    table: dict[str, dict[str, float]] = {}
    for row in rows:
        match = _PROFILE.fullmatch(row.name)
        if match is not None and row.values:
            table.setdefault(match[2], {})[match[1]] = median(row.values)
    kinds = ["cluster", "embedded"]
    lines = ["| stage | cluster | embedded |", "| --- | --- | --- |"]
    for stage, costs in sorted(table.items(), key=lambda item: -sum(item[1].values())):
        cells = [number(costs[kind]) if kind in costs else "" for kind in kinds]
        lines.append(f"| {stage} | {' | '.join(cells)} |")
    whole = [number(sum(costs.get(kind, 0.0) for costs in table.values())) for kind in kinds]
    return "\n".join([*lines, f"| all | {' | '.join(whole)} |"])


def cost(rows: list[Row]) -> str:
    """The main figure, with its parts: CPU of all processes for a message in a cluster. Empty without it."""
    named = {row.name: row for row in rows if row.values}
    if _WHOLE not in named:
        return ""
    parts = {
        match[1]: row for name, row in named.items() if name != _WHOLE and (match := _PART.fullmatch(name))
    }
    lines = ["| process | µs of CPU for a message |", "| --- | --- |"]
    lines += [f"| {process} | {shown(row.values)} |" for process, row in parts.items()]
    return "\n".join([*lines, f"| **all** | **{shown(named[_WHOLE].values)}** |"])


def disturbance(foreign: list[tuple[float, float]]) -> str:
    """The load of other processes on the two cores during the turns, in words."""
    if not foreign:
        return ""
    node, load = (median(shares) for shares in zip(*foreign, strict=True))
    return (
        f"Beside it, other work had {node:.0%} of the node's core and {load:.0%} of the other one "
        f"(medians of {len(foreign)} turns)."
    )


def renewed(text: str, rows: list[Row]) -> str:
    """The document with these rows in place of the lines that the table has of the same figures."""
    for row in rows:
        line = markdown([row]).splitlines()[-1]
        text = re.sub(rf"(?m)^\| {re.escape(row.what)} \|.*$", lambda _, line=line: line, text)
    return text


def update(text: str, rows: list[Row], about: str, foreign: list[tuple[float, float]], complete: bool) -> str:
    """The document with what these rows give: the table if `complete`, else their lines in it.

    The main figure and the stages are renewed if they were looked at.
    """
    profile = [row for row in rows if _PROFILE.fullmatch(row.name)]
    figures = [row for row in rows if row not in profile]
    if complete:
        text = put(text, "machine", f"{about}\n{disturbance(foreign)}")
        text = put(text, "figures", markdown(figures))
    else:
        text = renewed(text, figures)
    if whole := cost(rows):
        text = put(text, "cost", whole)
    if profile:
        text = put(text, "stages", stages(profile))
    return text
