"""The chat, the desk and the widget in a real browser, on real nodes."""

from __future__ import annotations

import re

from playwright.sync_api import WebSocket, WebSocketRoute, expect
from twisted.trial import unittest

from tests.protocol.support import new_folder, started
from tests.support.nodes import NodeServer
from tests.support.servers import wait_until
from tests.web.browser import Person, Visitors
from tests.web.support import Site, in_browser, name, node, token

# Sends many messages at once: no person could.
_SEND_MANY = """async ([to, count, userId, url]) => {
  const { Client } = await import("/imd.js");
  const client = new Client({ url, userId, loginType: "USER_TYPE", storage: null, maxInFlight: 200 });
  client.start();
  const all = new Promise((done) => {
    let left = count;
    client.on("accepted", () => --left || done());
  });
  for (let i = 1; i <= count; i++) client.send({ to, msg: `message ${i}` });
  await all;
  await client.stop();
}"""

# Another tab has stored something, and two frames are drawn.
_CHANGE = """async (key) => {
  dispatchEvent(new StorageEvent("storage", { key }));
  for (let i = 0; i < 2; i++) await new Promise(requestAnimationFrame);
}"""


class ChatTests(unittest.TestCase):
    timeout = 900

    @in_browser
    def test_two_people(self, visitors: Visitors) -> None:
        """Two people see each other's messages; the list, the title and the unread count follow."""
        url = node("open").http_url
        alice = Person.sign_in(visitors.context(), url, name("alice"))
        bob = Person.sign_in(visitors.context(), url, name("bob"))
        alice.page.get_by_role("button", name="Write to somebody").click()
        alice.page.get_by_label("To").fill(bob.name)
        alice.page.get_by_role("button", name="Start").click()
        alice.say("hi bob")
        expect(bob.row(alice.name).locator(".badge")).to_have_text("1")
        expect(bob.page).to_have_title("(1) Chat")
        bob.page.bring_to_front()
        bob.row(alice.name).click()
        bob.hears("hi bob")
        expect(bob.row(alice.name).locator(".badge")).to_have_count(0)
        expect(bob.page).to_have_title("Chat")
        bob.say("hi alice\nhow are you?")
        alice.hears("hi alice\nhow are you?")
        expect(alice.row(bob.name).locator(".row-preview")).to_contain_text("hi alice")

        # Markup stays text; an address becomes a link.
        markup = "<img src=x onerror=alert(1)><b>bold</b> https://example.org/a?b=1."
        alice.say(markup)
        bob.hears(markup)
        text = bob.message(markup).locator(".text")
        expect(text.locator("img, b")).to_have_count(0)
        expect(text.locator("a")).to_have_attribute("href", "https://example.org/a?b=1")
        expect(text.locator("a")).to_have_attribute("rel", re.compile("noopener"))

        # A draft stays with its conversation, also over a reload.
        bob.page.fill(".compose-text", "not yet")
        bob.open("nobody")
        expect(bob.row(alice.name).locator(".draft")).to_be_visible()
        bob.page.reload()
        bob.open(alice.name)
        expect(bob.page.locator(".compose-text")).to_have_value("not yet")
        bob.hears("hi bob")

        # A message that the node refuses for good can be removed.
        bob.open("x" * 129)
        bob.write("to nobody")
        expect(bob.message("to nobody", ".failed")).to_be_visible()
        failure = bob.page.locator(".failure")
        failure.get_by_role("button", name="Try again").click()
        failure.get_by_role("button", name="Delete").click()
        expect(bob.message("to nobody")).to_have_count(0)

    @in_browser
    def test_away(self, visitors: Visitors) -> None:
        """Messages that come while a page is closed are there, as unread, when it opens again."""
        url = node("open").http_url
        alice = Person.sign_in(visitors.context(), url, name("alice"))
        home = visitors.context()
        bob = Person.sign_in(home, url, name("bob"))
        alice.open(bob.name)
        alice.say("one")
        bob.page.bring_to_front()
        bob.row(alice.name).click()
        bob.hears("one")
        bob.page.close()
        for text in ("two", "three"):
            alice.say(text)
        bob = Person.sign_in(home, url, bob.name)
        expect(bob.row(alice.name).locator(".badge")).to_have_text("2")
        bob.row(alice.name).click()
        for text in ("one", "two", "three"):
            bob.hears(text)
        expect(bob.page.locator(".unread-line")).to_have_count(1)

    @in_browser
    def test_killed_node(self, visitors: Visitors) -> None:
        """A node is killed under open pages: messages written meanwhile arrive once when it is back."""
        own = NodeServer(new_folder(), {})
        started(own)
        try:
            alice = Person.sign_in(visitors.context(), own.http_url, "alice")
            bob = Person.sign_in(visitors.context(), own.http_url, "bob")
            alice.open("bob")
            bob.open("alice")
            alice.say("before")
            bob.hears("before")
            own.kill()
            alice.write("meanwhile")
            expect(alice.message("meanwhile", ".mine.sending")).to_be_visible()
            expect(alice.page.locator(".link")).to_contain_text("No connection")
            own.start()
            expect(alice.message("meanwhile", ".mine.accepted")).to_have_count(1)
            bob.hears("meanwhile")
            bob.connected()
            expect(alice.page.locator(".link")).to_be_hidden()
            bob.say("after")
            alice.hears("after")
            bob.page.reload()
            for text in ("before", "meanwhile"):
                bob.hears(text)
            expect(bob.page.locator(".message")).to_have_count(3)
        finally:
            own.kill()

    @in_browser
    def test_reload_with_messages_unsent(self, visitors: Visitors) -> None:
        """A message that could not be sent survives a reload, and is sent when the node is back."""
        url = node("open").http_url
        blocked = False
        home = visitors.context()

        def through(socket: WebSocketRoute) -> None:
            if blocked:
                socket.close()
            else:
                socket.connect_to_server()

        home.route_web_socket(re.compile(r"/ws\?user=alice"), through)
        bob = Person.sign_in(visitors.context(), url, name("bob"))
        alice = Person.sign_in(home, url, name("alice"))
        alice.open(bob.name)
        alice.say("first")
        blocked = True
        alice.page.reload()
        alice.write("kept")
        alice.write("kept too")
        expect(alice.message("kept too", ".sending")).to_be_visible()
        alice.page.reload()
        for text in ("kept", "kept too"):
            expect(alice.message(text, ".sending")).to_have_count(1)
        # Beside each other, as they will be when they are sent.
        expect(alice.message("kept too", ":not(.first)")).to_have_count(1)
        blocked = False
        for text in ("kept", "kept too"):
            expect(alice.message(text, ".accepted")).to_have_count(1)
        bob.open(alice.name)
        expect(bob.page.locator(".message .text")).to_have_text(["first", "kept", "kept too"])

    @in_browser
    def test_two_tabs(self, visitors: Visitors) -> None:
        """Two tabs of one user: both are connected and see everything; reading in one counts for both."""
        url = node("open").http_url
        home = visitors.context()
        alice, bob = name("alice"), Person.sign_in(visitors.context(), url, name("bob"))
        first = Person.sign_in(home, url, alice)
        second = Person.sign_in(home, url, alice)
        bob.open(alice)
        bob.say("to both")
        for tab in (first, second):
            expect(tab.row(bob.name).locator(".badge")).to_have_text("1")
        second.page.bring_to_front()
        second.row(bob.name).click()
        second.hears("to both")
        expect(first.row(bob.name).locator(".badge")).to_have_count(0)
        second.say("from the second")
        first.open(bob.name)
        expect(first.message("from the second", ".mine.accepted")).to_have_count(1)
        first.say("from the first")
        expect(second.message("from the first", ".mine.accepted")).to_have_count(1)
        bob.hears("from the second")
        for tab in (first, second):
            tab.connected()

    @in_browser
    def test_group(self, visitors: Visitors) -> None:
        """A group is one conversation for all its members, with the senders' names."""
        url = node("open").http_url
        alice, bob, carol = (
            Person.sign_in(visitors.context(), url, name(who)) for who in ("alice", "bob", "carol")
        )
        alice.open(bob.name, carol.name)
        alice.say("hello all")
        for person, others in ((bob, [alice.name, carol.name]), (carol, [alice.name, bob.name])):
            person.row(", ".join(sorted(others))).click()
            person.hears("hello all")
        carol.say("hello from carol")
        for person in (alice, bob):
            person.hears("hello from carol")
            expect(person.message("hello from carol").locator(".sender")).to_have_text(carol.name)
        expect(bob.page.locator("a.row")).to_have_count(1)

    @in_browser
    def test_history(self, visitors: Visitors) -> None:
        """Scrolling up reads older messages, and the visible ones stay in place."""
        server = node("open")
        alice, bob = name("alice"), name("bob")
        reader = Person.sign_in(visitors.context(), server.http_url, bob)
        reader.page.evaluate(_SEND_MANY, [bob, 300, alice, server.url])
        # A new profile has nothing but what the archive gives.
        reader = Person.sign_in(visitors.context(), server.http_url, bob)
        reader.page.reload()
        reader.row(alice).click()
        reader.page.locator(".jump").or_(reader.message("message 300")).first.wait_for()
        scroller = reader.page.locator(".scroller")
        scroller.evaluate("(element) => { element.scrollTop = element.scrollHeight; }")
        expect(reader.message("message 300")).to_be_in_viewport()
        for _ in range(40):
            # In this order: once the first message is there, no other one comes.
            count = reader.page.locator(".message").count()
            if reader.message("message 1").count():
                break
            place = scroller.evaluate(
                """async (element) => {
                  element.scrollTop = 100;
                  await new Promise((done) => setTimeout(done, 50));
                  const edge = element.getBoundingClientRect().top;
                  const seen = [...element.querySelectorAll(".message")].find(
                    (message) => message.getBoundingClientRect().bottom > edge);
                  const top = seen.getBoundingClientRect().top;
                  element.dataset.seen = seen.dataset.key;
                  return top;
                }"""
            )
            expect(reader.page.locator(".message").nth(count)).to_be_attached()
            after = scroller.evaluate(
                """(element) => [...element.querySelectorAll(".message")].find(
                  (message) => message.dataset.key === element.dataset.seen).getBoundingClientRect().top"""
            )
            self.assertLess(abs(after - place), 40)
        texts = reader.page.locator(".message .text").all_text_contents()
        self.assertEqual(texts, [f"message {i}" for i in range(1, 301)])
        expect(reader.page.locator(".thread-top")).to_have_text("This is where your conversation begins.")

    @in_browser
    def test_keyboard(self, visitors: Visitors) -> None:
        """The chat works without a mouse."""
        url = node("open").http_url
        alice, bob = name("alice"), name("bob")
        page = visitors.context().new_page()
        page.goto(url)
        expect(page.locator("#who")).to_be_focused()
        page.keyboard.type(alice)
        page.keyboard.press("Enter")
        person = Person(page, alice)
        person.connected()
        page.keyboard.press("n")
        expect(page.locator("#names")).to_be_focused()
        page.keyboard.type(bob)
        page.keyboard.press("Enter")
        expect(page.locator(".compose-text")).to_be_focused()
        page.keyboard.type("one line")
        page.keyboard.press("Shift+Enter")
        page.keyboard.type("and another")
        page.keyboard.press("Enter")
        expect(person.message("one line\nand another", ".accepted")).to_be_visible()
        page.keyboard.press("Escape")
        expect(person.row(bob)).to_be_focused()
        page.keyboard.press("n")
        page.keyboard.type("carol, dave")
        page.keyboard.press("Enter")
        expect(page.locator(".bar-title")).to_have_text("carol, dave")
        page.keyboard.press("Alt+ArrowDown")
        expect(page.locator(".bar-title")).to_have_text(bob)
        page.keyboard.press("Escape")
        page.keyboard.press("/")
        page.keyboard.type(bob[:4])
        page.keyboard.press("ArrowDown")
        expect(person.row(bob)).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator(".bar-title")).to_have_text(bob)

    @in_browser
    def test_a_click_on_a_row_that_is_drawn_again(self, visitors: Visitors) -> None:
        """A change between press and release of the pointer does not take the click."""
        alice = Person.sign_in(visitors.context(), node("open").http_url, name("alice"))
        page, other = alice.page, name("bob")
        alice.open(other)
        alice.say("hi")
        page.evaluate("location.hash = ''")
        expect(page.locator(".nothing")).to_be_visible()

        def opens() -> bool:
            alice.row(other).hover()
            page.mouse.down()
            page.evaluate(_CHANGE, f"imd.chat.{alice.name}.marks")
            page.mouse.up()
            return str(page.evaluate("location.hash")) == f"#{other}"

        # A press that lasts long, as on a slow machine, holds nothing up.
        wait_until(opens, 180, "the conversation is open")

    @in_browser
    def test_language_and_look(self, visitors: Visitors) -> None:
        """Language and look are the browser's until others are chosen. A phone shows one half at a time."""
        url = node("open").http_url
        phone = visitors.context(
            locale="zh-CN", color_scheme="dark", viewport={"width": 390, "height": 844}, has_touch=True
        )
        alice = Person.sign_in(phone, url, name("alice"))
        page = alice.page
        expect(page.get_by_role("navigation", name="会话")).to_be_visible()
        expect(page.locator("body")).to_have_css("background-color", "rgb(14, 20, 19)")
        expect(page.locator(".main")).to_be_hidden()
        alice.open("bob")
        expect(page.locator(".side")).to_be_hidden()
        page.get_by_role("button", name="返回会话列表").click()
        page.locator(".me").click()
        page.get_by_text("English").click()
        expect(page.get_by_role("navigation", name="Conversations")).to_be_visible()
        page.locator(".me").click()
        page.get_by_text("Light").click()
        expect(page.locator("body")).to_have_css("background-color", "rgb(238, 241, 242)")
        page.reload()
        expect(page.get_by_role("navigation", name="Conversations")).to_be_visible()
        expect(page.locator("body")).to_have_css("background-color", "rgb(238, 241, 242)")


