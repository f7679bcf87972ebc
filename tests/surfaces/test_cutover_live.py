"""Promote, roll back and canary under continuous calls, through the web server's own processes."""

from __future__ import annotations

import http.client
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from indexes import builds, cutover
from indexes.models import EmbeddingEndpoint, IndexBuild, IndexDefinition
from recplatform.devstack.demo import WEB
from recplatform.devstack.model import SHORT_DIMENSION
from recplatform.devstack.model_server import SHORT_ENDPOINT_NAME
from recplatform.devstack.ports import HOST, free_port, http_status
from recplatform.devstack.process import Children, wait_until
from surfaces import keys, publishing
from surfaces.buckets import bucket
from surfaces.models import Surface
from tests.fixtures_indexes import PRODUCTS

ROOT = Path(__file__).resolve().parents[2]
# What is documented is a second; the rest is for a machine that does much else.
PROPAGATION_S = 2.0
# Between two moves, so that what each leads to is seen settled too.
SETTLED_S = 0.7
CALLERS = 4
SESSIONS = 80
LIMIT = 5


@dataclass(frozen=True)
class Answer:
    """One call: when it was, who asked, and what came back."""

    began: float
    ended: float
    session: str
    status: int
    body: Mapping[str, Any]


@dataclass(frozen=True)
class Pointers:
    """What was live, and which canary had which share, from one moment on."""

    since: float
    live: str
    canary: str | None = None
    percent: int = 0


@dataclass
class History:
    """Every move of the pointers: with the moment before it, and the moment after it was committed."""

    states: list[Pointers] = field(default_factory=list)
    committed: list[float] = field(default_factory=list)

    def move(self, act: Callable[[], object], definition: IndexDefinition) -> None:
        before = time.monotonic()
        act()
        after = time.monotonic()
        definition.refresh_from_db()
        live, canary = definition.live_build, definition.canary_build
        assert live is not None
        percent = definition.canary_percent
        self.states.append(Pointers(before, live.label, canary.label if canary else None, percent))
        self.committed.append(after)
        time.sleep(PROPAGATION_S + SETTLED_S)

    def served_at(self, answer: Answer) -> list[Pointers]:
        """The states that a process may have been in while it answered."""
        ends = [moment + PROPAGATION_S for moment in self.committed[1:]]
        return [
            state
            for state, end in zip(self.states, [*ends, float("inf")], strict=True)
            if state.since <= answer.ended and answer.began <= end
        ]


@pytest.fixture
def web(tmp_path: Path, namespace: str, new_definition: object) -> Iterator[int]:
    """Two processes of the web server, which cannot reach the database; the port of both."""
    port = free_port()
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "recplatform.settings",
        "VALKEY_NAMESPACE": namespace,
        "DATABASE_URL": "postgres://nobody@127.0.0.1:1/none",
        "WEB_CONCURRENCY": "2",
        "OPENBLAS_NUM_THREADS": "1",
        "SECRET_KEY": "of-the-test",
        "ALLOWED_HOSTS": HOST,
        "LOG_LEVEL": "WARNING",
    }
    children = Children(tmp_path)
    command = [sys.executable, "-m", *WEB, "--bind", f"{HOST}:{port}"]
    child = children.spawn("web", command, env=environment, cwd=ROOT)
    try:
        wait_until(child, lambda: http_status(port, "/healthz") == 200)
        yield port
    finally:
        children.stop()


@contextmanager
def calling(port: int, key: str) -> Iterator[list[Answer]]:
    """Ask the surface from several threads, each call on a connection of its own, until the end."""
    answers: list[Answer] = []
    errors: list[BaseException] = []
    over = threading.Event()

    def call(number: int) -> None:
        try:
            while not over.is_set():
                number = (number + CALLERS) % SESSIONS
                answers.append(ask(port, key, f"session-{number}"))
        except BaseException as error:  # noqa: BLE001  (shown in the main thread)
            errors.append(error)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(CALLERS)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        over.set()
        for thread in threads:
            thread.join(30)
    assert errors == []


def ask(port: int, key: str, session: str) -> Answer:
    began = time.monotonic()
    connection = http.client.HTTPConnection(HOST, port, timeout=30)
    try:
        connection.request(
            "POST",
            "/api/v1/surfaces/shelf/recommendations",
            json.dumps({"query": "running shoes", "session_id": session}),
            {"Authorization": f"Api-Key {key}", "Content-Type": "application/json"},
        )
        response = connection.getresponse()
        body = json.loads(response.read())
    finally:
        connection.close()
    return Answer(began, time.monotonic(), session, response.status, body)


