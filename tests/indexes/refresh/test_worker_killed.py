"""A real Celery worker is killed in the middle of a refresh, and another one finishes it."""

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from django.conf import settings
from django.utils import timezone

from indexes import builds, refresh, valkey
from indexes.models import IndexRefresh
from tests.indexes.containers import Container, answer
from tests.indexes.counted import ENDPOINT, Counted
from tests.indexes.refresh.sources import counters, rewrite
from tests.indexes.test_worker_killed import (
    FIELDS,
    PATIENCE_S,
    check_vectors,
    contents,
    kill,
    until,
    worker,
)

ROWS = 1500
# Of the second shard: the first has 500 rows.
HELD_AFTER = 700


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_a_killed_worker_loses_and_doubles_nothing(
    new_definition, namespace: str, container: Container, tmp_path: Path
):
    going_on = threading.Event()
    going_on.set()

    def hold(texts: list[str]) -> None:
        if len(model.texts) >= HELD_AFTER:
            going_on.wait(PATIENCE_S)

    model = Counted(container, hold)
    rows: list[dict[str, Any]] = [
        {"id": f"p{n}", "title": f"product {n}", "price": n} for n in range(1, ROWS + 1)
    ]
    definition = new_definition(rows, endpoint=ENDPOINT, fields=FIELDS, text_template="{title}")
    builds.run_to_end(builds.start(definition, enqueue=False).pk)
    definition.refresh_from_db()
    build = definition.live_build
    assert build is not None

    # A hundred go, a hundred come, and of the others all but every tenth change.
    rows = [*rows[100:], *({"id": f"n{n}", "title": f"new {n}", "price": n} for n in range(100))]
    changed = [row for number, row in enumerate(rows) if number % 10 or row["id"][0] == "n"]
    for row in changed:
        row["title"] = f"Changed {row['title']}"
    rewrite(definition, rows)
    model.texts.clear()
    going_on.clear()
    started = refresh.start(definition, enqueue=False)
    broker = Celery()
    # Not its argument, which a variable of the environment would win over.
    address = settings.CELERY_BROKER_URL
    broker.conf.update(broker_read_url=address, broker_write_url=address)
    broker.conf.broker_transport_options = {"global_keyprefix": f"{namespace}:celery:"}
    try:
        with worker(namespace, tmp_path) as first:
            broker.send_task("indexes.tasks.run_refresh", (started.pk,))
            until(lambda: len(model.texts) >= HELD_AFTER, "the middle of the refresh")
            kill(first)
        started.refresh_from_db()
        assert (started.status, started.cursor) == (IndexRefresh.Status.READING, 500)
        going_on.set()
        past = timezone.now() - timedelta(seconds=1)
        IndexRefresh.objects.filter(pk=started.pk).update(lease_until=past)
        with worker(namespace, tmp_path):
            # What the scheduler sends, and the killed worker's message once more.
            broker.send_task("indexes.tasks.resume_stalled_refreshes")
            broker.send_task("indexes.tasks.run_refresh", (started.pk,))
            until(lambda: not running(started), "the end of the refresh")
    finally:
        going_on.set()
        container.respond = lambda call: answer([])
        broker.close()

    started.refresh_from_db()
    assert started.status == IndexRefresh.Status.DONE, started.error
    assert counters(started) == {
        "unchanged": ROWS - len(changed),
        "written": len(changed),
        "embedded": len(changed),
        "removed": 100,
    }
    assert contents(build) == {row["id"]: (row["title"], row["price"]) for row in rows}
    check_vectors(build, model, {row["id"]: row for row in rows})
    build.refresh_from_db()
    assert (build.written, build.indexed) == (ROWS, ROWS)
    assert valkey.index_info(build.index_name).num_docs == ROWS


def running(started: IndexRefresh) -> bool:
    return IndexRefresh.objects.get(pk=started.pk).is_running
