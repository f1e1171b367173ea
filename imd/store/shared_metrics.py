"""Metrics that both backends count."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

OVERFLOWN = Counter(
    "imd_inbox_overflown_messages_total", "Messages that left a full inbox before every device had them."
)
OPENED = Counter(
    "imd_inbox_unopened_total",
    "Inboxes that began with a message: no device of their user had ever connected.",
)
FOREIGN = Counter(
    "imd_archive_foreign_total", "Documents passed over in pages of history: no node would have written them."
)
VISITORS_WAITING = Gauge("imd_desk_waiting_visitors", "Visitors that wait for an agent, on all nodes.")
APPLIED = Counter("imd_archive_events_total", "Events that were applied in the archive.", ["kind"])
WITHOUT_MESSAGE = Counter(
    "imd_archive_events_without_message_total", "Events whose message was not in the archive any more."
)
