"""docs/tutorial.md works when it is followed to the letter, on ports of its own."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from playwright.sync_api import Page, expect
from twisted.trial import unittest

from tests.support.paths import ROOT
from tests.support.servers import HOST, Server, free_port
from tests.web.browser import Visitors
from tests.web.support import in_browser

TUTORIAL = ROOT / "docs" / "tutorial.md"
COMMANDS = [
    "git clone <address of the project> imd",
    "cd imd",
    "scripts/run",
    "mkdir -p my-chat/site",
    "python3 -m http.server 8000 --bind 127.0.0.1 --directory my-chat/site",
    "scripts/run",
    'python3 -c "import secrets; print(secrets.token_urlsafe(48))" > my-chat/secret',
    "scripts/run --config my-chat/node.ini",
    ".venv/bin/python my-chat/server.py",
]


class Started(Server):
    """A command of the tutorial that runs until it is stopped."""

    def __init__(self, folder: Path, port: int, command: list[str]) -> None:
        super().__init__(folder, port)
        self.name = f"{Path(command[0]).name}-{port}"
        self.command = command

    def _command(self) -> list[str | Path]:
        return list(self.command)

    def answers(self) -> bool:
        """True when its port takes connections."""
        try:
            socket.create_connection((HOST, self.port), timeout=1).close()
        except OSError:
            return False
        return True


class Reader:
    """Somebody who follows the tutorial in a folder, on ports that nobody else has."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="imd-tutorial-"))
        self.ports = {"9000": free_port(), "8080": free_port(), "8000": free_port()}
        self.text = self.moved(TUTORIAL.read_text())
        self.commands = re.findall(r"(?m)^    (\S.*)$", re.sub(r"(?ms)^```.*?^```", "", TUTORIAL.read_text()))
        (self.folder / "etc").mkdir()
        (self.folder / "etc" / "node.ini").write_text(self.moved((ROOT / "etc" / "node.ini").read_text()))
        self.started: list[Started] = []

    def moved(self, text: str) -> str:
        """The same with the ports of this reader."""
        return re.sub(r"\b(9000|8080|8000)\b", lambda match: str(self.ports[match[1]]), text)

    def write(self, name: str) -> None:
        """The file that the tutorial has under this name."""
        [text] = re.findall(rf"(?ms)file `{re.escape(name)}`.*?\n\n```\w+\n(.*?)^```", self.text)[:1]
        (self.folder / name).write_text(text)

    def replace(self, name: str, beginning: str) -> None:
        """The line of a file that begins so is replaced by the block that the tutorial has for it."""
        told = rf"`{re.escape(name)}`, replace the line that begins with `{beginning}`"
        [text] = re.findall(rf"(?ms){told}.*?\n\n```\w+\n(.*?)^```", self.text)
        path = self.folder / name
        changed, count = re.subn(rf"(?m)^{beginning}.*\n", lambda _: text, path.read_text())
        assert count == 1, name
        path.write_text(changed)

    def run(self, command: str) -> None:
        """A command that ends."""
        subprocess.run(command, shell=True, cwd=self.folder, check=True, timeout=180)

    def start(self, command: str) -> Started:
        """A command that stays; it answers when this returns. `scripts/run` is what it runs in the end."""
        twistd = [str(Path(sysconfig.get_path("scripts"), "twistd")), "-n", "--pidfile=", "imd"]
        words = self.moved(command).split()
        if words[0] == "scripts/run":
            words = [*twistd, *(words[1:] or ["--config", "etc/node.ini"])]
            port = self.ports["8080"]
        else:
            words = [sys.executable, *words[1:]]
            port = self.ports["8000"]
        server = Started(self.folder, port, words)
        self.started.append(server)
        server.start()
        return server

    def open(self, visitors: Visitors, name: str) -> Page:
        """This person's page, in a browser of its own."""
        page = visitors.context().new_page()
        page.goto(f"http://127.0.0.1:{self.ports['8000']}/?me={name}")
        return page

    def close(self) -> None:
        for server in self.started:
            server.kill()
        shutil.rmtree(self.folder)


def write(page: Page, to: str, text: str) -> None:
    page.fill("[name=to]", to)
    page.fill("[name=msg]", text)
    page.click("button")


def reload_uncached(page: Page) -> None:
    """As Ctrl-Shift-R does."""
    page.context.new_cdp_session(page).send("Page.reload", {"ignoreCache": True})


def says(page: Page, state: str) -> None:
    expect(page.locator("#state")).to_have_text(re.compile(rf": {state}$"))


def shows(page: Page, text: str) -> None:
    """The line is there, once."""
    expect(page.locator("#messages li", has_text=re.compile(f"^{re.escape(text)}$"))).to_have_count(1)


class TutorialTests(unittest.TestCase):
    timeout = 900

    @in_browser
    def test_all(self, visitors: Visitors) -> None:
        """Two people chat on the page; messages wait for a reader and for a node; tokens name their user."""
        reader = Reader()
        self.addCleanup(reader.close)
        self.assertEqual(reader.commands, COMMANDS)
        node = reader.start(COMMANDS[2])
        reader.run(COMMANDS[3])
        reader.write("my-chat/site/index.html")
        reader.write("my-chat/site/chat.js")
        site = reader.start(COMMANDS[4])

        alice, bob = reader.open(visitors, "alice"), reader.open(visitors, "bob")
        says(alice, "open")
        says(bob, "open")
        write(alice, "bob", "hello")
        shows(bob, "alice: hello")
        write(bob, "alice", "hello yourself")
        shows(alice, "bob: hello yourself")

        at_bobs = bob.context
        bob.close()
        write(alice, "bob", "are you there?")
        shows(alice, "to bob: are you there?")
        bob = at_bobs.new_page()
        bob.goto(f"http://127.0.0.1:{reader.ports['8000']}/?me=bob")
        shows(bob, "alice: are you there?")

        node.stop()
        says(alice, "waiting|connecting")
        write(alice, "bob", "still there?")
        node = reader.start(COMMANDS[5])
        shows(alice, "to bob: still there?")
        shows(bob, "alice: still there?")

        node.stop()
        site.stop()
        reader.run(COMMANDS[6])
        reader.write("my-chat/node.ini")
        reader.start(COMMANDS[7])
        reader.write("my-chat/server.py")
        reader.start(COMMANDS[8])
        alice.reload()
        says(alice, "closed")
        reader.replace("my-chat/site/chat.js", "const client")
        reload_uncached(alice)
        reload_uncached(bob)
        says(alice, "open")
        says(bob, "open")
        write(bob, "alice", "with a token")
        shows(alice, "bob: with a token")