class TokenTests(unittest.TestCase):
    timeout = 900

    @in_browser
    def test_tokens(self, visitors: Visitors) -> None:
        """In jwt mode a token signs in all tabs of the browser, until one signs out."""
        url = node("jwt").http_url
        home = visitors.context()
        page = home.new_page()
        sockets: list[WebSocket] = []
        page.on("websocket", lambda socket: sockets.append(socket))
        page.goto(url)
        page.get_by_label("Your token").fill("no token at all")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_have_text("That is not a token.")
        alice, bob = name("alice"), name("bob")
        page.fill("#who", token(alice, -10))
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_contain_text("did not accept")
        page.fill("#who", token(alice))
        page.get_by_role("button", name="Sign in").click()
        first = Person(page, alice)
        first.connected()
        self.assertRegex(sockets[-1].url, rf"/ws\?user={alice}$")
        first.open(bob)
        first.say("hi")
        page = home.new_page()
        page.goto(url)
        second = Person(page, alice)
        second.connected()
        expect(second.row(bob)).to_be_visible()
        second.page.locator(".me").click()
        second.page.get_by_role("button", name="Sign out").click()
        for person in (first, second):
            expect(person.page.get_by_label("Your token")).to_be_visible()
        wait_until(lambda: node("jwt").metric("imd_sessions") == 0, 180, "no tab is connected any more")
        kept = second.page.evaluate(
            "Object.keys(localStorage).filter((key) => /recent|login|drafts/.test(key))"
        )
        self.assertEqual(kept, [])


