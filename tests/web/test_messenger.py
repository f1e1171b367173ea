"""Rooms, edits, recalls, reactions, replies and mentions at the chat page, on a real node."""

from __future__ import annotations

import json
import re

from playwright.sync_api import Locator, Page, WebSocketRoute, expect
from twisted.trial import unittest

from tests.protocol.support import new_folder, started
from tests.support.nodes import NodeServer
from tests.support.servers import wait_until
from tests.web.browser import Person, Visitors
from tests.web.line import Line
from tests.web.support import in_browser, name, node

# Sends many messages to a room at once: no person could.
_FILL = """async ([room, count, userId, url]) => {
  const { Client } = await import("/imd.js");
  const client = new Client({ url, userId, loginType: "USER_TYPE", storage: null });
  client.start();
  for (let i = 1; i < count; i++) client.send({ room, msg: `filling ${i}` });
  await client.accepted(client.send({ room, msg: `filling ${count}` }));
  await client.stop();
}"""

# A room with a message that everybody in the crowd reacts to.
_CROWD = """async ([title, userId, users, crowd, url]) => {
  const { Client } = await import("/imd.js");
  const as = (userId) => {
    const client = new Client({ url, userId, loginType: "USER_TYPE", storage: null });
    client.start();
    return client;
  };
  const owner = as(userId);
  const { room } = await owner.accepted(owner.rooms.create({ name: title, users: [...users, ...crowd] }));
  const { id } = await owner.accepted(owner.send({ room, msg: "who comes?" }));
  for (const one of crowd.map(as)) {
    await one.accepted(one.react(id, "👍"));
    await one.stop();
  }
  await owner.stop();
}"""

_FORGET_ROOMS = """
  for (const key of Object.keys(localStorage)) if (key.endsWith(".rooms")) localStorage.removeItem(key);
"""

# Scrolls down, and says whether this message is there.
_DOWN_TO = """(last) => {
  const scroller = document.querySelector(".thread .scroller");
  scroller.scrollTop = scroller.scrollHeight;
  return [...document.querySelectorAll(".message .text")].some(({ textContent }) => textContent === last);
}"""

# Notes the messages of the widget that stand out, by their ids.
_NOTE_FOUND = """() => {
  window.stoodOut = [];
  const list = document.querySelector("imd-chat").shadowRoot.querySelector("ol");
  const look = () => {
    const id = list.querySelector(".found")?.dataset.act;
    if (id && !stoodOut.includes(id)) stoodOut.push(id);
  };
  new MutationObserver(look).observe(list, { childList: true });
}"""


def make_room(person: Person, title: str, *members: Person) -> str:
    """Make a room at the page; its address."""
    page = person.page
    page.locator(".bar .accent").click()
    dialog = page.get_by_role("dialog", name="New conversation")
    dialog.get_by_text("Room", exact=True).click()
    dialog.get_by_label("Name", exact=True).fill(title)
    dialog.get_by_label("Members", exact=True).fill(", ".join(member.name for member in members))
    page.get_by_role("button", name="Create", exact=True).click()
    expect(page.locator(".thread .bar-title")).to_have_text(title)
    return str(page.evaluate("location.hash"))


def enter(person: Person, title: str) -> None:
    """Open a room from the list."""
    person.page.bring_to_front()
    person.row(title).click()
    expect(person.page.locator(".thread .bar-title")).to_have_text(title)


def signed_in(visitors: Visitors, who: str) -> Person:
    return Person.sign_in(visitors.context(), node("open").http_url, name(who))


def two(visitors: Visitors) -> tuple[Person, Person]:
    return signed_in(visitors, "alice"), signed_in(visitors, "bob")


def three(visitors: Visitors) -> tuple[Person, Person, Person]:
    return *two(visitors), signed_in(visitors, "carol")


def choose(message: Locator, action: str) -> None:
    """Choose an action of a message's menu."""
    message.locator(".bubble").hover()
    message.get_by_role("button", name="More for this message").click()
    message.page.locator(".message-menu").get_by_role("button", name=action).click()


