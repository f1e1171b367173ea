"""The words of a message that is removed go from everywhere on the pages, and from what they say."""

from __future__ import annotations

from playwright.sync_api import Page, expect
from twisted.trial import unittest

from tests.web.browser import Person, Visitors
from tests.web.support import in_browser, name, node
from tests.web.test_messenger import choose, enter, make_room, signed_in, two
from tests.web.test_widget_state import Agent, Tab

# The list is drawn again by itself every now and then: here it is not.
_NO_TICKS = """
  const { setInterval } = window;
  window.setInterval = (run, ms) => (ms < 10_000 ? setInterval(run, ms) : 0);
"""

_A_DAY_AHEAD = "const { now } = Date; Date.now = () => now() + 25 * 3600_000;"


def remove(person: Person, text: str) -> None:
    choose(person.message(text), "Remove for everybody")
    person.page.locator(".ask").get_by_role("button", name="Remove").click()


def announced(page: Page) -> str:
    """The last words for screen readers; nobody sees them."""
    return page.locator("body > [aria-live=polite]").text_content() or ""


class RecallTests(unittest.TestCase):
    timeout = 900

    @in_browser
    def test_what_was_announced(self, visitors: Visitors) -> None:
        """The words of a removed message are not left for screen readers, whoever removed it."""
        alice, bob, carol = (signed_in(visitors, who) for who in ("alice", "bob", "carol"))
        title = name("Weekend")
        make_room(alice, title, bob, carol)
        for person in (bob, carol):
            enter(person, title)
        bob.say("unkind words")
        for person in (alice, carol):
            person.hears("unkind words")
            self.assertEqual(announced(person.page), f"{bob.name}: unkind words")
        # Alice has the room open and removes it herself; carol has gone elsewhere.
        carol.open(alice.name)
        remove(alice, "unkind words")
        for person in (alice, carol):
            expect(person.row(title).locator(".row-preview")).to_have_text("This message was removed")
            self.assertEqual(announced(person.page), "")
        # The removal is told to the others who see the conversation.
        enter(carol, title)
        bob.say("more of it")
        carol.hears("more of it")
        self.assertEqual(announced(carol.page), f"{bob.name}: more of it")
        remove(alice, "more of it")
        expect(carol.page.locator(".bubble.recalled")).to_have_count(2)
        self.assertEqual(announced(carol.page), "The message was removed.")
        # Another message than the announced one.
        for text in ("one", "two"):
            bob.say(text)
            alice.hears(text)
        remove(alice, "one")
        self.assertEqual(announced(alice.page), f"{bob.name}: two")

    @in_browser
    def test_what_the_list_shows(self, visitors: Visitors) -> None:
        """A conversation that has not been opened shows a change of its last message at once."""
        alice, bob = two(visitors)
        alice.open(bob.name)
        alice.say("unkind words")
        expect(bob.row(alice.name)).to_be_visible()
        # Another browser gets the list, and none of what is in the inbox already.
        home = visitors.context()
        home.add_init_script(_NO_TICKS)
        away = Person.sign_in(home, node("open").http_url, bob.name)
        preview = away.row(alice.name).locator(".row-preview")
        expect(preview).to_have_text("unkind words")
        choose(alice.message("unkind words"), "Edit")
        alice.write("unkinder words")
        expect(preview).to_have_text("unkinder words")
        remove(alice, "unkinder words")
        expect(preview).to_have_text("This message was removed")

    @in_browser
    def test_the_menu(self, visitors: Visitors) -> None:
        """The menu closes when its message is removed, and copies the text of a changed one as it is now."""
        home = visitors.context(permissions=["clipboard-read", "clipboard-write"])
        alice, bob = signed_in(visitors, "alice"), Person.sign_in(home, node("open").http_url, name("bob"))
        alice.open(bob.name)
        bob.open(alice.name)
        alice.say("unkind words")
        page, menu = bob.page, bob.page.locator(".message-menu")
        page.bring_to_front()
        bob.message("unkind words").locator(".bubble").click(button="right")
        expect(menu.locator("button").first).to_be_focused()
        choose(alice.message("unkind words"), "Edit")
        alice.write("kind words")
        bob.hears("kind words")
        expect(menu.locator("button").first).to_be_focused()
        menu.get_by_role("button", name="Copy").click()
        self.assertEqual(page.evaluate("navigator.clipboard.readText()"), "kind words")
        bob.message("kind words").locator(".bubble").click(button="right")
        expect(menu.locator("button").first).to_be_focused()
        remove(alice, "kind words")
        expect(bob.page.locator(".bubble.recalled")).to_be_visible()
        expect(menu).to_be_hidden()
        expect(page.locator("li[data-id]")).to_be_focused()


class WidgetRecallTests(unittest.TestCase):
    timeout = 900

    @in_browser
    def test_what_was_announced(self, visitors: Visitors) -> None:
        """The visitor's chat tells of a change and a removal, and keeps no words of what was removed."""
        server = node("sites")
        agent = Agent(visitors.context().new_page(), server.http_url, server.url)
        home = visitors.context()
        tab = Tab(home, server.http_url)
        tab.open()
        text = name("anyone")
        tab.say(text)
        agent.gets(text)
        for words in ("unkind words", "more of it"):
            answer = agent.says(words)
            tab.hears(words)
            expect(tab.announced).to_have_text(words)
        agent.page.evaluate("(id) => agent.client.edit(id, { msg: 'less of it' })", answer)
        tab.hears("less of it")
        expect(tab.announced).to_have_text("The message was changed.")
        agent.page.evaluate("(id) => agent.client.recall(id)", answer)
        expect(tab.chat.locator(".recalled")).to_have_count(1)
        expect(tab.announced).to_have_text("The message was removed.")
        # The chat is closed: nothing is told, and nothing stays.
        answer = agent.says("and more")
        expect(tab.announced).to_have_text("and more")
        tab.field.press("Escape")
        expect(tab.chat).to_be_hidden()
        agent.page.evaluate("(id) => agent.client.recall(id)", answer)
        expect(tab.announced).to_have_text("")
        tab.open()
        expect(tab.chat.locator(".recalled")).to_have_count(2)

    @in_browser
    def test_clock_of_the_visitor(self, visitors: Visitors) -> None:
        """A visitor's clock that is a day ahead takes no right away: it is the node's time that counts."""
        home = visitors.context()
        home.add_init_script(_A_DAY_AHEAD)
        tab = Tab(home, node("sites").http_url)
        tab.open()
        tab.say("tens?")
        tab.chat.get_by_role("button", name="More for this message").click()
        for action in ("Edit", "Remove for everybody"):
            expect(tab.chat.get_by_role("button", name=action)).to_be_visible()
