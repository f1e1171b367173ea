"""The states that are pictured: how each is reached, and left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from playwright.sync_api import Page, expect

from tests.tools.screenshots import pair
from tests.tools.screenshots.stage import Cast, Shop, act, play, play_desk
from tests.tools.screenshots.troubles import Troubles, go_offline, play_troubles
from tests.web.browser import Visitors


@dataclass(frozen=True, slots=True)
class Shot:
    """One state of a page. `begin` reaches it from the scene's, `end` leaves it."""

    name: str
    page: Callable[[Any], Page]
    begin: Callable[[Any], None]
    end: Callable[[Any], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class Scene:
    """States that share people and messages."""

    play: Callable[[Visitors, str, str, str], Any]
    shots: tuple[Shot, ...]


def _alice(cast: Cast) -> Page:
    return cast.alice.page


def _in_room(cast: Cast) -> None:
    cast.alice.page.evaluate("(hash) => { location.hash = hash; }", cast.room)
    expect(cast.alice.page.locator(".thread .bar-title")).to_have_text(cast.words["room"])
    cast.alice.page.mouse.move(0, 0)


def _escape(cast: Cast) -> None:
    cast.alice.page.keyboard.press("Escape")


def _list(cast: Cast) -> None:
    cast.alice.page.evaluate("location.hash = ''")
    expect(cast.alice.page.locator("a.row").first).to_be_attached()


def _menu(cast: Cast) -> None:
    _in_room(cast)
    cast.alice.message(cast.words["plan"]).locator(".bubble").click(button="right")


def _emojis(cast: Cast) -> None:
    _menu(cast)
    cast.alice.page.locator(".emojis > :last-child").click()


def _menu_end(cast: Cast) -> None:
    cast.alice.page.keyboard.press("Escape")


def _reply(cast: Cast) -> None:
    _in_room(cast)
    act(cast.alice.page, cast.alice.message(cast.words["reply"]), "reply")


def _edit(cast: Cast) -> None:
    _in_room(cast)
    act(cast.alice.page, cast.alice.message(cast.words["right"]), "edit")


def _recall(cast: Cast) -> None:
    _in_room(cast)
    act(cast.alice.page, cast.alice.message(cast.words["right"]), "recall")
    expect(cast.alice.page.locator(".ask")).to_be_visible()


def _mention(cast: Cast) -> None:
    _in_room(cast)
    cast.alice.page.fill(".compose-text", "")
    cast.alice.page.locator(".compose-text").press_sequentially("@")
    expect(cast.alice.page.locator("#completion li").first).to_be_visible()


def _mention_end(cast: Cast) -> None:
    _escape(cast)
    cast.alice.page.fill(".compose-text", "")


def _details(cast: Cast) -> None:
    _in_room(cast)
    cast.alice.page.locator(".thread .bar .button-icon").last.click()
    expect(cast.alice.page.locator(".member")).to_have_count(3)


def _details_below(cast: Cast) -> None:
    _details(cast)
    cast.alice.page.locator(".room-body").evaluate("(body) => { body.scrollTop = body.scrollHeight; }")


def _talk_menu(cast: Cast) -> None:
    _in_room(cast)
    cast.alice.page.locator("[popovertarget=talk-menu]").click()
    expect(cast.alice.page.locator("#talk-menu")).to_be_visible()


def _new_room(cast: Cast) -> None:
    _list(cast)
    cast.alice.page.locator(".bar .accent").click()
    cast.alice.page.locator(".dialog .segment", has=cast.alice.page.locator("input[value=room]")).click()


def _named(cast: Cast) -> None:
    """The one who is named in the room."""
    cast.bob.page.evaluate("(hash) => { location.hash = hash; }", cast.room)
    expect(cast.bob.page.locator(".mention.to-me")).to_be_visible()


def _removed(cast: Cast) -> None:
    """One who was removed while looking at the room."""
    page = cast.alice.page
    if not cast.carol.page.locator(".compose-closed").is_visible():
        _details(cast)
        page.locator(".member", has_text="carol").locator(".button-icon").click()
        page.locator(".ask .danger").click()
        expect(cast.carol.page.locator(".compose-closed")).to_be_visible()
        expect(page.locator(".member")).to_have_count(2)
        _escape(cast)


def _closed(cast: Cast) -> None:
    """The last one: nothing happens in the room any more."""
    page = cast.alice.page
    _in_room(cast)
    if not page.locator(".compose-closed").is_visible():
        page.locator(".thread .bar .button-icon").last.click()
        page.locator(".room-end .danger").last.click()
        page.locator(".ask .danger").click()
        expect(page.locator(".compose-closed")).to_be_visible()
        _escape(cast)


ROOM = Scene(
    play,
    (
        Shot("list", _alice, _list),
        Shot("room", _alice, _in_room),
        Shot("menu", _alice, _menu, _menu_end),
        Shot("emojis", _alice, _emojis, _menu_end),
        Shot("reply", _alice, _reply, _escape),
        Shot("edit", _alice, _edit, _escape),
        Shot("recall", _alice, _recall, _escape),
        Shot("mention", _alice, _mention, _mention_end),
        Shot("details", _alice, _details, _escape),
        Shot("details-below", _alice, _details_below, _escape),
        Shot("talk-menu", _alice, _talk_menu, _escape),
        Shot("new-room", _alice, _new_room, _escape),
        Shot("named", lambda cast: cast.bob.page, _named),
        Shot("removed", lambda cast: cast.carol.page, _removed),
        Shot("closed", _alice, _closed),
    ),
)


def _widget(shop: Shop) -> None:
    """The chat on the page of a site, as the scene has left it."""


def _widget_acts(shop: Shop) -> None:
    shop.chat.locator(".message.mine:not(.recalled)").last.hover()
    shop.chat.locator(".message.mine:not(.recalled) .more").last.click()


def _widget_reply(shop: Shop) -> None:
    shop.chat.locator(".message.theirs").last.hover()
    shop.chat.locator(".message.theirs .more").last.click()
    shop.chat.locator(".acts .reply").click()


def _widget_replied(shop: Shop) -> None:
    """The last one: the visitor's answer stays."""
    if shop.chat.locator(".mine .quote").count():
        return
    _widget_reply(shop)
    shop.chat.locator("textarea").fill(shop.words["thanks"])
    shop.chat.locator("textarea").press("Enter")
    expect(shop.chat.locator(".mine.accepted .quote")).to_be_visible()


def _widget_end(shop: Shop) -> None:
    shop.site.keyboard.press("Escape")


DESK = Scene(
    play_desk,
    (
        Shot("desk", lambda shop: shop.agent.page, _widget),
        Shot("widget", lambda shop: shop.site, _widget),
        Shot("widget-actions", lambda shop: shop.site, _widget_acts, _widget_end),
        Shot("widget-reply", lambda shop: shop.site, _widget_reply, _widget_end),
        Shot("widget-replied", lambda shop: shop.site, _widget_replied),
    ),
)


def _gina(cast: pair.Pair) -> Page:
    return cast.gina.page


PAIR = Scene(
    pair.play_pair,
    (
        Shot("online", _gina, pair.online),
        Shot("conversations", _gina, pair.conversations, pair.opened),
        Shot("typing", _gina, pair.writing),
        Shot("talk-menu-pair", _gina, pair.talk_menu, pair.escape),
        Shot("settings", _gina, pair.settings, pair.settings_end),
        Shot("block", _gina, pair.asked, pair.escape),
        Shot("blocked", _gina, pair.blocked),
    ),
)


def _chat_troubles(cast: Troubles) -> None:
    cast.dora.page.mouse.move(0, 0)


def _widget_troubles(cast: Troubles) -> None:
    cast.site.mouse.move(0, 0)


TROUBLES = Scene(
    play_troubles,
    (
        Shot("refused", lambda cast: cast.dora.page, _chat_troubles),
        Shot("widget-refused", lambda cast: cast.site, _widget_troubles),
        Shot("offline", lambda cast: cast.dora.page, go_offline),
        Shot("widget-offline", lambda cast: cast.site, go_offline),
    ),
)
