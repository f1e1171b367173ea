"""The chat page on the nodes of a cluster: RabbitMQ between its users, an archive that is behind."""

from __future__ import annotations

from typing import Any

import pymongo
from playwright.sync_api import expect
from twisted.trial import unittest

from tests.protocol.clusters import Cluster
from tests.protocol.support import new_folder, started
from tests.support.servers import MongoServer, wait_until
from tests.web.browser import Person, Visitors
from tests.web.support import in_browser
from tests.web.test_messenger import choose, enter, make_room


class ClusterPagesTests(unittest.TestCase):
    timeout = 900

    @in_browser
    def test_a_room(self, visitors: Visitors) -> None:
        """Users of two nodes share a room; an edit waits for the archive, and no message for it."""
        mongo = MongoServer(new_folder())
        self.addCleanup(mongo.kill)
        mongo.start()
        cluster = Cluster("pages", {"mongodb": {"url": mongo.url}})
        nodes = [started(cluster.node()) for _ in range(2)]
        for one in nodes:
            self.addCleanup(one.kill)
        alice, bob = (
            Person.sign_in(visitors.context(), one.http_url, who)
            for one, who in zip(nodes, ("alice", "bob"), strict=True)
        )
        make_room(alice, "Weekend", bob)
        enter(bob, "Weekend")
        for text in ("frist", "secret words"):
            alice.say(text)
            bob.hears(text)
        choose(alice.message("frist"), "Edit")
        alice.write("first")
        bob.hears("first")
        choose(bob.message("first"), "React with 👍")
        expect(alice.message("first").locator(".reaction")).to_have_text("👍1")
        choose(alice.message("secret words"), "Remove for everybody")
        alice.page.locator(".ask").get_by_role("button", name="Remove").click()
        expect(bob.page.locator(".bubble.recalled")).to_have_count(1)
        choose(bob.message("first"), "Reply")
        bob.say("you are not")
        expect(alice.message("you are not", ".theirs").locator(".quote")).to_contain_text("first")

        mongo.pause()
        alice.say("not archived yet")
        bob.hears("not archived yet")
        choose(alice.message("not archived yet"), "Edit")
        alice.write("archived by now")
        expect(alice.message("archived by now", ".sending")).to_be_visible()
        alice.say("behind the edit")
        bob.hears("behind the edit")
        expect(bob.message("not archived yet")).to_have_count(1)
        expect(alice.page.locator(".failure")).to_have_count(0)
        mongo.resume()
        expect(alice.message("archived by now", ".accepted")).to_be_visible()
        bob.hears("archived by now")
        # A new browser has it from the archive, which may be a moment behind.
        with pymongo.MongoClient[dict[str, Any]](mongo.url) as client:
            archive = client.get_default_database()["im_message"]
            wait_until(
                lambda: archive.find_one({"msg": "behind the edit"}) is not None, 180, "all is archived"
            )
        again = Person.sign_in(visitors.context(), nodes[1].http_url, "alice")
        enter(again, "Weekend")
        texts = ["first", "you are not", "archived by now", "behind the edit"]
        expect(again.page.locator(".message .text")).to_have_text(texts)
        expect(again.page.locator(".bubble.recalled")).to_have_count(1)
        expect(again.message("first").locator(".reaction")).to_have_text("👍1")