def stored(page: Page) -> str:
    """Everything in the storage of a page's browser."""
    return str(page.evaluate("JSON.stringify({ ...localStorage })"))


def lines(page: Page) -> Locator:
    return page.locator(".messages .line")


class RoomTests(unittest.TestCase):
    timeout = 900

    @in_browser
    def test_a_room(self, visitors: Visitors) -> None:
        """A room is made, used, changed and closed for good; who was removed sees nothing new."""
        alice, bob, carol = three(visitors)
        title = name("Weekend")
        make_room(alice, title, bob)
        expect(lines(alice.page)).to_have_text([f"You created the room with {bob.name}"])
        alice.say("hi all")
        expect(bob.row(title).locator(".badge")).to_have_text("1")
        enter(bob, title)
        bob.hears("hi all")
        expect(bob.page.locator(".bar-about")).to_have_text("2 people")
        expect(lines(bob.page)).to_have_text([f"{alice.name} created the room with you"])

        # The owner invites, and gives a role.
        alice.page.bring_to_front()
        alice.page.get_by_role("button", name="Room: members and settings").click()
        dialog = alice.page.locator(".dialog.room")
        dialog.get_by_label("Invite by name").fill(carol.name)
        dialog.get_by_role("button", name="Invite").click()
        role = dialog.get_by_label(f"Role of {carol.name}")
        expect(role).to_have_value("member")
        role.select_option("admin")
        expect(lines(bob.page).last).to_have_text(f"{alice.name} made {carol.name} admin")
        enter(carol, title)
        expect(carol.page.locator(".bar-about")).to_have_text("3 people")
        # With `history: joined` what was said before stays with those who were there.
        expect(carol.message("hi all")).to_have_count(0)

        # An admin changes the rules and the name: plain members only read now.
        carol.page.get_by_role("button", name="Room: members and settings").click()
        settings = carol.page.locator(".dialog.room")
        # The settings below the members are clicked where they are: the members must have come before.
        expect(settings.locator(".member")).to_have_count(3)
        settings.locator("input[name=posting][value=admins]").check(force=True)
        expect(bob.page.locator(".compose-closed")).to_have_text("Only admins write in this room.")
        dialog.get_by_label("Invite by name").fill("half a na")
        renamed = name("Holidays")
        settings.get_by_label("Name", exact=True).fill(renamed)
        settings.get_by_role("button", name="Save").click()
        for person in (alice, bob, carol):
            expect(person.page.locator(".thread .bar-title")).to_have_text(renamed)
            expect(person.row(renamed)).to_be_visible()
        # The half written name stays.
        expect(dialog.get_by_label("Invite by name")).to_have_value("half a na")
        expect(settings.get_by_role("button", name=f"Remove {alice.name}")).to_have_count(0)
        settings.get_by_role("button", name=f"Remove {bob.name}").click()
        carol.page.locator(".ask").get_by_role("button", name="Remove").click()
        expect(bob.page.locator(".compose-closed")).to_have_text("You are not in this room any more.")
        expect(lines(alice.page).last).to_have_text(f"{carol.name} removed {bob.name}")
        carol.page.keyboard.press("Escape")
        carol.say("without bob")
        alice.hears("without bob")
        expect(bob.message("without bob")).to_have_count(0)
        bob.page.evaluate("location.hash = ''")
        expect(bob.row(renamed)).to_have_count(0)

        # The last owner cannot leave while others are there: the dialog says so.
        dialog.get_by_role("button", name="Leave the room").click()
        alice.page.locator(".ask").get_by_role("button", name="Leave").click()
        expect(alice.page.locator(".dialog.room").get_by_role("alert")).to_contain_text("Not done")
        alice.page.get_by_role("button", name="Close the room").click()
        alice.page.locator(".ask").get_by_role("button", name="Close").click()
        for person in (alice, carol):
            expect(person.page.locator(".compose-closed")).to_have_text("This room is closed.")
        # The page forgets its rooms: it has only the node's word of them.
        alice.page.add_init_script(_FORGET_ROOMS)
        alice.page.reload()
        alice.connected()
        alice.hears("without bob")
        expect(lines(alice.page).last).to_have_text("You closed the room")
        expect(alice.page.locator(".compose-closed")).to_have_text("This room is closed.")
        expect(alice.page.locator(".compose-text")).to_be_hidden()

    @in_browser
    def test_a_room_in_a_new_browser(self, visitors: Visitors) -> None:
        """Another browser of the same user shows the room, with its messages, from the archive."""
        alice, bob = two(visitors)
        title = name("Weekend")
        make_room(alice, title, bob)
        alice.say("one")
        alice.say("two")
        again = Person.sign_in(visitors.context(), node("open").http_url, alice.name)
        expect(again.row(title).locator(".row-preview")).to_have_text("You: two")
        enter(again, title)
        for text in ("one", "two"):
            expect(again.message(text, ".mine.accepted")).to_have_count(1)
        expect(lines(again.page)).to_have_count(1)

    @in_browser
    def test_an_open_room(self, visitors: Visitors) -> None:
        """An open room is joined by its address; one by invitation cannot be."""
        alice, bob = two(visitors)
        title = name("Weekend")
        address = make_room(alice, title)
        bob.page.evaluate("(hash) => { location.hash = hash; }", address)
        join = bob.page.get_by_role("button", name="Join")
        join.click()
        expect(bob.page.locator(".link")).to_contain_text("Not done")
        alice.page.get_by_role("button", name="Room: members and settings").click()
        # They come above the settings, which must not move under the pointer.
        expect(alice.page.locator(".member")).to_have_count(1)
        alice.page.locator("input[name=joining][value=open]").check(force=True)
        expect(lines(alice.page).last).to_have_text("You opened the room to all.")
        join.click()
        expect(bob.page.locator(".thread .bar-title")).to_have_text(title)
        expect(lines(alice.page).last).to_have_text(f"{bob.name} joined")
        bob.say("here I am")
        alice.hears("here I am")

    @in_browser
    def test_by_touch(self, visitors: Visitors) -> None:
        """On a phone a tap on a message opens its menu."""
        url = node("open").http_url
        viewport = {"width": 360, "height": 740}
        phone = visitors.context(viewport=viewport, has_touch=True, is_mobile=True)
        alice = Person.sign_in(phone, url, name("alice"))
        alice.open(name("bob"))
        alice.say("tapped")
        alice.message("tapped").locator(".bubble").tap()
        menu = alice.page.locator(".message-menu")
        menu.get_by_role("button", name="React with 😮").tap()
        expect(alice.message("tapped").locator(".reaction")).to_have_text("😮1")
        alice.message("tapped").locator(".reaction").tap()
        expect(alice.page.locator(".reaction")).to_have_count(0)
        expect(menu).to_be_hidden()


