import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from surfaces import metrics
from surfaces.contracts import Degraded, Fallback, RecommendResponse


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def answer(surface: str, **changes: object) -> RecommendResponse:
    return RecommendResponse.model_validate(
        {
            "request_id": "r",
            "surface": surface,
            "revision": 1,
            "build": None,
            "items": [],
            "timings_ms": {"total": 20.0, "embed": 12.0, "search": 0.4},
        }
        | changes
    )


def test_an_answer_is_counted_with_its_stages(namespace: str):
    metrics.observe(namespace, "ok", 0.02, answer(namespace))
    metrics.observe(namespace, "ok", 0.03, answer(namespace))

    assert value("recplatform_requests_total", surface=namespace, variant="", outcome="ok") == 2
    assert value("recplatform_request_seconds_sum", surface=namespace, variant="") == pytest.approx(
        0.05
    )
    assert value(
        "recplatform_stage_seconds_sum", surface=namespace, stage="embed"
    ) == pytest.approx(0.024)
    assert value("recplatform_stage_seconds_count", surface=namespace, stage="total") == 0


def test_what_was_left_out_and_what_stood_in_is_counted(namespace: str):
    response = answer(
        namespace,
        degraded=[Degraded(stage="enrichment:deals", reason="timeout", spent_ms=5)],
        fallback=Fallback(level="default_list", reason="embed:timeout"),
    )

    metrics.observe(namespace, "fallback", 0.1, response)

    assert (
        value(
            "recplatform_degraded_total",
            surface=namespace,
            stage="enrichment:deals",
            reason="timeout",
        )
        == 1
    )
    assert (
        value(
            "recplatform_fallbacks_total",
            surface=namespace,
            variant="",
            level="default_list",
            reason="embed:timeout",
        )
        == 1
    )


def test_a_canary_is_counted_apart(namespace: str):
    metrics.observe(namespace, "ok", 0.02, answer(namespace))
    fallback = Fallback(level="default_list", reason="search:timeout")
    canary = answer(namespace, variant="canary", fallback=fallback)
    metrics.observe(namespace, "fallback", 0.1, canary)

    requests, seconds = "recplatform_requests_total", "recplatform_request_seconds_sum"
    assert value(requests, surface=namespace, variant="", outcome="ok") == 1
    assert value(requests, surface=namespace, variant="canary", outcome="fallback") == 1
    assert value(seconds, surface=namespace, variant="") == pytest.approx(0.02)
    assert value(seconds, surface=namespace, variant="canary") == pytest.approx(0.1)
    labels = {"level": "default_list", "reason": "search:timeout"}
    fallbacks = "recplatform_fallbacks_total"
    assert value(fallbacks, surface=namespace, variant="canary", **labels) == 1


def test_a_refused_request_is_counted_and_not_timed(namespace: str):
    metrics.observe(namespace, "bad_request", 0.001)

    assert (
        value("recplatform_requests_total", surface=namespace, variant="", outcome="bad_request")
        == 1
    )
    assert value("recplatform_request_seconds_count", surface=namespace, variant="") == 0


def test_the_plans_version_and_age_are_told():
    metrics.plans_checked(41, age_s=30)

    assert value("recplatform_plans_version") == 41
    checked = value("recplatform_plans_checked_timestamp_seconds")
    assert time.time() - checked == pytest.approx(30, abs=5)


COUNT = """
import os
from surfaces import metrics
metrics.observe("shelf", "ok", 0.01)
metrics.plans_checked({version})
print(os.getpid())
"""
SCRAPE = """
from surfaces import metrics
metrics.plans_checked(3)
print(metrics.exposition()[0].decode())
"""
# What gunicorn's parent process does when a worker has ended.
FORGET = """
from types import SimpleNamespace
from recplatform.gunicorn import child_exit
child_exit(None, SimpleNamespace(pid={pid}))
"""


def test_several_processes_are_scraped_as_one(tmp_path: Path):
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}

    def run(code: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    older = run(COUNT.format(version=1))
    run(COUNT.format(version=2))
    both = run(SCRAPE)
    run(FORGET.format(pid=older.strip()))
    without_older = run(SCRAPE)

    line = 'recplatform_requests_total{outcome="ok",surface="shelf",variant=""} 2.0'
    assert line in both
    assert "recplatform_plans_version 1.0" in both
    assert line in without_older
    assert "recplatform_plans_version 2.0" in without_older
