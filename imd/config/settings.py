"""The configuration: an INI file to frozen dataclasses, one per section, one attribute per key.

Every key has a default: an empty file is a configuration. `load` finds mistakes before anything is started,
and says where they are.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, get_type_hints
from urllib.parse import unquote, urlsplit

from imd.config import ini, keys
from imd.config import value_types as values
from imd.config.endpoints import place_of
from imd.config.ini import Ini
from imd.config.reachable import EXPECTED_NAME, check_name, listening


def _key(default: Any, kind: values.Kind, *, secret: bool = False) -> Any:
    """An attribute that is a key of its section. A secret one is never shown."""
    return field(default=default, repr=not secret, metadata={"kind": kind, "secret": secret})


# ---- the sections


@dataclass(frozen=True)
class Node:
    name: str = _key("", values.text("1 to 100 letters, digits and . _ : @ -", r"[A-Za-z0-9._:@-]{0,100}"))
    """the node's name on the bus; empty: see `node_name`"""
    backend: str = _key("embedded", values.choice("embedded", "cluster"))
    data: str = _key("var", values.text("a folder", r"[^\0\n]+"))
    """folder of the embedded backend's SQLite file, relative to the working directory"""
    lease_seconds: float = _key(90.0, values.seconds(1))
    """how long a channel counts as live without renewal"""
    stop_seconds: float = _key(10.0, values.seconds())
    """deadline of a stop, after `drain_seconds`"""
    drain_seconds: float = _key(0.0, values.pause())
    """how long a node that is to stop still takes newcomers, while `/serving` says 503"""
    control: str = _key("", values.control())
    """unix: endpoint of the operator's socket; empty: none"""


@dataclass(frozen=True)
class Websocket:
    listen: str = _key("tcp:9000:interface=127.0.0.1", values.endpoint())
    """Twisted endpoint string"""
    origins: tuple[str, ...] = _key((), values.origins())
    """patterns of allowed origins; none: the same host on any port"""
    connect_seconds: float = _key(10.0, values.seconds())
    """until the connect frame must be there"""
    ping_seconds: float = _key(25.0, values.seconds())
    """between two pings to a client"""
    pong_seconds: float = _key(10.0, values.seconds())
    """until a ping must be answered"""
    trusted_proxies: tuple[str, ...] = _key((), values.proxies())
    """addresses and networks of proxies whose word counts, and `unix`; none: nobody's does"""


@dataclass(frozen=True)
class Http:
    listen: str = _key("tcp:8080:interface=127.0.0.1", values.endpoint())
    """Twisted endpoint string"""
    pages: bool = _key(True, values.switch())
    """serve the web pages"""
    websocket_url: str = _key("", values.websocket_url())
    """the WebSocket's place for pages: a URL, or a path of their own origin; empty: the port is sent along"""


@dataclass(frozen=True)
class Auth:
    mode: str = _key("open", values.choice("open", "jwt"))
    """open: a client on this machine may have any user id; jwt: a token gives it"""
    secret: str = _key("", values.text(keys.EXPECTED_SECRET), secret=True)
    """of HS256 tokens, at least 32 bytes in UTF-8; empty: none"""
    public_key: str = _key("", values.text(keys.EXPECTED_PUBLIC_KEY, r"[^\0]*"))
    """of RS256 or EdDSA tokens: path of a PEM file, as given, or PEM text (from `file:`); empty: none"""
    issuer: str = _key("", values.text("the tokens' iss"))
    """the `iss` that tokens must have; empty: any"""
    audience: str = _key("", values.text("the tokens' aud"))
    """a value that must be in `aud`; empty: any"""
    leeway_seconds: float = _key(30.0, values.pause())
    """tolerance for the clock of the tokens' issuer; used for `nbf` and `exp`"""
    visitors: bool = _key(True, values.switch())
    """anonymous visitors are admitted"""
    visitor_days: float = _key(30.0, values.days())
    """how long an unused token of a visitor that wrote stays valid"""


@dataclass(frozen=True)
class Limits:
    message_bytes: int = _key(65536, values.integer(1, 1 << 20))
    """of one `msg`, in UTF-8"""
    group_members: int = _key(500, values.integer(1, 5000))
    """of one group list"""
    messages_per_second: int = _key(50, values.integer(0, 1_000_000))
    """per connection, a group list counts its recipients / 10; 0: no limit"""
    burst: int = _key(200, values.integer(1, 1_000_000))
    """messages that may come at once"""
    ack_window: int = _key(256, values.integer(1, 10_000))
    """messages in flight to an acknowledging device"""
    connections: int = _key(100_000, values.integer(1, 10_000_000))
    """to this node"""
    connections_per_user: int = _key(32, values.integer(1, 10_000))
    """live ones, on all nodes"""
    connections_per_address: int = _key(0, values.integer(0, 10_000_000))
    """to this node, from one IP address; 0: no limit"""
    visitors_per_address: int = _key(120, values.integer(0, 1_000_000))
    """new visitors at this node in an hour, from one IP address; 0: no limit"""
    unfinished_bytes: int = _key(64 << 20, values.integer(65536, 1 << 40))
    """of frames that are not complete, on all connections together; one frame always has room"""
    devices: int = _key(16, values.integer(1, 10_000))
    """of one user, other than the connecting one"""
    new_ids: int = _key(1000, values.integer(0, 1_000_000_000))
    """inboxes that nobody has ever opened, begun by one sender in an hour; 0: no limit"""
    room_members: int = _key(1000, values.integer(1, 1000))
    """of one room"""


