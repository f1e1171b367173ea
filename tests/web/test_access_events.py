"""Rooms, edits, recalls, reactions and replies, checked by axe in the states that the pictures show."""

from __future__ import annotations

from tests.tools.screenshots.states import DESK, ROOM, TROUBLES, Scene
from tests.web.browser import Visitors
from tests.web.support import in_browser, node
from tests.web.test_access import DESKTOP, PHONE, Looking

# In the states that bring colours of their own, both looks are checked.
COLOURFUL = {"room", "menu", "mention", "details", "named", "recall", "reply", "desk", "widget-actions"}
COLOURFUL |= {"widget-reply", "widget-replied", "refused", "widget-refused"}


class EventAccessTests(Looking):
    def walk(self, visitors: Visitors, scene: Scene, viewport: dict[str, int], on: str = "scenes") -> None:
        # Axe is let in, and nothing moves: it would measure half changed colours.
        visitors.defaults |= {"bypass_csp": True, "reduced_motion": "reduce"}
        cast = scene.play(visitors, node(on).http_url, "en-GB", "light")
        for shot in scene.shots:
            page = shot.page(cast)
            page.set_viewport_size(viewport)  # type: ignore[arg-type]
            shot.begin(cast)
            for look in ("light", "dark") if shot.name in COLOURFUL else ("light",):
                page.emulate_media(color_scheme=look, reduced_motion="reduce")
                # The other look changes nothing but colours.
                self.look(page, f"{shot.name}, {look}", colours_only=look == "dark")
            page.emulate_media(color_scheme="light", reduced_motion="reduce")
            shot.end(cast)
        self.all_well()

    @in_browser
    def test_chat(self, visitors: Visitors) -> None:
        self.walk(visitors, ROOM, PHONE)

    @in_browser
    def test_desk_and_widget(self, visitors: Visitors) -> None:
        self.walk(visitors, DESK, DESKTOP)

    @in_browser
    def test_troubles(self, visitors: Visitors) -> None:
        self.walk(visitors, TROUBLES, PHONE, "troubles")
