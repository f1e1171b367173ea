"""The project's documents: their fenced blocks, headings and links."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.support.paths import ROOT

_FENCE = re.compile(r"^```(.*)$")


@dataclass
class Block:
    """A fenced block: what stands after its fence, its text, and the line that it begins at."""

    info: str
    line: int
    text: str


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a Markdown text."""
    found: list[Block] = []
    inside: Block | None = None
    for number, line in enumerate(text.splitlines(), 1):
        fence = _FENCE.match(line)
        if fence is None:
            if inside is not None:
                inside.text += line + "\n"
        elif inside is None:
            inside = Block(fence[1].strip(), number, "")
        else:
            found.append(inside)
            inside = None
    assert inside is None, f"the fence of line {inside and inside.line} is not closed"
    return found


def documents() -> list[Path]:
    """All Markdown files of the project."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def headings(text: str) -> set[str]:
    """The values of `#…` in a link: GitHub's names of the headings."""
    without_code = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return {
        re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", without_code, re.MULTILINE)
    }


def links(path: Path) -> list[tuple[str, Path, str]]:
    """The relative links of a document: as written, their file or folder, and the heading or nothing."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    found = []
    for link in re.findall(r"(?:\]\(|src=\")([^)\s\"]+)[)\"]", text):
        if not re.match(r"[a-z]+:", link):
            name, _, heading = link.partition("#")
            found.append((link, (path.parent / name).resolve() if name else path, heading))
    return found
