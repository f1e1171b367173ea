"""Two people who write to each other: online, writing, blocked; their menus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from playwright.sync_api import Page, expect

from tests.tools.screenshots.stage import WORDS
from tests.web.browser import Person, Visitors

KEY_MS = 300
# The browser without windows denies notifications, and the pages would not offer them.
_MAY_NOTIFY = "Object.defineProperty(Notification, 'permission', { value: 'default' })"


@dataclass(slots=True)
class Pair:
    """`gina` is the one whose screen is shown."""

    gina: Person
    hugo: Person
    words: dict[str, str]


def play_pair(visitors: Visitors, url: str, locale: str, look: Any) -> Pair:
    """One's own message was read; a conversation is pinned and muted, another marked as unread."""
    words = WORDS[locale]

    def there(name: str) -> Person:
        home = visitors.context(locale=locale, color_scheme=look)
        home.add_init_script(_MAY_NOTIFY)
        return Person.sign_in(home, url, name)

    gina, hugo, ines, jan = (there(name) for name in ("gina", "hugo", "ines", "jan"))
    for other, text, acts in ((ines, "train", ("pin", "mute")), (jan, "thanks", ("bubble",))):
        other.open(gina.name)
        other.say(words[text])
        gina.open(other.name)
        gina.hears(words[text])
        for act in acts:
            choose(gina.page, act)
        other.page.close()
    for one, other in ((gina, hugo), (hugo, gina)):
        one.open(other.name)
    gina.say(words["plan"])
    hugo.page.bring_to_front()
    hugo.hears(words["plan"])
    expect(gina.page.locator(".message.read")).to_be_visible()
    hugo.say(words["answer"])
    gina.hears(words["answer"])
    gina.page.bring_to_front()
    return Pair(gina, hugo, words)


def choose(page: Page, picture: str) -> None:
    """Choose from the menu of the conversation on the screen, by an icon."""
    page.locator("[popovertarget=talk-menu]").click()
    page.locator(f"#talk-menu .act:has(.icon-{picture})").click()


def online(cast: Pair) -> None:
    expect(cast.gina.page.locator(".thread .bar-about:not(.live)")).to_be_visible()


def conversations(cast: Pair) -> None:
    cast.gina.page.evaluate("location.hash = ''")
    expect(cast.gina.page.locator(".nothing")).to_be_attached()


def opened(cast: Pair) -> None:
    cast.gina.open(cast.hugo.name)


def writing(cast: Pair) -> None:
    """A client says so every few seconds, while keys are pressed."""
    live = cast.gina.page.locator(".thread .bar-about.live")
    while not live.is_visible():
        cast.hugo.page.locator(".compose-text").press_sequentially("…", delay=KEY_MS)


def talk_menu(cast: Pair) -> None:
    cast.gina.page.locator("[popovertarget=talk-menu]").click()
    expect(cast.gina.page.locator("#talk-menu .icon-block")).to_be_visible()


def settings(cast: Pair) -> None:
    """On a phone it is where the list is."""
    conversations(cast)
    cast.gina.page.locator(".me").click()
    expect(cast.gina.page.locator("#receipts-hint")).to_be_visible()


def settings_end(cast: Pair) -> None:
    cast.gina.page.keyboard.press("Escape")
    opened(cast)


def asked(cast: Pair) -> None:
    choose(cast.gina.page, "block")
    expect(cast.gina.page.locator(".ask")).to_be_visible()


def blocked(cast: Pair) -> None:
    page = cast.gina.page
    if not page.locator(".compose-closed").is_visible():
        asked(cast)
        page.locator(".ask .danger").click()
    expect(page.locator(".compose-closed")).to_be_visible()
    expect(page.locator(".link")).to_be_hidden()


def escape(cast: Pair) -> None:
    cast.gina.page.keyboard.press("Escape")
