"""Endpoints: the meaning of their strings, and the endpoints made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, serverFromString
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactor
from twisted.trial import unittest

from imd.command.findings import Level
from imd.command.look_tls import certificates
from imd.config import endpoints
from imd.config.endpoints import LISTEN_BACKLOG, place_of
from imd.config.settings import Http, Settings, Websocket
from imd.node.ports import Ports
from imd.wire.outgoing import Outgoing
from imd.wire.twisted_internals import unwrapped
from tests.support.certificate import chain_endpoint, write_chain

CHAIN = "/etc/imd/fullchain.pem"
PIECES = (
    *("9000", "port=9000", "interface=127.0.0.1", r"interface=\:\:1", "127.0.0.1", r"\:\:", "interface="),
    *("600", "mode=666", r"/run/a\:b", "address=/x", r"interface\=1", "", "backlog=5", "7"),
)


class PlaceTests(unittest.SynchronousTestCase):
    """The parts of a string, in each way to write them."""

    def test_parts(self) -> None:
        """Parts are found by name, by position, quoted, and behind a proxy."""
        for description, port, interface, tls in (
            ("tcp:9000", 9000, "", False),
            ("tcp:port=9000:interface=127.0.0.1", 9000, "127.0.0.1", False),
            ("tcp:9000:127.0.0.1", 9000, "127.0.0.1", False),
            (r"tcp6:9000:interface=\:\:1", 9000, "::1", False),
            ("tcp6:9000", 9000, "::", False),
            (r"haproxy:tcp:9000:interface=10.0.0.1", 9000, "10.0.0.1", False),
            ("ssl:443:privateKey=key:certKey=chain", 443, "", True),
            ("haproxy:ssl:443:key:chain", 443, "", True),
            ("systemd:domain=INET:index=0", None, "", False),
            (r"unix:/run/a\:b:mode=600", None, "", False),
            ("", None, "", False),
        ):
            place = place_of(description)
            self.assertEqual((place.port, place.interface, place.is_tls), (port, interface, tls), description)
        self.assertEqual(place_of("unix:/run/imd.control:mode=600").path, "/run/imd.control")
        self.assertEqual(place_of(r"unix:/run/a\:b\=c").options, {"address": "/run/a:b=c"})
        files = place_of(r"ssl:443:privateKey=/a\:b/key.pem:certKey=c.pem:extraCertChain=d.pem")
        self.assertEqual(files.certificate_files, [Path("c.pem"), Path("d.pem")])
        self.assertEqual(files.key_file, Path("/a:b/key.pem"))

    @given(
        st.sampled_from(("tcp", "tcp6", "unix")),
        st.lists(st.sampled_from(PIECES), max_size=5),
    )
    def test_same_as_twisted(self, kind: str, pieces: list[str]) -> None:
        """Twisted listens on the port, interface or path that is found here, and with that mode."""
        memory = MemoryReactor()
        description = ":".join([kind, *pieces])
        try:
            serverFromString(memory, description).listen(Factory())
        except Exception:
            # Twisted makes no endpoint of it.
            return
        place = place_of(description)
        for port, _, _, interface in memory.tcpServers:
            self.assertEqual((place.port, place.interface), (port, interface), description)
        for address, _, _, mode, _ in memory.unixServers:
            found = place.options.get("address"), int(place.options.get("mode", "666"), 8)
            self.assertEqual(found, (address, mode), description)

    def test_sockets_of_systemd(self) -> None:
        """systemd's sockets are not there yet when the configuration is checked: only the string is."""
        for good in ("systemd:domain=INET:index=0", "systemd:INET6:name=imd", "systemd:domain=UNIX:index=1"):
            endpoints.check(good)
            with self.assertRaises(LookupError):
                endpoints.make(MemoryReactor(), good)
        for bad in ("systemd:domain=INET", "systemd:domain=MOON:index=0", "systemd:INET:index=0:name=x",
                    "systemd:domain=INET:index=first"):  # fmt: skip
            with self.assertRaises(ValueError):
                endpoints.check(bad)

    def test_tls_without_certificates(self) -> None:
        """`tls:9000` would mean a folder of that name and port 443: the error shows the proper form."""
        for description in ("tls:9000", "tls:/etc/imd:port=9000", "haproxy:tls:9000"):
            with self.assertRaisesRegex(ValueError, "ssl:9000:privateKey="):
                endpoints.check(description)

    def test_backlog(self) -> None:
        """Each endpoint has the large backlog, unless another one is given."""
        write_chain(folder := Path(self.mktemp()))
        for description, backlog in (
            ("tcp:9000", LISTEN_BACKLOG),
            ("haproxy:tcp:9000", LISTEN_BACKLOG),
            ("haproxy:tcp:9000:backlog=7", 7),
            (chain_endpoint(folder, 9000), LISTEN_BACKLOG),
            (chain_endpoint(folder, 9000, more=":backlog=9"), 9),
            (f"unix:{folder}/socket", LISTEN_BACKLOG),
        ):
            memory = MemoryReactor()
            endpoint, _ = endpoints.make(memory, description)
            self.successResultOf(endpoint.listen(Factory()))
            listening = [*memory.tcpServers, *memory.unixServers, *memory.sslServers]
            self.assertIn(backlog, listening[0], description)


