"""The chart of docs/performance.md, as SVG: messages a second, and what more nodes cost."""

from __future__ import annotations

import re
from statistics import median
from xml.sax.saxutils import escape

from tests.tools.bench.report import DISTURBED, Row

WIDTH, HEIGHT = 760, 300
_OURS, _THEIRS, _INK, _FAINT = "#2f6f9f", "#b0563b", "#333333", "#c8c8c8"
_BARS = {
    "one-to-one-cluster": "cluster, archive on the node",
    "one-to-one-apart": "cluster, archive elsewhere",
    "one-to-one-embedded": "embedded",
}


def svg(rows: list[Row]) -> str:
    """Both panels, each with what there is of it."""
    named = {row.name: row for row in rows if row.values}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        *_bars(named, 20, 340),
        *_lines(named, 430, 300),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _bars(named: dict[str, Row], left: float, width: float) -> list[str]:
    """Messages a second of the relay and of each kind of node, with the least and the most."""
    bars: list[tuple[str, list[float], str]] = []
    for name, title in _BARS.items():
        row = named.get(name)
        if row is not None:
            if not bars:
                bars.append(("bare relay, keeps nothing", row.reference, _FAINT))
            if row.foreign and median(row.foreign) > DISTURBED:
                title += " (disturbed by other work)"
            bars.append((title, row.values, _OURS))
    if not bars:
        return []
    scale = width / max(max(values) for _, values, _ in bars)
    parts = [_text(left, 30, "one-to-one messages/s, one core", bold=True)]
    for index, (title, values, colour) in enumerate(bars):
        top = 50 + index * 58
        middle = median(values)
        parts += [
            _text(left, top + 12, f"{title}: {middle:,.0f}"),
            f'<rect x="{left:.0f}" y="{top + 18}" width="{middle * scale:.0f}" height="16" fill="{colour}"/>',
            _line(left + min(values) * scale, top + 26, left + max(values) * scale, top + 26, _INK, 2),
        ]
    return parts


def _lines(named: dict[str, Row], left: float, width: float) -> list[str]:
    """AMQP messages for a chat message, by the number of nodes: ours, and the seed's way."""
    found = sorted(
        (int(match[1]), row) for name, row in named.items() if (match := re.fullmatch(r"bus-(\d+)", name))
    )
    if not found:
        return []
    top, bottom = 50.0, 250.0
    most = max(max(median(row.values), median(row.reference or [0.0])) for _, row in found) or 1.0
    last = max(count for count, _ in found)
    parts = [
        _text(left, 30, "AMQP messages for a chat message", bold=True),
        _line(left, bottom, left + width, bottom, _INK, 1),
        _text(left + width / 2 - 20, bottom + 34, "nodes"),
    ]
    for colour, title, aside, values_of in (
        (_OURS, "imd", 16, lambda row: row.values),
        (_THEIRS, "every message to every node", -8, lambda row: row.reference),
    ):
        points = [
            (left + width * count / last, bottom - (bottom - top) * median(values_of(row)) / most)
            for count, row in found
            if values_of(row)
        ]
        if not points:
            continue
        path = " ".join(f"{x:.0f},{y:.0f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for (x, y), (_, row) in zip(points, found, strict=True):
            parts.append(f'<circle cx="{x:.0f}" cy="{y:.0f}" r="3.5" fill="{colour}"/>')
            parts.append(_text(x - 12, y + aside, f"{median(values_of(row)):.2f}", colour=colour))
        x, y = points[-1]
        parts.append(_text(x - 24, y - 6 if aside > 0 else y + 4, title, colour=colour, anchor="end"))
    parts += [_text(left + width * count / last - 3, bottom + 18, str(count)) for count, _ in found]
    return parts


def _text(
    x: float, y: float, text: str, bold: bool = False, colour: str = _INK, anchor: str = "start"
) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" fill="{colour}" text-anchor="{anchor}"{weight}>{escape(text)}</text>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: int) -> str:
    return (
        f'<line x1="{x1:.0f}" y1="{y1:.0f}" x2="{x2:.0f}" y2="{y2:.0f}" '
        f'stroke="{colour}" stroke-width="{width}"/>'
    )