class ChangeTests(unittest.TestCase):
    timeout = 900

    @in_browser
    def test_edit_and_recall(self, visitors: Visitors) -> None:
        """A changed message looks the same to all; of a removed one no text is left anywhere."""
        alice, bob, carol = three(visitors)
        title = name("Weekend")
        make_room(alice, title, bob, carol)
        for text in ("frist", "secret words"):
            alice.say(text)
        for person in (bob, carol):
            enter(person, title)
            person.hears("frist")
        choose(bob.message("secret words"), "Reply")
        bob.say("what?")
        alice.hears("what?")
        choose(alice.message("frist"), "Edit")
        field = alice.page.locator(".compose-text")
        expect(field).to_have_value("frist")
        field.fill("first")
        field.press("Enter")
        for person in (bob, carol):
            person.hears("first")
            expect(person.message("first").locator(".edited")).to_have_text("edited")
        expect(alice.message("first", ".accepted")).to_be_visible()
        expect(alice.page.locator(".compose-mode")).to_be_hidden()
        # A change that is given up leaves all as it was.
        choose(alice.message("first"), "Edit")
        field.fill("nonsense")
        field.press("Escape")
        expect(field).to_have_value("")
        choose(alice.message("secret words"), "Remove for everybody")
        alice.page.locator(".ask").get_by_role("button", name="Remove").click()
        for person in (alice, bob, carol):
            expect(person.page.locator(".bubble.recalled")).to_have_text(
                re.compile("This message was removed")
            )
            expect(person.page.locator(".quote")).to_contain_text("This message was removed")
            expect(person.page.locator("body")).not_to_contain_text("secret words")
            wait_until(
                lambda page=person.page: "secret words" not in stored(page), 180, "the text is forgotten"
            )
        # After a reload the archive says the same.
        carol.page.reload()
        carol.hears("first")
        expect(carol.page.locator(".bubble.recalled")).to_have_count(1)
        # A member has no right to change or remove what others wrote.
        bob.message("first").locator(".bubble").click(button="right")
        menu = bob.page.locator(".message-menu")
        expect(menu.get_by_role("button", name="Reply")).to_be_visible()
        for action in ("Edit", "Remove for everybody"):
            expect(menu.get_by_role("button", name=action)).to_have_count(0)

    @in_browser
    def test_too_late(self, visitors: Visitors) -> None:
        """An edit waits for a node. One that comes too late is undone, and its text can still be read."""
        own = started(NodeServer(new_folder(), {}))
        self.addCleanup(own.kill)
        alice, bob = (Person.sign_in(visitors.context(), own.http_url, who) for who in ("alice", "bob"))
        alice.open("bob")
        alice.say("frist")
        bob.open("alice")
        bob.hears("frist")
        site = visitors.context().new_page()
        site.goto(own.http_url + "demo")
        site.get_by_role("button", name="Open the chat").click()
        chat = site.get_by_role("dialog", name="Chat with us")
        field = chat.get_by_role("textbox")
        field.fill("tens?")
        field.press("Enter")
        expect(chat.locator(".mine.accepted")).to_have_count(1)

        choose(alice.message("frist"), "Edit")
        own.kill()
        expect(alice.page.locator(".link")).to_be_visible()
        alice.write("first")
        expect(alice.message("first", ".sending")).to_be_visible()
        expect(alice.row("bob").locator(".row-preview")).to_have_text("You: first")
        own.start()
        expect(alice.message("first", ".accepted")).to_be_visible()
        bob.hears("first")

        choose(alice.message("first"), "Edit")
        chat.get_by_role("button", name="More for this message").press("Enter")
        chat.get_by_role("button", name="Edit").press("Enter")
        own.kill()
        alice.write("foremost")
        field.fill("tents?")
        field.press("Enter")
        expect(alice.message("foremost", ".sending")).to_be_visible()
        expect(chat.locator(".sending .text")).to_have_text("tents?")
        own.ini["messages"] = {"edit_seconds": 0}
        own.start()
        why = "Not changed. This is not allowed any more."
        for page, trouble, text in (
            (alice.page, alice.page.locator(".failure"), "foremost"),
            (site, chat.locator(".trouble"), "tents?"),
        ):
            expect(trouble).to_have_text(f"{why}{text}Leave it")
            expect(page.get_by_role("status").filter(has_text=why)).to_have_count(1)
            trouble.get_by_role("button", name="Leave it").press("Enter")
            expect(trouble).to_have_count(0)
        expect(alice.message("first", ".accepted")).to_be_visible()
        expect(chat.locator(".accepted .text")).to_have_text("tens?")
        expect(bob.page.locator(".message .text")).to_have_text("first")

    @in_browser
    def test_closed_meanwhile(self, visitors: Visitors) -> None:
        """An edit is made without a connection, and the room is closed: the page says that it came second."""
        home = visitors.context()
        line = Line(home)
        bob = Person.sign_in(home, node("open").http_url, name("bob"))
        alice = signed_in(visitors, "alice")
        title = name("Weekend")
        make_room(alice, title, bob)
        enter(bob, title)
        bob.say("frist")
        choose(bob.message("frist"), "Edit")
        line.cut()
        bob.write("first")
        expect(bob.message("first", ".sending")).to_be_visible()
        alice.page.get_by_role("button", name="Room: members and settings").click()
        alice.page.get_by_role("button", name="Close the room").click()
        alice.page.locator(".ask").get_by_role("button", name="Close").click()
        expect(alice.page.locator(".compose-closed")).to_be_visible()
        line.mend()
        expect(bob.page.locator(".failure")).to_have_text(
            "Not changed. Something else happened first.firstLeave it"
        )
        expect(bob.message("frist", ".accepted")).to_be_visible()

    @in_browser
    def test_keyboard(self, visitors: Visitors) -> None:
        """Messages are reached, answered, changed, reacted to and removed without a mouse."""
        alice, bob = two(visitors)
        for one, other in ((alice, bob), (bob, alice)):
            one.open(other.name)
        alice.say("hello")
        bob.hears("hello")
        page = bob.page
        page.bring_to_front()
        page.focus(".compose-text")
        page.keyboard.press("ArrowUp")
        expect(page.locator("li[data-id]").last).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="React with 👍")).to_be_focused()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        reaction = bob.message("hello").get_by_role("button", name=re.compile("^❤️: 1. You"))
        expect(reaction).to_have_attribute("aria-pressed", "true")
        expect(alice.message("hello").locator(".reaction")).to_have_text("❤️1")
        expect(alice.message("hello").locator(".reaction")).to_have_attribute("title", bob.name)
        # The focus is on the message still: its reaction is the tab key's next stop, and takes itself back.
        expect(page.locator("li[data-id]").last).to_be_focused()
        reaction.press("Enter")
        expect(alice.page.locator(".reaction")).to_have_count(0)
        expect(bob.page.locator(".reaction")).to_have_count(0)
        page.focus(".compose-text")
        page.keyboard.press("ArrowUp")
        page.keyboard.press("r")
        expect(page.locator(".compose-mode")).to_contain_text(f"Reply to {alice.name}")
        page.keyboard.type("hello yorself")
        page.keyboard.press("Enter")
        expect(bob.message("hello yorself", ".accepted").locator(".quote")).to_contain_text("hello")
        page.keyboard.press("ArrowUp")
        page.keyboard.press("e")
        for _ in range(5):
            page.keyboard.press("Backspace")
        page.keyboard.type("urself")
        page.keyboard.press("Enter")
        alice.hears("hello yourself")
        page.keyboard.press("ArrowUp")
        page.keyboard.press("Delete")
        page.keyboard.press("Tab")
        expect(page.locator(".ask .danger")).to_be_focused()
        page.keyboard.press("Enter")
        expect(alice.page.locator(".bubble.recalled")).to_have_count(1)

    @in_browser
    def test_reactions(self, visitors: Visitors) -> None:
        """Reactions are counted, with the names of those who gave them; a click joins in or takes back."""
        alice, bob, carol = three(visitors)
        title = name("Weekend")
        make_room(alice, title, bob, carol)
        alice.say("lunch?")
        for person in (bob, carol):
            enter(person, title)
            person.hears("lunch?")
        bob.message("lunch?").locator(".bubble").click(button="right")
        bob.page.get_by_role("button", name="React with 👍").click()
        chip = carol.message("lunch?").locator(".reaction")
        expect(chip).to_have_text("👍1")
        chip.click()
        for person in (alice, bob, carol):
            expect(person.message("lunch?").locator(".reaction")).to_have_text("👍2")
        alice.message("lunch?").locator(".bubble").click(button="right")
        expect(alice.page.locator(".reacted")).to_contain_text(f"{bob.name}, {carol.name}")
        alice.page.get_by_role("button", name="More reactions").click()
        alice.page.get_by_role("button", name="React with 🚀").click()
        expect(bob.message("lunch?").locator(".reaction")).to_have_text(["👍2", "🚀1"])
        bob.message("lunch?").locator(".reaction").first.click()
        expect(alice.message("lunch?").locator(".reaction")).to_have_text(["👍1", "🚀1"])
        again = Person.sign_in(visitors.context(), node("open").http_url, bob.name)
        enter(again, title)
        expect(again.message("lunch?").locator(".reaction")).to_have_text(["👍1", "🚀1"])

    @in_browser
    def test_reactions_of_many(self, visitors: Visitors) -> None:
        """One who reacts after twenty others sees that, in another browser too, and takes it back."""
        bob = signed_in(visitors, "bob")
        title = name("Weekend")
        crowd = [name("one") for _ in range(20)]
        bob.page.evaluate(_CROWD, [title, name("alice"), [bob.name], crowd, node("open").url])
        enter(bob, title)
        chip = bob.message("who comes?").locator(".reaction")
        expect(chip).to_have_text("👍20")
        expect(chip).to_have_attribute("aria-pressed", "false")
        chip.click()
        expect(chip).to_have_text("👍21")
        expect(chip).to_have_attribute("aria-pressed", "true")
        again = Person.sign_in(visitors.context(), node("open").http_url, bob.name)
        enter(again, title)
        same = again.message("who comes?").locator(".reaction")
        expect(same).to_have_text("👍21")
        expect(same).to_have_attribute("aria-pressed", "true")
        same.click()
        for each in (chip, same):
            expect(each).to_have_text("👍20")
            expect(each).to_have_attribute("aria-pressed", "false")

    @in_browser
    def test_mentions(self, visitors: Visitors) -> None:
        """Names complete while @ is typed; who is named sees it in the list and in the message."""
        alice, bob, carol = three(visitors)
        title = name("Weekend")
        make_room(alice, title, bob, carol)
        field = alice.page.locator(".compose-text")
        field.press_sequentially("ask @" + bob.name[:3])
        options = alice.page.get_by_role("option")
        expect(options).to_have_text([re.compile(bob.name)])
        expect(field).to_have_attribute("aria-activedescendant", "completion-0")
        field.press("Enter")
        expect(field).to_have_value(f"ask @{bob.name} ")
        field.press_sequentially("about it")
        field.press("Enter")
        expect(bob.row(title).locator(".badge.named")).to_be_visible()
        expect(carol.row(title).locator(".badge")).to_have_text("1")
        enter(bob, title)
        expect(bob.page.locator(".mention.to-me")).to_have_text(f"@{bob.name}")
        enter(carol, title)
        expect(carol.page.locator(".mention:not(.to-me)")).to_have_text(f"@{bob.name}")
        # Everybody is for owner and admins.
        field.press_sequentially("@al")
        expect(options.first).to_contain_text("all")
        field.press("Tab")
        field.press_sequentially("lunch!")
        field.press("Enter")
        for person in (bob, carol):
            expect(person.page.locator(".mention.to-me").last).to_have_text("@all")
        carol.page.locator(".compose-text").press_sequentially("@al")
        expect(carol.page.get_by_role("option")).to_have_text([re.compile(alice.name)])

    @in_browser
    def test_a_reply_to_something_long_ago(self, visitors: Visitors) -> None:
        """A tap on a quote leads to the original, which is read with what is around it."""
        server = node("open")
        alice, bob = two(visitors)
        title = name("Weekend")
        room = make_room(alice, title, bob).removeprefix("#room:")
        alice.say("the beginning")
        enter(bob, title)
        bob.hears("the beginning")
        choose(bob.message("the beginning"), "Reply")
        bob.page.evaluate(_FILL, [room, 160, bob.name, server.url])
        bob.say("as you said")
        # A new browser has the newest page only.
        again = Person.sign_in(visitors.context(), server.http_url, alice.name)
        enter(again, title)
        again.hears("as you said")
        expect(again.message("the beginning")).to_have_count(0)
        quote = again.message("as you said").locator(".quote")
        expect(quote).to_contain_text("the beginning")
        quote.click()
        expect(again.message("the beginning")).to_be_in_viewport()
        expect(again.message("the beginning")).to_be_focused()
        expect(again.message("as you said")).to_have_count(0)
        # From there on down, page after page, to the newest message.
        again.page.wait_for_function(_DOWN_TO, arg="as you said", polling=50)
        texts = again.page.locator(".message .text").all_text_contents()
        self.assertEqual(texts, ["the beginning", *(f"filling {i}" for i in range(1, 161)), "as you said"])

    @in_browser
    def test_another_device(self, visitors: Visitors) -> None:
        """A user's actions in one browser are the user's own in another, once."""
        url = node("open").http_url
        alice, bob = two(visitors)
        phone = Person.sign_in(visitors.context(), url, alice.name)
        for one in (alice, phone):
            one.open(bob.name)
        bob.open(alice.name)
        phone.say("from the phone")
        expect(alice.message("from the phone", ".mine.accepted")).to_have_count(1)
        bob.hears("from the phone")
        choose(alice.message("from the phone"), "Edit")
        alice.page.fill(".compose-text", "from the desk")
        alice.page.press(".compose-text", "Enter")
        expect(phone.message("from the desk", ".mine.accepted")).to_have_count(1)
        bob.message("from the desk").locator(".bubble").click(button="right")
        bob.page.get_by_role("button", name="React with 😂").click()
        for one in (alice, phone):
            expect(one.page.locator(".reaction")).to_have_text("😂1")
        title = name("Weekend")
        make_room(phone, title, bob)
        expect(alice.row(title)).to_be_visible()
        enter(alice, title)
        expect(lines(alice.page)).to_have_text([f"You created the room with {bob.name}"])
        for one in (alice, phone):
            one.page.reload()
            one.connected()
            one.open(bob.name)
            expect(one.message("from the desk", ".mine.accepted")).to_have_count(1)
            expect(one.page.locator(".message")).to_have_count(1)


