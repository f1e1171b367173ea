"""Advice on a configuration by itself: risks, and settings that do not fit together."""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from imd.command.findings import Finding, Level
from imd.command.units import Unit, node_units
from imd.config.endpoints import place_of
from imd.config.settings import Settings
from imd.config.value_types import is_loopback
from imd.ops.process import RESERVED_FILES

LOCAL = ("localhost", "127.0.0.1", "::1", "")


def advise(settings: Settings) -> Iterator[Finding]:
    """Findings; nothing is connected to."""
    yield from _listening(settings)
    yield from _proxies(settings)
    yield from _auth(settings)
    yield from _times(settings)
    yield from _files(settings)
    yield from _units(settings, node_units())
    if settings.node.backend == "embedded":
        yield from _data(settings)
    else:
        yield from _servers(settings)


def _warn(part: str, what: str, advice: str = "") -> Finding:
    return Finding(Level.WARNING, part, what, advice)


def _listening(settings: Settings) -> Iterator[Finding]:
    websocket, http = settings.websocket.listen, settings.http.listen
    port = place_of(websocket).port
    if port and port == place_of(http).port:
        yield Finding(Level.PROBLEM, "ports", f"clients and the http port are both at {port}")
    if not is_loopback(websocket) and not place_of(websocket).is_tls:
        yield Finding(
            Level.NOTE,
            "websocket",
            f"{websocket} is open to other machines, without TLS",
            "Tokens travel in clear unless a proxy with TLS is in front, and alone can reach this port.",
        )
    if not is_loopback(http):
        advice = "It has no login. Keep it on loopback or in a private network."
        yield _warn("http", f"{http}: health and metrics are open to other machines", advice)
    if "*" in settings.websocket.origins:
        yield _warn("websocket", "origins = *: pages of any site may connect as their visitors' browsers")


def _proxies(settings: Settings) -> Iterator[Finding]:
    gateway, trusted = settings.cluster.routing == "gateway", settings.websocket.trusted_proxies
    for word in trusted:
        if word.endswith("/0"):
            yield _warn("websocket", f"trusted_proxies = {word}: anybody may claim to be anywhere")
    if settings.auth.mode == "open" and (gateway or trusted):
        what = "mode = open refuses everybody who comes through a proxy"
        yield _warn("auth", what, "Clients of a proxy or a gateway need mode = jwt.")
    elif gateway and not trusted:
        what = "routing = gateway, and trusted_proxies names nobody: all clients count as one address"
        advice = "Name HAProxy's address. Until then visitors_per_address has no effect behind it."
        yield _warn("websocket", what, advice)


def _auth(settings: Settings) -> Iterator[Finding]:
    if settings.auth.mode == "open":
        advice = "Right for trying out. For anybody else: mode = jwt."
        yield Finding(Level.NOTE, "auth", "mode = open: whoever is on this machine may be anybody", advice)
    elif not settings.auth.audience and not settings.auth.issuer:
        advice = "If the same key signs tokens for other things, set audience or issuer."
        yield Finding(Level.NOTE, "auth", "tokens of any issuer and for any audience are taken", advice)
    if settings.auth.mode == "jwt" and settings.auth.leeway_seconds > 300:
        what = f"leeway_seconds = {settings.auth.leeway_seconds:g}: tokens count so long after they expired"
        yield _warn("auth", what, "Clocks that are set by NTP differ by less than a second.")


def _times(settings: Settings) -> Iterator[Finding]:
    lease, reconcile = settings.node.lease_seconds, settings.inbox.reconcile_seconds
    if lease < 2 * reconcile:
        yield _warn(
            "inbox",
            f"lease_seconds = {lease:g} is less than two rounds of reconcile_seconds = {reconcile:g}",
            "Leases are renewed once in a round: one that is late, and live channels count as gone.",
        )
    if settings.websocket.ping_seconds > 60:
        what = f"ping_seconds = {settings.websocket.ping_seconds:g}"
        yield _warn("websocket", f"{what}: many proxies close what is silent for a minute")
    if settings.inbox.dedup_seconds < 60:
        what = (
            f"dedup_seconds = {settings.inbox.dedup_seconds:g}: a client that is away for longer sends twice"
        )
        yield _warn("inbox", what)


