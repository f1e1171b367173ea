"""A device's questions: each has an answer of its own, by its `ref`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

ANSWER_SECONDS = 15.0


class Questions:
    """The questions of a device on its present connection."""

    def __init__(self) -> None:
        self._number = 0
        self._open: dict[str, asyncio.Future[dict[str, Any]]] = {}

    async def ask(self, frame: dict[str, Any], send: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """The answer. Raises ConnectionError, also for an error, and TimeoutError."""
        self._number += 1
        ref = f"q{self._number}"
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._open[ref] = answer
        send({**frame, "ref": ref})
        async with asyncio.timeout(ANSWER_SECONDS):
            return await answer

    def answered(self, frame: dict[str, Any]) -> None:
        """A frame came that may be the answer to one of them."""
        question = self._open.pop(frame.get("ref", ""), None)
        if question is None or question.done():
            return
        if frame.get("type") == "error":
            question.set_exception(ConnectionError(frame["code"]))
        else:
            question.set_result(frame)

    def closed(self) -> None:
        """No answer comes any more."""
        for question in self._open.values():
            if not question.done():
                question.set_exception(ConnectionError("closed"))
        self._open.clear()
