"""`imd chat`, `token`, `check` and `trace`, on nodes where they need one."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from imd.command.cli import main
from imd.command.findings import Finding, Level
from imd.command.output import Output, harmless
from imd.command.token import make_token
from imd.config.settings import Auth
from imd.entry.auth import Authenticator
from imd.protocol.errors import ConfigurationError
from imd.protocol.frames import ConnectFrame
from tests.command import PROGRAM, here, imd, shared_node, write_ini
from tests.support.nodes import NodeServer
from tests.support.paths import ROOT
from tests.support.rabbit import until
from tests.support.servers import free_port, shared
from tests.support.ws_client import WsClient

SECRET = "a secret that only this test knows of"


def start_in(terminal: int, *arguments: object) -> subprocess.Popen[bytes]:
    """`imd …` in a terminal, its own group's leader."""
    return subprocess.Popen(
        [*PROGRAM, *map(str, arguments)],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm"},
    )


class ArgumentTests(unittest.TestCase):
    def exits(self, *arguments: str) -> int:
        """The exit code of a command line that argparse ends."""
        self.patch(__import__("sys"), "stdout", io.StringIO())
        self.patch(__import__("sys"), "stderr", io.StringIO())
        return int(self.assertRaises(SystemExit, main, arguments).code or 0)

    def test_usage(self) -> None:
        """64 for what makes no sense; help and version are fine."""
        self.assertEqual(self.exits("dance"), 64)
        self.assertEqual(self.exits("token"), 64)
        self.assertEqual(self.exits("--version"), 0)
        for name in ("chat", "token", "check", "doctor", "trace", "nodes", "gateway", "drain"):
            self.assertEqual(self.exits(name, "--help"), 0)

    def test_entry_point(self) -> None:
        """pip makes a program of it."""
        self.assertIn("imd = imd.command:main", (ROOT / "setup.cfg").read_text())


class OutputTests(unittest.TestCase):
    def test_plain_and_json(self) -> None:
        findings = [Finding(Level.OK, "redis", "fine"), Finding(Level.WARNING, "node", "odd", "look")]
        plain, as_json = io.StringIO(), io.StringIO()
        self.assertIs(Output(False, plain).findings(findings), Level.WARNING)
        self.assertIn("warning node      odd\n                  look\n", plain.getvalue())
        Output(True, as_json).findings(findings)
        self.assertEqual(json.loads(as_json.getvalue())["findings"][1]["advice"], "look")

    def test_harmless(self) -> None:
        """Text of other people cannot control the terminal."""
        self.assertEqual(harmless("a\x1b[31mb\x9bc\rd"), "a\\x1b[31mb\\x9bc\\x0dd")


class TokenTests(unittest.TestCase):
    def test_accepted_by_a_node(self) -> None:
        """With the role, issuer and audience that the configuration wants."""
        auth = Auth(mode="jwt", secret=SECRET, issuer="shop", audience="chat")
        for role, service in (("user", False), ("agent", True), ("customer", False)):
            token, claims = make_token(auth, "alice", role, 2)
            identity = Authenticator(auth, time.time).identify(
                ConnectFrame(is_connect=True, token=token), None
            )
            self.assertEqual((identity.user_id, identity.is_customer_service), ("alice", service))
            self.assertEqual(claims["exp"] - claims["iat"], 7200)

    def test_none_to_be_had(self) -> None:
        """In open mode, with a public key only, for names that no token may have."""
        for auth, user in (
            (Auth(), "alice"),
            (Auth(mode="jwt", public_key="key.pem"), "alice"),
            (Auth(mode="jwt", secret=SECRET), "visitor-1"),
        ):
            self.assertRaises(ConfigurationError, make_token, auth, user, "user", 1)

    def test_command(self) -> None:
        config = write_ini(Path(self.mktemp(), "imd.ini"), auth={"mode": "jwt", "secret": "env:IMD_SECRET"})
        code, said = here("token", "--user", "a", "--config", config)
        self.assertEqual(code, 2)
        self.assertIn("IMD_SECRET", said)
        self.patch(os, "environ", {**os.environ, "IMD_SECRET": SECRET})
        code, said = here("token", "--user", "a", "--config", config, "--json")
        self.assertEqual((code, json.loads(said)["claims"]["sub"]), (0, "a"))


