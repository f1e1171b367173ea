"""A device that reads: marks what it has heard, mutes and pins, and keeps the version of its user's state."""

from __future__ import annotations

import random
import time
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any

from tests.tools.drill.history import Connection, Frame, StateChange, StateGot, key_of, values_of

if TYPE_CHECKING:
    from tests.tools.drill.client import Device

FEATURE = "state"
OF_A_MESSAGE = 0.4
"""frames of marks and settings for each thing that a device does"""
SETTINGS = 0.2
"""of these frames are settings"""
SEVERAL = 0.3
"""of the marks are in a frame with others"""
AN_OLD_ONE = 0.5
"""of the marks are below what may have been read already: they must change nothing"""
MAX_UNANSWERED = 6
CONVERSATIONS, LATELY = 12, 6
# A time far ahead, in ms: each such `muted` of a run is another one.
MUTED_UNTIL = 4 * 10**12
# The others are final: the frame is not sent again.
TEMPORARY = {"unavailable", "rate_limited"}
MAX_RESEND_SECONDS = 1.0


class Marking:
    """The reading of one device; without the feature it does nothing."""

    def __init__(self, device: Device) -> None:
        self.is_on = FEATURE in device.features
        self.version: int | None = None
        """of its user's state, as the device has it"""
        self.unanswered: dict[str, StateChange] = {}
        self._device = device
        self._rng = random.Random(f"{device.world.seed}/{device.name}/marks")
        self._heard: OrderedDict[str, tuple[dict[str, Any], deque[str]]] = OrderedDict()
        """by conversation, the latest last: its selector, and ids of others' messages"""
        self._again: list[tuple[float, str]] = []
        self._next = float("inf")
        self._number = 0

    # from the device

    def name_version(self, connection: Connection, frame: dict[str, Any]) -> None:
        """Put into a connect frame what belongs there. A `seed` device remembers no version."""
        connection.has_state = self.is_on
        if self.is_on and self._device.kind != "seed" and self.version is not None:
            connection.state_asked = frame["state"] = self.version

    def connected(self) -> None:
        """Send again all that is not answered."""
        self._again.clear()
        for ref in list(self.unanswered):
            self._write(ref)
        self._next = time.monotonic() + self._pause()

    def heard(self, frame: Frame) -> None:
        """A message of another came."""
        if not self.is_on:
            return
        selector = self._selector(frame)
        key = key_of(selector)
        _, ids = self._heard.setdefault(key, (selector, deque(maxlen=LATELY)))
        ids.append(frame["id"])
        self._heard.move_to_end(key)
        if len(self._heard) > CONVERSATIONS:
            self._heard.popitem(last=False)

    def tick(self, now: float, may_begin: bool) -> None:
        """Send what is due."""
        while self._again and self._again[0][0] <= now:
            self._write(self._again.pop(0)[1])
        if may_begin and now >= self._next:
            self._next = now + self._pause()
            if self._heard and len(self.unanswered) < MAX_UNANSWERED:
                self._do_something()

    def got(self, connection: Connection, now: float, frame: dict[str, Any]) -> None:
        """A frame of state came."""
        ref = frame.get("ref", "")
        entries = {key_of(entry): values_of(entry) for entry in frame["conversations"]}
        connection.states.append(StateGot(now, frame["version"], entries, frame.get("all", False), ref))
        self.version = frame["version"]
        change = self.unanswered.pop(ref, None)
        if change is not None:
            change.answered_at = now

    def refused(self, now: float, frame: dict[str, Any]) -> bool:
        """False: the error answers something else."""
        change = self.unanswered.get(frame["ref"])
        if change is None:
            return False
        if frame["code"] in TEMPORARY:
            delay = min(MAX_RESEND_SECONDS, frame.get("retryAfterMs", 200) / 1000)
            self._again.append((now + delay * self._rng.uniform(0.5, 1), change.ref))
            self._again.sort()
        else:
            del self.unanswered[change.ref]
            change.code = frame["code"]
        return True

    # from within

    def _pause(self) -> float:
        rate = self._device.rate * OF_A_MESSAGE
        return self._rng.expovariate(rate) if self.is_on and rate else float("inf")

    def _selector(self, frame: Frame) -> dict[str, Any]:
        if frame.get("room"):
            return {"room": frame["room"]}
        others = sorted({frame["userId"], *frame.get("group", ())} - {self._device.user})
        return {"group": others} if len(others) > 1 else {"with": others[0]}

    def _do_something(self) -> None:
        rng = self._rng
        found = list(self._heard.values())
        if rng.random() < SETTINGS:
            selector, _ = rng.choice(found)
            self._send({"type": "settings", **selector, **self._setting(selector)})
            return
        chosen = rng.sample(found, min(len(found), rng.randint(2, 4))) if rng.random() < SEVERAL else []
        marks = [{**selector, "upTo": self._place(ids)} for selector, ids in chosen]
        if len(marks) > 1:
            self._send({"type": "read", "marks": marks})
        else:
            selector, ids = rng.choice(found)
            self._send({"type": "read", **selector, "upTo": self._place(ids)})

    def _place(self, ids: deque[str]) -> str:
        return self._rng.choice(ids) if self._rng.random() < AN_OLD_ONE else max(ids)

    def _setting(self, selector: Frame) -> dict[str, Any]:
        # So few are pinned that the bound of 50 is not reached.
        if "group" not in selector and self._rng.random() < 0.5:
            return {"pinned": self._rng.random() < 0.5}
        changes = len(self._device.world.history.state_changes)
        return {"muted": MUTED_UNTIL + changes if self._rng.random() < 0.7 else False}

    def _send(self, frame: dict[str, Any]) -> None:
        self._number += 1
        ref = f"{self._device.name}-s{self._number}"
        change = StateChange(ref, self._device.user, self._device.name, {**frame, "ref": ref})
        self._device.world.history.state_changes[ref] = change
        self.unanswered[ref] = change
        self._write(ref)

    def _write(self, ref: str) -> None:
        change = self.unanswered.get(ref)
        if change is not None and self._device.live and self._device.wire is not None:
            change.sent.append(time.monotonic())
            self._device.wire.send(change.frame)
