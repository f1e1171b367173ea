"""The pages checked by axe: for keyboards and screen readers, in every state, look and language."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from typing import Any

import axe_playwright_python
from playwright.sync_api import BrowserContext, Page, expect
from twisted.trial import unittest

from tests.protocol.support import new_folder, started
from tests.support.nodes import NodeServer
from tests.web.browser import Person, Visitors
from tests.web.support import in_browser, name, node, token

PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 800}

# Replaces a page's connection by connecting as its device.
_REPLACE = """async ([url, userId]) => {
  const key = Object.keys(localStorage).find((key) => key.endsWith(":slots") && key.includes(userId));
  const { Client } = await import("/imd.js");
  const [device] = JSON.parse(localStorage[key]);
  new Client({ url, userId, loginType: "USER_TYPE", device, storage: null }).start();
}"""

# Scrolls up, and says whether it worked: new messages may have scrolled the list down again.
_SCROLL_UP = """() => {
  document.querySelector(".thread .scroller").scrollTop = 0;
  return !document.querySelector(".jump").hidden;
}"""

# All rules with one of these tags, or all, but those of the highest level (AAA).
_LOOK = """async (wanted) => {
  const rules = axe.getRules(wanted).filter(({ tags }) => !tags.includes("wcag2aaa"));
  const values = rules.map(({ ruleId }) => ruleId);
  const options = { runOnly: { type: "rule", values }, resultTypes: ["violations"] };
  return (await axe.run(document, options)).violations;
}"""


@cache
def axe() -> str:
    """The source of axe-core."""
    return Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text()


class Looking(unittest.TestCase):
    """Notes what axe finds."""

    timeout = 900

    def setUp(self) -> None:
        self.wrong: list[str] = []

    def look(self, page: Page, state: str, colours_only: bool = False) -> None:
        """Note the violations that axe finds in the page as it is now."""
        if not page.evaluate("'axe' in window"):
            page.evaluate(axe())
        violations: list[dict[str, Any]] = page.evaluate(_LOOK, ["cat.color"] if colours_only else [])
        for found in violations:
            for spot in found["nodes"]:
                where = f"{state}: {found['impact']} {found['id']} at {spot['target']}"
                self.wrong.append(f"{where}: {spot['html'][:150]} {spot['failureSummary'][:200]}")

    def all_well(self) -> None:
        self.assertEqual(self.wrong, [], "\n" + "\n".join(sorted(set(self.wrong))))


class AccessTests(Looking):
    def setUp(self) -> None:
        super().setUp()
        self.node = started(NodeServer(new_folder(), {}))
        self.addCleanup(self.node.kill)

    def context(self, visitors: Visitors, scheme: Any, locale: str) -> BrowserContext:
        """A page that lets axe in. It has no transitions, as axe would measure half changed colours."""
        return visitors.context(color_scheme=scheme, locale=locale, bypass_csp=True, reduced_motion="reduce")

    def chat(self, home: BrowserContext, look: str) -> None:
        page = home.new_page()
        page.route("**/client.json", lambda route: route.abort())
        page.goto(self.node.http_url)
        expect(page.locator(".looking")).to_be_visible()
        self.look(page, f"{look}: looking for the node")
        page.unroute("**/client.json")
        expect(page.locator("#who")).to_be_visible()
        self.look(page, f"{look}: login")
        page.locator(".corner summary").click()
        self.look(page, f"{look}: login, the choices open")
        page.fill("#who", "visitor-1")
        page.press("#who", "Enter")
        expect(page.locator(".login-problem")).not_to_be_empty()
        self.look(page, f"{look}: login, refused")
        alice = Person(page, name("alice"))
        page.fill("#who", alice.name)
        page.press("#who", "Enter")
        alice.connected()
        self.look(page, f"{look}: no conversation yet")
        page.locator(".me").click()
        self.look(page, f"{look}: menu")
        page.keyboard.press("Escape")
        page.locator(".bar .accent").click()
        expect(page.locator("#names")).to_be_visible()
        self.look(page, f"{look}: to whom?")
        page.keyboard.press("Escape")
        page.fill(".search", "nobody of this name")
        self.look(page, f"{look}: nothing found")
        page.fill(".search", "")
        self.conversations(home, alice, look)
        self.without_node(alice, look)

    def conversations(self, home: BrowserContext, alice: Person, look: str) -> None:
        page = alice.page
        bob = Person.sign_in(home, self.node.http_url, name("bob"))
        alice.open(bob.name)
        self.look(page, f"{look}: an empty conversation")
        alice.say("hi, look at https://example.org/")
        bob.open(alice.name)
        bob.hears("hi, look at https://example.org/")
        answer = "\n".join(["an", "answer", "of", "many", "lines"] * 4)
        for n in range(3):
            bob.say(f"{n}: {answer}")
        alice.hears(f"2: {answer}")
        page.wait_for_function(_SCROLL_UP)
        self.look(page, f"{look}: scrolled up")
        alice.open("bob", "carol")
        alice.say("to all")
        bob.say("news")
        expect(alice.row(bob.name).locator(".badge")).to_be_visible()
        page.fill(".compose-text", "a draft")
        self.look(page, f"{look}: a group; unread elsewhere")
        bob.page.bring_to_front()
        bob.say("more news")
        page.evaluate("(name) => { location.hash = name; }", bob.name)
        expect(page.locator(".unread-line")).to_be_visible()
        self.look(page, f"{look}: what is new")
        page.set_viewport_size(PHONE)  # type: ignore[arg-type]
        self.look(page, f"{look}: a conversation, phone")
        page.set_viewport_size(DESKTOP)  # type: ignore[arg-type]
        alice.open("x" * 129)
        alice.write("to nobody")
        expect(alice.message("to nobody", ".failed")).to_be_visible()
        page.fill(".compose-text", "x" * 70_000)
        expect(page.locator(".compose-warning")).not_to_be_empty()
        self.look(page, f"{look}: failed; too long")
        page.set_viewport_size(PHONE)  # type: ignore[arg-type]
        page.locator(".back").click()
        self.look(page, f"{look}: the list, phone")
        page.set_viewport_size(DESKTOP)  # type: ignore[arg-type]
        alice.open(bob.name)
        bob.page.close()

    def without_node(self, alice: Person, look: str) -> None:
        page = alice.page
        self.node.kill()
        expect(page.locator(".link")).to_be_visible()
        alice.write("later")
        expect(alice.message("later", ".sending")).to_be_visible()
        self.look(page, f"{look}: no connection")
        self.node.start()
        alice.connected()
        self.look(page, f"{look}: connected again")
        page.evaluate(_REPLACE, [self.node.url, alice.name])
        expect(page.locator(".link .button-link")).to_be_visible()
        self.look(page, f"{look}: replaced")
        page.close()

    def desk(self, home: BrowserContext, look: str) -> None:
        page = home.new_page()
        page.goto(self.node.http_url + "agent")
        self.look(page, f"{look}: desk, login")
        page.close()
        agent = Person.sign_in(home, self.node.http_url + "agent", name("sam"))
        page = agent.page
        self.look(page, f"{look}: desk, nobody waits")
        demo = home.new_page()
        demo.goto(self.node.http_url + "demo")
        bubble, chat = demo.locator("imd-chat .bubble"), demo.locator("imd-chat .panel")
        expect(bubble).to_be_visible()
        self.look(demo, f"{look}: demo")
        bubble.click()
        self.look(demo, f"{look}: demo, the chat open")
        chat.locator("textarea").fill("anyone?")
        chat.locator("textarea").press("Enter")
        expect(chat.locator(".mine.accepted")).to_be_visible()
        expect(page.locator("a.row .waits")).to_be_visible()
        self.look(page, f"{look}: desk, somebody waits")
        page.locator("a.row").click()
        agent.say("yes")
        self.look(page, f"{look}: desk, a visitor's conversation")
        expect(chat.locator(".theirs")).to_be_visible()
        chat.locator("textarea").fill("x" * 70_000)
        chat.locator("textarea").press("Enter")
        expect(chat.locator(".failed")).to_be_visible()
        self.look(demo, f"{look}: demo, answered; failed")
        chat.locator(".shut").click()
        agent.say("and?")
        expect(demo.locator("imd-chat .badge")).to_be_visible()
        self.look(demo, f"{look}: demo, closed, a new answer")
        page.locator(".bar .switch input").uncheck(force=True)
        expect(page.locator("[data-link=closed]")).to_be_visible()
        self.look(page, f"{look}: desk, on a break")
        page.close()
        bubble.click()
        self.node.kill()
        expect(chat.locator(".link")).to_be_visible()
        chat.locator("textarea").fill("later")
        chat.locator("textarea").press("Enter")
        expect(chat.locator(".sending")).to_be_visible()
        demo.set_viewport_size(PHONE)  # type: ignore[arg-type]
        self.look(demo, f"{look}: demo, no connection, phone")
        demo.close()

    def tokens(self, home: BrowserContext, look: str) -> None:
        page = home.new_page()
        page.goto(node("jwt").http_url + "agent")
        expect(page.locator("#who")).to_be_visible()
        self.look(page, f"{look}: login with a token")
        page.fill("#who", token(name("sam"), -100))
        page.press("#who", "Enter")
        expect(page.locator(".login-problem")).to_be_visible()
        self.look(page, f"{look}: login with a token, refused")
        page.fill("#who", token(name("sam"), nbf=time.time() + 300))
        page.press("#who", "Enter")
        expect(page.locator(".link")).to_be_visible()
        self.look(page, f"{look}: a wrong clock")
        page.locator(".me").click()
        page.locator("#menu .secondary").click()
        page.fill("#who", token(name("sam")))
        page.press("#who", "Enter")
        expect(page.locator(".link")).to_be_visible()
        expect(page.locator("[data-link=open]")).to_be_visible()
        self.look(page, f"{look}: no agent")
        page.close()

    def walk(self, visitors: Visitors, scheme: str, locale: str) -> None:
        look = f"{scheme} {locale}"
        for part in (self.chat, self.desk, self.tokens):
            part(self.context(visitors, scheme, locale), look)
        self.all_well()

    # Colours and words do not depend on one another, so two walks see both looks and both languages.

    @in_browser
    def test_light(self, visitors: Visitors) -> None:
        self.walk(visitors, "light", "en-GB")

    @in_browser
    def test_dark_chinese(self, visitors: Visitors) -> None:
        self.walk(visitors, "dark", "zh-CN")
