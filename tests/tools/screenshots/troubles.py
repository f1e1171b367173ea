"""Changes that are refused, that wait for the archive, and that are made without a connection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from playwright.sync_api import Locator, Page, expect

from tests.tools.screenshots.stage import WORDS, act, react
from tests.web.browser import Person, Visitors
from tests.web.line import TEMPORARY, Line


@dataclass(slots=True)
class Troubles:
    """Somebody at the chat page, and a visitor's chat on the page of a site."""

    dora: Person
    line: Line
    site: Page
    chat: Locator
    site_line: Line
    words: dict[str, str]


def play_troubles(visitors: Visitors, url: str, locale: str, look: Any) -> Troubles:
    """Too late for an edit and a recall; a reaction that came second; an edit that waits."""
    words = WORDS[locale]
    home = visitors.context(locale=locale, color_scheme=look)
    line = Line(home)
    dora = Person.sign_in(home, url, "dora")
    dora.open("emil")
    for text in ("plan", "wrong", "gone", "answer"):
        dora.say(words[text])
    page = dora.page
    line.refuse("react", "conflict")
    react(page, dora.message(words["plan"]), "👍")
    line.refuse("edit", "forbidden")
    act(page, dora.message(words["wrong"]), "edit")
    dora.write(words["right"])
    line.refuse("recall", "forbidden")
    act(page, dora.message(words["gone"]), "recall")
    page.locator(".ask .danger").click()
    expect(page.locator(".failure")).to_have_count(3)
    line.refuse("edit", "unavailable", **TEMPORARY)
    act(page, dora.message(words["answer"]), "edit")
    dora.write(words["reply"])
    expect(dora.message(words["reply"], ".sending")).to_be_visible()
    return Troubles(dora, line, *_visitor(visitors, url, locale, look), words)


def _visitor(visitors: Visitors, url: str, locale: str, look: Any) -> tuple[Page, Locator, Line]:
    words = WORDS[locale]
    home = visitors.context(locale=locale, color_scheme=look)
    line = Line(home)
    site = home.new_page()
    site.goto(url + "demo")
    site.locator("imd-chat .bubble").click()
    chat = site.locator("imd-chat .panel")
    field = chat.locator("textarea")
    for count, text in enumerate(("wrong", "gone", "visitor"), 1):
        field.fill(words[text])
        field.press("Enter")
        expect(chat.locator(".mine.accepted")).to_have_count(count)
    line.refuse("edit", "forbidden")
    edit(chat, 0, words["right"])
    line.refuse("recall", "forbidden")
    more(chat, 1)
    chat.locator(".acts .recall").click()
    chat.locator(".acts .yes").click()
    expect(chat.locator(".trouble")).to_have_count(2)
    line.refuse("edit", "unavailable", **TEMPORARY)
    edit(chat, 2, words["plan"])
    expect(chat.locator(".mine.sending .text")).to_have_text(words["plan"])
    return site, chat, line


def more(chat: Locator, number: int) -> None:
    """Show the actions of one of the visitor's messages."""
    chat.locator(".message.mine").nth(number).hover()
    chat.locator(".message.mine").nth(number).locator(".more").click()


def edit(chat: Locator, number: int, text: str) -> None:
    more(chat, number)
    chat.locator(".acts .edit").click()
    chat.locator("textarea").fill(text)
    chat.locator("textarea").press("Enter")


def go_offline(cast: Troubles) -> None:
    """One more change of each, without a connection."""
    page, words = cast.dora.page, cast.words
    if page.locator(".link").is_visible():
        return
    cast.line.cut()
    cast.site_line.cut()
    act(page, cast.dora.message(words["plan"]), "edit")
    cast.dora.write(words["train"])
    expect(cast.dora.message(words["train"], ".sending")).to_be_visible()
    edit(cast.chat, 1, words["named"])
    expect(cast.chat.locator(".mine.sending")).to_have_count(2)
    for link in (page.locator(".link"), cast.chat.locator(".link")):
        expect(link).to_be_visible()
