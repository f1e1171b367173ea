"""The pages in browsers that block storage, whose network hangs, or whose clock is wrong."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time

from playwright.sync_api import BrowserContext, Page, expect
from twisted.trial import unittest

from tests.protocol.support import JWT_SECRET, new_folder, started
from tests.support.nodes import NodeServer
from tests.web.browser import Person, Visitors
from tests.web.support import Site, in_browser, name, node, token

BLOCKED = {"default_content_setting_values": {"cookies": 2}}
"""the preference "block all site data" of a profile; 2 means to block"""

_NO = "throw new DOMException('no', 'SecurityError')"

# Each takes one thing away, as some browsers and modes do; the rest works.
TAKEN_AWAY = {
    "localStorage": f"Object.defineProperty(window, 'localStorage', {{get() {{ {_NO}; }}}})",
    "no localStorage": "Object.defineProperty(window, 'localStorage', {value: null})",
    "writing": f"Storage.prototype.setItem = () => {{ {_NO}; }}",
    "sessionStorage": f"Object.defineProperty(window, 'sessionStorage', {{get() {{ {_NO}; }}}})",
    "locks": f"LockManager.prototype.request = async () => {{ {_NO}; }}",
    "the lock manager": f"Object.defineProperty(Navigator.prototype, 'locks', {{get() {{ {_NO}; }}}})",
    "channels": f"BroadcastChannel = class {{ constructor() {{ {_NO}; }} }}",
}

# The storage that a page cannot use.
_ACCESS = """async () => {
  const tried = {};
  for (const [what, look] of Object.entries({
    localStorage: () => localStorage.length,
    sessionStorage: () => sessionStorage.length,
    locks: () => navigator.locks.request("x", () => 1),
    caches: () => caches.open("x"),
    indexedDB: () => new Promise((done, failed) => {
      const opened = indexedDB.open("x");
      opened.onsuccess = done;
      opened.onerror = () => failed(opened.error);
    }),
  })) {
    try {
      await look();
      tried[what] = true;
    } catch {
      tried[what] = false;
    }
  }
  return tried;
}"""


def in_pages(script: str) -> str:
    """A script for a context that runs only in pages from the network."""
    return f"if (location.protocol === 'http:') {{ {script}; }}"


def visitor_asks(page: Page, text: str) -> None:
    """Write through the widget, and wait until the message is accepted."""
    page.get_by_role("button", name="Open the chat").click()
    chat = page.get_by_role("dialog", name="Chat with us")
    chat.get_by_role("textbox").fill(text)
    chat.get_by_role("textbox").press("Enter")
    expect(chat.locator(".mine.accepted .text")).to_have_text(text)


class BlockedTests(unittest.TestCase):
    timeout = 900

    def everything(self, browser: BrowserContext) -> None:
        """Two people chat, a visitor asks, an agent answers: each in such a browser."""
        url = node("open").http_url
        alice = Person.sign_in(browser, url, name("alice"))
        bob = Person.sign_in(browser, url, name("bob"))
        alice.open(bob.name)
        alice.say("hi")
        bob.row(alice.name).click()
        bob.hears("hi")
        bob.say("hi, too")
        alice.hears("hi, too")
        agent = Person.sign_in(browser, url + "agent", name("sam"))
        page = browser.new_page()
        page.goto(url + "demo")
        # Visitors of other tests may wait for an agent, too.
        question = name("anyone")
        visitor_asks(page, question)
        agent.page.locator("a.row", has_text=question).click()
        agent.hears(question)
        agent.say("yes")
        expect(page.locator("imd-chat .theirs .text")).to_have_text("yes")
        for person in (alice, bob, agent):
            person.page.close()
        page.close()

    def framed(self, browser: BrowserContext, access: bool | None) -> None:
        """A visitor writes in a frame of a foreign page; `access`: whether the frame's storage must work."""
        page = browser.new_page()
        page.goto(self.outer.url)
        frame = page.frame_locator("iframe")
        frame.get_by_role("button", name="Open the chat").click()
        chat = frame.get_by_role("dialog", name="Chat with us")
        chat.get_by_role("textbox").fill("anyone?")
        chat.get_by_role("textbox").press("Enter")
        expect(chat.locator(".mine.accepted .text")).to_have_text("anyone?")
        if access is not None:
            self.assertEqual(set(page.frames[1].evaluate(_ACCESS).values()), {access})
        page.close()

    def sites(self) -> None:
        """A page with the widget, in a frame of another site's page."""
        url, socket = node("sites").http_url, node("sites").url
        text = f'<html lang="en"><title>A shop</title><script src="{url}widget.js"></script>'
        policy = f"script-src {url}; connect-src {url} {socket}"
        self.inner = Site({"/": ("text/html", text)}, policy, "127.0.0.1")
        self.addCleanup(self.inner.close)
        text = f'<title>A mall</title><iframe src="{self.inner.url}"></iframe>'
        self.outer = Site({"/": ("text/html", text)}, "")
        self.addCleanup(self.outer.close)

    @in_browser
    def test_all_site_data(self, visitors: Visitors) -> None:
        """Chat, desk, widget and demo work where the browser blocks all site data; they keep nothing."""
        blocked = visitors.locked(**BLOCKED)
        page = blocked.new_page()
        page.goto(node("open").http_url)
        expect(page.locator("#who")).to_be_visible()
        self.assertEqual(set(page.evaluate(_ACCESS).values()), {False})
        page.close()
        self.everything(blocked)
        page = blocked.new_page()
        page.goto(node("open").http_url)
        expect(page.locator("#who")).to_be_visible()
        self.sites()
        self.framed(blocked, False)

    @in_browser
    def test_parts(self, visitors: Visitors) -> None:
        """The pages work where a single kind of storage is blocked, for each kind."""
        for script in TAKEN_AWAY.values():
            context = visitors.context()
            context.add_init_script(in_pages(script))
            self.everything(context)

    @in_browser
    def test_frame_of_another_site(self, visitors: Visitors) -> None:
        """The widget works in a frame of a foreign page, without third-party cookies."""
        self.sites()
        there = re.sub(r"/$", "", self.inner.url)
        for profile, access in (
            ({"block_third_party_cookies": True, "cookie_controls_mode": 1}, None),
            ({"content_settings": {"exceptions": {"cookies": {f"{there},*": {"setting": 2}}}}}, False),
        ):
            self.framed(visitors.locked(**profile), access)


