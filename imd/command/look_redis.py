"""Redis, as the doctor sees it: will it keep what it has answered?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from imd.command.findings import Finding, note, ok, problem, say, warning
from imd.command.judge import certificate, clock, version_of
from imd.command.redis_client import RedisClient, RedisError
from imd.config.settings import Redis

PART = "redis"
LEAST_VERSION = (7, 0)
SLOW_SECONDS = 0.05
LEAST_REWRITE_BYTES = 1 << 30


def look(redis: Redis, seconds: float) -> Iterator[Finding]:
    parts = urlsplit(redis.url)
    where = f"{parts.hostname or '127.0.0.1'}:{parts.port or 6379}"
    if parts.scheme == "rediss":
        yield certificate(PART, parts.hostname or "", parts.port or 6379, seconds)
    try:
        client = RedisClient(redis.url, seconds)
    except (OSError, RedisError) as error:
        advice = "Without it nothing is accepted, and nobody can connect."
        yield problem(PART, f"{where} cannot be used: {say(error)}", advice)
        return
    with client:
        try:
            info = client.info()
        except (OSError, RedisError) as error:
            yield problem(PART, f"{where} does not say how it is: {say(error)}")
            return
        yield from _server(info, where)
        yield from _memory(info)
        yield from _expiry(client)
        yield from _backlog(client)
        yield from _persistence(client, info, redis.lossless)
        yield from _time(client)


def _server(info: dict[str, str], where: str) -> Iterator[Finding]:
    version = info.get("redis_version", "")
    if version_of(version) < LEAST_VERSION:
        yield problem(PART, f"{where}: version {version}; 7.0 is the oldest that the scripts run on")
    else:
        yield ok(
            PART, f"{where}: version {version}, up for {int(info.get('uptime_in_seconds', 0)) // 3600} hours"
        )
    if info.get("cluster_enabled") == "1" or info.get("redis_mode") == "cluster":
        advice = "Give the url of a Redis that is no part of a cluster: a batch touches many users."
        yield problem(PART, "this is a Redis Cluster: nodes refuse to start", advice)
    if info.get("role") != "master":
        yield problem(PART, "this is a replica: nothing can be written", "Give the url of the primary.")
    if info.get("loading") == "1":
        yield problem(PART, "it is still loading its data")


def _memory(info: dict[str, str]) -> Iterator[Finding]:
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        advice = "CONFIG SET maxmemory-policy noeviction; nodes are not ready until then."
        yield problem(PART, f"maxmemory-policy is {policy}: when it is full, messages vanish", advice)
    evicted = int(info.get("evicted_keys", 0))
    if evicted:
        yield problem(PART, f"{evicted:,} keys were evicted since it started: inboxes have lost messages")
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    if not limit:
        advice = "With a maxmemory, new messages are refused when it is reached, and the rest goes on."
        yield note(
            PART, f"{_mib(used)} used, no maxmemory: the kernel may end it when the machine is full", advice
        )
    elif used > 0.8 * limit:
        advice = (
            "Past the limit new messages are unavailable. Shorten keep_days or max_messages, or give it more."
        )
        yield warning(PART, f"{_mib(used)} of {_mib(limit)} are used", advice)
    else:
        yield ok(PART, f"{_mib(used)} of {_mib(limit)} are used, {policy}")


def _expiry(client: RedisClient) -> Iterator[Finding]:
    if client.config("lazyfree-lazy-expire") == "no":
        advice = "CONFIG SET lazyfree-lazy-expire yes, and in its file."
        yield note(PART, "what expires is freed while everybody waits: after a lull, for seconds", advice)


def _backlog(client: RedisClient) -> Iterator[Finding]:
    if client.config("repl-backlog-ttl") is None:
        advice = "ACL SETUSER <user> +config|get. Until then imd takes it for 10 seconds."
        yield note(PART, "repl-backlog-ttl may not be asked for", advice)


def _persistence(client: RedisClient, info: dict[str, str], lossless: bool) -> Iterator[Finding]:
    append = info.get("aof_enabled") == "1"
    fsync = client.config("appendfsync") if append else None
    if not append:
        advice = (
            "appendonly yes. Until then a restart empties all inboxes; what is archived is in the history."
        )
        what = "appendonly is no: inboxes do not survive a restart"
        yield (
            problem(PART, f"{what}, and lossless = yes says that they do", advice)
            if lossless
            else warning(PART, what, advice)
        )
    elif fsync is None:
        yield note(PART, "appendonly is yes; how often it is written (appendfsync) may not be asked for")
    elif lossless and fsync != "always":
        advice = (
            "appendfsync always, or lossless = no. As it is, devices miss messages silently after a crash."
        )
        yield problem(PART, f"lossless = yes, but appendfsync is {fsync}", advice)
    elif fsync == "no":
        advice = "everysec or always."
        yield warning(PART, "appendfsync is no: a crash of the machine loses half a minute", advice)
    else:
        yield ok(PART, f"appendonly yes, appendfsync {fsync}")
    least = client.config("auto-aof-rewrite-min-size") if append else None
    if least is not None and int(least) < LEAST_REWRITE_BYTES:
        advice = "CONFIG SET auto-aof-rewrite-min-size 1gb, and in its file."
        what = f"auto-aof-rewrite-min-size is {_mib(int(least))}: at full load it rewrites its file often"
        yield warning(PART, what, advice)
    for name, what in (("aof_last_write_status", "append-only file"), ("rdb_last_bgsave_status", "snapshot")):
        if info.get(name, "ok") != "ok":
            yield problem(PART, f"its last {what} could not be written: is the disk full?")
    replicas = int(info.get("connected_slaves", 0))
    if lossless and replicas:
        advice = "Right only if none ever becomes the primary: a restarted one hides what it had not got."
        yield warning(PART, f"lossless = yes, and {replicas} replicas follow asynchronously", advice)


def _time(client: RedisClient) -> Iterator[Finding]:
    trips = []
    for _ in range(3):
        asked = time.time()
        seconds, micros = client("TIME")
        trips.append((time.time() - asked, asked, int(seconds) + int(micros) / 1e6))
    trip, asked, theirs = min(trips)
    if trip > SLOW_SECONDS:
        advice = "Each message waits for it once: put the nodes near to it."
        yield warning(PART, f"an answer takes {trip * 1000:.0f} ms", advice)
    yield clock(PART, theirs, asked, asked + trip)


def _mib(size: int) -> str:
    return f"{size / (1 << 20):,.0f} MiB"
