"""Says where a message is now: in whose inboxes, with which devices, and whether it is archived.

Nothing is changed. A message that is not archived yet does not tell who was meant to get it: name them
with --user. The exit code is 0 when it was found, 1 when it is nowhere, 2 when a server does not answer.

With --on instead of an id, the node that runs here writes each step of what these users send or get to
its log, until --for is over or --off comes: docs/how-to/follow-a-message.md.

examples:
  imd trace --on bob --on alice --for 300 --config etc/cluster.ini
  imd trace 0199a8b3c4d50000017f00aa12bc --config etc/cluster.ini
  imd trace 0199a8b3c4d50000017f00aa12bc --config etc/cluster.ini --user bob"""

from __future__ import annotations

import argparse
import re
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from imd.command.output import Output, harmless
from imd.command.whereabouts import Place, Whereabouts
from imd.config.settings import Settings, load
from imd.protocol.errors import ConfigurationError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", nargs="?", metavar="ID", help="of the message, as `accepted` gave it")
    parser.add_argument("--on", action="append", default=[], metavar="USER", help="follow live; repeatable")
    parser.add_argument("--for", dest="live_seconds", type=int, default=600, metavar="SECONDS", help="(600)")
    parser.add_argument("--off", action="store_true", help="end following")
    parser.add_argument("--config", "-c", required=True, metavar="FILE", help="the nodes' configuration")
    parser.add_argument("--user", action="append", default=[], help="look into this inbox, too; repeatable")
    parser.add_argument("--seconds", type=float, default=10.0, help="deadline for each server (10)")


def run(options: Any, output: Output) -> int:
    settings = load(options.config)
    if options.on or options.off:
        return live(settings, options, output)
    if not re.fullmatch("[0-9a-f]{28}", options.id or ""):
        raise ConfigurationError("an id of 28 hexadecimal digits is expected, or --on USER")
    whereabouts = Whereabouts(options.id, int(options.id[:12], 16))
    if settings.node.backend == "cluster":
        from imd.command.trace_cluster import find
    else:
        from imd.command.trace_embedded import find
    try:
        find(settings, whereabouts, options.user, options.seconds)
    except OSError as error:
        output.problem(str(error))
        return 2
    if output.as_json:
        output.value({**asdict(whereabouts), "found": whereabouts.found})
    else:
        show(whereabouts, output)
    return 0 if whereabouts.found else 1


def live(settings: Settings, options: Any, output: Output) -> int:
    from imd.command.trace_live import ask

    form = {"user": options.on, "seconds": options.live_seconds}
    try:
        state = ask(settings, *(("DELETE", {}) if options.off else ("POST", form)), options.seconds)
    except OSError as error:
        output.problem(str(error))
        return 2
    if output.as_json:
        output.value(state)
    elif state["on"]:
        users = ", ".join(state["users"])
        output.line(f"{users}: followed for {state['seconds']} s, in the log of the node that runs here")
        output.line("Other nodes are to be asked on their machines; look for the id in all their logs.")
    else:
        output.line(f"nobody is followed; {state['lines']} lines were written")
    return 0


def show(found: Whereabouts, output: Output) -> None:
    output.line(f"{found.id}, made {_time(found.made)}")
    if found.kind:
        output.line(harmless(f"{_KINDS.get(found.kind, found.kind)}{f' of {found.of}' if found.of else ''}"))
    if found.sender:
        to = found.room or ", ".join(found.recipients) or "the desk"
        output.line(harmless(f"from {found.sender} to {to}"))
    if found.archived:
        at = f", written {_time(found.archived_at)}" if found.archived_at is not None else ""
        output.line(f"archived{at}", "green")
    else:
        output.line("not in the archive", "yellow")
    if found.waiting_at_desk is not None:
        output.line(
            f"waits for an agent, number {found.waiting_at_desk + 1} of its visitor's messages", "yellow"
        )
    for note in found.notes:
        output.line(note, "yellow")
    output.line("")
    for inbox in found.places:
        output.line(harmless(_in_words(inbox)), "bold")
        rows = [
            (
                harmless(device.name),
                device.acknowledged,
                _SHOWN[device.has_it],
                _SHOWN[device.live],
            )
            for device in inbox.devices
        ]
        if rows:
            output.table(("device", "acknowledged up to", "has it", "connected"), rows)
    if not found.found:
        output.line("It is nowhere that was looked.", "bold red")
        output.line("To see where such messages go: imd trace --on USER, on each node.")


_KINDS = {
    "message": "a message in a room",
    "edit": "an edit",
    "recall": "a recall",
    "react": "a reaction",
    "room": "a change of a room",
}
_SHOWN = {True: "yes", False: "no", None: "?"}


def _in_words(place: Place) -> str:
    if place.epoch is None:
        return f"{place.user}: has no inbox (never had one, or was silent for longer than keep_days)"
    inbox = f"epoch {place.epoch}, last number {place.head}"
    if place.seq is not None:
        return f"{place.user}: number {place.seq} in the inbox ({inbox})"
    return f"{place.user}: not in the inbox (any more): every device has it, or too many came after ({inbox})"


def _time(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%F %T}.{milliseconds % 1000:03d} UTC"
