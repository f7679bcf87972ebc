"""Prometheus metrics of serving.

With PROMETHEUS_MULTIPROC_DIR set, each process writes its values to files there
and a scrape of any of them gives the sum; without it a scrape gives one process.
"""

import math
import os
import time
from collections.abc import Mapping

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

from surfaces.contracts import RecommendResponse

# Around the deadlines that surfaces have: 100 ms by default, rarely above a second.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 10)
# A thousand new texts are embedded in seconds.
ITEM_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20)
# Timings that are no stage.
NOT_STAGES = {"total"}

REQUESTS = Counter(
    "recplatform_requests",
    "Questions to surfaces, by how they ended; the variant is empty but for a canary's.",
    ["surface", "variant", "outcome"],
)
REQUEST_SECONDS = Histogram(
    "recplatform_request_seconds",
    "Time from parsing to the answer, of questions that were answered.",
    ["surface", "variant"],
    buckets=BUCKETS,
)
STAGE_SECONDS = Histogram(
    "recplatform_stage_seconds", "Time spent in a stage.", ["surface", "stage"], buckets=BUCKETS
)
DEGRADED = Counter(
    "recplatform_degraded",
    "Stages that failed or were skipped in an answer.",
    ["surface", "stage", "reason"],
)
FALLBACKS = Counter(
    "recplatform_fallbacks",
    "Answers that a fallback gave.",
    ["surface", "variant", "level", "reason"],
)
ITEM_CALLS = Counter(
    "recplatform_item_calls", "Calls that change items, by how they ended.", ["index", "outcome"]
)
ITEM_CALL_SECONDS = Histogram(
    "recplatform_item_call_seconds",
    "Time of calls that change items and were answered.",
    ["index"],
    buckets=ITEM_BUCKETS,
)
ITEMS = Counter(
    "recplatform_items",
    "Items of calls that change them, by what became of them.",
    ["index", "result"],
)
PLANS_VERSION = Gauge(
    "recplatform_plans_version",
    "Version of what is published that this process serves; of several processes the oldest.",
    multiprocess_mode="livemin",
)
PLANS_CHECKED = Gauge(
    "recplatform_plans_checked_timestamp_seconds",
    "When this process last saw that its plans are current; of several processes the oldest.",
    multiprocess_mode="livemin",
)


def observe(
    surface: str, outcome: str, seconds: float, response: RecommendResponse | None = None
) -> None:
    """Count one question and how it went; a surface that is not published is counted as ``""``."""
    variant = (response.variant if response is not None else None) or ""
    REQUESTS.labels(surface, variant, outcome).inc()
    if response is None:
        return
    REQUEST_SECONDS.labels(surface, variant).observe(seconds)
    for stage, ms in response.timings_ms.items():
        if stage not in NOT_STAGES:
            STAGE_SECONDS.labels(surface, stage).observe(ms / 1000)
    for degraded in response.degraded:
        DEGRADED.labels(surface, degraded.stage, degraded.reason).inc()
    if response.fallback is not None:
        fallback = response.fallback
        FALLBACKS.labels(surface, variant, fallback.level, fallback.reason).inc()


def observe_items(index: str, outcome: str, seconds: float, counts: Mapping[str, int]) -> None:
    """Count one call that changes items, and the items; an index that is none is counted as ``""``."""
    ITEM_CALLS.labels(index, outcome).inc()
    if outcome != "ok":
        return
    ITEM_CALL_SECONDS.labels(index).observe(seconds)
    for result, items in counts.items():
        ITEMS.labels(index, result).inc(items)


def plans_checked(version: int, age_s: float = 0.0) -> None:
    """Note the version this process serves and how long ago it was seen to be current (inf: never)."""
    PLANS_VERSION.set(version)
    if math.isfinite(age_s):
        PLANS_CHECKED.set(time.time() - age_s)


def exposition() -> tuple[bytes, str]:
    """Return the metrics in Prometheus's text format, and its content type."""
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        gathered = CollectorRegistry()
        MultiProcessCollector(gathered)  # type: ignore[no-untyped-call]  # the library leaves it untyped
        return generate_latest(gathered), CONTENT_TYPE_LATEST
    return generate_latest(REGISTRY), CONTENT_TYPE_LATEST
