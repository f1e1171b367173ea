"""Rows of figures, their references and goals: as text, Markdown and JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from statistics import median
from typing import Any

# With more than this of a core used by others, speeds and times say nothing.
DISTURBED = 0.25


@dataclass(frozen=True)
class Goal:
    """`of` the value itself, its ratio to the reference, or its difference from it, at least or at most."""

    of: str
    bound: float
    at_least: bool

    def met(self, values: list[float]) -> bool:
        return median(values) >= self.bound if self.at_least else median(values) <= self.bound


def ratio_at_least(bound: float) -> Goal:
    return Goal("ratio", bound, True)


def ratio_at_most(bound: float) -> Goal:
    return Goal("ratio", bound, False)


def value_at_most(bound: float) -> Goal:
    return Goal("value", bound, False)


def within(bound: float) -> Goal:
    """At most that much more than the reference."""
    return Goal("difference", bound, False)


@dataclass
class Row:
    """One figure: a value for each turn, and the reference's of the same turn where there is one."""

    name: str
    what: str
    unit: str
    values: list[float] = field(default_factory=list)
    reference: list[float] = field(default_factory=list)
    goal: Goal | None = None
    notes: list[str] = field(default_factory=list)
    foreign: list[float] = field(default_factory=list)
    """the part of a core that other work had in each turn, where that matters"""

    @property
    def compared(self) -> list[float]:
        """Turn by turn, the ratio to the reference or the difference from it."""
        pairs = zip(self.values, self.reference, strict=False)
        if self.goal is not None and self.goal.of == "difference":
            return [value - reference for value, reference in pairs]
        return [value / reference for value, reference in pairs if reference]

    @property
    def verdict(self) -> str:
        """`yes`, `no`, nothing where nothing is wanted; `disturbed` when nobody can say."""
        if self.goal is None or not self.values:
            return ""
        if self.foreign and median(self.foreign) > DISTURBED:
            return "disturbed"
        values = self.values if self.goal.of == "value" else self.compared
        return ("yes" if self.goal.met(values) else "no") if values else ""

    def wanted(self) -> str:
        if self.goal is None:
            return ""
        sign = "≥" if self.goal.at_least else "≤"
        unit = {"ratio": " x", "difference": f" {self.unit} more", "value": f" {self.unit}"}[self.goal.of]
        return f"{sign} {self.goal.bound:g}{unit}"

    def comparison(self) -> str:
        if not self.compared:
            return ""
        if self.goal is not None and self.goal.of == "difference":
            return f"{shown(self.compared, sign=True)} {self.unit}"
        return f"{shown(self.compared)} x"


def number(value: float, sign: bool = False) -> str:
    """Three digits or so."""
    plus = "+" if sign else ""
    if abs(value) >= 100:
        return f"{value:{plus},.0f}"
    return f"{value:{plus}.1f}" if abs(value) >= 10 else f"{value:{plus}.2f}"


def shown(values: list[float], sign: bool = False) -> str:
    """The median, and in brackets the least and the most."""
    if not values:
        return ""
    text = number(median(values), sign)
    if len(values) > 1:
        text += f" ({number(min(values))}–{number(max(values))})"  # noqa: RUF001
    return text


def text(rows: list[Row]) -> str:
    """For a terminal."""
    lines = []
    for row in rows:
        line = f"{row.what}: {shown(row.values)} {row.unit}"
        if row.reference:
            line += f"; reference {shown(row.reference)}; {row.comparison()}"
        if row.goal is not None:
            line += f"  [{row.wanted()}: {row.verdict or '-'}]"
        lines += [line, *(f"    {note}" for note in row.notes)]
    return "\n".join(lines)


def markdown(rows: list[Row]) -> str:
    """The table of docs/performance.md."""
    lines = [
        "| figure | measured | reference | compared | to reach | reached |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        cells = [
            row.what,
            f"{shown(row.values)} {row.unit}",
            f"{shown(row.reference)} {row.unit}" if row.reference else "–",  # noqa: RUF001
            row.comparison(),
            row.wanted(),
            row.verdict or ("disturbed" if row.foreign and median(row.foreign) > DISTURBED else ""),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def document(rows: list[Row], **about: Any) -> dict[str, Any]:
    """For `--json`."""
    return {
        **about,
        "rows": [
            {**asdict(row), "compared": row.compared, "wanted": row.wanted(), "reached": row.verdict}
            for row in rows
        ],
    }


def rows_of(document: dict[str, Any]) -> list[Row]:
    """The rows of what `document` gave."""
    names = [one.name for one in fields(Row)]
    rows = [Row(**{name: row[name] for name in names}) for row in document["rows"]]
    for row, kept in zip(rows, document["rows"], strict=True):
        row.goal = Goal(**kept["goal"]) if kept["goal"] else None
    return rows
