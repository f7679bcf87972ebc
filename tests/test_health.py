import threading
import time
from dataclasses import dataclass, field

import orjson
import pytest
from django.test import Client

from recplatform.health import CHECK_TIMEOUT_S, CHECKS, readiness
from tests.surfaces.api.conftest import Api, publish_snapshot, surface


@dataclass
class Plans:
    loaded: bool = True
    version: int = 12
    age: float = 0.1
    problems: dict[str, str] = field(default_factory=dict)


def fine() -> None:
    return None


def down() -> None:
    raise ConnectionRefusedError("connection refused")


def test_with_every_store_up_the_process_is_ready():
    state = readiness(Plans(), {"database": fine, "search_module": lambda: "search 1.2"})

    assert state.ready
    assert state.body["status"] == "ready"
    assert state.body["degraded"] == []
    assert state.body["plans"] == {"loaded": True, "version": 12, "age_s": 0.1, "problems": {}}
    assert state.body["checks"]["database"]["ok"]
    assert state.body["checks"]["search_module"]["is"] == "search 1.2"


def test_with_plans_loaded_a_lost_store_leaves_the_process_ready():
    state = readiness(Plans(), {"database": down, "valkey": down, "search_module": fine})

    assert state.ready
    assert state.body["degraded"] == ["database", "valkey"]
    assert state.body["checks"]["database"]["error"] == "connection refused"


def test_without_plans_the_process_is_not_ready_whatever_is_up():
    state = readiness(Plans(loaded=False, version=-1, age=float("inf")), {"database": fine})

    assert not state.ready
    assert state.body["status"] == "not_ready"
    assert state.body["plans"]["version"] is None
    assert state.body["plans"]["age_s"] is None


def test_a_store_that_hangs_does_not_hang_the_probe():
    release = threading.Event()
    started = time.monotonic()

    state = readiness(Plans(), {"database": lambda: release.wait(20), "valkey": fine})

    release.set()
    assert time.monotonic() - started < CHECK_TIMEOUT_S + 2
    assert state.body["degraded"] == ["database"]
    assert "no answer" in state.body["checks"]["database"]["error"]


def test_the_process_is_alive_without_any_check():
    response = Client().get("/healthz")

    assert response.status_code == 200
    assert orjson.loads(response.content) == {"status": "alive"}


@pytest.mark.django_db
def test_the_real_stores_are_ready():
    publish_snapshot(surface())

    response = Client().get("/readyz")

    body = orjson.loads(response.content)
    assert response.status_code == 200, body
    assert body["degraded"] == []
    assert body["checks"].keys() == CHECKS.keys()
    assert body["checks"]["search_module"]["is"].split()[0] in ("redisearch", "valkey-search")
    assert body["plans"]["version"] > 0


@pytest.mark.django_db
def test_a_database_that_refuses_is_named(settings, monkeypatch):
    from django.db import connection

    monkeypatch.setitem(connection.settings_dict, "NAME", "no-such-database")

    state = readiness(Plans(), {"database": CHECKS["database"]})

    assert state.body["degraded"] == ["database"]
    assert "no-such-database" in state.body["checks"]["database"]["error"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
@pytest.mark.django_db
def test_probes_come_by_any_host_and_without_https(settings, path: str):
    settings.ALLOWED_HOSTS = ["shop.example"]
    settings.SECURE_SSL_REDIRECT = True

    response = Client().get(path, headers={"Host": "10.1.2.3:8000"})

    assert response.status_code in (200, 503)
    assert "Location" not in response


def test_calls_show_in_the_metrics(namespace: str):
    publish_snapshot(surface(namespace))
    Api().post(namespace, {})
    Api(key="wrong").post(namespace, {})

    response = Client().get("/metrics")

    assert response["Content-Type"].startswith("text/plain")
    text = response.content.decode()
    line = f'recplatform_requests_total{{outcome="fallback",surface="{namespace}",variant=""}} 1.0'
    assert line in text
    assert 'recplatform_requests_total{outcome="invalid_key",surface="",variant=""}' in text
