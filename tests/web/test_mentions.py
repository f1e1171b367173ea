"""Names in drafts, in pasted text, and in texts that are sent before the page knows the members of a room."""

from __future__ import annotations

import re

from playwright.sync_api import expect
from twisted.trial import unittest

from tests.support.servers import wait_until
from tests.web.browser import Person, Visitors
from tests.web.line import Line
from tests.web.support import in_browser, name, node
from tests.web.test_messenger import choose, enter, make_room, signed_in, stored, two

_TEXTS = ".message .text"


def on_a_line(visitors: Visitors) -> tuple[Person, Line]:
    """Alice, signed in behind a line of her own."""
    home = visitors.context()
    line = Line(home)
    return Person.sign_in(home, node("open").http_url, name("alice")), line


class MentionTests(unittest.TestCase):
    timeout = 900

    @in_browser
    def test_in_drafts_and_pasted_text(self, visitors: Visitors) -> None:
        """Users who are named in a draft, in pasted text or in an edit are told of it."""
        alice, bob = two(visitors)
        title = name("Weekend")
        make_room(alice, title, bob)
        field = alice.page.locator(".compose-text")
        named = bob.row(title).locator(".badge.named")

        def sent(text: str) -> None:
            field.press("Enter")
            expect(alice.message(text, ".mine.accepted")).to_be_visible()
            expect(named).to_be_visible()
            enter(bob, title)
            expect(bob.message(text).locator(".mention.to-me")).to_have_count(1)
            bob.open(alice.name)
            expect(named).to_have_count(0)

        # A draft, in a page that has not completed a name.
        field.fill(f"@{bob.name} please look")
        alice.open("nobody")
        alice.row(title).click()
        expect(field).to_have_value(f"@{bob.name} please look")
        sent(f"@{bob.name} please look")
        field.fill(f"@{bob.name} once more")
        alice.open("nobody")
        alice.page.reload()
        alice.connected()
        alice.row(title).click()
        expect(field).to_have_value(f"@{bob.name} once more")
        sent(f"@{bob.name} once more")
        # Pasted: the cursor stands behind all of it.
        field.fill(f"hi @{bob.name}, look")
        sent(f"hi @{bob.name}, look")
        # A name is put into a text that had none.
        alice.say("look")
        choose(alice.message("look"), "Edit")
        late = f"@{bob.name}, look here"
        field.fill(late)
        field.press("Enter")
        expect(alice.message(late, ".mine.accepted")).to_have_count(1)
        enter(bob, title)
        expect(bob.message(late).locator(".mention.to-me")).to_have_count(1)

    @in_browser
    def test_in_a_list(self, visitors: Visitors) -> None:
        """In a group that is no room it is the same: its names are those of the conversation."""
        alice, bob = two(visitors)
        carol = name("carol")
        alice.open(bob.name, carol)
        alice.page.locator(".compose-text").fill(f"hi @{bob.name}, look")
        wait_until(lambda: "hi @" in stored(alice.page), 180, "the draft is kept")
        alice.page.reload()
        alice.page.locator(".compose-text").press("Enter")
        bob.open(alice.name, carol)
        expect(bob.message(f"hi @{bob.name}, look").locator(".mention.to-me")).to_have_count(1)

    @in_browser
    def test_before_the_members_are_known(self, visitors: Visitors) -> None:
        """A text with a name waits for the members, and the next one for it; each is sent once."""
        alice, line = on_a_line(visitors)
        bob = signed_in(visitors, "bob")
        title = name("Weekend")
        make_room(alice, title, bob)
        alice.say("before")
        enter(bob, title)
        line.hold("members")
        alice.page.reload()
        alice.connected()
        expect(alice.message("before")).to_be_visible()
        field = alice.page.locator(".compose-text")
        texts = [f"one, @{bob.name}", "two"]
        for text in texts:
            field.fill(text)
            field.press("Enter")
            expect(field).to_have_value("")
            expect(alice.message(text, ".mine.sending")).to_be_visible()
        expect(alice.row(title).locator(".row-preview")).to_have_text("You: two")
        field.fill("three")
        line.release()
        for text in texts:
            expect(alice.message(text, ".mine.accepted")).to_have_count(1)
        expect(field).to_have_value("three")
        expect(bob.page.locator(_TEXTS)).to_have_text(["before", *texts])
        expect(bob.page.locator(".mention.to-me")).to_have_count(1)

    @in_browser
    def test_a_text_that_cannot_be_sent(self, visitors: Visitors) -> None:
        """A text that waited, and that no node would take, comes back into the field."""
        alice, line = on_a_line(visitors)
        line.hold("members")
        make_room(alice, name("Weekend"))
        field = alice.page.locator(".compose-text")
        field.evaluate("(field) => { field.value = `half an emoji ${'😀'[0]} for @bob`; }")
        field.press("Enter")
        expect(field).to_have_value("")
        field.fill("next")
        line.release()
        expect(alice.page.locator(".compose-warning")).to_contain_text("without lone surrogates")
        expect(field).to_have_value(re.compile("^half an emoji .* for @bob\nnext$"))
        expect(alice.page.locator(".message")).to_have_count(0)

    @in_browser
    def test_without_the_members(self, visitors: Visitors) -> None:
        """A text whose names cannot be known is sent all the same: after a while, or when its page goes."""
        alice, line = on_a_line(visitors)
        bob = signed_in(visitors, "bob")
        title = name("Weekend")
        line.hold("members")
        make_room(alice, title, bob)
        enter(bob, title)
        alice.say(f"one, @{bob.name}")
        alice.write(f"two, @{bob.name}")
        alice.page.reload()
        alice.connected()
        alice.write(f"three, @{bob.name}")
        # The conversation is left, and the user signs out.
        alice.open(bob.name)
        alice.page.once("dialog", lambda dialog: dialog.accept())
        alice.page.locator(".me").click()
        alice.page.get_by_role("button", name="Sign out").click()
        expect(alice.page.locator("#who")).to_be_visible()
        alice = Person.sign_in(alice.page.context, node("open").http_url, alice.name)
        expect(bob.page.locator(_TEXTS)).to_have_text(
            [f"{number}, @{bob.name}" for number in ("one", "two", "three")]
        )
