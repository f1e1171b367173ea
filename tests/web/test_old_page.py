"""A page of 0.1.0 that has been open since before the upgrade, in a tab beside one of this version."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import BrowserContext, Route, expect
from twisted.trial import unittest

from tests.support.old_version import NoHistory, old_tree
from tests.web.browser import Person, Visitors
from tests.web.support import in_browser, name, node
from tests.web.test_messenger import enter, make_room

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def old_page(home: BrowserContext, who: str, folder: Path) -> Person:
    """Sign in at the page of this folder, as if the node had served it."""

    def serve(route: Route) -> None:
        path = urlsplit(route.request.url).path
        file = folder / ("chat.html" if path == "/" else path.removeprefix("/"))
        if file.is_file():
            route.fulfill(body=file.read_bytes(), content_type=_TYPES[file.suffix])
        else:
            route.continue_()

    home.route("**/*", serve)
    # The browser lets a page that a test has answered connect to this machine only with a permission.
    home.grant_permissions(["local-network-access"])
    person = Person.sign_in(home, node("open").http_url, who)
    home.unroute("**/*", serve)
    return person


class OldPageTests(unittest.TestCase):
    timeout = 900

    @in_browser
    def test_a_room(self, visitors: Visitors) -> None:
        """An old tab shows nothing of rooms; of a pair each has what the other sends."""
        try:
            folder = old_tree() / "imd" / "web"
        except NoHistory as reason:
            raise unittest.SkipTest(str(reason)) from None
        home = visitors.context()
        alice, title = name("alice"), name("Weekend")
        old = old_page(home, alice, folder)
        new, third = (Person.sign_in(home, node("open").http_url, alice) for _ in range(2))
        bob = Person.sign_in(visitors.context(), node("open").http_url, name("bob"))
        make_room(new, title, bob)
        new.say("in the room")
        enter(bob, title)
        bob.hears("in the room")
        bob.say("I see")
        new.hears("I see")
        # This user's other tabs have what was said in the room, once, from the node.
        enter(third, title)
        expect(third.page.locator(".message .text")).to_have_text(["in the room", "I see"])
        third.say("from the third")
        expect(new.message("from the third", ".mine.accepted")).to_have_count(1)
        new.open(bob.name)
        new.say("to bob")
        bob.open(alice)
        bob.hears("to bob")
        bob.say("to alice")
        # The old tab heard of the room before that.
        old.open(bob.name)
        expect(old.page.locator(".message .text")).to_have_text(["to bob", "to alice"])
        expect(old.page.locator("a.row .row-title")).to_have_text([bob.name])
        old.say("from the old tab")
        expect(new.message("from the old tab", ".mine.accepted")).to_have_count(1)
        expect(third.row(bob.name).locator(".row-preview")).to_have_text("You: from the old tab")