class Way:
    """A port where connections hang; after `goes_to`, new ones are forwarded to that port."""

    def __init__(self) -> None:
        self.goes_to: int | None = None
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open = [self._listening]
        self.url = f"ws://127.0.0.1:{self._listening.getsockname()[1]}/ws"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                inner, _ = self._listening.accept()
            except OSError:
                return
            self._open.append(inner)
            if self.goes_to is not None:
                outer = socket.create_connection(("127.0.0.1", self.goes_to))
                self._open.append(outer)
                for one, other in ((inner, outer), (outer, inner)):
                    threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        # `shutdown` wakes a thread that waits in `accept`; `close` does not.
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        for each in self._open:
            each.close()


# No deadline of a page comes: it does nothing unless it is told to.
_NO_DEADLINES = """
const set = setTimeout;
globalThis.setTimeout = (run, ms, ...rest) => set(run, ms > 10_000 ? 2 ** 31 - 1 : ms, ...rest);
"""


class TroubleTests(unittest.TestCase):
    timeout = 900

    @in_browser
    def test_told(self, visitors: Visitors) -> None:
        """After a moment the page says that there is no connection, while the client goes on trying."""
        url = node("open").http_url
        home = visitors.context()
        fails = "throw new DOMException('The document is not active.', 'InvalidStateError')"
        stub = f"if (localStorage.fails) LockManager.prototype.request = async () => {{ {fails}; }}"
        home.add_init_script(in_pages(stub))
        alice = Person.sign_in(home, url, name("alice"))
        demo = home.new_page()
        demo.goto(url + "demo")
        visitor_asks(demo, "anyone?")
        alice.page.evaluate("localStorage.fails = 1")
        for page, link in ((alice.page, ".link"), (demo, "imd-chat .link")):
            page.reload()
            expect(page.locator(link)).to_have_text(re.compile("No connection"))
        alice.page.evaluate("localStorage.removeItem('fails')")
        for page in (alice.page, demo):
            page.reload()
        alice.connected()
        expect(demo.locator("imd-chat .link")).to_be_hidden()

    @in_browser
    def test_phone_comes_back(self, visitors: Visitors) -> None:
        """A connect that hangs is restarted when the network is back, and not at its deadline."""
        way = Way()
        self.addCleanup(way.close)
        own = started(NodeServer(new_folder(), {"http": {"websocket_url": way.url}}))
        try:
            home = visitors.context()
            home.add_init_script(_NO_DEADLINES)
            page = home.new_page()
            page.goto(own.http_url)
            page.fill("#who", name("alice"))
            page.press("#who", "Enter")
            for sign in (
                "dispatchEvent(new Event('online'))",
                "document.dispatchEvent(new Event('visibilitychange'))",
                "dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))",
            ):
                expect(page.locator(".link")).to_have_text(re.compile("Connecting"))
                way.goes_to = own.port
                page.evaluate(sign)
                expect(page.locator("[data-link=open]")).to_be_visible()
                way.goes_to = None
                page.reload()
        finally:
            own.kill()

    @in_browser
    def test_clocks_differ(self, visitors: Visitors) -> None:
        """A token that is refused for its times alone is kept, tried again and accepted in the end."""
        auth: dict[str, object] = {"mode": "jwt", "secret": JWT_SECRET}
        own = started(NodeServer(new_folder(), {"auth": auth}))
        self.addCleanup(own.kill)
        page = visitors.context().new_page()
        page.goto(own.http_url)
        page.fill("#who", token(name("alice"), nbf=time.time() + 1800, exp=time.time() + 3600))
        page.get_by_role("button", name="Sign in").click()
        for _ in range(2):
            expect(page.locator(".link")).to_have_text(re.compile("a clock is wrong"))
            page.reload()
        # From now on the node's clock may be that wrong.
        own.kill()
        own.ini["auth"]["leeway_seconds"] = 3600
        own.start()
        expect(page.locator("[data-link=open]")).to_be_visible()

    @in_browser
    def test_wrong_clock_at_the_desk(self, visitors: Visitors) -> None:
        """A visitor's waiting time does not depend on the agent's clock, which may be hours off."""
        url = node("open").http_url
        for hours in (-5, 5):
            home = visitors.context()
            home.add_init_script(
                f"const now = Date.now; Date.now = () => now.call(Date) + {hours} * 3600_000;"
            )
            agent = Person.sign_in(home, url + "agent", name("sam"))
            demo = visitors.context().new_page()
            demo.goto(url + "demo")
            question = name("anyone")
            visitor_asks(demo, question)
            waits = agent.page.locator("a.row", has_text=question).locator(".waits")
            expect(waits).to_have_text(re.compile("^waiting [0-9]+ (sec|min)$"))
            agent.page.close()
            demo.close()
