"""Requests for pages of history."""

from __future__ import annotations

from twisted.trial import unittest

from imd.client import effects, events
from tests.unit.client.support import Pipe


class HistoryTests(unittest.TestCase):
    def test_page(self) -> None:
        """Requests are sent when open, four at a time, and again after a broken connection."""
        pipe = Pipe()
        refs = [pipe.core.ask_history(with_="bob", before=f"m{n}") for n in range(5)]
        pipe.open()
        self.assertEqual([frame.get("ref") for frame in pipe.take()[1:]], refs[:4])
        pipe.lose()
        pipe.wait(1)
        pipe.open()
        self.assertEqual(
            pipe.take()[1], {"type": "history", "ref": refs[0], "limit": 50, "with": "bob"} | {"before": "m0"}
        )
        page = [{"id": "a", "userId": "bob", "msg": "hi", "sendTime": 3}]
        pipe.gets(type="history", ref=refs[0], messages=page, more=True)
        self.assertEqual([frame["ref"] for frame in pipe.take()], refs[4:])
        [answer] = [effect for effect in pipe.done if isinstance(effect, effects.Answer)]
        assert isinstance(answer.result, events.Page)
        self.assertEqual((answer.result.messages[0].msg, answer.result.more), ("hi", True))

    def test_refused_and_late(self) -> None:
        """A refusal is an answer; a request without an answer in time ends with Unanswered."""
        pipe = Pipe()
        pipe.open()
        refs = [pipe.core.ask_history(everything=True) for _ in range(3)]
        pipe.gets(type="error", ref=refs[0], code="invalid_message", reason="no", temporary=False)
        pipe.gets(type="error", ref=refs[1], code="unavailable", reason="down", temporary=True)
        pipe.take()
        pipe.wait(1)
        self.assertEqual([frame["ref"] for frame in pipe.take()], [refs[1]])
        pipe.wait(30)
        results = {e.ref: type(e.result) for e in pipe.done if isinstance(e, effects.Answer)}
        self.assertEqual([results[ref] for ref in refs], [events.Refused, *[events.Unanswered] * 2])
        self.assertRaises(ValueError, pipe.core.ask_history)