class ImportTests(unittest.TestCase):
    def test_only_what_is_asked_for(self) -> None:
        """A subcommand does not wait for the imports of the others; the help names them all."""
        program = (
            "import sys\nfrom imd.command import main\n"
            "try: main(sys.argv[1:])\n"
            "finally: print('imported:', 'imd.command.upgrade' in sys.modules)"
        )
        for words, imported in ((["token", "--help"], False), (["--help"], True)):
            done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn(f"imported: {imported}", done.stdout)
            self.assertEqual("doctor" in done.stdout, imported)


class CheckTests(unittest.TestCase):
    def check(self, *options: str, **sections: dict[str, object]) -> tuple[int, str]:
        out = io.StringIO()
        self.patch(__import__("sys"), "stdout", out)
        self.patch(__import__("sys"), "stderr", out)
        sections.setdefault("node", {"data": self.mktemp()})
        return main(
            ["check", str(write_ini(Path(self.mktemp(), "imd.ini"), **sections)), *options]
        ), out.getvalue()

    def test_shipped(self) -> None:
        """The configuration files of the project have no problem."""
        self.patch(os, "environ", {**os.environ, "IMD_SECRET": SECRET})
        self.patch(__import__("sys"), "stdout", io.StringIO())
        for name in ("node.ini", "cluster.ini"):
            self.assertEqual(main(["check", "--quiet", str(ROOT / "etc" / name)]), 0)

    def test_words(self) -> None:
        """It says what the keys come to, those that differ, and no secret."""
        code, said = self.check(
            node={"backend": "cluster"},
            auth={"mode": "jwt", "secret": SECRET},
            archive={"consume": "no"},
            redis={"url": "redis://:password@10.0.0.1/0"},
        )
        self.assertEqual(code, 0)
        self.assertIn("It does not write to MongoDB", said)
        self.assertRegex(said, r"\[auth\] +secret +\(not shown\)")
        self.assertNotIn(SECRET, said)
        self.assertNotIn("password", said.replace("no password", ""))

    def test_behind_a_gateway(self) -> None:
        """The words name the gateway and the proxies that are believed."""
        code, said = self.check(
            node={"backend": "cluster", "name": "east"},
            cluster={"routing": "gateway"},
            websocket={"listen": "tcp:9000:interface=127.0.0.1", "trusted_proxies": "10.0.0.1, unix"},
            http={"listen": "tcp:8080:interface=127.0.0.1"},
        )
        self.assertEqual(code, 0, said)
        self.assertIn("A gateway calls it east", said)
        self.assertIn("Proxies that are believed: 10.0.0.1 unix.", said)

    def test_not_usable(self) -> None:
        """A mistake is said with file and line; a warning fails with --strict only."""
        code, said = self.check(node={"bakend": "cluster"})
        self.assertEqual(code, 2)
        self.assertIn("imd.ini:2: [node] bakend", said)
        late: dict[str, Any] = {"node": {"lease_seconds": 10, "data": self.mktemp()}}
        self.assertEqual(self.check(**late)[0], 0)
        code, said = self.check("--strict", "--json", **late)
        self.assertEqual((code, json.loads(said)["result"]), (1, "warning"))
        lax: dict[str, Any] = {"auth": {"mode": "jwt", "secret": SECRET, "leeway_seconds": 3600}}
        code, said = self.check("--strict", node={"data": self.mktemp()}, **lax)
        self.assertEqual(code, 1)
        self.assertIn("leeway_seconds = 3600: tokens count so long after they expired", said)
        self.assertEqual(self.check(http={"listen": "tcp:9000:interface=127.0.0.1"})[0], 2)


