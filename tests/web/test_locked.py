"""The pages in browsers that block storage, whose network hangs, or whose clock is wrong."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time

from playwright.sync_api import BrowserContext, Page, expect
from twisted.trial import unittest

from tests.protocol.support import new_folder, started
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
    timeout = 400

    def everything(self, own: NodeServer, browsers: list[BrowserContext]) -> None:
        """Two people chat, a visitor asks, an agent answers: each in such a browser."""
        url = own.http_url
        alice = Person.sign_in(browsers[0], url, name("alice"))
        bob = Person.sign_in(browsers[-1], url, name("bob"))
        alice.open(bob.name)
        alice.say("hi")
        bob.row(alice.name).click()
        bob.hears("hi")
        bob.say("hi, too")
        alice.hears("hi, too")
        agent = Person.sign_in(browsers[0], url + "agent", name("sam"))
        page = browsers[-1].new_page()
        page.goto(url + "demo")
        visitor_asks(page, "anyone?")
        agent.page.locator("a.row").first.click()
        agent.hears("anyone?")
        agent.say("yes")
        expect(page.locator("imd-chat .theirs .text")).to_have_text("yes")
        for person in (alice, bob, agent):
            person.page.close()
        page.close()

    @in_browser
    def test_all_site_data(self, visitors: Visitors) -> None:
        """Chat, desk, widget and demo work where the browser blocks all site data; they keep nothing."""
        own = started(NodeServer(new_folder(), {}))
        try:
            blocked = visitors.locked(**BLOCKED)
            page = blocked.new_page()
            page.goto(own.http_url)
            expect(page.locator("#who")).to_be_visible()
            self.assertEqual(set(page.evaluate(_ACCESS).values()), {False})
            page.close()
            self.everything(own, [blocked])
            page = blocked.new_page()
            page.goto(own.http_url)
            expect(page.locator("#who")).to_be_visible()
        finally:
            own.kill()

    @in_browser
    def test_parts(self, visitors: Visitors) -> None:
        """The pages work where a single kind of storage is blocked, for each kind."""
        for script in TAKEN_AWAY.values():
            own = started(NodeServer(new_folder(), {}))
            try:
                context = visitors.context()
                context.add_init_script(in_pages(script))
                self.everything(own, [context])
            finally:
                own.kill()

    @in_browser
    def test_frame_of_another_site(self, visitors: Visitors) -> None:
        """The widget works in a frame of a foreign page, without third-party cookies."""
        url, socket = node("sites").http_url, node("sites").url
        inner = Site(
            {
                "/": (
                    "text/html",
                    f'<html lang="en"><title>A shop</title><script src="{url}widget.js"></script>',
                )
            },
            f"script-src {url}; connect-src {url} {socket}",
            "127.0.0.1",
        )
        self.addCleanup(inner.close)
        outer = Site({"/": ("text/html", f'<title>A mall</title><iframe src="{inner.url}"></iframe>')}, "")
        self.addCleanup(outer.close)
        there = re.sub(r"/$", "", inner.url)
        for profile, access in (
            ({"block_third_party_cookies": True, "cookie_controls_mode": 1}, None),
            ({"content_settings": {"exceptions": {"cookies": {f"{there},*": {"setting": 2}}}}}, False),
            (BLOCKED, False),
        ):
            page = visitors.locked(**profile).new_page()
            page.goto(outer.url)
            frame = page.frame_locator("iframe")
            frame.get_by_role("button", name="Open the chat").click()
            chat = frame.get_by_role("dialog", name="Chat with us")
            chat.get_by_role("textbox").fill("anyone?")
            chat.get_by_role("textbox").press("Enter")
            expect(chat.locator(".mine.accepted .text")).to_have_text("anyone?")
            if access is not None:
                self.assertEqual(set(page.frames[1].evaluate(_ACCESS).values()), {access}, profile)


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


class TroubleTests(unittest.TestCase):
    timeout = 240

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
            page = visitors.context().new_page()
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
                began = time.monotonic()
                page.evaluate(sign)
                expect(page.locator("[data-link=open]")).to_be_visible()
                self.assertLess(time.monotonic() - began, 10)
                way.goes_to = None
                page.reload()
        finally:
            own.kill()

    @in_browser
    def test_clocks_differ(self, visitors: Visitors) -> None:
        """A token that is refused for its times alone is kept, tried again and accepted in the end."""
        url = node("jwt").http_url
        page = visitors.context().new_page()
        page.goto(url)
        now = time.time()
        page.fill("#who", token(name("alice"), nbf=now + 12))
        page.get_by_role("button", name="Sign in").click()
        expect(page.locator(".link")).to_have_text(re.compile("a clock is wrong"))
        page.reload()
        expect(page.locator("[data-link=open]")).to_be_visible()
        self.assertGreater(time.time(), now + 10)

    @in_browser
    def test_wrong_clock_at_the_desk(self, visitors: Visitors) -> None:
        """A visitor's waiting time does not depend on the agent's clock, which may be hours off."""
        own = started(NodeServer(new_folder(), {}))
        try:
            for hours in (-5, 5):
                home = visitors.context()
                home.add_init_script(
                    f"const now = Date.now; Date.now = () => now.call(Date) + {hours} * 3600_000;"
                )
                agent = Person.sign_in(home, own.http_url + "agent", name("sam"))
                demo = visitors.context().new_page()
                demo.goto(own.http_url + "demo")
                visitor_asks(demo, "anyone?")
                waits = agent.page.locator("a.row .waits")
                expect(waits).to_have_text(re.compile("^waiting [0-9]+ (sec|min)$"))
                agent.page.close()
                demo.close()
        finally:
            own.kill()
