"""The output of a subcommand: for people on a terminal, plain text in a pipe, or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, TextIO

from imd.command.findings import Finding, Level

_STYLES = {Level.OK: "green", Level.NOTE: "cyan", Level.WARNING: "yellow", Level.PROBLEM: "bold red"}
_SAFE = {number: f"\\x{number:02x}" for number in [*range(32), *range(127, 160)] if number != 9}


def harmless(text: str) -> str:
    """Foreign text with its control characters escaped, so that a terminal only shows it."""
    return text.translate(_SAFE)


class Output:
    """`stream` is a terminal or not; rich is only loaded for one."""

    def __init__(self, as_json: bool = False, stream: TextIO | None = None) -> None:
        self.as_json = as_json
        self.stream = stream or sys.stdout
        self.terminal = not as_json and self.stream.isatty()
        self._console: Any = None
        if self.terminal:
            from rich.console import Console

            self._console = Console(file=self.stream, highlight=False)

    def line(self, text: str, style: str = "") -> None:
        """A line for people; nothing when JSON is wanted."""
        if self._console is not None:
            self._console.print(text, style=style or None, markup=False)
        elif not self.as_json:
            print(text, file=self.stream, flush=True)

    def value(self, value: Any) -> None:
        """One JSON value on a line of its own."""
        print(json.dumps(value, ensure_ascii=False), file=self.stream, flush=True)

    def problem(self, text: str) -> None:
        """Say why the subcommand has no other output."""
        if self.as_json:
            self.value({"error": text})
        else:
            print(f"imd: {text}", file=sys.stderr)

    def table(self, headers: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
        texts = [[str(cell) for cell in row] for row in rows]
        if title:
            self.line(title, "bold")
        if self._console is not None:
            from rich import box
            from rich.table import Table
            from rich.text import Text

            table = Table(*headers, box=box.SIMPLE, pad_edge=False)
            for row in texts:
                table.add_row(*map(Text, row))
            self._console.print(table)
        elif not self.as_json:
            widths = [max(map(len, column)) for column in zip(headers, *texts, strict=True)]
            for row in [list(headers), *texts]:
                cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
                self.line("  ".join(cells).rstrip())
            self.line("")

    def findings(self, findings: Iterable[Finding], verbose: bool = True) -> Level:
        """Show them; gives the worst level. Without `verbose` only warnings and problems are shown."""
        all_found = list(findings)
        worst = max((finding.level for finding in all_found), key=list(Level).index, default=Level.OK)
        if self.as_json:
            self.value({"result": worst, "findings": [asdict(finding) for finding in all_found]})
            return worst
        for finding in all_found:
            if verbose or finding.level in (Level.WARNING, Level.PROBLEM):
                self._finding(finding)
        if verbose:
            counts = {level: sum(f.level is level for f in all_found) for level in Level}
            said = [f"{counts[level]} {level}{'s' if counts[level] > 1 else ''}" for level in list(Level)[2:]]
            self.line(", ".join(said).replace("0 ", "no "), _STYLES[worst])
        return worst

    def _finding(self, finding: Finding) -> None:
        if self._console is not None:
            from rich.padding import Padding
            from rich.text import Text

            text = Text.assemble(
                (f"{finding.level:8}", _STYLES[finding.level]), (f"{finding.part:10}", "bold")
            )
            text.append(finding.what)
            self._console.print(text)
            if finding.advice:
                self._console.print(Padding(Text(finding.advice, "dim"), (0, 0, 0, 18)))
        else:
            self.line(f"{finding.level:8}{finding.part:10}{finding.what}")
            if finding.advice:
                self.line(f"{'':18}{finding.advice}")
