"""Explains and checks a configuration, without starting anything.

Warnings do not fail it, unless --strict is given. With --quiet only what is wrong is said: so a
service can check before it starts. Nothing is connected to; imd doctor does that.

example:
  imd check etc/cluster.ini"""

from __future__ import annotations

import argparse
import dataclasses
import time
from typing import Any

from imd.command.advice import advise
from imd.command.findings import Level
from imd.command.look_tls import certificates
from imd.command.output import Output
from imd.config.settings import Settings, load
from imd.entry.auth import Authenticator


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="FILE", help="the configuration")
    parser.add_argument("--strict", action="store_true", help="fail (1) for warnings, too")
    parser.add_argument("--quiet", "-q", action="store_true", help="say only what is wrong")


def run(options: Any, output: Output) -> int:
    settings = read(options.config)
    if not options.quiet:
        explain(settings, output)
    findings = [*advise(settings), *certificates(settings)]
    worst = output.findings(findings, verbose=not options.quiet)
    if worst is Level.PROBLEM:
        return 2
    return int(options.strict and worst is Level.WARNING)


def read(path: str) -> Settings:
    """A configuration that a node would start with. Raises ConfigurationError."""
    settings = load(path)
    Authenticator(settings.auth, time.time)
    return settings


def explain(settings: Settings, output: Output) -> None:
    """Print the configuration in words, and the keys that are not at their defaults."""
    for line in in_words(settings):
        output.line(line)
    default = Settings()
    rows = []
    for section in dataclasses.fields(Settings):
        given, usual = getattr(settings, section.name), getattr(default, section.name)
        for key in dataclasses.fields(given):
            value, was = getattr(given, key.name), getattr(usual, key.name)
            if value != was:
                secret = key.metadata["secret"]
                rows.append(
                    (f"[{section.name}]", key.name, "(not shown)" if secret else _show(value), _show(was))
                )
    output.line("")
    if rows:
        output.table(("section", "key", "value", "default"), rows, "Not at their defaults:")


def _show(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return " ".join(value) if isinstance(value, tuple) else str(value)


def in_words(settings: Settings) -> list[str]:
    node, auth, archive = settings.node, settings.auth, settings.archive
    if node.backend == "embedded":
        backend = f"One node by itself, on the SQLite file in {node.data}/."
    else:
        backend = "A node of a cluster, on Redis, RabbitMQ and MongoDB."
    who = {"open": "Anybody on this machine may be anybody.", "jwt": "Signed tokens say who is who"}[
        auth.mode
    ]
    if auth.mode == "jwt":
        who += " (HS256, a secret)." if auth.secret else " (a public key)."
    who += " Anonymous visitors may come." if auth.visitors else " No anonymous visitors."
    lines = [
        backend,
        f"Clients connect at {settings.websocket.listen}; health and metrics are at {settings.http.listen}.",
        who,
        f"What a device has not acknowledged is kept {settings.inbox.keep_days:g} days, "
        f"at most {settings.inbox.max_messages:,} messages for each user.",
    ]
    if node.backend == "cluster" and not archive.consume:
        lines.append("It does not write to MongoDB: other nodes have to.")
    if settings.cluster.routing == "gateway":
        lines.append(f"A gateway calls it {node.name}, and leads users there whose home it is.")
    if settings.websocket.trusted_proxies:
        lines.append(f"Proxies that are believed: {_show(settings.websocket.trusted_proxies)}.")
    return lines