def build(definition: IndexDefinition, rows: Path) -> IndexBuild:
    """Build the rows and leave the build ready."""
    definition.source.uri = str(rows)
    definition.source.save()
    started = builds.start(definition, enqueue=False)
    builds.run_to_end(started.pk)
    started.refresh_from_db()
    assert started.status == IndexBuild.Status.READY, started.error
    # What its gates think of so small a catalog is not the question here.
    IndexBuild.objects.filter(pk=started.pk).update(verdict=IndexBuild.Verdict.PASSED)
    return started


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_every_move_is_served_without_a_gap(web, new_definition, catalog_file, endpoint_spec):
    definition = new_definition(PRODUCTS, promotion=IndexDefinition.Promotion.MANUAL)
    # The ids tell which build an item is from.
    catalogs = {
        f"products-v{n}": catalog_file([{**row, "id": f"v{n}-{row['id']}"} for row in PRODUCTS])
        for n in (1, 2, 3)
    }
    first = build(definition, catalogs["products-v1"])
    second = build(definition, catalogs["products-v2"])
    definition.endpoint = EmbeddingEndpoint.objects.create(
        slug="short", endpoint_name=SHORT_ENDPOINT_NAME, dimension=SHORT_DIMENSION
    )
    definition.save()
    third = build(definition, catalogs["products-v3"])
    assert third.fingerprint != second.fingerprint

    cutover.promote(first)
    surface = Surface.objects.create(
        slug="shelf",
        name="Shelf",
        index=definition,
        fields=["title", "price"],
        browse_field="rating",
        limit=LIMIT,
        deadline_ms=10_000,
    )
    publishing.publish(surface)
    _, key = keys.issue("shop")
    until = time.monotonic() + 20
    while ask(web, key, "s").status != 200 or ask(web, key, "s").body["fallback"]:
        assert time.monotonic() < until
        time.sleep(0.1)
    time.sleep(PROPAGATION_S)

    now = time.monotonic()
    history = History([Pointers(now, first.label)], [now - PROPAGATION_S])
    with calling(web, key) as answers:
        time.sleep(SETTLED_S)
        for act in (
            lambda: cutover.promote(second),
            lambda: cutover.roll_back(definition),
            lambda: cutover.start_canary(second, 30),
            lambda: cutover.start_canary(second, 60),
            # The canary is older: it ends, and its build is retired while calls are on it.
            lambda: cutover.promote(third),
            lambda: cutover.roll_back(definition),
            lambda: cutover.start_canary(third, 30),
            lambda: cutover.promote(third),
        ):
            history.move(act, definition)

    assert {state.live for state in history.states} == set(catalogs)
    assert len(answers) > 100
    for answer in answers:
        check(answer, history)
    for number, state in enumerate(history.states):
        check_sessions(settled(answers, history, number), state)


def check(answer: Answer, history: History) -> None:
    """No error, no fallback, not empty, and from a build that had its part of the traffic then."""
    body = answer.body
    assert answer.status == 200, body
    assert (body["fallback"], body["degraded"]) == (None, []), body
    label, variant = body["build"], body["variant"]
    assert len(body["items"]) == LIMIT
    assert {item["id"].partition("-")[0] for item in body["items"]} == {label.rpartition("-")[2]}
    states = history.served_at(answer)
    named = [state.live if variant is None else state.canary for state in states]
    assert label in named, (label, variant, states)


def settled(answers: list[Answer], history: History, number: int) -> list[Answer]:
    """The answers while every process must have been in one state."""
    begin = history.committed[number] + PROPAGATION_S
    later = history.states[number + 1 :]
    end = later[0].since if later else float("inf")
    return [answer for answer in answers if begin < answer.began and answer.ended < end]


def check_sessions(answers: list[Answer], state: Pointers) -> None:
    """Each session is where its bucket says, so it stays there and the share is as asked.

    On a busy machine no answer may have come between two moves: then there is nothing to check.
    """
    for answer in answers:
        number = bucket(f"canary:{state.canary}", answer.session)
        expected = "canary" if number < state.percent / 100 else None
        assert answer.body["variant"] == expected