def _files(settings: Settings) -> Iterator[Finding]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.limits.connections + RESERVED_FILES
    if hard != resource.RLIM_INFINITY and hard < wanted:
        yield _warn(
            "files",
            f"this process may open {hard:,} files, and connections = {settings.limits.connections:,}",
            f"A node started like this takes {max(0, hard - RESERVED_FILES):,} clients. A unit: LimitNOFILE.",
        )


def _units(settings: Settings, units: Iterable[Unit]) -> Iterator[Finding]:
    seconds = settings.node.stop_seconds + settings.node.drain_seconds
    for unit in units:
        if unit.stop_seconds <= seconds:
            yield _warn(
                "stop",
                f"{unit.file}: TimeoutStopSec is {unit.stop_seconds:g} s, and a stop may take {seconds:g} s",
                "systemd would kill a node that stops: more than drain_seconds and stop_seconds together.",
            )


def _data(settings: Settings) -> Iterator[Finding]:
    folder = Path(settings.node.data)
    there = folder if folder.exists() else next(path for path in folder.absolute().parents if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        yield Finding(Level.PROBLEM, "data", f"{folder.absolute()} cannot be written by this user")
    elif folder.exists() and folder.stat().st_mode & 0o077:
        advice = "Messages are in clear in it: chmod 700."
        yield _warn("data", f"{folder.absolute()} can be entered by other users of this machine", advice)
    free = os.statvfs(there)
    if free.f_bavail * free.f_frsize < 1 << 30:
        yield _warn("data", f"less than 1 GiB is free under {there.absolute()}")


def _servers(settings: Settings) -> Iterator[Finding]:
    redis, rabbitmq = urlsplit(settings.redis.url), urlsplit(settings.rabbitmq.url)
    if settings.redis.lossless:
        yield Finding(
            Level.NOTE,
            "redis",
            "lossless = yes: this Redis is trusted never to forget what it has answered",
            "True only with appendfsync always and no asynchronous failover: imd doctor looks.",
        )
    if redis.hostname not in LOCAL:
        if not redis.password:
            yield _warn("redis", f"no password for {redis.hostname}")
        if redis.scheme != "rediss":
            yield Finding(Level.NOTE, "redis", f"no TLS to {redis.hostname} (rediss://)")
    if rabbitmq.hostname not in LOCAL:
        if (rabbitmq.username or "guest") == "guest":
            what = f"guest at {rabbitmq.hostname}: RabbitMQ takes guest from its own machine only"
            yield _warn("rabbitmq", what, "Make a user with the rights named in docs/how-to/cluster.md.")
        if rabbitmq.scheme != "amqps":
            yield Finding(Level.NOTE, "rabbitmq", f"no TLS to {rabbitmq.hostname} (amqps://)")
    yield from _write_concern(settings)
    if not settings.archive.consume:
        what = "consume = no: some other node has to write the archive"
        yield Finding(Level.NOTE, "archive", what)


def _write_concern(settings: Settings) -> Iterator[Finding]:
    options = {
        name.lower(): values[-1].lower()
        for name, values in parse_qs(urlsplit(settings.mongodb.url).query).items()
    }
    concern = options.get("w", "majority")
    if concern == "0":
        yield Finding(
            Level.PROBLEM, "mongodb", "w=0 in the url would lose messages silently; a node refuses it"
        )
    elif re.fullmatch("1", concern):
        yield _warn(
            "mongodb", "w=1 in the url: what one server has acknowledged may be lost with it", "Leave w out."
        )
    if options.get("journal") == "false" or options.get("j") == "false":
        yield _warn("mongodb", "journal=false in the url: the last writes are lost when a server dies")
