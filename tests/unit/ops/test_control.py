"""The operator's socket."""

from __future__ import annotations

import socket
import stat
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.endpoints import quoteStringArgument, serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from imd.config.value_types import control
from imd.observe.trace import Trace
from imd.ops.control import DEFAULT_SECONDS, Switch, clear_stale, make_control
from tests.protocol.support import new_folder
from tests.support.nodes import ask_control


class ControlTests(unittest.TestCase):
    timeout = 300

    async def setUp(self) -> None:
        self.clock = Clock()
        self.trace = Trace()
        self.path = Path(new_folder(), "control")
        self.endpoint = control().parse(f"unix:{quoteStringArgument(str(self.path))}")
        await self.listen()

    async def listen(self) -> None:
        site = make_control(Switch(self.clock, self.trace))
        port = await serverFromString(reactor, clear_stale(self.endpoint)).listen(site)
        self.addCleanup(port.stopListening)

    async def ask(self, method: str, where: str = "/trace", **form: Any) -> tuple[int, Any]:
        return await deferToThread(ask_control, self.path, method, where, **form)

    def test_for_the_owner_only(self) -> None:
        """Without a mode in the configuration nobody else may use the socket."""
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)

    async def test_left_by_a_killed_process(self) -> None:
        """A socket file that nobody listens on gives way; one that somebody listens on does not."""
        again = serverFromString(reactor, clear_stale(self.endpoint)).listen(Factory())
        await self.assertFailure(again, CannotListenError)
        self.assertEqual((await self.ask("GET"))[0], 200)
        self.path = self.path.with_name("stale")
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(self.path))
        self.endpoint = f"unix:{quoteStringArgument(str(self.path))}:mode=600"
        await self.listen()
        self.assertEqual((await self.ask("GET"))[0], 200)

    async def test_on_and_off(self) -> None:
        """Switched on for some users or a share of all messages, looked at, switched off."""
        off = {"on": False, "users": [], "sample": 0.0, "seconds": 0, "lines": 0, "leftOut": 0}
        self.assertEqual(await self.ask("GET"), (200, off))
        on = {**off, "on": True, "users": ["alice", "é b"], "seconds": DEFAULT_SECONDS}
        self.assertEqual(await self.ask("POST", user=["é b", "alice"]), (200, on))
        self.assertEqual(await self.ask("GET"), (200, on))
        on = {**off, "on": True, "sample": 0.01, "seconds": 5}
        self.assertEqual(await self.ask("POST", sample="0.01", seconds="5"), (200, on))
        self.assertEqual((self.trace.on, self.trace.sample), (True, 0.01))
        self.assertEqual(await self.ask("DELETE"), (200, off))
        self.assertFalse(self.trace.on)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_ends_by_itself(self) -> None:
        """A trace that nobody switches off ends; one that follows another has its own time."""
        await self.ask("POST", user="alice", seconds="5")
        self.clock.advance(4)
        await self.ask("POST", user="bob", seconds="5")
        self.clock.advance(4)
        self.assertEqual((await self.ask("GET"))[1]["seconds"], 1)
        self.clock.advance(1)
        self.assertFalse(self.trace.on)

    async def test_wrong(self) -> None:
        """A form with a mistake is refused, and changes nothing."""
        await self.ask("POST", user="alice")
        for form in (
            {"user": "a\x00"},
            {"user": ""},
            {"user": [f"u{n}" for n in range(101)]},
            {"sample": "2"},
            {"sample": "-1"},
            {"sample": "nan"},
            {"sample": "many"},
            {"sample": "0"},
            {"user": "bob", "seconds": "0"},
            {"user": "bob", "seconds": "100000"},
            {"users": "bob"},
            {},
        ):
            status, content = await self.ask("POST", **form)
            self.assertEqual((status, list(content)), (400, ["error"]), form)
        self.assertEqual(self.trace.users, {"alice"})

    async def test_other_paths(self) -> None:
        """There is nothing else."""
        for where in ("/", "/trace/", "/trace/x", "/metrics"):
            self.assertEqual((await self.ask("GET", where))[0], 404, where)


class EndpointTests(unittest.TestCase):
    def test_good(self) -> None:
        """A Unix socket, for its owner alone unless the configuration lets the group in; or nothing."""
        for value, parsed in (
            ("", ""),
            ("unix:/run/imd/control", "unix:/run/imd/control:mode=600"),
            ("unix:/run/imd/control:mode=660", "unix:/run/imd/control:mode=660"),
        ):
            self.assertEqual(control().parse(value), parsed)

    def test_refused(self) -> None:
        """Anything that permissions do not protect."""
        for value in ("tcp:9:interface=127.0.0.1", "unix:/x:mode=666", "unix:/x:666", "unix", "fd:3", "/x"):
            self.assertRaises(ValueError, control().parse, value)