class OldClusterTests(unittest.TestCase):
    timeout = 900

    @in_browser
    def test_without_events(self, visitors: Visitors) -> None:
        """In a cluster without events the page is as it was: no rooms, no menu of a message."""

        def as_before(socket: WebSocketRoute) -> None:
            server = socket.connect_to_server()

            def up(frame: str | bytes) -> None:
                content = json.loads(frame)
                content.pop("features", None)
                server.send(json.dumps(content))

            socket.on_message(up)

        url = node("open").http_url
        home = visitors.context()
        home.route_web_socket(re.compile("/ws"), as_before)
        alice = Person.sign_in(home, url, name("alice"))
        bob = Person.sign_in(visitors.context(), url, name("bob"))
        alice.open(bob.name)
        alice.say("as ever")
        bob.open(alice.name)
        bob.say("indeed")
        alice.hears("indeed")
        alice.message("indeed").locator(".bubble").hover()
        expect(alice.page.locator(".more, [data-id]")).to_have_count(0)
        alice.page.focus(".compose-text")
        alice.page.keyboard.press("ArrowUp")
        expect(alice.page.locator(".compose-text")).to_be_focused()
        alice.page.locator(".bar .accent").click()
        expect(alice.page.get_by_label("To", exact=True)).to_be_focused()
        expect(alice.page.get_by_text("Room", exact=True)).to_have_count(0)


