"""RabbitMQ's management API, as the doctor sees it: alarms, and who holds the archive's queue."""

from __future__ import annotations

import base64
import json
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from imd.command.findings import Finding, note, ok, problem, say, warning
from imd.store.rabbit.archive_queue import ARCHIVE_QUEUE, DEAD_QUEUE

PART = "rabbitmq"


def look_management(url: str, vhost: str, seconds: float) -> Iterator[Finding]:
    """`url`: http[s]://user:password@host:port. Nothing but the API shows alarms before it is too late."""
    parts = urlsplit(url)
    base = f"{parts.scheme}://{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 15672)}"
    login = f"{unquote(parts.username or 'guest')}:{unquote(parts.password or 'guest')}".encode()

    def ask(path: str) -> Any:
        request = urllib.request.Request(base + path)
        request.add_header("Authorization", f"Basic {base64.b64encode(login).decode()}")
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            return json.load(answer)

    try:
        nodes = ask("/api/nodes")
        queue = ask(f"/api/queues/{quote(vhost, safe='')}/{ARCHIVE_QUEUE}")
        dead = ask(f"/api/queues/{quote(vhost, safe='')}?name={DEAD_QUEUE}")
    except (OSError, ValueError) as error:
        yield warning(PART, f"the management API at {base}: {say(error)}")
        return
    for one in [queue, *(one for one in _listed(dead) if one.get("name") == DEAD_QUEUE)]:
        yield from _policy(one)
    for node in nodes:
        for alarm in ("mem_alarm", "disk_free_alarm"):
            if node.get(alarm):
                yield problem(PART, f"{node.get('name')}: {alarm}; messages are refused until it is over")
        if node.get("partitions"):
            yield problem(PART, f"{node.get('name')}: cut off from {', '.join(node['partitions'])}")
        if not node.get("running", True):
            yield warning(PART, f"{node.get('name')} is not running")
    members, online = queue.get("members", []), queue.get("online", [])
    if len(members) == 1:
        yield note(PART, f"{ARCHIVE_QUEUE} is on one broker only", "Three brokers survive the loss of one.")
    elif len(online) < len(members):
        yield warning(PART, f"{ARCHIVE_QUEUE}: {len(online)} of {len(members)} members are online")
    else:
        yield ok(PART, f"{ARCHIVE_QUEUE} is on {len(members)} brokers, all online")


def _listed(answer: Any) -> list[Any]:
    """Queues, as the API lists them: in pages or not."""
    found = answer.get("items", []) if isinstance(answer, dict) else answer
    return [one for one in found if isinstance(one, dict)]


def _policy(queue: dict[str, Any]) -> Iterator[Finding]:
    """Keys of a policy that take messages out of one of imd's queues."""
    name = queue.get("name")
    said = queue.get("effective_policy_definition") or {}
    if not isinstance(said, dict):
        # RabbitMQ shows no policy as an empty list.
        return
    harmful = {key for key in ("message-ttl", "expires", "delivery-limit") if key in said}
    lengths = {key for key in ("max-length", "max-length-bytes") if key in said}
    # A policy's word on overflow beats the queue's; the dead queue has none, and drops the oldest.
    overflow = said.get("overflow", "reject-publish" if name == ARCHIVE_QUEUE else "drop-head")
    if lengths and overflow == "drop-head":
        harmful |= lengths
    names = queue.get("policy"), queue.get("operator_policy")
    policies = " and ".join(policy for policy in names if policy)
    if harmful:
        advice = "Make its pattern narrower: what it takes out is missing in the archive."
        keys = ", ".join(f"{key} = {said[key]}" for key in sorted(harmful))
        yield problem(PART, f"the policy {policies} takes messages out of {name}: {keys}", advice)
