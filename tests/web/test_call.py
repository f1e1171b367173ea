"""examples/call.html: two pages open a data channel to each other, signalled through a node."""

from __future__ import annotations

import subprocess
import sys
from urllib.parse import urlencode

from playwright.sync_api import Page, expect
from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from tests.support.paths import ROOT
from tests.support.servers import free_port
from tests.web.browser import Visitors
from tests.web.support import in_browser, name, node


class CallTests(unittest.TestCase):
    timeout = 900

    def setUp(self) -> None:
        self.port = free_port()
        server = subprocess.Popen(
            [sys.executable, ROOT / "examples" / "call.py", str(self.port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert server.stdout is not None
        self.addCleanup(server.stdout.close)
        self.addCleanup(server.wait, 60)
        self.addCleanup(server.kill)
        server.stdout.readline()
        return deferToThread(node, "open")  # type: ignore[return-value]

    def page(self, visitors: Visitors, me: str, peer: str) -> Page:
        page = visitors.context().new_page()
        query = urlencode({"node": node("open").url, "me": me, "peer": peer})
        page.goto(f"http://127.0.0.1:{self.port}/call.html?{query}")
        expect(page.get_by_role("status")).to_have_text("ready")
        return page

    @in_browser
    def test_call(self, visitors: Visitors) -> None:
        """One calls, both talk without the node, one hangs up, and they can call again."""
        alice, bob = name("alice"), name("bob")
        caller, called = self.page(visitors, alice, bob), self.page(visitors, bob, alice)
        for _ in range(2):
            caller.get_by_role("button", name="Call").click()
            for page, other in ((caller, bob), (called, alice)):
                expect(page.get_by_role("status")).to_have_text(f"talking to {other}")
            for page, text in ((caller, "hello"), (called, "hi there")):
                page.get_by_label("Say").fill(text)
                page.get_by_role("button", name="Send").click()
            expect(called.get_by_role("log")).to_contain_text(f"{alice}: hello")
            expect(caller.get_by_role("log")).to_contain_text(f"{bob}: hi there")
            called.get_by_role("button", name="Hang up").click()
            for page in (caller, called):
                expect(page.get_by_role("status")).to_have_text("hung up")
