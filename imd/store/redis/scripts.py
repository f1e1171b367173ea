"""The Lua scripts: each is made of parts, which Redis gets as one text."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

# A part uses functions of the parts before it.
_ALL = ("request", "runs", "heads", "devices", "shared", "reply", "agents")

_PLACING = (*_ALL, "inboxes", "visitors", "resends")

PARTS: Mapping[str, tuple[str, ...]] = {
    "accept": (*_PLACING, "openings", "permissions", "rooms", "blocked", "roomitems"),
    "connect": (*_ALL, "inboxes", "cursors", "pages", "aimlib", "blocked"),
    "pull": (*_ALL, "pages"),
    "ack": (*_ALL, "inboxes", "cursors"),
    "renew": (*_ALL, "aimlib"),
    "leave": (*_ALL, "inboxes", "cursors", "aimlib"),
    "desk": (*_ALL, "inboxes", "visitors"),
    "run": _ALL,
    "room": (*_ALL, "inboxes", "resends", "rooms", "fresh"),
    "member": (*_ALL, "rooms"),
    "admit": (*_ALL, "openings"),
    "sent": (*_ALL, "resends"),
    "aim": (*_ALL, "inboxes", "visitors", "rooms", "aimlib", "blocked"),
    "channels": (*_ALL, "aimlib"),
    "look": (*_ALL, "aimlib"),
    "block": (*_ALL, "blocked", "fresh"),
    "hidden": (*_ALL, "blocked"),
}
"""script → the parts that precede it"""


def load_scripts() -> Mapping[str, bytes]:
    """The text of each script: its line of flags, its parts, and the script itself."""
    folder = files("imd.store.redis") / "lua"
    scripts = {}
    for name, parts in PARTS.items():
        text = (folder / f"{name}.lua").read_text()
        flags = ""
        if text.startswith("#!"):
            flags, text = text.split("\n", 1)
            flags += "\n"
        before = [(folder / f"{part}.lua").read_text() for part in parts]
        scripts[name] = (flags + "\n".join([*before, text])).encode()
    return scripts
