"""Checks of a program's values before they are kept or sent: could a node read and take them? No I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

MAX_DATA_BYTES = 4096
"""of `data`, as long as no node has told its limit"""
MAX_DATA_DEPTH = 32
MAX_CLIENT_MSG_ID = 64
NO_LIMITS: Mapping[str, Any] = {}


def check_sound(frame: Mapping[str, Any], limits: Mapping[str, Any] = NO_LIMITS) -> int:
    """Check a frame, or some of its fields; gives its bytes. `limits`: the node's, as far as they are known.

    Raises ValueError, which names the field, for a lone surrogate, for what JSON does not have, and for
    `data` that is no object, is too long or has too many levels.
    """
    if not 1 <= len(frame.get("clientMsgId", "-")) <= MAX_CLIENT_MSG_ID:
        # The node's error would name a part of it, which no entry has.
        raise ValueError(f"clientMsgId: 1 to {MAX_CLIENT_MSG_ID} characters are expected")
    if frame.get("data") is not None:
        _check_data(frame["data"], limits.get("dataBytes", MAX_DATA_BYTES))
    try:
        return len(_written(frame))
    except (ValueError, TypeError, RecursionError):
        for name, value in frame.items():
            _check(name, value)
        raise


def _check_data(data: Any, most: int) -> None:
    if not isinstance(data, dict):
        raise ValueError("data: an object is expected")
    size = _check("data", data)
    if size > most:
        raise ValueError(f"data: at most {most} bytes are expected, not {size}")
    level: list[Any] = [data]
    for _ in range(MAX_DATA_DEPTH):
        level = [each for one in level for each in _inside(one)]
    if any(isinstance(each, dict | list | tuple) for each in level):
        raise ValueError(f"data: at most {MAX_DATA_DEPTH} levels are expected")


def _inside(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


def _check(name: str, value: Any) -> int:
    try:
        return len(_written(value))
    except UnicodeEncodeError:
        raise ValueError(f"{name}: a lone surrogate cannot be sent") from None
    except RecursionError:
        raise ValueError(f"{name}: too many levels") from None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name}: {error}") from None


def _written(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
