"""A chat with somebody, in the terminal or in a pipe.

The last messages are shown first, then new ones; a line that is typed is sent. A line that begins with a
slash is an order, such as /edit, /react or /room: /help names them. Ctrl-D ends it. In a pipe each line of
the input is a message, and the end comes when all of them are accepted.

examples:
  imd chat --as alice bob
  imd chat --as alice r-5f0c2b6e9d1a4f3c8b7e6d5c4b3a2918
  echo "the backup is done" | imd chat --as cron alice
  imd chat visitor-0123456789abcdef0123 --url wss://chat.example.com/ws --token-file sams-token"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from imd.command.output import Output
from imd.protocol.errors import ConfigurationError
from imd.protocol.message import is_usable_id


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "peer", metavar="WITH", help="whom to write to: a user; several, split by commas; a room, by its id"
    )
    parser.add_argument("--as", dest="user", metavar="USER", help="who one is; a token may say it instead")
    parser.add_argument("--url", default="ws://127.0.0.1:9000/ws", help="of a node (ws://127.0.0.1:9000/ws)")
    parser.add_argument("--token", help="a JWT; it can then be seen in the list of processes")
    parser.add_argument(
        "--token-file", type=Path, metavar="FILE", help="a file with a JWT, read at each connect"
    )
    parser.add_argument(
        "--role", choices=("user", "customer", "agent"), default="user", help="without a token"
    )
    parser.add_argument(
        "--device", default="terminal", help="one place in the inbox for each name (terminal)"
    )
    parser.add_argument("--history", type=int, default=20, metavar="N", help="messages shown first (20)")
    parser.add_argument(
        "--wait", type=float, default=0.0, metavar="SECONDS", help="stay after the end of the input"
    )
    parser.add_argument("--seconds", type=float, default=30.0, help="how long a pipe waits for a node (30)")


def run(options: Any, output: Output) -> int:
    if not (options.user or options.token or options.token_file):
        raise ConfigurationError("--as USER, --token or --token-file is expected")
    parts = urlsplit(options.url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise ConfigurationError(f"--url {options.url}: ws://HOST:PORT/ws or wss://… is expected")
    peers = [peer.strip() for peer in options.peer.split(",")]
    if not all(map(is_usable_id, peers)) or not 0 <= options.history <= 200:
        raise ConfigurationError("names of 1 to 128 characters, and a history of 0 to 200, are expected")
    from imd.command.conversation import Conversation
    from imd.command.reactor import run_on_reactor

    conversation = Conversation(options, peers, output, sys.stdin)
    return int(run_on_reactor(conversation.run))
