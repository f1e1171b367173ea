"""The widget and state: who is typing, what is unread in each tab, and what the agent has read."""

from __future__ import annotations

import json
import re
from typing import Any

from playwright.sync_api import BrowserContext, Locator, Page, WebSocketRoute, expect

from tests.web.browser import Person, Visitors, writing
from tests.web.support import in_browser, name, node
from tests.web.test_access import DESKTOP, PHONE, Looking

# An agent without a page of its own: `window.agent`, and what it has heard.
_AGENT = """async ([url, userId]) => {
  const { Client } = await import("/imd.js");
  const client = new Client({ url, userId, loginType: "USER_TYPE", isCustomerService: true, storage: null });
  const messages = {};
  const typing = new Set();
  client.on("message", (message) => (messages[message.msg] = message));
  client.on("typing", ({ with: other, on }) => (on ? typing.add(other) : typing.delete(other)));
  window.agent = { client, messages, typing, hand: null };
  const open = new Promise((done) => client.on("connected", done));
  client.start();
  await open;
}"""


class Agent:
    """Speaks with the visitor who wrote a message."""

    def __init__(self, page: Page, url: str, websocket: str) -> None:
        self.page = page
        self.name = name("sam")
        self.visitor = ""
        page.goto(url + "demo")
        page.evaluate(_AGENT, [websocket, self.name])

    def gets(self, text: str) -> str:
        """The id of a message of the visitor."""
        handle = self.page.wait_for_function("(text) => agent.messages[text]", arg=text)
        message = handle.json_value()
        self.visitor = message["userId"]
        return str(message["id"])

    def says(self, text: str) -> str:
        """The id of the message, once it is accepted."""
        self.stops()
        words = "({to, msg}) => agent.client.accepted(agent.client.send({ to, msg })).then(({ id }) => id)"
        return str(self.page.evaluate(words, {"to": self.visitor, "msg": text}))

    def types(self) -> None:
        """Until it says something, or stops."""
        words = """(who) => {
          agent.client.typing({ with: who });
          agent.hand = setInterval(() => agent.client.typing({ with: who }), 500);
        }"""
        self.page.evaluate(words, self.visitor)

    def stops(self) -> None:
        self.page.evaluate("clearInterval(agent.hand)")

    def reads(self, message_id: str) -> None:
        self.page.evaluate(
            "([who, id]) => agent.client.read({ with: who, upTo: id })", [self.visitor, message_id]
        )

    def sees_read(self, message_id: str) -> None:
        words = "([who, id]) => agent.client.conversation({ with: who }).peerRead >= id"
        self.page.wait_for_function(words, arg=[self.visitor, message_id])

    def sees_typing(self) -> None:
        self.page.wait_for_function("(who) => agent.typing.has(who)", arg=self.visitor)


class Tab:
    """A page of a site with the chat."""

    def __init__(self, home: BrowserContext, url: str) -> None:
        self.page = home.new_page()
        self.page.goto(url + "demo")
        self.bubble = self.page.locator("imd-chat .bubble")
        self.badge = self.page.locator("imd-chat .badge")
        self.chat = self.page.locator("imd-chat .panel")
        self.field = self.chat.locator("textarea")
        self.typing = self.chat.locator(".typing")
        self.announced = self.chat.locator("[aria-live=polite]")

    def open(self) -> None:
        self.bubble.click()
        expect(self.field).to_be_focused()

    def say(self, text: str) -> None:
        self.field.fill(text)
        self.field.press("Enter")
        expect(self.mine(text)).to_have_count(1)

    def mine(self, text: str, kind: str = ".accepted") -> Locator:
        exactly = self.page.locator(".text", has_text=re.compile(f"^{re.escape(text)}$"))
        return self.chat.locator(f".mine{kind}", has=exactly)

    def hears(self, text: str) -> None:
        expect(self.chat.locator(".theirs .text", has_text=text)).to_have_count(1)

    def place(self) -> Any:
        """Where the newest message and the field are."""
        return [self.chat.locator(".message").last.bounding_box(), self.field.bounding_box()]


