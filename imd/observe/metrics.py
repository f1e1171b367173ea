"""Counters for the path of each message: adding to one takes no lock."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector


class Count:
    """One number of a Tally: add to `n`, in the reactor's thread only."""

    __slots__ = ("n",)

    def __init__(self) -> None:
        self.n = 0


class Tally(Collector):
    """A counter with one label. It is read when metrics are collected."""

    def __init__(self, name: str, documentation: str, label: str) -> None:
        self._name = name
        self._documentation = documentation
        self._label = label
        self._counts: dict[str, Count] = {}
        REGISTRY.register(self)

    def labels(self, value: str) -> Count:
        """The number for this value of the label."""
        count = self._counts.get(value)
        if count is None:
            count = self._counts[value] = Count()
        return count

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(self._name, self._documentation, labels=[self._label])
        for value, count in self._counts.items():
            family.add_metric([value], count.n)
        yield family