class DeskTests(unittest.TestCase):
    timeout = 900

    @in_browser
    def test_visitor_and_agent(self, visitors: Visitors) -> None:
        """A visitor writes through the widget, an agent answers; the answer is there after a reload."""
        own = started(NodeServer(new_folder(), {}))
        url = own.http_url
        try:
            agent = Person.sign_in(visitors.context(), url + "agent", "sam")
            expect(agent.page.get_by_text("Nobody is waiting")).to_be_visible()
            home = visitors.context()
            page = home.new_page()
            page.goto(url + "demo")
            sockets: list[WebSocket] = []
            page.on("websocket", lambda socket: sockets.append(socket))
            names = page.evaluate("Object.keys(window)")
            page.get_by_role("button", name="Open the chat").click()
            chat = page.get_by_role("dialog", name="Chat with us")
            expect(chat.get_by_role("textbox")).to_be_focused()
            page.keyboard.type("is <b>anyone</b> there?")
            page.keyboard.press("Enter")
            expect(chat.locator(".mine.accepted .text")).to_have_text("is <b>anyone</b> there?")
            row = agent.page.locator("a.row")
            expect(row).to_have_count(1)
            expect(row.locator(".waits")).to_contain_text("waiting")
            expect(agent.page).to_have_title("(1) Help desk")
            agent.page.bring_to_front()
            row.click()
            agent.hears("is <b>anyone</b> there?")
            agent.say("I am")
            expect(chat.locator(".theirs .text")).to_have_text("I am")
            expect(agent.page.get_by_text("Nobody is waiting")).to_be_visible()
            self.assertEqual(page.evaluate("Object.keys(window)"), names)

            # The chat is closed: answers are counted. And it is all there after a reload.
            page.keyboard.press("Escape")
            expect(chat).to_be_hidden()
            agent.say("still here")
            expect(page.locator("imd-chat .badge")).to_have_text("1")
            page.reload()
            expect(page.locator("imd-chat .badge")).to_have_text("1")
            page.get_by_role("button", name=re.compile("Open the chat")).click()
            expect(chat.locator(".text")).to_have_text(["is <b>anyone</b> there?", "I am", "still here"])
            # A new visitor has no name yet; one that comes back does.
            self.assertRegex(sockets[0].url, "/ws$")
            self.assertRegex(sockets[-1].url, r"/ws\?user=visitor-[^&]+$")

            # An agent on a break gets no visitors; after it, the agent gets the waiting ones.
            agent.page.get_by_role("switch").uncheck(force=True)
            expect(agent.page.locator("[data-link=closed]")).to_be_visible()
            agent.page.get_by_role("switch").check(force=True)
            agent.connected()
            page.keyboard.type("one more thing")
            page.keyboard.press("Enter")
            agent.hears("one more thing")
        finally:
            own.kill()

    @in_browser
    def test_widget_on_another_site(self, visitors: Visitors) -> None:
        """One script tag is enough on a site with hostile styles and a strict policy."""
        url = node("sites").http_url
        socket = node("sites").url
        home = visitors.context(viewport={"width": 390, "height": 844})
        page = home.new_page()
        script = f'<script src="{url}widget.js" data-title="Ask us" data-lang="zh" data-color="#ffe08a">'
        files = {
            "/": ("text/html", f'<title>A site</title><link rel="stylesheet" href="x.css">{script}</script>'),
            "/x.css": (
                "text/css",
                "* { font-size: 40px; } div, section, button { display: none !important; }",
            ),
        }
        policy = f"script-src {url}; connect-src {url} {socket}; style-src 'self'"
        site = Site(files, policy)
        self.addCleanup(site.close)
        page.goto(site.url)
        bubble = page.get_by_role("button", name="打开聊天")
        expect(bubble).to_have_css("background-color", "rgb(255, 224, 138)")
        expect(bubble).to_have_css("color", "rgb(0, 0, 0)")
        bubble.click()
        chat = page.get_by_role("dialog", name="Ask us")
        chat.get_by_role("textbox").fill("hello")
        page.keyboard.press("Enter")
        expect(chat.locator(".mine.accepted .text")).to_have_text("hello")
        expect(chat.locator(".text")).to_have_css("font-size", "15px")
        self.assertEqual(page.evaluate("Object.keys(window).filter((key) => /imd|widget/i.test(key))"), [])
