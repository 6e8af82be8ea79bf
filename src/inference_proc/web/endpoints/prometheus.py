"""`GET /metrics`: what Prometheus scrapes, read from shared memory at the moment of the scrape.

All lanes stand in the control segment, so one scrape of any server process shows the whole instance: scrape one of
them, not each. The package prometheus_client is optional; without it the endpoint says so and everything else works.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ....shared.memory.control import Control
from ....shared.telemetry.metric_families import FAMILIES, Family
from ....shared.telemetry.snapshot import Snapshot
from ..json_response import problem

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric


MISSING = "metrics need the package prometheus_client: pip install 'tandem-learning[metrics]'"


class SharedMemoryCollector:
    """Gives prometheus_client the metrics of one instance."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def collect(self) -> Iterator[Metric]:
        """Every family with its samples of this moment."""
        snapshot = Snapshot(self._control)
        for family in FAMILIES:
            yield _metric(family, snapshot)

    def describe(self) -> list[Metric]:
        """Nothing: registering must not read shared memory."""
        return []


def _metric(family: Family, snapshot: Snapshot) -> Metric:
    from prometheus_client import core

    kinds: dict[str, Any] = {
        "counter": core.CounterMetricFamily,
        "gauge": core.GaugeMetricFamily,
        "histogram": core.HistogramMetricFamily,
        "info": core.InfoMetricFamily,
    }
    if family.kind == "info":
        metric = kinds["info"](family.name, family.help)
        for values, _ in family.read(snapshot):
            metric.add_metric((), dict(zip(family.labels, values, strict=True)))
        return metric  # type: ignore[no-any-return]
    metric = kinds[family.kind](family.name, family.help, labels=family.labels)
    for values, value in family.read(snapshot):
        if family.kind == "histogram":
            scale, counts, total = value
            bounds = [*(repr(bound) for bound in scale.bounds), "+Inf"]
            metric.add_metric(values, list(zip(bounds, itertools.accumulate(counts), strict=True)), total)
        else:
            metric.add_metric(values, value)
    return metric  # type: ignore[no-any-return]


def build_registry(control: Control) -> CollectorRegistry:
    """A registry of our own, so that an embedding server's default one stays as it is. Raises ImportError."""
    from prometheus_client import CollectorRegistry

    registry = CollectorRegistry()
    registry.register(SharedMemoryCollector(control))
    return registry


class Prometheus:
    """The endpoint on one instance."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._registry: CollectorRegistry | None = None

    def routes(self) -> list[Route]:
        """All routes of this module."""
        return [Route("/metrics", self.metrics)]

    async def metrics(self, request: Request) -> Response:
        """All metrics in the format that the client accepts; 501 if prometheus_client is not installed."""
        try:
            from prometheus_client.exposition import choose_encoder

            if self._registry is None:
                self._registry = build_registry(self._control)
        except ImportError:
            return problem(501, MISSING)
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        # Some milliseconds of Python: beside the event loop, so that decisions go on in between.
        text = await asyncio.to_thread(encode, self._registry)
        return Response(text, headers={"content-type": content_type, "cache-control": "no-store"})
