"""Doors for probes and Prometheus: alive, ready, metrics.

They are answered before the other middleware, since probes come by an address
that is not an allowed host, and never over HTTPS.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

import orjson
from django.db import connection
from django.http import HttpRequest, HttpResponse, HttpResponseBase

from indexes import valkey
from indexes.errors import SearchUnavailable
from surfaces import metrics as serving_metrics
from surfaces.registry import registry

# A probe waits for all checks no longer than this.
CHECK_TIMEOUT_S = 1.0

Check = Callable[[], Any]

_threads = ThreadPoolExecutor(4, thread_name_prefix="health")


class Plans(Protocol):
    """What readiness asks of the registry."""

    @property
    def loaded(self) -> bool: ...

    @property
    def version(self) -> int: ...

    @property
    def age(self) -> float: ...

    @property
    def problems(self) -> Mapping[str, str]: ...


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether this process can serve, and the state of each thing it works with."""

    ready: bool
    body: dict[str, Any]


def alive(request: HttpRequest) -> HttpResponse:
    """``/healthz``: 200 while the process answers at all."""
    return _json({"status": "alive"})


def ready(request: HttpRequest) -> HttpResponse:
    """``/readyz``: 200 once plans are loaded, whatever store is down; else 503."""
    state = readiness(registry, CHECKS)
    return _json(state.body, 200 if state.ready else 503)


def metrics(request: HttpRequest) -> HttpResponse:
    """``/metrics`` in Prometheus's text format."""
    body, content_type = serving_metrics.exposition()
    return HttpResponse(body, content_type=content_type)


def readiness(plans: Plans, checks: Mapping[str, Check]) -> Readiness:
    """Run the checks side by side and say what they found. A failed check alone is ``degraded``.

    What is loaded is served without any store, so only the lack of plans is unreadiness.
    """
    started = perf_counter()
    running = {name: _threads.submit(_timed, check) for name, check in checks.items()}
    found = {name: _outcome(future, started) for name, future in running.items()}
    degraded = [name for name, outcome in found.items() if not outcome["ok"]]
    age = plans.age
    return Readiness(
        plans.loaded,
        {
            "status": "ready" if plans.loaded else "not_ready",
            "degraded": degraded,
            "plans": {
                "loaded": plans.loaded,
                "version": plans.version if plans.loaded else None,
                "age_s": round(age, 3) if age != float("inf") else None,
                "problems": dict(plans.problems),
            },
            "checks": found,
        },
    )


def _timed(check: Check) -> tuple[float, Any]:
    started = perf_counter()
    detail = check()
    return perf_counter() - started, detail


def _outcome(future: "Future[tuple[float, Any]]", started: float) -> dict[str, Any]:
    waited = max(0.0, CHECK_TIMEOUT_S - (perf_counter() - started))
    try:
        error: object = future.exception(waited)
    except TimeoutError:
        future.cancel()
        error = f"no answer in {CHECK_TIMEOUT_S:g} s"
    if error is not None:
        return {"ok": False, "error": str(error).strip()}
    seconds, detail = future.result()
    outcome = {"ok": True, "ms": round(seconds * 1000, 1)}
    return outcome if detail is None else {**outcome, "is": detail}


def check_database() -> None:
    """Ask PostgreSQL on a connection of its own, with limits that a hanging server cannot outlast."""
    own = connection.copy()
    own.settings_dict["OPTIONS"] = {
        **own.settings_dict["OPTIONS"],
        "connect_timeout": 1,
        "options": f"-c statement_timeout={CHECK_TIMEOUT_S * 1000:.0f}",
    }
    try:
        with own.cursor() as cursor:
            cursor.execute("SELECT 1")
    finally:
        own.close()


def check_valkey() -> None:
    """Ask Valkey."""
    if not valkey.ping(CHECK_TIMEOUT_S):
        raise SearchUnavailable("Valkey at VALKEY_URL does not answer.")


def check_search_module() -> str:
    """Ask Valkey for its search module and return the module's name and version."""
    facts = valkey.server_facts(CHECK_TIMEOUT_S)
    if facts.name is None:
        raise SearchUnavailable("Valkey has no search module: load valkey-search.")
    return f"{facts.name} {facts.version}"


CHECKS: Mapping[str, Check] = {
    "database": check_database,
    "valkey": check_valkey,
    "search_module": check_search_module,
}

DOORS: Mapping[str, Callable[[HttpRequest], HttpResponse]] = {
    "/healthz": alive,
    "/readyz": ready,
    "/metrics": metrics,
}


def middleware(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """Answer the doors before any other middleware sees the request."""

    def answer(request: HttpRequest) -> HttpResponseBase:
        door = DOORS.get(request.path_info)
        return get_response(request) if door is None else door(request)

    return answer


def _json(state: Mapping[str, Any], status: int = 200) -> HttpResponse:
    body = orjson.dumps(state)
    return HttpResponse(
        body,
        status=status,
        content_type="application/json",
        # The middleware that would add the length is not passed.
        headers={"Cache-Control": "no-store", "Content-Length": str(len(body))},
    )
