"""A real Celery worker is killed in the middle of a load, and another one finishes the build."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from celery import Celery
from django.conf import settings
from django.db import connection
from django.utils import timezone

from indexes import builds, valkey
from indexes.models import IndexBuild
from indexes.naming import ROW_FIELD, VECTOR_FIELD
from tests.indexes.containers import Container, answer
from tests.indexes.counted import ENDPOINT, Counted

ROWS = 1500
FIELDS = [{"name": "title", "type": "text"}, {"name": "price", "type": "numeric"}]
# The first shard has 500 rows: the worker is in the middle of the second one then.
HELD_AFTER = 900
PATIENCE_S = 90.0


def until(told: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not told():
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.05)


def content() -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]], dict[int, str]]:
    """Return the rows, the items they make, and the reasons of those that make none."""
    rows: list[dict[str, Any]] = [
        {"id": f"p{n}", "title": f"product {n}", "price": n} for n in range(1, ROWS + 1)
    ]
    bad = {100: "missing_id", 700: "bad_numeric", 701: "duplicate_id", 1400: "duplicate_id"}
    del rows[99]["id"]
    rows[699]["price"] = "cheap"
    rows[700]["id"] = "p7"
    rows[1399]["id"] = "p1399"
    items = {row["id"]: row for number, row in enumerate(rows, 1) if number not in bad}
    return rows, items, bad


@contextmanager
def worker(namespace: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A worker as operations start it, on the database and the names of the test."""
    address = urlsplit(os.environ["DATABASE_URL"])
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "recplatform.settings",
        "DATABASE_URL": address._replace(path=f"/{connection.settings_dict['NAME']}").geturl(),
        "VALKEY_NAMESPACE": namespace,
    }
    command = ("celery", "-A", "recplatform", "worker", "--concurrency", "1", "--loglevel", "INFO")
    with (folder / "worker.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            env=environment,
            cwd=settings.BASE_DIR,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """End the worker and its children at once, without a chance to tidy up."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture
def held() -> Iterator[threading.Event]:
    """Set: the model answers again."""
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_a_killed_worker_loses_and_doubles_nothing(
    new_definition, namespace: str, container: Container, held: threading.Event, tmp_path: Path
):
    def hold(texts: list[str]) -> None:
        if len(model.texts) >= HELD_AFTER:
            held.wait(PATIENCE_S)

    model = Counted(container, hold)
    rows, items, bad = content()
    definition = new_definition(rows, endpoint=ENDPOINT, fields=FIELDS, text_template="{title}")
    build = builds.start(definition, enqueue=False)
    broker = Celery(set_as_current=False)
    # Celery reads a variable CELERY_BROKER_URL past "broker_url".
    url = settings.CELERY_BROKER_URL
    broker.conf.update(broker_read_url=url, broker_write_url=url)
    broker.conf.broker_transport_options = {"global_keyprefix": f"{namespace}:celery:"}

    with worker(namespace, tmp_path) as first:
        broker.send_task("indexes.tasks.run_build", (build.pk,))
        # Some of the second shard is written and nothing of it committed.
        until(lambda: written(build) > 500 and cursor(build) > 0, "the middle of the load")
        until(lambda: len(model.texts) >= HELD_AFTER, "the pause of the model")
        kill(first)
    build.refresh_from_db()
    assert build.status == IndexBuild.Status.LOADING
    assert 0 < build.cursor < ROWS
    assert build.written < written(build) < len(items)

    held.set()
    container.respond = model._answer
    past = timezone.now() - timedelta(seconds=1)
    IndexBuild.objects.filter(pk=build.pk).update(lease_until=past)
    with worker(namespace, tmp_path):
        # What the scheduler sends, and the killed worker's message once more.
        broker.send_task("indexes.tasks.resume_stalled_builds")
        broker.send_task("indexes.tasks.run_build", (build.pk,))
        until(lambda: not fresh(build).is_running, "the end of the build")
    build.refresh_from_db()
    assert build.status == IndexBuild.Status.LIVE, (build.error, build.notice)
    assert (build.cursor, build.written, build.indexed) == (ROWS, len(items), len(items))
    assert (build.embedded, build.reused, build.given) == (len(items), 0, 0)
    assert build.rejected == len(bad) == sum(build.rejected_reasons.values())
    assert dict(build.rejected_rows.values_list("row", "reason")) == bad
    assert valkey.index_info(build.index_name).num_docs == len(items)
    assert contents(build) == {
        item_id: (row["title"], row["price"]) for item_id, row in items.items()
    }
    check_vectors(build, model, items)
    container.respond = lambda call: answer([])
    broker.close()


def fresh(build: IndexBuild) -> IndexBuild:
    return IndexBuild.objects.get(pk=build.pk)


def cursor(build: IndexBuild) -> int:
    return fresh(build).cursor


def written(build: IndexBuild) -> int:
    return sum(1 for _ in valkey.writer().scan_iter(match=f"{build.key_prefix}*", count=1000))


def contents(build: IndexBuild) -> dict[str, tuple[str, float]]:
    """Return what the engine holds under the build's prefix: title and price by id."""
    keys = list(valkey.writer().scan_iter(match=f"{build.key_prefix}*", count=1000))
    found = valkey.hash_fields(keys, ["title", "price", ROW_FIELD], fresh=True)
    return {
        key.decode().removeprefix(build.key_prefix): (str(title, "utf-8"), float(price))
        for key, (title, price, _) in zip(keys, found, strict=True)
        if title is not None and price is not None
    }


def check_vectors(build: IndexBuild, model: Counted, items: dict[str, dict[str, Any]]) -> None:
    """Check of some items that the vector is that of their text."""
    ids = list(items)[::50]
    keys = [build.key_prefix + item_id for item_id in ids]
    for item_id, [raw] in zip(ids, valkey.hash_fields(keys, [VECTOR_FIELD]), strict=True):
        wanted = np.array(model.vector(items[item_id]["title"]))
        assert raw is not None
        np.testing.assert_allclose(
            np.frombuffer(raw, "<f4"), wanted / np.linalg.norm(wanted), rtol=1e-5
        )
