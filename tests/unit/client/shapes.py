"""The client's objects under the protocol's names, as scenarios have them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from imd.client import OutboxFull, Outgoing, Refused, Unanswered

_ARGUMENTS = {"with": "with_", "all": "everything", "contentType": "content_type", "replyTo": "reply_to"}


class Mismatch(AssertionError):
    pass


def snake(name: str) -> str:
    return _ARGUMENTS.get(name) or re.sub("[A-Z]", lambda found: "_" + found[0].lower(), name)


def camel(name: str) -> str:
    return re.sub("_([a-z])", lambda found: found[1].upper(), name.removesuffix("_"))


def as_frame(value: Any) -> Any:
    """A dataclass under the protocol's names."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        frame = {
            camel(field.name): as_frame(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
        if "entries" in frame:
            frame["messages"] = frame.pop("entries")
        if isinstance(value, Outgoing):
            frame |= {name: each for name, each in value.fields.items()}
        return frame
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, list | tuple):
        return [as_frame(each) for each in value]
    return value


def code_of(error: Any) -> str:
    match error:
        case Refused():
            return error.refusal.code
        case Unanswered():
            return "timeout"
        case OutboxFull():
            return "outbox_full"
        case ValueError():
            return "invalid_message"
    raise Mismatch(f"no error: {error!r}")
