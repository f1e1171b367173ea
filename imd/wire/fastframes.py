"""The fast path: whole text frames straight from the buffer (RFC 6455, 5.2). Nearly all frames are such.

All other frames, and all errors, are left to Autobahn. No state, no I/O.
"""

from __future__ import annotations

_WHOLE_TEXT = 0x81
_MASKED = 0x80
_from_bytes = int.from_bytes


def take_text_frames(data: bytes, max_bytes: int) -> tuple[list[bytes], int]:
    """Return the payloads of the frames at the beginning of `data`, and the position of the rest.

    A frame is taken if it is text, whole, masked, not fragmented, not empty, in UTF-8, with a length that is
    minimally encoded and at most `max_bytes` and 65,535. The first other frame ends it.
    """
    payloads: list[bytes] = []
    position = 0
    # A header has at least two bytes, and its mask four.
    last = len(data) - 6
    while position < last and data[position] == _WHOLE_TEXT:
        size = data[position + 1] - _MASKED
        start = position + 6
        if size > 125:
            if size == 127 or position + 8 > len(data):
                break
            size = data[position + 2] << 8 | data[position + 3]
            start = position + 8
            if size < 126 or size > max_bytes:
                break
        stop = start + size
        if size <= 0 or stop > len(data):
            break
        mask = (data[start - 4 : start] * (size + 3 >> 2))[:size]
        payload = (_from_bytes(data[start:stop], "little") ^ _from_bytes(mask, "little")).to_bytes(
            size, "little"
        )
        if not payload.isascii() and not _is_utf8(payload):
            break
        payloads.append(payload)
        position = stop
    return payloads, position


def _is_utf8(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True
