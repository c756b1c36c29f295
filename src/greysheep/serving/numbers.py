"""What Prometheus reads: requests and their seconds, and lists by user group."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable with the folder in which the numbers of several processes meet."""


class Numbers:
    """The counters of one application."""

    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()
        self.requests = Counter(
            "greysheep_requests_total", "Requests by route and status.", ["route", "status"], registry=own
        )
        self.seconds = Histogram(
            "greysheep_request_seconds", "Seconds of a request.", ["route"], buckets=SECONDS, registry=own
        )
        self.lists = Histogram(
            "greysheep_list_seconds",
            "Seconds of the request that a list was made for, by the user's group.",
            ["group"],
            buckets=SECONDS,
            registry=own,
        )
        self.swaps = Gauge(
            "greysheep_swaps",
            "Times that another version took its place.",
            multiprocess_mode="sum",
            registry=own,
        )

    def count(self, route: str, status: int, seconds: float, groups: Sequence[str | None]) -> None:
        """Count one request, and the lists in its reply."""
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)
        for group in groups:
            self.lists.labels(group or "unknown").observe(seconds)

    def text(self) -> bytes:
        """All numbers in Prometheus' format, those of the other workers with them."""
        if SHARED not in os.environ:
            return generate_latest(self.registry)
        every: Any = CollectorRegistry()
        MultiProcessCollector(every)  # type: ignore[no-untyped-call]
        return generate_latest(every)