class DeskTests(unittest.TestCase):
    timeout = 900

    @in_browser
    def test_visitor_and_agent(self, visitors: Visitors) -> None:
        """A visitor and an agent change and remove what they wrote; the agent's other device has it all."""
        own = started(NodeServer(new_folder(), {}))
        self.addCleanup(own.kill)
        agent = Person.sign_in(visitors.context(), own.http_url + "agent", "sam")
        other = Person.sign_in(visitors.context(), own.http_url + "agent", "sam")
        phone = {"width": 390, "height": 844}
        page = visitors.context(viewport=phone, has_touch=True, is_mobile=True).new_page()
        page.goto(own.http_url + "demo")
        page.get_by_role("button", name="Open the chat").click()
        chat = page.get_by_role("dialog", name="Chat with us")
        field = chat.get_by_role("textbox")
        for text in ("do you have tens?", "my secret words"):
            field.fill(text)
            field.press("Enter")
        expect(chat.locator(".mine.accepted")).to_have_count(2)
        for person in (agent, other):
            person.page.bring_to_front()
            person.page.locator("a.row").click()
            person.hears("my secret words")
        page.bring_to_front()

        # By keyboard: the actions of one's own messages are stops of the tab key.
        chat.get_by_role("button", name="More for this message").first.press("Enter")
        expect(chat.get_by_role("button", name="Reply", exact=True)).to_be_focused()
        page.keyboard.press("Tab")
        expect(chat.get_by_role("button", name="Edit")).to_be_focused()
        page.keyboard.press("Enter")
        expect(field).to_have_value("do you have tens?")
        field.fill("do you have tents?")
        field.press("Enter")
        expect(field).to_have_value("")
        chat.get_by_role("button", name="More for this message").last.press("Enter")
        chat.get_by_role("button", name="Remove for everybody").press("Enter")
        chat.get_by_role("button", name="Remove", exact=True).press("Enter")
        for person in (agent, other):
            person.hears("do you have tents?")
            expect(person.page.locator(".bubble.recalled")).to_have_count(1)
            expect(person.page.locator("body")).not_to_contain_text("secret words")
        for one in (page, agent.page, other.page):
            wait_until(lambda one=one: "secret words" not in stored(one), 180, "the text is forgotten")

        agent.page.bring_to_front()
        choose(agent.message("do you have tents?"), "Reply")
        agent.say("we doo")
        answer = chat.locator(".message.theirs")
        expect(answer.locator(".quote-text")).to_have_text("do you have tents?")
        choose(agent.message("we doo"), "Edit")
        agent.page.fill(".compose-text", "we do")
        agent.page.press(".compose-text", "Enter")
        expect(answer.locator(".text")).to_have_text("we do")
        expect(answer.locator(".meta")).to_contain_text("edited")
        expect(other.message("we do", ".mine.accepted")).to_have_count(1)
        agent.message("do you have tents?").locator(".bubble").click(button="right")
        agent.page.get_by_role("button", name="React with 👍").click()
        reaction = chat.locator(".reactions button")
        expect(reaction).to_have_text("👍 1")
        reaction.click()
        for person in (agent, other):
            expect(person.page.locator(".reaction")).to_have_text("👍2")
        self.reply(page, chat, agent, other)
        page.reload()
        expect(chat.locator(".text")).to_have_text(["do you have tents?", "we do", "how dear are they?"])
        expect(chat.locator(".mine .quote")).to_contain_text("we do")
        expect(chat.locator(".recalled")).to_have_count(1)
        expect(chat.locator(".reactions button")).to_have_text("👍 2")

    def reply(self, page: Page, chat: Locator, *desks: Person) -> None:
        """The visitor answers the agent's message, by touch and by keyboard; the quote leads to it."""
        page.bring_to_front()
        field = chat.get_by_role("textbox")
        message = chat.locator("li.of-theirs", has_text="we do")
        message.get_by_role("button", name="More for this message").tap()
        message.get_by_role("button", name="Reply", exact=True).tap()
        expect(chat.locator(".compose-mode")).to_have_text("Reply to samwe do")
        chat.get_by_role("button", name="Do not reply").tap()
        expect(field).to_be_focused()
        page.keyboard.press("ArrowUp")
        expect(message).to_be_focused()
        page.keyboard.press("Enter")
        expect(message.get_by_role("button", name="Reply", exact=True)).to_be_focused()
        expect(message.get_by_role("button", name="Edit")).to_have_count(0)
        page.keyboard.press("Enter")
        expect(field).to_be_focused()
        expect(chat.locator(".compose-mode")).to_have_text("Reply to samwe do")
        expect(chat.get_by_role("status").last).to_have_text("Reply to sam")
        # Given up, and begun again with the key for it.
        page.keyboard.press("Escape")
        expect(chat.locator(".compose-mode")).to_be_hidden()
        expect(chat).to_be_visible()
        page.keyboard.press("ArrowUp")
        page.keyboard.press("r")
        page.keyboard.type("how dear are they?")
        page.keyboard.press("Enter")
        expect(chat.locator(".compose-mode")).to_be_hidden()
        for person in desks:
            expect(person.message("how dear are they?", ".theirs").locator(".quote")).to_contain_text("we do")
        quote = chat.locator(".mine.accepted").get_by_role("button", name="In reply to: sam we do")
        # It stands out for a moment only, which a late look would miss.
        page.evaluate(_NOTE_FOUND)
        quote.press("Enter")
        expect(message).to_be_focused()
        page.wait_for_function("stoodOut.length", polling=50)
        self.assertEqual(page.evaluate("stoodOut"), [message.get_attribute("data-act")])