@dataclass(frozen=True)
class Messages:
    edit_seconds: int = _key(86400, values.integer(-1, 10 * 366 * 86400))
    """how long its author may edit a message; 0: never, -1: always"""
    recall_seconds: int = _key(86400, values.integer(-1, 10 * 366 * 86400))
    """how long a message may be recalled; 0: never, -1: always"""


@dataclass(frozen=True)
class Rooms:
    customers_create: bool = _key(False, values.switch())
    """customers may make rooms, too"""


@dataclass(frozen=True)
class Presence:
    visible: str = _key("staff", values.choice("staff", "all", "none"))
    """who may see whether whom is online: staff sees staff, all see all, or none"""


@dataclass(frozen=True)
class Inbox:
    keep_days: float = _key(30.0, values.days())
    """how long an inbox is kept for a device that is away"""
    max_messages: int = _key(10_000, values.integer(1, 10_000_000))
    """in one inbox; past it the oldest are removed"""
    unopened_messages: int = _key(1000, values.integer(1, 10_000_000))
    """the same for an inbox that no device has ever opened"""
    dedup_seconds: float = _key(3600.0, values.seconds(1, 30 * 86400))
    """how long a clientMsgId is remembered"""
    reconcile_seconds: float = _key(15.0, values.seconds())
    """between two looks at the inboxes of the users connected here"""


@dataclass(frozen=True)
class Redis:
    url: str = _key("redis://127.0.0.1:6379/0", values.redis_url(), secret=True)
    lossless: bool = _key(False, values.switch())
    """appendfsync always and no asynchronous failover: a restart keeps the epochs"""
    timeout_seconds: float = _key(5.0, values.seconds())
    """deadline of one command"""


@dataclass(frozen=True)
class Rabbitmq:
    url: str = _key("amqp://guest:guest@127.0.0.1:5672/", values.amqp_url(), secret=True)
    confirm_seconds: float = _key(5.0, values.seconds())
    """deadline of the broker's confirmation"""


@dataclass(frozen=True)
class Mongodb:
    url: str = _key("mongodb://127.0.0.1:27017/imd", values.mongodb_url(), secret=True)
    timeout_seconds: float = _key(10.0, values.seconds())
    """deadline of one operation"""

    @property
    def database(self) -> str:
        """The database that the URL names, else `imd`."""
        return unquote(urlsplit(self.url).path.removeprefix("/")) or "imd"


@dataclass(frozen=True)
class Archive:
    consume: bool = _key(True, values.switch())
    """no: this node publishes only, and other nodes write to MongoDB"""
    queue_bytes: int = _key(1 << 30, values.integer(1024, 1 << 50))
    """bound of the archive queue at the broker"""
    batch: int = _key(2000, values.integer(1, 100_000))
    """messages written to MongoDB at once, at most"""


@dataclass(frozen=True)
class Desk:
    grace_seconds: float = _key(120.0, values.seconds())
    """how long an agent may be gone before its visitors are given to another"""


@dataclass(frozen=True)
class Cluster:
    routing: str = _key("search", values.choice("search", "gateway"))
    """how clients come: to any node, or each user's to one node, by a gateway"""
    advertise: str = _key("", values.reachable())
    """HOST:PORT where clients or the gateway reach this node; empty: by `[websocket] listen`"""
    advertise_http: str = _key("", values.reachable())
    """HOST:PORT of its http port; empty: by `[http] listen`"""


@dataclass(frozen=True)
class Settings:
    """All sections. Neither `repr` nor `str` shows a secret."""

    node: Node = field(default_factory=Node)
    websocket: Websocket = field(default_factory=Websocket)
    http: Http = field(default_factory=Http)
    auth: Auth = field(default_factory=Auth)
    limits: Limits = field(default_factory=Limits)
    messages: Messages = field(default_factory=Messages)
    rooms: Rooms = field(default_factory=Rooms)
    presence: Presence = field(default_factory=Presence)
    inbox: Inbox = field(default_factory=Inbox)
    redis: Redis = field(default_factory=Redis)
    rabbitmq: Rabbitmq = field(default_factory=Rabbitmq)
    mongodb: Mongodb = field(default_factory=Mongodb)
    archive: Archive = field(default_factory=Archive)
    desk: Desk = field(default_factory=Desk)
    cluster: Cluster = field(default_factory=Cluster)


_SECTIONS: dict[str, type] = get_type_hints(Settings)
_KEYS = {name: {key.name: key for key in dataclasses.fields(section)} for name, section in _SECTIONS.items()}


