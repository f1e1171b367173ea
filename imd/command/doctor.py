"""Looks at everything that a configuration names, and says in words what is wrong or risky.

Redis, RabbitMQ and MongoDB are asked, at the same time and with a deadline; nothing is changed. If a node
of this configuration runs here (or at --url), a message goes through it, from the user imd-doctor to
itself. The exit code is 0 when all is well, 1 with warnings, 2 with problems.

example:
  imd doctor etc/cluster.ini"""

from __future__ import annotations

import argparse
import functools
from typing import Any
from urllib.parse import urlsplit

from imd.command.findings import Finding, Level
from imd.command.output import Output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="FILE", help="the configuration")
    parser.add_argument("--seconds", type=float, default=10.0, help="deadline for each server (10)")
    parser.add_argument("--management", metavar="URL", help="RabbitMQ's management API, to be asked as well")
    parser.add_argument("--url", help="the node to send a message through, if it is not the one of the file")
    parser.add_argument("--token", help="the JWT to do it with, where the file has no secret")


def run(options: Any, output: Output) -> int:
    worst = output.findings(examine(options))
    return {Level.PROBLEM: 2, Level.WARNING: 1}.get(worst, 0)


def examine(options: Any) -> list[Finding]:
    """All findings. Raises ConfigurationError for a configuration that no node would start with."""
    from imd.command import canary, look_node, look_tls
    from imd.command.advice import advise
    from imd.command.check import read
    from imd.command.look import Look, all_within
    from imd.command.reactor import run_on_reactor

    settings, seconds = read(options.config), options.seconds
    looks: dict[str, Look] = {
        "config": functools.partial(advise, settings),
        "tls": functools.partial(look_tls.certificates, settings),
    }
    if settings.node.backend == "cluster":
        from imd.command import look_level, look_list, look_mongo, look_rabbit, look_redis

        looks["redis"] = functools.partial(look_redis.look, settings.redis, seconds)
        looks["rabbitmq"] = functools.partial(look_rabbit.look, settings, seconds, options.management)
        looks["mongodb"] = functools.partial(look_mongo.look, settings.mongodb, seconds)
        looks["level"] = functools.partial(look_level.look, settings, seconds)
        looks["list"] = functools.partial(look_list.look, settings, seconds)
    looks["node"] = functools.partial(look_node.look, settings, seconds)
    # A library may have taken its own time, twice over, before ours is up.
    findings = all_within(2 * seconds + 1, looks)
    here = any(finding.part == "node" and finding.level is not Level.NOTE for finding in findings)
    if options.url is not None and urlsplit(options.url).scheme not in ("ws", "wss"):
        findings.append(Finding(Level.PROBLEM, "node", f"--url {options.url}: ws:// or wss:// is expected"))
    elif here or options.url:
        findings += run_on_reactor(
            functools.partial(canary.end_to_end, settings, options.url, options.token, seconds)
        )
    else:
        findings.append(
            Finding(Level.NOTE, "node", "no message was sent: there is no node to send it through")
        )
    return findings
