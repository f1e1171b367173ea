"""The doctor's own message through a running node: accepted, delivered, archived."""

from __future__ import annotations

import secrets
import time
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.internet.task import deferLater

from imd.client import ClientError, StateChanged
from imd.client.twisted import Client
from imd.command.findings import Finding, note, ok, problem, warning
from imd.command.look_node import PART, address, is_plain
from imd.command.token import make_token
from imd.config.settings import Settings
from imd.protocol.errors import ConfigurationError

CANARY = "imd-doctor"
"""the user that sends the message to itself"""


async def end_to_end(settings: Settings, url: str | None, token: str | None, seconds: float) -> list[Finding]:
    """A message from the canary to itself, through a running node: accepted, delivered, archived."""
    from twisted.internet import reactor

    where = url or _url(settings)
    if where is None:
        listen = settings.websocket.listen
        return [note(PART, f"no message was sent: {listen} is no plain TCP port; give its --url")]
    if settings.auth.mode == "jwt" and token is None:
        try:
            token, _ = make_token(settings.auth, CANARY, "user", 0.1)
        except ConfigurationError as error:
            return [note(PART, f"no message was sent; give --token: {error}")]
    user = None if token else CANARY
    device = f"doctor-{secrets.token_hex(4)}"
    client = Client(
        where,
        user_id=user,
        device=device,
        ephemeral=True,
        features=(),
        token=None if token is None else lambda: str(token),
    )
    reasons = [""]
    client.on(StateChanged, lambda event: reasons.append(event.reason) if event.reason else None)
    client.start()
    try:
        story = Deferred.fromCoroutine(_story(client, where))
        return await story.addTimeout(seconds, cast(Any, reactor))
    except TimedOut:
        why = f" ({reasons[-1][:200]})" if reasons[-1] else ""
        return [problem(PART, f"no message went through {where} within {seconds:g} s{why}")]
    except ClientError as error:
        return [problem(PART, f"no message went through {where}: {error}")]
    finally:
        await client.stop()


def _url(settings: Settings) -> str | None:
    listen = settings.websocket.listen
    # A certificate is for a name, and the configuration does not know the node's.
    where = address(listen) if is_plain(listen) else None
    return where and f"ws://{where}/ws"


async def _story(client: Client, where: str) -> list[Finding]:
    await client.connected()
    began = time.monotonic()
    accepted = await client.accepted(client.send("a message of imd doctor", to=client.user_id or ""))
    answered = time.monotonic()
    async for message in client.messages():
        if message.id == accepted.id:
            break
    arrived = time.monotonic()
    said = f"accepted in {1000 * (answered - began):.0f} ms, delivered in {1000 * (arrived - began):.0f} ms"
    findings = [ok(PART, f"a message through {where}: {said}")]
    findings.append(await _archived(client, accepted.id))
    return findings


async def _archived(client: Client, message_id: str) -> Finding:
    from twisted.internet import reactor

    began = time.monotonic()
    while time.monotonic() - began < 3:
        page = await client.history(client.user_id, limit=1)
        if page.messages and page.messages[-1].id == message_id:
            return ok(PART, f"it was in the archive after {time.monotonic() - began:.1f} s")
        await deferLater(cast(Any, reactor), 0.1, lambda: None)
    return warning(
        PART, "it was not in the archive after 3 s", "Does imd.archive grow? Somebody must consume it."
    )