class WidgetStateTests(Looking):
    @in_browser
    def test_state(self, visitors: Visitors) -> None:
        """Typing is seen on both sides and moves nothing. Reading is seen, too, and counts in all tabs."""
        server = node("sites")
        agent = Agent(visitors.context().new_page(), server.http_url, server.url)
        home = visitors.context(reduced_motion="reduce", bypass_csp=True)
        first = Tab(home, server.http_url)
        first.open()
        text = name("anyone")
        first.say(text)
        asked = agent.gets(text)

        # The agent has read it.
        expect(first.mine(text, ".read")).to_have_count(0)
        agent.reads(asked)
        expect(first.mine(text, ".read").get_by_role("img", name="Read")).to_be_visible()
        # A later message is not read by that.
        first.say("and")
        expect(first.mine("and", ".read")).to_have_count(0)
        agent.reads(agent.gets("and"))
        expect(first.mine("and", ".read")).to_have_count(1)

        # Each sees the other typing. The second word is no second announcement.
        place = first.place()
        agent.types()
        words = f"{agent.name} is typing…"
        expect(first.typing).to_have_text(words)
        expect(first.announced).to_have_text(words)
        self.assertEqual(first.place(), place)
        first.page.emulate_media(color_scheme="light", reduced_motion="reduce")
        self.look(first.page, "typing and read, light")
        first.page.set_viewport_size(PHONE)  # type: ignore[arg-type]
        first.page.emulate_media(color_scheme="dark", reduced_motion="reduce")
        self.look(first.page, "typing and read, dark, phone")
        expect(first.typing).to_have_text(words)
        first.page.set_viewport_size(DESKTOP)  # type: ignore[arg-type]
        agent.stops()
        expect(first.typing).to_have_text("")
        expect(first.announced).to_have_text("")
        self.assertEqual(first.place(), place)
        with writing(first.field, "yes"):
            agent.sees_typing()
        agent.types()
        expect(first.typing).to_have_text(words)
        expect(first.announced).to_have_text("")

        # The visitor has the answer before its eyes.
        answer = agent.says("here I am")
        first.hears("here I am")
        expect(first.typing).to_have_text("")
        expect(first.announced).to_have_text("here I am")
        agent.sees_read(answer)

        # Unread answers are counted in each tab, until one of them shows them.
        second = Tab(home, server.http_url)
        first.field.press("Escape")
        expect(first.chat).to_be_hidden()
        more = agent.says("still here")
        for tab in (first, second):
            expect(tab.badge).to_have_text("1")
            expect(tab.bubble).to_have_accessible_name("Open the chat. New answers: 1")
        second.open()
        second.hears("still here")
        agent.sees_read(more)
        expect(first.badge).to_be_hidden()
        expect(second.mine("and", ".read")).to_have_count(1)
        # The marks are the node's: a browser that has lost its own counts the same.
        first.page.evaluate("localStorage.removeItem('imd.widget.read')")
        second.page.close()
        first.page.reload()
        agent.says("one more")
        expect(first.badge).to_have_text("1")
        first.open()
        expect(first.mine("and", ".read")).to_have_count(1)
        expect(first.badge).to_be_hidden()
        self.all_well()

    @in_browser
    def test_without_state(self, visitors: Visitors) -> None:
        """Without the feature the widget neither says nor shows any of it, and counts as it did."""
        server = node("sites")
        agent = Agent(visitors.context().new_page(), server.http_url, server.url)
        home = visitors.context(locale="zh-CN", viewport={"width": 390, "height": 844}, has_touch=True)
        sent: list[str] = []

        def as_before(socket: WebSocketRoute) -> None:
            """A node of level 1: it grants nothing."""
            node_side = socket.connect_to_server()

            def up(text: str | bytes) -> None:
                frame = json.loads(text)
                frame.pop("features", None)
                sent.append(frame.get("type", "message"))
                node_side.send(json.dumps(frame))

            socket.on_message(up)

        home.route_web_socket(re.compile("/ws"), as_before)
        tab = Tab(home, server.http_url)
        tab.open()
        text = name("anyone")
        tab.field.press_sequentially(text)
        tab.say(text)
        agent.reads(agent.gets(text))
        agent.types()
        agent.says("here I am")
        tab.hears("here I am")
        tab.chat.locator(".shut").click()
        agent.says("still here")
        expect(tab.badge).to_have_text("1")
        tab.page.reload()
        expect(tab.badge).to_have_text("1")
        tab.open()
        expect(tab.badge).to_be_hidden()
        expect(tab.mine(text)).to_have_count(1)
        expect(tab.mine(text, ".read")).to_have_count(0)
        self.assertNotIn("typing", sent)
        self.assertNotIn("read", sent)


class DeskStateTests(Looking):
    @in_browser
    def test_desk(self, visitors: Visitors) -> None:
        """At the desk the agent sees that the visitor is typing and has read; the visitor sees the same."""
        url = node("sites").http_url
        agent = Person.sign_in(
            visitors.context(reduced_motion="reduce", bypass_csp=True), url + "agent", name("sam")
        )
        tab = Tab(visitors.context(reduced_motion="reduce"), url)
        tab.open()
        text = name("anyone")
        tab.say(text)
        agent.page.bring_to_front()
        agent.page.locator("a.row", has_text=text).click()
        agent.hears(text)
        # The desk shows the message: so it is read.
        expect(tab.mine(text, ".read")).to_have_count(1)
        with writing(agent.page.locator(".compose-text"), "here"):
            expect(tab.typing).to_have_text(f"{agent.name} is typing…")
        agent.say("here I am")
        tab.hears("here I am")
        expect(tab.typing).to_have_text("")
        expect(agent.message("here I am", ".mine.read").get_by_role("img", name="Read")).to_be_visible()
        with writing(tab.field, "fine"):
            expect(agent.page.locator(".bar-about")).to_have_text("writing…")
            expect(agent.page.locator("body > [role=status]")).to_have_text(re.compile("^Writing: Visitor "))
            self.look(agent.page, "desk, the visitor is typing and has read")
        # A message that comes while the chat is closed is not read.
        tab.field.press("Escape")
        expect(tab.chat).to_be_hidden()
        agent.say("still here")
        expect(tab.badge).to_have_text("1")
        expect(agent.message("still here", ".read")).to_have_count(0)
        tab.open()
        expect(agent.message("still here", ".read")).to_have_count(1)
        self.all_well()