class ChatTests(unittest.TestCase):
    timeout = 600

    async def test_pipe_and_trace(self) -> None:
        """Lines of a pipe arrive in order; `trace` follows one until every device has it."""
        node = await deferToThread(shared_node)
        lines = "".join(f"line {n}\n" for n in range(150))
        code, said, error = await deferToThread(
            imd, "chat", "--as", "cron", "alice", "--url", node.url, input=lines
        )
        self.assertEqual((code, said, error), (0, "", ""))
        alice = await WsClient.login(node.url, "alice", ack=True)
        first = await alice.take("message")
        rest = await alice.messages(149)
        self.assertEqual([first["msg"], *(m["msg"] for m in rest)], lines.splitlines())
        await alice.quiet()

        trace = ("trace", first["id"], "--config", node.folder / "node.ini", "--json")
        code, said = await deferToThread(here, *trace)
        found = json.loads(said)
        self.assertEqual((code, found["sender"], found["archived"]), (0, "cron", True))
        last = rest[-1]["id"]
        await alice.close()
        code, said = await deferToThread(here, "trace", last, "--config", node.folder / "node.ini")
        self.assertEqual(code, 0)
        self.assertIn("from cron to alice", said)
        code, said = await deferToThread(here, "trace", "0" * 28, "--config", node.folder / "node.ini")
        self.assertEqual(code, 1)

        code, said, _ = await deferToThread(
            imd, "chat", "--as", "alice", "cron", "--url", node.url, "--json", "--history", 2, input=""
        )
        shown = [json.loads(line)["msg"] for line in said.splitlines()]
        self.assertEqual((code, shown[:2]), (0, ["line 148", "line 149"]))

    async def test_room(self) -> None:
        """A pipe into a room; its history and its changes are shown, also as JSON."""
        node = await deferToThread(shared_node)
        grace = await WsClient.login(node.url, "grace", ack=True, features=["events"])
        users = [{"userId": "heidi"}]
        grace.send({"type": "room", "clientMsgId": "r-1", "action": "create", "name": "Ops", "users": users})
        room = (await grace.take("accepted"))["room"]
        chat = ("chat", "--as", "heidi", room, "--url", node.url)
        code, said, error = await deferToThread(imd, *chat, input="the backup is done\n/not an order\n")
        self.assertEqual((code, error), (0, ""), said)
        messages = await grace.messages(2)
        self.assertEqual([message["msg"] for message in messages], ["the backup is done", "/not an order"])
        self.assertEqual({message["room"] for message in messages}, {room})

        async def shown(*more: str) -> str:
            code, said, error = await deferToThread(imd, *chat, *more, "--device", "x", "--wait", 1, input="")
            self.assertEqual((code, error), (0, ""))
            return str(said)

        end = time.monotonic() + 180
        while "the backup" not in (said := await shown()):
            self.assertLess(time.monotonic(), end, said)
        self.assertIn(f'grace made the room "Ops" ({room}) with heidi', said)
        self.assertIn("heidi: the backup is done", said)
        entries = [json.loads(line) for line in (await shown("--json")).splitlines()]
        made = entries[0]
        self.assertEqual(
            (made["kind"], made["action"], made["users"][0]["user_id"]), ("room", "create", "heidi")
        )
        self.assertEqual([entry["msg"] for entry in entries[1:3]], ["the backup is done", "/not an order"])
        await grace.close()

    async def test_trace_in_a_room(self) -> None:
        """The inboxes of members are looked into, and the sender's, for its other devices."""
        node = await deferToThread(shared_node)
        login = {"ack": True, "features": ["events", "sync"]}
        judy = await WsClient.login(node.url, "judy", device="phone", **login)
        tablet = await WsClient.login(node.url, "judy", device="tablet", **login)

        async def do(action: str, *users: str, **fields: Any) -> dict[str, Any]:
            named = [{"userId": user} for user in users]
            frame = {"type": "room", "clientMsgId": f"{action}-1", "action": action, "users": named}
            judy.send({**frame, **fields})
            return await judy.take("accepted")

        async def trace(frame: dict[str, Any], *more: str) -> dict[str, Any]:
            config = node.folder / "node.ini"
            _, said = await deferToThread(here, "trace", frame["id"], "--config", config, "--json", *more)
            found: dict[str, Any] = json.loads(said)
            found["in"] = {place["user"]: place["seq"] for place in found["places"]}
            return found

        made = await do("create", "mallory", "niaj", name="Ops")
        room = made["room"]
        judy.send({"clientMsgId": "m-1", "room": room, "msg": "hi"})
        written = await judy.take("accepted")
        removed = await do("remove", "niaj", room=room)
        added = await do("add", *[f"peer-{n}" for n in range(30)], room=room)
        self.assertEqual((await trace(made))["in"], {"mallory": 1, "niaj": 1, "judy": 1})
        # Of those who have left nothing is known, and who came later has not got it.
        self.assertEqual((await trace(written))["in"], {"mallory": 2, "judy": 2})
        self.assertEqual((await trace(written, "--user", "niaj"))["in"], {"mallory": 2, "niaj": 2, "judy": 2})
        self.assertEqual((await trace(removed))["in"], {"niaj": 3, "mallory": 3, "judy": 3})
        found = await trace(added)
        self.assertEqual((len(found["recipients"]), found["in"]["peer-0"], found["in"]["judy"]), (20, 1, 4))
        [note] = found["notes"]
        self.assertIn("31 members", note)
        self.assertIn("--user", note)
        for client in (judy, tablet):
            await client.close()

    async def test_refused(self) -> None:
        """A message that is not accepted is said; so is a node that is not there."""
        node = await deferToThread(shared_node)
        chat = ("chat", "--as", "carol", "dave", "--url", node.url)
        code, _, error = await deferToThread(imd, *chat, input="x" * 70_000)
        self.assertEqual(code, 1)
        self.assertIn("too_large", error)
        # The refusal has to be known when the time is over.
        nobody = ("chat", "--as", "carol", "dave", "--url", f"ws://127.0.0.1:{free_port()}/ws")
        code, _, error = await deferToThread(imd, *nobody, "--seconds", "3", input="hi")
        self.assertEqual(code, 2)
        self.assertIn("not within 3 s", error)
        self.assertIn("refused", error)

    async def test_terminal(self) -> None:
        """In a terminal: what comes is shown above the line that is typed; Ctrl-D ends it."""
        node = await deferToThread(shared_node)
        ours, theirs = pty.openpty()
        os.set_blocking(ours, False)
        program = start_in(theirs, "chat", "--as", "erin", "frank", "--url", node.url)
        self.addCleanup(program.wait)
        self.addCleanup(program.kill)
        seen = b""

        def shows(text: bytes) -> bool:
            nonlocal seen
            try:
                seen += os.read(ours, 65536)
            except OSError:
                pass
            return text in seen

        bob = await WsClient.login(node.url, "frank", ack=True, features=["events"])
        await until(lambda: shows(b"> "), "it asks")
        os.write(ours, b"hi frank\n")
        message = await bob.take("message")
        self.assertEqual((message["userId"], message["msg"]), ("erin", "hi frank"))
        await bob.say("erin", "hi \x1b[2Jerin")
        await until(lambda: shows(b"hi \\x1b[2Jerin"), "it shows")
        os.write(ours, b"/reply yes\n")
        reply = await bob.take("message")
        self.assertEqual((reply["msg"], len(reply["replyTo"])), ("yes", 28))
        os.write(ours, b"/dance\n//slash\n")
        self.assertEqual((await bob.take("message"))["msg"], "/slash")
        await until(lambda: shows(b"/dance: unknown"), "it says so")
        phone = await WsClient.login(node.url, "erin", ack=True, device="phone")
        await phone.say("frank", "from the phone")
        await until(lambda: shows(b"erin: from the phone"), "it shows what another device sends")
        written = await bob.take("message")
        await phone.say("ivan", "from the phone to ivan")
        await until(lambda: shows(b"from the phone to ivan"), "it shows what goes elsewhere")
        os.write(ours, b"/recall\n")
        recall = await bob.take("message")
        self.assertEqual((recall["kind"], recall["of"]), ("recall", written["id"]))
        await phone.close()

        def ends() -> bool:
            # Again and again: the terminal takes one for itself that comes between two lines.
            os.write(ours, b"\x04")
            return shows(b"") and program.poll() is not None

        await until(ends, "it ends")
        self.assertEqual(program.returncode, 0, seen)
        await bob.close()

    async def test_terminal_without_a_node(self) -> None:
        """That there is no connection is said once, however often it is tried."""
        tried = 0

        class Closes(Protocol):
            def connectionMade(self) -> None:
                nonlocal tried
                tried += 1
                self.transport.abortConnection()

        port = reactor.listenTCP(0, Factory.forProtocol(Closes), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        ours, theirs = pty.openpty()
        url = f"ws://127.0.0.1:{port.getHost().port}/ws"
        program = start_in(theirs, "chat", "--as", "erin", "frank", "--url", url)
        self.addCleanup(program.wait)
        self.addCleanup(program.kill)
        await until(lambda: tried >= 3, "it comes again")
        program.send_signal(signal.SIGINT)
        await until(lambda: program.poll() is not None, "it ends")
        self.assertEqual(program.returncode, 130)
        said = os.read(ours, 65536)
        self.assertEqual((said.count(b"no connection"), said.count(b"imd:")), (1, 0), said)


class TraceClusterTests(unittest.TestCase):
    timeout = 600

    async def followed_in_a_room(self, node: NodeServer, alice: WsClient, room: str) -> None:
        """Bob is followed, and a member of the room: messages and changes of Alice there have their lines."""

        def logged(message_id: str, *steps: str) -> bool:
            log = node.log.read_text()
            return all(re.search(rf"{message_id} {step} ", log) for step in steps)

        alice.send({"clientMsgId": "r3", "room": room, "msg": "hi"})
        written = (await alice.take("accepted"))["id"]
        steps = ("placed", "published", "confirmed", "accepted", "pushed", "archived")
        await until(lambda: logged(written, *steps), "the message is followed")
        frame = {"type": "room", "clientMsgId": "r4", "action": "add", "room": room}
        alice.send({**frame, "users": [{"userId": "trent"}]})
        change = (await alice.take("accepted"))["id"]
        await until(lambda: logged(change, *steps), "the change is followed")

    async def test_cluster(self) -> None:
        """Number, devices and archive; one device has it, another has not. A visitor's, at the desk."""
        servers = await deferToThread(
            lambda: {
                "redis": {"url": shared().redis_url()},
                "rabbitmq": {"url": shared().amqp_url()},
                "mongodb": {"url": shared().mongo_url()},
            }
        )
        folder = Path(tempfile.mkdtemp(prefix="imd-trace-"))
        self.addCleanup(shutil.rmtree, folder)
        control = f"unix:{folder}/control"
        node = NodeServer(folder, {"node": {"backend": "cluster", "control": control}, **servers})
        self.addCleanup(deferToThread, node.kill)
        await deferToThread(node.start)
        phone = await WsClient.login(node.url, "bob", device="phone", ack=True)
        away = await WsClient.login(node.url, "bob", device="tablet", ack=True)
        await away.close()
        alice = await WsClient.login(node.url, "alice")
        accepted = await alice.say("bob", "hi")
        await phone.take("message")
        await phone.quiet()
        config = node.folder / "node.ini"

        def states(found: dict[str, Any]) -> dict[str, tuple[bool, bool]]:
            """Of each device: whether it has the message, and whether it is connected."""
            devices = [device for place in found["places"] for device in place["devices"]]
            return {device["name"]: (device["has_it"], device["live"]) for device in devices}

        async def trace(message_id: str, *more: str, expected: Any = None) -> dict[str, Any]:
            """Once it is archived, and Redis has these states of devices, which come a moment later, too."""
            end = time.monotonic() + 180
            while True:
                _, said = await deferToThread(here, "trace", message_id, "--config", config, "--json", *more)
                found: dict[str, Any] = json.loads(said)
                if (found["archived"] and expected in (None, states(found))) or time.monotonic() > end:
                    return found

        expected = {"phone": (True, True), "tablet": (False, False)}
        found = await trace(accepted["id"], expected=expected)
        [place] = found["places"]
        self.assertEqual((found["sender"], found["archived"], place["seq"]), ("alice", True, 1))
        self.assertEqual(states(found), expected)

        users = [{"userId": "bob"}]
        alice.send({"type": "room", "clientMsgId": "r1", "action": "create", "name": "W", "users": users})
        made = await alice.take("accepted")
        alice.send({"clientMsgId": "r2", "room": made["room"], "msg": "hi all"})
        said_there = await alice.take("accepted")
        for event, kind, seq in ((made, "room", 2), (said_there, "message", 3)):
            found = await trace(event["id"])
            [place] = found["places"]
            self.assertEqual((found["kind"], found["room"], place["seq"]), (kind, made["room"], seq))
            self.assertEqual((found["recipients"], place["user"]), (["bob"], "bob"))
        code, said = await deferToThread(here, "trace", said_there["id"], "--config", config)
        self.assertIn(f"a message in a room\nfrom alice to {made['room']}", said)

        # It acknowledges nothing, so the sender's copy stays.
        other = await WsClient.login(node.url, "alice", device="other", ack=True, features=["events", "sync"])
        copied = await alice.say("bob", "hi again")
        found = await trace(copied["id"])
        self.assertEqual([place["user"] for place in found["places"]], ["bob", "alice"])
        await other.close()

        visitor = await WsClient.login(node.url, isVisitor=True, loginType=None)
        visitor.send({"msg": "anyone?", "clientMsgId": "v1"})
        found = await trace((await visitor.take("accepted"))["id"])
        self.assertEqual((found["waiting_at_desk"], found["recipients"]), (0, []))
        code, said = await deferToThread(here, "trace", "--on", "bob", "--config", config, "--json")
        self.assertEqual((code, json.loads(said)["users"]), (0, ["bob"]))
        await self.followed_in_a_room(node, alice, made["room"])
        code, said = await deferToThread(here, "trace", "--off", "--config", config)
        self.assertIn("nobody is followed", said)
        code, said = await deferToThread(here, "trace", accepted["id"], "--config", config)
        self.assertEqual(code, 0)
        self.assertRegex(said, re.compile(r"^bob: number 1 in the inbox", re.MULTILINE))
        for client in (phone, alice, visitor):
            await client.close()
