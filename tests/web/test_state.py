"""The list, unread counts, marks, presence and settings at the chat page, on a real node."""

from __future__ import annotations

import json
import re
from typing import Any

from playwright.sync_api import BrowserContext, Page, WebSocketRoute, expect

from tests.support.servers import wait_until
from tests.web.browser import Person, Visitors, writing
from tests.web.support import in_browser, name, node
from tests.web.test_access import Looking
from tests.web.test_messenger import choose as change
from tests.web.test_messenger import enter, make_room

# Notes notifications and badges, and nobody looks at the page.
_NOTED = """
  window.shown = [];
  window.badges = [];
  window.Notification = class {
    static permission = "default";
    static async requestPermission() { Notification.permission = "granted"; }
    constructor(title, { body }) { window.shown.push([title, body]); }
    close() { window.shown.push("closed"); }
  };
  navigator.setAppBadge = async (unread) => window.badges.push(unread);
  navigator.clearAppBadge = async () => window.badges.push(0);
  Document.prototype.hasFocus = () => false;
"""
_NO_WORKERS = """Object.defineProperty(navigator, "serviceWorker", { value: undefined });"""
# As on a phone: the constructor throws.
_BY_WORKER = """
  window.Notification = class {
    static permission = "default";
    static async requestPermission() { Notification.permission = "granted"; }
    constructor() { throw new TypeError("Illegal constructor"); }
  };
  // The empty page before has none.
  Object.assign(window.ServiceWorkerRegistration?.prototype ?? {}, {
    async showNotification(title, options) {
      window.shown = [...window.shown.filter(({ tag }) => tag !== options.tag), { title, ...options }];
    },
    async getNotifications({ tag } = {}) {
      const close = (one) => () => { window.shown = window.shown.filter((other) => other !== one); };
      const some = window.shown.filter((one) => !tag || one.tag === tag);
      return some.map((one) => ({ ...one, close: close(one) }));
    },
  });
"""
# The user chooses a notification with this data. Only in a real click the browser lets the worker focus.
_CHOSEN = """async (data) => {
  WindowClient.prototype.focus = async function () { self.led = this.url; };
  clients.openWindow = async (url) => { self.led = url; };
  let work;
  const notification = { data, close() {} };
  const waitUntil = (promise) => { work = promise; };
  dispatchEvent(Object.assign(new Event("notificationclick"), { notification, waitUntil }));
  await work;
  return self.led;
}"""


