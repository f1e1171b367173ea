"""Pairs of users that write to each other all the time, and note how long each message took.

    python -m tests.tools.drill.talkers FILE PAIRS MESSAGES_A_SECOND URL…

Each line of FILE: when a message was sent (monotonic), and how many seconds until it was there.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from typing import TextIO

from tests.tools.drill.crowd import Client, Crowd


async def talk(log: TextIO, pairs: int, per_second: float, urls: list[str]) -> None:
    crowd = Crowd(lambda: urls)

    def note(payload: bytes) -> None:
        now = time.monotonic()
        begin = payload.index(b'"msg":"') + 7
        sent = float(payload[begin : payload.index(b'"', begin)])
        log.write(f"{sent:.6f} {now - sent:.6f}\n")

    clients = [Client(crowd, f"talker-{number}") for number in range(2 * pairs)]
    for client in clients:
        client.on_message = note
        client.start()
    await crowd.until(lambda: crowd.online == len(clients), 60, "the talkers log in")
    turn = 0
    began = time.monotonic()
    while True:
        turn += 1
        sender = clients[turn % len(clients)]
        if sender.is_in and sender.transport is not None:
            to = f"talker-{(turn % len(clients)) ^ 1}"
            sender.send({"to": to, "msg": f"{time.monotonic():.6f}", "clientMsgId": f"{random.random()}"})
        await asyncio.sleep(max(0.0, began + turn / per_second - time.monotonic()))


if __name__ == "__main__":
    with open(sys.argv[1], "w", buffering=1) as file:
        asyncio.run(talk(file, int(sys.argv[2]), float(sys.argv[3]), sys.argv[4:]))
