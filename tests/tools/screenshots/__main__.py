"""Pictures of the pages: each state in each language, look and width. `scripts/screenshots FOLDER`."""

from __future__ import annotations

import argparse
import itertools
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect, sync_playwright

from tests.support.nodes import NodeServer
from tests.tools.screenshots.states import DESK, PAIR, ROOM, TROUBLES, Shot
from tests.web.browser import Visitors, launch

WIDTHS = {"desktop": (1280, 800), "phone": (390, 844), "narrow": (320, 640)}
LOCALES = ("en-GB", "zh-CN")
LOOKS = ("light", "dark")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/screenshots", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the pictures go; it is made if it is not there")
    parser.add_argument("--only", default="", metavar="WORD", help="only states with this word in their name")
    parser.add_argument("--quick", action="store_true", help="English and light, desktop and phone")
    return parser.parse_args()


def take(page: Page, shot: Shot, cast: Any, where: Path, widths: list[str]) -> None:
    """The pictures of one state. It is set up for each width anew, and cleared away."""
    for width in widths:
        wide, high = WIDTHS[width]
        page.set_viewport_size({"width": wide, "height": high})
        shot.begin(cast)
        page.screenshot(path=where.with_name(f"{where.name}-{width}.png"), animations="disabled")
        shot.end(cast)


def main() -> None:
    given = options()
    given.folder.mkdir(parents=True, exist_ok=True)
    locales, looks = (LOCALES[:1], LOOKS[:1]) if given.quick else (LOCALES, LOOKS)
    widths = list(WIDTHS)[:2] if given.quick else list(WIDTHS)
    expect.set_options(timeout=45_000)
    with tempfile.TemporaryDirectory(prefix="imd-pictures-") as folder, sync_playwright() as playwright:
        browser = launch(playwright)
        for locale, look in itertools.product(locales, looks):
            # A node for each, so that names are free and nobody waits for an agent of before.
            home = Path(folder, f"{locale}-{look}")
            home.mkdir()
            node = NodeServer(home, {"limits": {"messages_per_second": 0}})
            node.start()
            visitors = Visitors(browser)
            try:
                for scene in (ROOM, PAIR, DESK, TROUBLES):
                    shots = [shot for shot in scene.shots if given.only in shot.name]
                    if not shots:
                        continue
                    cast = scene.play(visitors, node.http_url, locale, look)
                    for shot in shots:
                        take(
                            shot.page(cast),
                            shot,
                            cast,
                            given.folder / f"{shot.name}-{locale[:2]}-{look}",
                            widths,
                        )
            finally:
                visitors.close()
                node.kill()
        browser.close()
    print(f"{len(list(given.folder.glob('*.png')))} pictures in {given.folder}")


if __name__ == "__main__":
    main()
