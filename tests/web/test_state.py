"""The list, unread counts, marks, presence and settings at the chat page, on a real node."""

from __future__ import annotations

import json
import re

from playwright.sync_api import BrowserContext, WebSocketRoute, expect

from tests.web.browser import Person, Visitors
from tests.web.support import in_browser, name, node
from tests.web.test_access import Looking


def without_state(home: BrowserContext) -> None:
    """The pages of this profile get no feature `state`, as on a node that does not have it."""

    def as_before(socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()

        def up(frame: str | bytes) -> None:
            content = json.loads(frame)
            if "features" in content:
                content["features"].remove("state")
            server.send(json.dumps(content))

        socket.on_message(up)

    home.route_web_socket(re.compile("/ws"), as_before)


class StateTests(Looking):
    def people(self, visitors: Visitors, *names: str) -> list[Person]:
        """Each name twice is one user with two devices."""
        # Axe is let in, and nothing moves: it would measure half changed colours.
        visitors.defaults |= {"bypass_csp": True, "reduced_motion": "reduce"}
        users = {who: name(who) for who in names}
        url = node("open").http_url
        return [Person.sign_in(visitors.context(), url, users[who]) for who in names]

    def look_twice(self, person: Person, state: str) -> None:
        """Axe looks at the page in both looks; the other changes nothing but colours."""
        for look in ("light", "dark"):
            person.page.emulate_media(color_scheme=look, reduced_motion="reduce")  # type: ignore[arg-type]
            self.look(person.page, f"{state}, {look}", colours_only=look == "dark")
        person.page.emulate_media(color_scheme="light", reduced_motion="reduce")

    @in_browser
    def test_unread_on_all_devices(self, visitors: Visitors) -> None:
        """The node counts unread messages; to read them on one device takes the badge off the others."""
        bob, alice, phone = self.people(visitors, "bob", "alice", "alice")
        bob.open(alice.name)
        for text in ("one", "two"):
            bob.say(text)
        for device in (alice, phone):
            expect(device.row(bob.name).locator(".badge")).to_have_text("2")
            expect(device.page).to_have_title("(2) Chat")
        # A new browser has stored nothing: the list comes from the node, with its count.
        tablet = Person.sign_in(visitors.context(), node("open").http_url, alice.name)
        expect(tablet.row(bob.name).locator(".row-preview")).to_have_text("two")
        expect(tablet.row(bob.name).locator(".badge")).to_have_text("2")
        tablet.page.bring_to_front()
        tablet.row(bob.name).click()
        for text in ("one", "two"):
            tablet.hears(text)
        expect(tablet.page.locator(".unread-line + .message .text")).to_have_text("one")
        for device in (alice, phone, tablet):
            expect(device.row(bob.name).locator(".badge")).to_have_count(0)
            expect(device.page).to_have_title("Chat")
        # A later message counts from there on, also after a reload.
        phone.page.bring_to_front()
        bob.say("three")
        expect(phone.row(bob.name).locator(".badge")).to_have_text("1")
        phone.page.reload()
        expect(phone.row(bob.name).locator(".badge")).to_have_text("1")
        expect(phone.page).to_have_title("(1) Chat")

    @in_browser
    def test_without_state(self, visitors: Visitors) -> None:
        """In a cluster without the feature each browser keeps its own marks, as before."""
        url = node("open").http_url
        user = name("alice")
        homes = [visitors.context(), visitors.context()]
        for home in homes:
            without_state(home)
        alice, phone = (Person.sign_in(home, url, user) for home in homes)
        bob = Person.sign_in(visitors.context(), url, name("bob"))
        bob.open(user)
        bob.say("as ever")
        for device in (alice, phone):
            expect(device.row(bob.name).locator(".badge")).to_have_text("1")
        alice.page.bring_to_front()
        alice.row(bob.name).click()
        alice.hears("as ever")
        expect(alice.row(bob.name).locator(".badge")).to_have_count(0)
        alice.page.reload()
        alice.connected()
        alice.hears("as ever")
        expect(alice.page).to_have_title("Chat")
        expect(phone.row(bob.name).locator(".badge")).to_have_text("1")
        alice.say("indeed")
        bob.hears("indeed")