def node_name(settings: Settings) -> str:
    """The node's name. The default has the process id in it: call this after daemonising."""
    if settings.node.name:
        return settings.node.name
    host = re.sub(r"[^A-Za-z0-9._@-]", "-", socket.gethostname())[:80]
    return f"{host}-{os.getpid()}"


# ---- reading


def load(path: str) -> Settings:
    """Read a configuration file. Raises ConfigurationError for the first mistake in it."""
    file = ini.read(path)
    for section, line in file.sections.items():
        if section not in _KEYS:
            raise file.error(line, _unknown_section(section))
    given: dict[str, dict[str, Any]] = {section: {} for section in _KEYS}
    for entry in file.entries.values():
        if entry.key not in _KEYS[entry.section]:
            raise file.error(entry.line, _unknown_key(entry.section, entry.key))
        given[entry.section][entry.key] = _parse(file, entry)
    settings = Settings(**{section: _SECTIONS[section](**found) for section, found in given.items()})
    if settings.auth.mode == "open":
        _check_loopback(file, "websocket", settings.websocket.listen)
        _check_loopback(file, "http", settings.http.listen)
    else:
        _check_keys(file, settings.auth)
    for section, listen in (("websocket", settings.websocket.listen), ("http", settings.http.listen)):
        if place_of(listen).behind_proxy and not settings.websocket.trusted_proxies:
            expected = "[websocket] trusted_proxies as well: others get no connection to a haproxy: endpoint"
            raise file.wrong(section, "listen", listen, expected)
    if settings.cluster.routing == "gateway":
        _check_gateway(file, settings)
    return settings


def _unknown_section(section: str) -> str:
    hint = _did_you_mean(section, _KEYS)
    return f"[{section}] is no section here{hint}; expected one of {', '.join(_KEYS)}"


def _unknown_key(section: str, key: str) -> str:
    known = _KEYS[section]
    homes = [f"[{name}]" for name, names in _KEYS.items() if key in names]
    hint = _did_you_mean(key, known) or (f" (there is one in {' and '.join(homes)})" if homes else "")
    return f"[{section}] {ini.name(key)} is no key here{hint}; expected one of {', '.join(known)}"


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word[:80].lower(), list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _parse(file: Ini, entry: ini.Entry) -> Any:
    key = _KEYS[entry.section][entry.key]
    kind: values.Kind = key.metadata["kind"]
    try:
        return kind.parse(file.resolve(entry))
    except ValueError as error:
        reference = entry.text.startswith(("env:", "file:"))
        if key.metadata["secret"] and not reference:
            raise file.wrong(entry.section, entry.key, None, kind.expected) from None
        why = "" if reference or not str(error) else f" ({error})"
        hint = _did_you_mean(entry.text, kind.choices)
        raise file.wrong(entry.section, entry.key, entry.text, f"{kind.expected}{hint}{why}") from None


def _check_loopback(file: Ini, section: str, listen: str) -> None:
    if not values.is_loopback(listen):
        raise file.wrong(
            section,
            "listen",
            listen,
            "interface=127.0.0.1 or a unix: endpoint, because with [auth] mode = open whoever reaches this "
            "port may be anybody; for other machines set mode = jwt",
        )


def _check_gateway(file: Ini, settings: Settings) -> None:
    if settings.node.backend != "cluster":
        expected = "search, because [node] backend = embedded: it is one node"
        raise file.wrong("cluster", "routing", "gateway", expected)
    try:
        check_name(settings.node.name)
    except ValueError:
        expected = f"{EXPECTED_NAME}, because [cluster] routing = gateway"
        raise file.wrong("node", "name", settings.node.name, expected) from None
    places = (
        ("websocket", settings.websocket.listen, "advertise", settings.cluster.advertise),
        ("http", settings.http.listen, "advertise_http", settings.cluster.advertise_http),
    )
    for section, listen, key, advertise in places:
        try:
            found = listening(listen, advertise)
        except ValueError as error:
            expected = f"an endpoint that the gateway reaches, or [cluster] {key} = HOST:PORT ({error})"
            raise file.wrong(section, "listen", listen, expected) from None
        if section == "http" and (found.tls or found.proxy):
            expected = "a tcp: endpoint, because with routing = gateway HAProxy asks for health in clear"
            raise file.wrong(section, "listen", listen, expected)


def _check_keys(file: Ini, auth: Auth) -> None:
    # Only the first line of a key is shown, as it may be a private key by mistake.
    public_key = auth.public_key.partition("\n")[0]
    if auth.secret and auth.public_key:
        raise file.wrong("auth", "public_key", public_key, "either secret or public_key, not both")
    if not auth.secret and not auth.public_key:
        expected = "a secret (HS256) or a public_key (RS256, EdDSA) as well, to check tokens with"
        raise file.wrong("auth", "mode", "jwt", expected)
    try:
        keys.verification_key(auth.secret, auth.public_key)
    except keys.UnusableKeyError as error:
        if auth.secret:
            raise file.wrong("auth", "secret", None, f"{keys.EXPECTED_SECRET}: {error}") from None
        raise file.wrong("auth", "public_key", public_key, f"{keys.EXPECTED_PUBLIC_KEY}: {error}") from None
