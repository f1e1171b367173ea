"""A node that hints the way the seed did: every message for a channel elsewhere goes to all nodes.

    python -m tests.tools.bench.seedway [options of twistd]

For comparison only.
"""

from __future__ import annotations

from twisted.scripts.twistd import run

from imd.chat.router import Router
from imd.contracts.bus import Hint


def _route(self: Router, user: str, hint: Hint, away: dict[str, list[Hint]], searched: list[Hint]) -> None:
    searched.append(hint)


def _search_came(self: Router, sender: str, hints: list[Hint]) -> None:
    self._take_hints(hints)


def main() -> None:
    Router._route = _route  # type: ignore[method-assign]
    Router._search_came = _search_came  # type: ignore[method-assign]
    run()


if __name__ == "__main__":
    main()
