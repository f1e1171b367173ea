"""Find sentences that begin with "What", "Who" or "Those": a reader waits long for their verb.

`python -m tests.project.prose PATH...` prints them. Questions are left alone.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_OPENING = re.compile(r"(?:What|Who|Whom|Whoever|Whatever|Whichever|Those)\b[^.?!]*[.?!:]?")
_SENTENCE = re.compile(r"(?:\A|(?<=[.!?:]\s)|(?<=\n\n)|(?<=\n- )|(?<=\| )|(?<=\n#))\W{0,20}(?=[A-Z])")
_CODE = re.compile(r"```.*?```|^(?: {4}|\t)[^\n]*$", re.DOTALL | re.MULTILINE)
_COMMENT_MARKS = {
    ".lua": "--",
    ".sh": "#",
    ".ini": ";",
    ".service": "#",
    ".socket": "#",
    ".cfg": "#",
    "": "#",
}
_SLASHES = {".js", ".mjs", ".ts", ".css"}
_BLOCK = re.compile(r"/\*(.*?)\*/", re.DOTALL)


def is_prose(path: Path) -> bool:
    """True for a file of the project that has comments, docstrings or sentences in it."""
    folders = {part for part in path.parts if part.startswith((".", "_trial")) or part == "node_modules"}
    return not folders and (path.suffix in {".py", ".md", *_SLASHES, *_COMMENT_MARKS})


class Text(NamedTuple):
    """A piece of prose and the line that it begins at."""

    line: int
    text: str


class Finding(NamedTuple):
    """One opening. `sentence` is its beginning."""

    line: int
    sentence: str


def openings(path: Path) -> list[Finding]:
    """The sentences of a file's prose that begin with a word that is no subject."""
    return sorted(finding for text in _texts(path) for finding in _openings(text))


def _openings(text: Text) -> Iterator[Finding]:
    starts = {0, *(match.end() for match in _SENTENCE.finditer(text.text))}
    for start in sorted(starts):
        match = _OPENING.match(text.text, start)
        if match is not None and not match.group().endswith("?"):
            line = text.line + text.text.count("\n", 0, start)
            yield Finding(line, " ".join(match.group().split())[:80])


def _texts(path: Path) -> Iterator[Text]:
    source = path.read_text()
    if path.suffix == ".py" or source.startswith(("#!/usr/bin/env python", "#!/usr/bin/python")):
        yield from _of_python(source)
    elif path.suffix == ".md":
        yield Text(1, _CODE.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), source))
    elif path.suffix in _SLASHES:
        for match in _BLOCK.finditer(source):
            plain = re.sub(r"^[ \t]*\* ?", "", match.group(1), flags=re.MULTILINE)
            above = source.count("\n", 0, match.start())
            blank = len(plain) - len(plain.lstrip())
            yield Text(above + plain.count("\n", 0, blank) + 1, plain.strip())
        yield from _line_comments(source, "//")
    elif path.suffix in _COMMENT_MARKS:
        yield from _line_comments(source, _COMMENT_MARKS[path.suffix])


def _of_python(source: str) -> Iterator[Text]:
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", [])
        for child in body if isinstance(body, list) else []:
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                text = child.value.value
                if isinstance(text, str):
                    yield Text(child.lineno, text)
    comments = [
        (token.start[0], token.start[1], token.string.lstrip("#").strip())
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    ]
    yield from _joined(comments)


def _line_comments(source: str, mark: str) -> Iterator[Text]:
    found = []
    for number, line in enumerate(source.splitlines(), 1):
        match = re.search(rf"(?:^|\s){re.escape(mark)}+ ?(.*)$", line)
        if match is not None and not line.startswith("#!"):
            found.append((number, match.start(), match.group(1).strip()))
    yield from _joined(found)


def _joined(comments: list[tuple[int, int, str]]) -> Iterator[Text]:
    """Comments that stand below each other are one text."""
    first, last, column, lines = 0, 0, 0, list[str]()
    for number, at, text in comments:
        if lines and number == last + 1 and at == column:
            lines.append(text)
        else:
            if lines:
                yield Text(first, "\n".join(lines))
            first, column, lines = number, at, [text]
        last = number
    if lines:
        yield Text(first, "\n".join(lines))


def main(names: list[str]) -> int:
    """Print the openings in these files and in all files of these folders. Gives 1 if there are any."""
    found = 0
    for name in names:
        path = Path(name)
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and is_prose(file):
                for finding in openings(file):
                    found += 1
                    print(f"{file}:{finding.line}: {finding.sentence}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