def choose(person: Person, action: str) -> None:
    """Choose an action of the menu of the conversation on the screen."""
    person.page.get_by_role("button", name="More for this conversation").click()
    person.page.locator("#talk-menu").get_by_role("button", name=action, exact=True).click()


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
            person.page.emulate_media(color_scheme=look, reduced_motion="reduce")
            self.look(person.page, f"{state}, {look}", colours_only=look == "dark")
        person.page.emulate_media(color_scheme="light", reduced_motion="reduce")

    def shown(self, page: Page, count: int) -> list[dict[str, Any]]:
        """The notifications on the screen, as soon as there are as many."""
        wait_until(lambda: len(page.evaluate("shown")) == count, 180, "the notifications are there")
        found: list[dict[str, Any]] = page.evaluate("shown")
        return found

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
        tablet.page.evaluate("location.hash = ''")
        bob.say("three")
        expect(phone.row(bob.name).locator(".badge")).to_have_text("1")
        phone.page.reload()
        expect(phone.row(bob.name).locator(".badge")).to_have_text("1")
        expect(phone.page).to_have_title("(1) Chat")

    @in_browser
    def test_read_by_the_other(self, visitors: Visitors) -> None:
        """One's own message shows that it was accepted, and then that the other has read it."""
        bob, alice = self.people(visitors, "bob", "alice")
        bob.open(alice.name)
        bob.say("seen?")
        mark = bob.message("seen?").locator(".state")
        expect(mark).to_have_attribute("aria-label", "Accepted: it will arrive")
        alice.page.bring_to_front()
        alice.row(bob.name).click()
        alice.hears("seen?")
        expect(mark).to_have_attribute("aria-label", "Read")
        self.look_twice(bob, "a message was read")
        # Later messages are not read yet; the mark is there after a reload.
        alice.page.evaluate("location.hash = ''")
        bob.say("and this?")
        bob.page.reload()
        expect(mark).to_have_attribute("aria-label", "Read")
        later = bob.message("and this?").locator(".state")
        expect(later).to_have_attribute("aria-label", "Accepted: it will arrive")
        self.all_well()

    @in_browser
    def test_online_and_writing(self, visitors: Visitors) -> None:
        """The header says that the other is online, is writing, has stopped, and is gone."""
        bob, alice = self.people(visitors, "bob", "alice")
        about = bob.page.locator(".thread .bar-about")
        bob.open(alice.name)
        alice.open(bob.name)
        expect(about).to_have_text("Online")
        self.look_twice(bob, "the other is online")
        field = alice.page.locator(".compose-text")
        with writing(field, "I am w"):
            expect(about).to_have_text("writing…")
        field.press_sequentially("riting")
        field.press("Enter")
        bob.hears("I am writing")
        expect(about).to_have_text("Online")
        alice.page.close()
        expect(about).to_be_hidden()
        self.all_well()

    @in_browser
    def test_settings(self, visitors: Visitors) -> None:
        """To mute, pin, mark as unread, hide and clear counts on all devices of a user."""
        bob, carol, alice, phone = self.people(visitors, "bob", "carol", "alice", "alice")
        for person, text in ((bob, "from bob"), (carol, "from carol")):
            person.open(alice.name)
            person.say(text)
        alice.page.bring_to_front()
        alice.row(bob.name).click()
        alice.hears("from bob")
        # By keyboard: the menu takes the focus, and gives it back.
        button = alice.page.get_by_role("button", name="More for this conversation")
        button.press("Enter")
        menu = alice.page.locator("#talk-menu")
        expect(menu.get_by_role("button", name="Mute", exact=True)).to_be_focused()
        expect(menu.get_by_role("button", name="Block")).to_be_visible()
        self.look_twice(alice, "the menu of a conversation")
        alice.page.keyboard.press("ArrowUp")
        expect(menu.get_by_role("button", name="Block")).to_be_focused()
        alice.page.keyboard.press("Escape")
        expect(button).to_be_focused()
        titles = phone.page.locator(".row-title")
        expect(titles).to_have_text([carol.name, bob.name])
        choose(alice, "Pin to the top")
        expect(titles).to_have_text([bob.name, carol.name])
        expect(phone.row(bob.name).get_by_role("img", name="Pinned")).to_be_visible()
        choose(alice, "Mute")
        expect(phone.row(bob.name).get_by_role("img", name="Muted")).to_be_visible()
        choose(alice, "Mark as unread")
        for device in (alice, phone):
            expect(device.row(bob.name).get_by_role("img", name="Marked as unread")).to_be_visible()
        self.look_twice(alice, "pinned, muted, marked as unread")
        phone.page.bring_to_front()
        phone.row(bob.name).click()
        for device in (alice, phone):
            expect(device.page.get_by_role("img", name="Marked as unread")).to_have_count(0)
        # A muted conversation has a badge of its own, and does not count in the title.
        phone.page.evaluate("location.hash = ''")
        bob.say("more")
        for device in (alice, phone):
            expect(device.row(bob.name).locator(".badge.muted")).to_have_text("1")
            expect(device.page).to_have_title("(1) Chat")
        phone.row(bob.name).click()
        phone.hears("more")
        choose(phone, "Unmute")
        choose(phone, "Unpin")
        expect(alice.page.locator(".row-sign")).to_have_count(0)
        choose(phone, "Clear the messages")
        phone.page.locator(".ask").get_by_role("button", name="Clear").click()
        expect(phone.page.locator(".message")).to_have_count(0)
        expect(alice.row(bob.name).locator(".row-preview")).to_be_empty()
        expect(bob.message("more")).to_be_visible()
        choose(phone, "Take out of the list")
        for device in (alice, phone):
            expect(device.row(bob.name)).to_have_count(0)
        alice.page.reload()
        expect(alice.row(carol.name)).to_be_visible()
        expect(alice.row(bob.name)).to_have_count(0)
        # It comes back with something newer, and nothing else.
        bob.say("hello again")
        alice.row(bob.name).click()
        alice.hears("hello again")
        expect(alice.page.locator(".message")).to_have_count(1)
        # One's own setting is the same on all devices, too.
        for device in (alice, phone):
            device.page.locator(".me").click()
        here, there = (device.page.get_by_role("switch", name="Read receipts") for device in (alice, phone))
        expect(here).to_be_checked()
        here.uncheck(force=True)
        expect(there).not_to_be_checked()
        phone.page.reload()
        phone.page.locator(".me").click()
        expect(there).not_to_be_checked()
        there.check(force=True)
        expect(here).to_be_checked()
        self.all_well()

    @in_browser
    def test_notifications(self, visitors: Visitors) -> None:
        """The browser tells of messages; of muted conversations only where the user is named."""
        (bob,) = self.people(visitors, "bob")
        url = node("open").http_url
        home = visitors.context()
        home.add_init_script(_NOTED + _NO_WORKERS)
        alice = Person.sign_in(home, url, name("alice"))
        title = name("Weekend")
        make_room(bob, title, alice)
        enter(alice, title)
        choose(alice, "Mute")
        alice.page.evaluate("location.hash = ''")
        alice.page.locator(".me").click()
        switch = alice.page.get_by_role("switch", name="Notifications")
        expect(switch).not_to_be_checked()
        self.look_twice(alice, "notifications are off")
        switch.check(force=True)
        expect(switch).to_be_checked()
        alice.page.keyboard.press("Escape")
        bob.say("quiet")
        field = bob.page.locator(".compose-text")
        field.press_sequentially("@" + alice.name[:3])
        expect(bob.page.get_by_role("option")).to_have_count(1)
        field.press("Enter")
        field.press_sequentially("look")
        field.press("Enter")
        named = [title, f"{bob.name}: @{alice.name} look"]
        alice.page.wait_for_function("(n) => shown.length === n", arg=1, polling=50)
        bob.open(alice.name)
        bob.say("psst")
        alice.page.wait_for_function("(n) => shown.length === n", arg=2, polling=50)
        self.assertEqual(alice.page.evaluate("shown"), [named, [bob.name, "psst"]])
        self.assertEqual(alice.page.evaluate("badges.at(-1)"), 1)
        # It goes when the message is read on another device.
        phone = Person.sign_in(visitors.context(), url, alice.name)
        phone.row(bob.name).click()
        phone.hears("psst")
        alice.page.wait_for_function("shown.at(-1) === 'closed' && badges.at(-1) === 0", polling=50)
        self.all_well()

    @in_browser
    def test_notifications_by_a_worker(self, visitors: Visitors) -> None:
        """Where the page may not notify, its service worker does, and leads back to the conversation."""
        url = node("open").http_url
        bob = Person.sign_in(visitors.context(), url, name("bob"))
        home = visitors.context()
        home.add_init_script(_NOTED + _BY_WORKER)
        alice = Person.sign_in(home, url, name("alice"))
        page = alice.page
        alice.open(name("carol"))
        page.locator(".me").click()
        switch = page.get_by_role("switch", name="Notifications")
        self.assertEqual(home.service_workers, [])
        with home.expect_event("serviceworker") as made:
            switch.check(force=True)
        worker = made.value
        self.assertEqual(worker.url, url + "app/worker.js")
        bob.open(alice.name)
        bob.say("psst")
        (shown,) = self.shown(page, 1)
        self.assertEqual((shown["title"], shown["body"]), (bob.name, "psst"))
        # No page is in the worker's scope. It finds this one all the same.
        self.assertTrue(page.evaluate("navigator.serviceWorker.controller === null"))
        self.assertEqual(worker.evaluate(_CHOSEN, shown["data"]).split("#")[0], url)
        alice.hears("psst")
        # In mode open another tab may be another user's: a new one opens. With a token any tab serves.
        gone = {**shown["data"], "client": "gone"}
        self.assertEqual(worker.evaluate(_CHOSEN, gone), f"{url}#{bob.name}")
        led = worker.evaluate(_CHOSEN, {**gone, "everywhere": True, "address": "#x"})
        self.assertNotEqual(led, f"{url}#x")
        # It goes with the message, and all of them go with the worker.
        change(bob.message("psst"), "Remove for everybody")
        bob.page.locator(".ask").get_by_role("button", name="Remove").click()
        self.shown(page, 0)
        bob.say("once more")
        self.shown(page, 1)
        switch.uncheck(force=True)
        self.shown(page, 0)
        there = "navigator.serviceWorker.getRegistrations().then((all) => all.length)"
        wait_until(lambda: page.evaluate(there) == 0, 180, "the worker is gone")

    @in_browser
    def test_blocking(self, visitors: Visitors) -> None:
        """Between two users nothing passes while one blocks the other."""
        bob, alice = self.people(visitors, "bob", "alice")
        for one, other in ((bob, alice), (alice, bob)):
            one.open(other.name)
        choose(alice, "Block")
        self.look_twice(alice, "whether to block")
        alice.page.locator(".ask").get_by_role("button", name="Block").click()
        expect(alice.page.locator(".link")).to_contain_text(f"{bob.name} is blocked.")
        said = alice.page.locator(".compose-closed")
        expect(said).to_have_text(f"You have blocked {bob.name}. Unblock")
        expect(alice.page.locator(".compose-text")).to_be_hidden()
        self.look_twice(alice, "the other is blocked")
        bob.write("let me in")
        expect(bob.message("let me in", ".failed")).to_be_visible()
        choose(alice, "Unblock")
        expect(alice.page.locator(".link")).to_contain_text(f"{bob.name} is unblocked.")
        expect(said).to_be_hidden()
        bob.message("let me in").get_by_role("button", name="Try again").click()
        alice.hears("let me in")
        # Of a conversation that is opened it is known at once. Reactions and answers would be refused.
        choose(alice, "Block")
        alice.page.locator(".ask").get_by_role("button", name="Block").click()
        expect(said).to_be_visible()
        alice.page.reload()
        expect(said).to_be_visible()
        alice.message("let me in").locator(".bubble").click(button="right")
        menu = alice.page.locator(".message-menu")
        expect(menu.get_by_role("button")).to_have_text(["Copy text"])
        alice.page.keyboard.press("Escape")
        said.get_by_role("button", name="Unblock").press("Enter")
        expect(said).to_be_hidden()
        expect(alice.page.locator(".compose-text")).to_be_focused()
        alice.say("come in")
        bob.hears("come in")
        self.all_well()

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
        bob.open(user)
        expect(alice.page.get_by_role("button", name="More for this conversation")).to_be_hidden()
        expect(alice.page.locator(".thread .bar-about")).to_be_hidden()
        expect(alice.message("indeed").locator(".state")).to_have_attribute(
            "aria-label", "Accepted: it will arrive"
        )
        alice.page.locator(".me").click()
        expect(alice.page.locator("#menu")).to_be_visible()
        expect(alice.page.get_by_role("switch", name="Read receipts")).to_have_count(0)
