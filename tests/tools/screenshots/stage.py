"""People at the pages of one node, and the conversations that the pictures show."""

# ruff: noqa: RUF001  Chinese has punctuation of its own.

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from playwright.sync_api import Locator, Page, expect

from tests.web.browser import Person, Visitors

WORDS: dict[str, dict[str, str]] = {
    "en-GB": {
        "room": "Weekend in the hills",
        "plan": "Who is in for Saturday? Weather says sun ☀️",
        "answer": "I am! Shall I bring the tent?",
        "train": "The train at 8:12 gets us there before ten: https://example.org/trains",
        "named": "could you book the hut, please?",
        "wrong": "Meet at 7:30 at the statoin",
        "right": "Meet at 7:30 at the station",
        "gone": "This was for somebody else",
        "reply": "Done. Four beds, under my name.",
        "draft": "@",
        "pair": "Are you coming on Saturday?",
        "visitor": "Do you deliver to the islands?",
        "agent": "We do, within three days.",
        "thanks": "Then two of the spades, please.",
    },
    "zh-CN": {
        "room": "周末爬山",
        "plan": "周六谁去？天气预报说是晴天 ☀️",
        "answer": "我去！要带帐篷吗？",
        "train": "8:12 的火车十点前能到：https://example.org/trains",
        "named": "能订一下山屋吗？",
        "wrong": "7:30 在车战见",
        "right": "7:30 在车站见",
        "gone": "这条发错人了",
        "reply": "订好了，四个床位，用我的名字。",
        "draft": "@",
        "pair": "周六你来吗？",
        "visitor": "你们送货到岛上吗？",
        "agent": "送的，三天内到。",
        "thanks": "那要两把铲子。",
    },
}


@dataclass(slots=True)
class Cast:
    """The people of the pictures; `alice` is the one whose screen is shown."""

    alice: Person
    bob: Person
    carol: Person
    room: str
    words: dict[str, str]


def act(page: Page, message: Locator, name: str) -> None:
    """Choose an action of a message's menu, by its icon."""
    message.locator(".bubble").click(button="right")
    page.locator(f".message-menu .act:has(.icon-{name})").click()


def react(page: Page, message: Locator, reaction: str) -> None:
    message.locator(".bubble").click(button="right")
    page.locator(".message-menu .emoji-button", has_text=reaction).click()


def play(visitors: Visitors, url: str, locale: str, look: Any) -> Cast:
    """A room with three people, in which everything happens once."""
    words = WORDS[locale]
    alice, bob, carol = (
        Person.sign_in(visitors.context(locale=locale, color_scheme=look), url, name)
        for name in ("alice", "bob", "carol")
    )
    page = alice.page
    page.locator(".bar .accent").click()
    page.locator(".dialog .segment", has=page.locator("input[value=room]")).click()
    page.fill("#room-name", words["room"])
    page.fill("#names", f"{bob.name}, {carol.name}")
    page.locator(".dialog .button[type=submit]").click()
    expect(page.locator(".thread .bar-title")).to_have_text(words["room"])
    room = page.evaluate("location.hash")
    for person in (bob, carol):
        person.page.evaluate("(hash) => { location.hash = hash; }", room)
        expect(person.page.locator(".thread .bar-title")).to_have_text(words["room"])
    alice.say(words["plan"])
    bob.hears(words["plan"])
    carol.hears(words["plan"])
    bob.say(words["answer"])
    carol.say(words["train"])
    alice.hears(words["train"])
    page.fill(".compose-text", "")
    page.locator(".compose-text").press_sequentially(f"@{bob.name[:3]}")
    expect(page.locator("#completion li")).to_have_count(1)
    page.keyboard.press("Enter")
    page.keyboard.type(words["named"])
    page.keyboard.press("Enter")
    asked = alice.message(f"@{bob.name} {words['named']}", ".accepted")
    expect(asked).to_be_visible()
    for text in ("wrong", "gone"):
        alice.say(words[text])
        bob.hears(words[text])
    act(page, alice.message(words["wrong"]), "edit")
    page.fill(".compose-text", words["right"])
    page.keyboard.press("Enter")
    bob.hears(words["right"])
    act(page, alice.message(words["gone"]), "recall")
    page.locator(".ask .danger").click()
    expect(bob.page.locator(".bubble.recalled")).to_be_visible()
    act(bob.page, bob.message(f"@{bob.name} {words['named']}"), "reply")
    bob.say(words["reply"])
    for person in (bob, carol):
        react(person.page, person.message(words["plan"], ".theirs"), "👍")
    react(carol.page, carol.message(words["plan"], ".theirs"), "❤️")
    alice.hears(words["reply"])
    react(page, alice.message(words["reply"], ".theirs"), "🙏")
    expect(alice.message(words["plan"]).locator(".reaction")).to_have_count(2)
    bob.open(alice.name)
    bob.say(words["pair"])
    return Cast(alice, bob, carol, room, words)


@dataclass(slots=True)
class Shop:
    """An agent, and a visitor's chat on the page of a site."""

    agent: Person
    site: Page
    chat: Locator
    words: dict[str, str]


def play_desk(visitors: Visitors, url: str, locale: str, look: Any) -> Shop:
    """A visitor asks, changes and removes; the agent answers."""
    words = WORDS[locale]
    agent = Person.sign_in(visitors.context(locale=locale, color_scheme=look), url + "agent", "sam")
    site = visitors.context(locale=locale, color_scheme=look).new_page()
    site.goto(url + "demo")
    site.locator("imd-chat .bubble").click()
    chat = site.locator("imd-chat .panel")
    field = chat.locator("textarea")
    for text in (words["visitor"], words["gone"]):
        field.fill(text)
        field.press("Enter")
    expect(chat.locator(".mine.accepted")).to_have_count(2)
    chat.locator(".message.mine").last.hover()
    chat.locator(".message.mine .more").last.click()
    chat.locator(".acts .recall").click()
    chat.locator(".acts .yes").click()
    expect(chat.locator(".recalled")).to_have_count(1)
    page = agent.page
    page.locator("a.row").click()
    agent.hears(words["visitor"])
    act(page, agent.message(words["visitor"]), "reply")
    agent.say(words["wrong"])
    act(page, agent.message(words["wrong"]), "edit")
    page.fill(".compose-text", words["agent"])
    page.keyboard.press("Enter")
    expect(chat.locator(".theirs .text")).to_have_text(words["agent"])
    react(page, agent.message(words["visitor"]), "👍")
    expect(chat.locator(".reactions")).to_be_visible()
    return Shop(agent, site, chat, words)
