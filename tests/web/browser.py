"""A headless browser, shared by the tests of a process in its own thread; and people who use the pages."""

from __future__ import annotations

import atexit
import json
import queue
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from playwright.sync_api import (
    Browser,
    BrowserContext,
    Locator,
    Page,
    Playwright,
    ViewportSize,
    expect,
    sync_playwright,
)
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

PROGRAM = "/usr/bin/chromium"
"""the whole browser, whose profiles have preferences"""
SHELL = "/usr/bin/chromium-headless-shell"
"""Chromium's pages without its windows: the same engine for half the processor time"""
WAIT_MS = 180_000
_ARGUMENTS = ["--no-sandbox", "--disable-gpu"]
# One process draws, and one runs the pages of a profile: each process more costs its start.
_SHELL_ARGUMENTS = [
    *_ARGUMENTS,
    "--in-process-gpu",
    "--disable-site-isolation-trials",
    "--process-per-site",
    "--renderer-process-limit=1",
]
_VIEWPORT: ViewportSize = {"width": 1280, "height": 800}


def launch(playwright: Playwright) -> Browser:
    """A headless browser: the small one, where it is installed."""
    program, arguments = (SHELL, _SHELL_ARGUMENTS) if Path(SHELL).exists() else (PROGRAM, _ARGUMENTS)
    return playwright.chromium.launch(executable_path=program, args=arguments, timeout=WAIT_MS)


class BrowserThread:
    """A thread for Playwright, whose calls block and must all come from one thread."""

    def __init__(self) -> None:
        self._jobs: queue.Queue[Callable[[Browser], None] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="browser", daemon=True)
        self._thread.start()
        atexit.register(self._stop)

    def run(self, function: Callable[[Browser], None]) -> Deferred[None]:
        """Call a function in the thread. The Deferred fires with its result, or its exception."""
        done: Deferred[None] = Deferred()

        def job(browser: Browser) -> None:
            try:
                function(browser)
            except BaseException:
                reactor.callFromThread(done.errback, Failure())
            else:
                reactor.callFromThread(done.callback, None)

        self._jobs.put(job)
        return done

    def _work(self) -> None:
        expect.set_options(timeout=WAIT_MS)
        with sync_playwright() as playwright:
            browser = launch(playwright)
            while (job := self._jobs.get()) is not None:
                job(browser)
            browser.close()

    def _stop(self) -> None:
        self._jobs.put(None)
        self._thread.join(20)


@cache
def browser_thread() -> BrowserThread:
    """The browser's thread, started by the first call."""
    return BrowserThread()


class Visitors:
    """The browser profiles of one test, and the errors that their pages logged."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._contexts: list[BrowserContext] = []
        self._folders: list[Path] = []
        self.complaints: list[str] = []
        self.defaults: dict[str, Any] = {"viewport": _VIEWPORT}

    def context(self, **options: Any) -> BrowserContext:
        """A new profile."""
        return self._made(self._browser.new_context(**{**self.defaults, **options}))

    def locked(self, **profile: Any) -> BrowserContext:
        """A new browser whose profile has these preferences, such as blocked storage."""
        folder = Path(tempfile.mkdtemp(prefix="imd-profile-"))
        self._folders.append(folder)
        (folder / "Default").mkdir()
        (folder / "Default" / "Preferences").write_text(json.dumps({"profile": profile}))
        context = self._browser.browser_type.launch_persistent_context(
            folder, executable_path=PROGRAM, args=_ARGUMENTS, timeout=WAIT_MS, viewport=_VIEWPORT
        )
        return self._made(context)

    def _made(self, context: BrowserContext) -> BrowserContext:
        context.set_default_timeout(WAIT_MS)
        context.on("console", lambda said: self._heard(said.type, said.text))
        context.on("weberror", lambda error: self.complaints.append(str(error.error)))
        self._contexts.append(context)
        return context

    def _heard(self, kind: str, text: str) -> None:
        # That a connection failed while the node was away is the browser's word, not the page's.
        if kind in ("error", "warning") and "WebSocket connection to" not in text and "net::ERR_" not in text:
            self.complaints.append(text)

    def close(self) -> None:
        for context in self._contexts:
            context.close()
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def writing(field: Locator, text: str) -> Iterator[None]:
    """Write into a field, and go on with it. To those who see it, one key counts for seconds only."""
    field.press_sequentially(text)
    again = "field.dispatchEvent(new Event('input'))"
    field.evaluate(f"(field) => {{ field.hand = setInterval(() => {again}, 500); }}")
    yield
    field.evaluate("(field) => clearInterval(field.hand)")


class Person:
    """A person at a page of the chat or the desk."""

    def __init__(self, page: Page, name: str) -> None:
        self.page = page
        self.name = name

    @classmethod
    def sign_in(cls, context: BrowserContext, url: str, name: str) -> Person:
        """Sign in with a name, in open mode."""
        page = context.new_page()
        page.goto(url)
        page.fill("#who", name)
        page.press("#who", "Enter")
        person = cls(page, name)
        person.connected()
        return person

    def connected(self) -> None:
        expect(self.page.locator("[data-link=open]")).to_be_visible()

    def open(self, *others: str) -> None:
        """Open a conversation by its address."""
        self.page.evaluate("(hash) => { location.hash = hash; }", "#" + ",".join(others))
        title = ", ".join(sorted(others))
        expect(self.page.locator(".thread .bar-title")).to_have_text(title)

    def write(self, text: str) -> None:
        self.page.fill(".compose-text", text)
        self.page.press(".compose-text", "Enter")

    def say(self, text: str) -> None:
        """Write a message, and wait until the page shows it as accepted."""
        self.write(text)
        expect(self.message(text, ".mine.accepted")).to_be_visible()

    def message(self, text: str, kind: str = "") -> Locator:
        """The messages on the screen with exactly this text."""
        exactly = re.compile(f"^{re.escape(text)}$")
        return self.page.locator(f".message{kind}", has=self.page.locator(".text", has_text=exactly))

    def hears(self, text: str) -> None:
        """Wait until a message is on the screen, once."""
        expect(self.message(text, ".theirs")).to_have_count(1)

    def row(self, title: str) -> Locator:
        """The row of a conversation in the list."""
        exactly = re.compile(f"^{re.escape(title)}$")
        return self.page.locator("a.row", has=self.page.locator(".row-title", has_text=exactly))