class CertificateTests(unittest.SynchronousTestCase):
    """The files of an `ssl:` endpoint, as checked before a start and read again while a node runs."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        write_chain(self.folder)

    def found(self, listen: str) -> list[tuple[Level, str]]:
        settings = Settings(websocket=Websocket(listen=listen), http=Http(listen="tcp:8080"))
        return [(finding.level, finding.what) for finding in certificates(settings)]

    def test_chains(self) -> None:
        """A whole chain passes; the leaf alone, a wrong order and a foreign key do not."""
        [(level, what)] = self.found(chain_endpoint(self.folder, 9000))
        self.assertEqual((level, "is good until" in what), (Level.OK, True))
        apart = f":extraCertChain={self.folder}/middle.pem"
        [(level, _)] = self.found(chain_endpoint(self.folder, 9000, "leaf.pem", apart))
        self.assertEqual(level, Level.OK)
        [_, (level, what)] = self.found(chain_endpoint(self.folder, 9000, "leaf.pem"))
        self.assertEqual(level, Level.WARNING)
        self.assertIn("holds one certificate only, and CN=middle has issued it", what)
        leaf, root = ((self.folder / name).read_bytes() for name in ("leaf.pem", "root.pem"))
        (self.folder / "wrong.pem").write_bytes(leaf + root)
        [_, (level, what)] = self.found(chain_endpoint(self.folder, 9000, "wrong.pem"))
        self.assertEqual((level, "chain of" in what, "is broken" in what), (Level.PROBLEM, True, True))
        [(level, _)] = self.found(chain_endpoint(self.folder, 9000, "root.pem"))
        self.assertEqual(level, Level.PROBLEM)

    def test_reloading(self) -> None:
        """New files are used for later connections. Files that do not fit leave the old ones in use."""
        place = place_of(chain_endpoint(self.folder, 9000))
        loaded = endpoints.Certificates(place)
        first = loaded.getContext()
        self.assertIs(loaded.getContext(), first)
        write_chain(self.folder)
        loaded.reload()
        second = loaded.getContext()
        self.assertIsNot(second, first)
        for damage in (lambda: (self.folder / "key.pem").unlink(),
                       lambda: (self.folder / "fullchain.pem").write_text("nothing")):  # fmt: skip
            damage()
            with self.assertRaises(ValueError):
                loaded.reload()
            self.assertIs(loaded.getContext(), second)


class ProxiedWritingTests(unittest.TestCase):
    async def test_written_at_once(self) -> None:
        """Behind a `haproxy:` endpoint writes go straight to the socket, as without it."""
        came: Deferred[Any] = Deferred()
        heard: Deferred[bytes] = Deferred()

        class Server(Protocol):
            def dataReceived(self, data: bytes) -> None:
                came.callback(self.transport)

        class Client(Protocol):
            def dataReceived(self, data: bytes) -> None:
                heard.callback(data)

        ports = Ports(reactor, ["127.0.0.1"])
        port = await ports.open("haproxy:tcp:0:interface=127.0.0.1", Factory.forProtocol(Server))
        self.addCleanup(port.stopListening)
        where = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        client = await where.connect(Factory.forProtocol(Client))
        self.addCleanup(client.transport.loseConnection)
        client.transport.write(b"PROXY TCP4 192.0.2.7 192.0.2.1 1234 9000\r\nhello")
        transport = await came
        self.assertEqual(transport.getPeer().host, "192.0.2.7")
        written: list[int] = []

        class Watched:
            """The socket, recording what is sent by it."""

            def __init__(self, wire: Any) -> None:
                self._wire = wire

            def send(self, data: bytes) -> int:
                written.append(len(data))
                return int(self._wire.send(data))

            def __getattr__(self, name: str) -> Any:
                return getattr(self._wire, name)

        below = unwrapped(transport)
        below.socket = Watched(below.socket)
        outgoing = Outgoing(below, lambda outgoing: None, lambda size: None)
        outgoing.send(b"at once")
        outgoing.flush()
        self.assertEqual(written, [9])
        self.assertEqual(await heard, b"\x81\x07at once")
