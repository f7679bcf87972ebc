import os
import threading
import time
from collections.abc import Iterable
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs

from indexes.errors import SearchTimeout, SearchUnavailable
from indexes.schema import FieldSpec, FieldType, LiveIndex
from indexes.valkey import VersionedDocument
from surfaces.document import Canary, DefaultItem, KeyScope, PublishedSurface, Snapshot
from surfaces.errors import SnapshotUnavailable
from surfaces.plan import Plan
from surfaces.registry import POLL_S, Registry
from tests.surfaces.builders import document, live_index, static


class FakeStore:
    """A versioned document in memory."""

    def __init__(self, snapshot: Snapshot | None = None) -> None:
        self.error: Exception | None = None
        self.reads = 0
        self.held: tuple[int, bytes] | None = None
        if snapshot is not None:
            self.put(snapshot)

    def put(self, snapshot: Snapshot) -> None:
        self.held = (snapshot.version, snapshot.model_dump_json().encode())

    def version(self) -> int | None:
        if self.error:
            raise self.error
        return self.held[0] if self.held else None

    def read(self) -> tuple[int, bytes] | None:
        self.reads += 1
        return self.held


def published(slug: str = "shelf", revision: int = 1, **changes: Any) -> PublishedSurface:
    return PublishedSurface(
        revision=revision,
        document=document(slug=slug, **changes),
        default_items=(DefaultItem(id="s1", fields={"title": "shoes"}),),
    )


def snapshot(
    version: int,
    *surfaces: PublishedSurface,
    index: LiveIndex | None = None,
    canary: Canary | None = None,
    **keys: KeyScope,
) -> Snapshot:
    return Snapshot(
        version=version,
        surfaces={one.document.slug: one for one in surfaces},
        indexes={"products": index or live_index()},
        canaries={"products": canary} if canary else {},
        keys=keys,
    )


def build(label: str, **changes: Any) -> LiveIndex:
    return live_index(**changes).model_copy(update={"label": label})


def builds_of(registry: Registry) -> dict[str, tuple[str | None, str | None]]:
    """By surface: the build of its plan, and that of its canary."""
    return {
        plan.slug: (plan.build, plan.canary.plan.build if plan.canary else None)
        for plan in registry.plans()
    }


def loaded(store: FakeStore, **options: Any) -> Registry:
    registry = Registry(store, **options)
    registry.refresh()
    return registry


def logged(logs: Any) -> list[str]:
    return [entry["event"] for entry in logs]


@pytest.fixture
def started():
    running: list[Registry] = []

    def start(store: FakeStore, **options: Any) -> Registry:
        registry = Registry(store, poll_s=0.01, **options)
        running.append(registry)
        registry.start()
        return registry

    yield start
    for registry in running:
        registry.stop()


def eventually(condition: Any) -> None:
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


@pytest.mark.unit
def test_gives_the_plans_and_keys_of_the_snapshot():
    store = FakeStore(snapshot(5, published(), d1=KeyScope(name="shop", surfaces=("shelf",))))
    registry = loaded(store)
    plan = registry.plan("shelf")
    assert plan is not None
    assert (plan.revision, plan.build) == (1, "products-v1")
    assert registry.scope("d1") == KeyScope(name="shop", surfaces=("shelf",))
    assert registry.plan("nosuch") is None
    assert registry.scope("nosuch") is None
    assert (registry.version, registry.loaded) == (5, True)
    assert [plan.slug for plan in registry.plans()] == ["shelf"]
    registry.stop()


@pytest.mark.unit
def test_loads_only_what_is_newer():
    store = FakeStore(snapshot(5, published()))
    registry = loaded(store)
    assert not registry.refresh()
    store.put(snapshot(4, published(revision=9)))
    assert not registry.refresh()
    assert store.reads == 1
    store.put(snapshot(6, published(revision=2)))
    assert registry.refresh()
    assert [plan.revision for plan in registry.plans()] == [2]


@pytest.mark.unit
def test_what_is_no_longer_published_is_gone():
    store = FakeStore(snapshot(1, published(), d1=KeyScope(name="shop")))
    registry = loaded(store)
    store.put(snapshot(2))
    registry.refresh()
    assert list(registry.plans()) == []
    assert registry.scope("d1") is None
    registry.stop()


@pytest.mark.unit
def test_keeps_what_it_has_while_the_store_fails_and_says_so_once():
    store = FakeStore(snapshot(1, published()))
    registry = loaded(store)
    with capture_logs() as logs:
        store.error = SearchUnavailable("down")
        for _ in range(5):
            registry.refresh()
        store.error = SearchTimeout("slow")
        for _ in range(5):
            registry.refresh()
        store.error = None
        for _ in range(5):
            registry.refresh()
    assert logged(logs) == ["plans not renewed", "plans not renewed", "plans renewed again"]
    assert [plan.slug for plan in registry.plans()] == ["shelf"]


@pytest.mark.unit
def test_keeps_what_it_has_when_the_store_is_emptied():
    store = FakeStore(snapshot(1, published()))
    registry = loaded(store)
    store.held = None
    registry.refresh()
    assert [plan.slug for plan in registry.plans()] == ["shelf"]


@pytest.mark.unit
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b'{"surfaces": 3}', b"\xff"])
def test_a_snapshot_that_cannot_be_read_changes_nothing(body):
    store = FakeStore(snapshot(1, published()))
    registry = loaded(store)
    store.held = (2, body)
    with capture_logs() as logs:
        registry.refresh()
        registry.refresh()
    assert logged(logs).count("plans not renewed") == 1
    assert store.reads == 2
    assert registry.version == 1
    store.put(snapshot(3, published(revision=3)))
    assert registry.refresh()
    assert [plan.revision for plan in registry.plans()] == [3]


@pytest.mark.unit
def test_a_surface_that_does_not_compile_keeps_its_last_good_plan():
    store = FakeStore(snapshot(1, published("good"), published("bad")))
    registry = loaded(store)
    store.put(
        snapshot(
            2, published("good", 2), published("bad", 2, filters=(static("nosuch", "x"),))
        )
    )  # fmt: skip
    with capture_logs() as logs:
        assert registry.refresh()
        store.put(
            snapshot(3, published("good", 3), published("bad", 2, filters=(static("nosuch", "x"),)))
        )
        assert registry.refresh()
    assert {plan.slug: plan.revision for plan in registry.plans()} == {"good": 3, "bad": 1}
    assert list(registry.problems) == ["bad"]
    assert logged(logs).count("surface not compiled") == 1
    store.put(snapshot(4, published("good", 3), published("bad", 3)))
    registry.refresh()
    assert registry.problems == {}
    assert {plan.slug: plan.revision for plan in registry.plans()} == {"good": 3, "bad": 3}


@pytest.mark.unit
def test_a_surface_that_never_compiled_serves_its_default_list():
    store = FakeStore(snapshot(1, published("bad", filters=(static("nosuch", "x"),))))
    [plan] = loaded(store).plans()
    assert plan.index is None
    assert plan.unavailable == "does_not_compile"
    assert [item.id for item in plan.published.default_items] == ["s1"]


@pytest.mark.unit
def test_a_surface_without_live_build_serves_its_default_list():
    store = FakeStore(snapshot(1, published(index="nosuch")))
    [plan] = loaded(store).plans()
    assert plan.unavailable == "no_live_build"


@pytest.mark.unit
def test_a_document_of_a_newer_release_takes_only_itself_down():
    store = FakeStore(snapshot(1, published("good"), published("odd")))
    registry = loaded(store)
    content = orjson.loads(snapshot(2, published("good", 2), published("odd", 2)).model_dump_json())
    content["surfaces"]["odd"]["document"]["fallback"] = "ask_an_oracle"
    content["surfaces"]["good"]["document"]["of_a_newer_release"] = 1
    content["keys"] = {"d1": {"name": "shop"}, "d2": 7}
    store.held = (2, orjson.dumps(content))
    assert registry.refresh()
    assert {plan.slug: plan.revision for plan in registry.plans()} == {"good": 2, "odd": 1}
    assert set(registry.problems) == {"surfaces.odd", "keys.d2"}
    assert registry.scope("d1") is not None
    registry.stop()


@pytest.mark.unit
@pytest.mark.parametrize("error", [None, SearchUnavailable("down")])
def test_a_cold_start_without_a_snapshot_asks_the_loader_once(error):
    store = FakeStore()
    store.error = error
    asked = []

    def loader() -> tuple[int, bytes]:
        asked.append(1)
        return 3, snapshot(3, published()).model_dump_json().encode()

    registry = loaded(store, loader=loader)
    registry.refresh()
    assert [plan.slug for plan in registry.plans()] == ["shelf"]
    assert registry.version == 3
    assert asked == [1]
    store.error = None
    store.put(snapshot(4, published(revision=2)))
    assert registry.refresh()


@pytest.mark.unit
def test_before_anything_is_loaded_it_says_so_and_goes_on_trying(started):
    store = FakeStore()
    store.error = SearchUnavailable("down")

    def loader() -> tuple[int, bytes]:
        raise SnapshotUnavailable("down too")

    registry = started(store, loader=loader)
    assert (registry.loaded, registry.plan("shelf"), registry.age) == (False, None, float("inf"))
    store.put(snapshot(1, published()))
    store.error = None
    eventually(lambda: registry.loaded)
    assert registry.plan("shelf") is not None


@pytest.mark.unit
def test_prepares_plans_before_they_serve_and_longer_before_the_first():
    store = FakeStore(snapshot(1, published()))
    registry = Registry(store)
    seen: list[tuple[list[str], int]] = []
    allowed: list[float] = []

    def prepare(plans: Iterable[Plan], *, timeout_s: float) -> None:
        seen.append(([plan.slug for plan in plans], registry.version))
        allowed.append(timeout_s)

    registry.prepare = prepare
    registry.refresh()
    store.put(snapshot(2, published(), published("row")))
    registry.refresh()
    assert seen == [(["shelf"], -1), (["shelf", "row"], 1)]
    first, later = allowed
    # With the wait for the next look, a publish is served within a second.
    assert later + POLL_S < 0.75
    assert later < first


@pytest.mark.unit
def test_tells_each_time_that_what_it_serves_is_current():
    told: list[int] = []
    store = FakeStore()
    registry = loaded(store, on_checked=told.append)
    assert told == []
    store.put(snapshot(3, published()))
    registry.refresh()
    registry.refresh()
    store.error = SearchUnavailable("down")
    registry.refresh()
    assert told == [3, 3]


@pytest.mark.unit
def test_watches_for_what_is_newer(started):
    store = FakeStore(snapshot(1, published()))
    registry = started(store)
    store.put(snapshot(2, published(revision=2)))
    eventually(lambda: registry.version == 2)
    assert registry.plan("shelf").revision == 2


@pytest.mark.unit
def test_survives_a_store_that_fails_and_comes_back(started):
    store = FakeStore(snapshot(1, published()))
    registry = started(store)
    store.error = SearchUnavailable("down")
    eventually(lambda: registry.age > 0.3)
    store.put(snapshot(2, published(revision=2)))
    store.error = None
    eventually(lambda: registry.version == 2)
    eventually(lambda: registry.age < 0.3)


@pytest.mark.unit
def test_a_fault_does_not_end_the_watch_and_is_logged_once(started):
    store = FakeStore(snapshot(1, published()))
    registry = started(store)
    looks = []

    class Faulty(Exception):
        """What nobody has thought of; its message differs each time."""

        def __init__(self) -> None:
            looks.append(1)
            super().__init__(len(looks))

    def fail(plans: Iterable[Plan], *, timeout_s: float) -> None:
        raise Faulty

    prepare, registry.prepare = registry.prepare, fail
    with capture_logs() as logs:
        store.put(snapshot(2, published(revision=2)))
        eventually(lambda: len(looks) > 3)
        assert registry.version == 1
        registry.prepare = prepare
        eventually(lambda: registry.version == 2)
    assert logged(logs) == ["plans not renewed", "plans loaded"]
    assert isinstance(logs[0]["exc_info"], Faulty)


@pytest.mark.unit
def test_one_thread_a_process_however_often_it_is_started(started):
    registry = started(FakeStore(snapshot(1, published())))
    before = threading.active_count()
    callers = [threading.Thread(target=registry.start) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    registry.start()
    assert threading.active_count() == before


@pytest.mark.unit
def test_starts_by_itself_when_asked():
    registry = Registry(FakeStore(snapshot(1, published())))
    assert registry.plan("shelf") is not None
    registry.stop()


@pytest.mark.unit
def test_a_forked_process_watches_for_itself(started):
    store = FakeStore(snapshot(1, published()))
    registry = started(store)
    child = os.fork()
    if not child:
        # Only _exit: pytest must not run on in here.
        code = 1
        try:
            store.put(snapshot(2, published(revision=2)))
            assert registry.plan("shelf") is not None
            eventually(lambda: registry.version == 2)
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


NEW_FIELDS = (FieldSpec(name="title", type=FieldType.TEXT, source="title"),)


@pytest.mark.unit
def test_a_canary_stands_beside_the_plan_and_is_made_ready_too():
    store = FakeStore(
        snapshot(1, published(), canary=Canary(percent=5, index=build("products-v2")))
    )
    registry = Registry(store)
    seen: list[str | None] = []
    registry.prepare = lambda plans, timeout_s: seen.extend(plan.build for plan in plans)
    registry.refresh()
    assert builds_of(registry) == {"shelf": ("products-v1", "products-v2")}
    assert seen == ["products-v1", "products-v2"]
    [plan] = registry.plans()
    assert plan.canary
    assert plan.canary.share == 0.05
    store.put(snapshot(2, published()))
    registry.refresh()
    assert builds_of(registry) == {"shelf": ("products-v1", None)}


@pytest.mark.unit
def test_a_canary_that_does_not_compile_leaves_live_to_answer():
    canary = Canary(percent=50, index=build("products-v2", fields=NEW_FIELDS))
    store = FakeStore(snapshot(1, published("fits", fields=("title",)), published(), canary=canary))
    with capture_logs() as logs:
        registry = loaded(store)
    assert builds_of(registry) == {
        "fits": ("products-v1", "products-v2"),
        "shelf": ("products-v1", None),
    }
    assert list(registry.problems) == ["shelf (canary)"]
    assert 'no field "price"' in registry.problems["shelf (canary)"]
    assert logged(logs).count("surface not compiled") == 1


@pytest.mark.unit
def test_a_canary_of_a_newer_release_takes_only_itself_down():
    store = FakeStore()
    content = orjson.loads(snapshot(1, published()).model_dump_json())
    content["canaries"] = {"products": {"percent": "most", "index": {}}}
    store.held = (1, orjson.dumps(content))
    registry = loaded(store)
    assert builds_of(registry) == {"shelf": ("products-v1", None)}
    assert list(registry.problems) == ["canaries.products"]


@pytest.mark.unit
def test_a_surface_whose_newest_revision_is_bad_moves_to_the_new_build():
    store = FakeStore(
        snapshot(1, published(), canary=Canary(percent=5, index=build("products-v2")))
    )
    registry = loaded(store)
    bad = published(revision=2, filters=(static("nosuch", "x"),))
    store.put(snapshot(2, bad, index=build("products-v2")))
    registry.refresh()
    assert [plan.revision for plan in registry.plans()] == [1]
    assert builds_of(registry) == {"shelf": ("products-v2", None)}


@pytest.mark.unit
def test_a_surface_that_does_not_fit_the_new_build_stays_on_the_old_one_without_canary():
    store = FakeStore(
        snapshot(1, published(), canary=Canary(percent=5, index=build("products-v2")))
    )
    registry = loaded(store)
    store.put(snapshot(2, published(), index=build("products-v3", fields=NEW_FIELDS)))
    registry.refresh()
    assert builds_of(registry) == {"shelf": ("products-v1", None)}
    assert list(registry.problems) == ["shelf"]


@pytest.mark.unit
@pytest.mark.parametrize("fingerprint", ["", live_index().spec.fingerprint])
def test_an_index_with_the_fingerprint_it_was_built_with_is_searched(fingerprint):
    index = live_index().model_copy(update={"fingerprint": fingerprint})
    registry = loaded(FakeStore(snapshot(1, published(), index=index)))
    assert builds_of(registry) == {"shelf": ("products-v1", None)}
    assert registry.problems == {}


@pytest.mark.unit
def test_an_index_of_another_model_than_its_spec_names_is_refused():
    store = FakeStore(snapshot(1, published()))
    registry = loaded(store)
    stranger = build("products-v2").model_copy(update={"fingerprint": "of-another-model"})
    store.put(snapshot(2, published(), index=stranger))
    registry.refresh()
    assert builds_of(registry) == {"shelf": ("products-v1", None)}
    assert "another embedding model or metric" in registry.problems["shelf"]
    [cold] = loaded(FakeStore(snapshot(2, published(), index=stranger))).plans()
    assert (cold.index, cold.unavailable) == (None, "does_not_compile")
    store.put(snapshot(3, published(), canary=Canary(percent=50, index=stranger)))
    registry.refresh()
    assert builds_of(registry) == {"shelf": ("products-v1", None)}
    assert list(registry.problems) == ["shelf (canary)"]


@pytest.mark.unit
def test_what_is_found_wrong_with_served_plans_is_a_problem_until_it_is_mended():
    store = FakeStore(
        snapshot(1, published(), canary=Canary(percent=5, index=build("products-v2")))
    )
    registry = Registry(store)
    wrong: dict[str, str] = {}
    asked: list[str | None] = []

    def recheck(plans: Iterable[Plan]) -> dict[str, str]:
        asked.extend(plan.build for plan in plans)
        return dict(wrong)

    registry.recheck = recheck
    registry.refresh()
    assert registry.problems == {}
    wrong["shelf"] = "another model"
    registry.refresh()
    assert registry.problems == {"shelf": "another model"}
    wrong.clear()
    registry.refresh()
    assert registry.problems == {}
    assert asked == ["products-v1", "products-v2"] * 3


def test_loads_from_valkey(namespace):
    document = VersionedDocument(f"{namespace}:serving")
    registry = Registry(document)
    assert not registry.refresh()
    given = snapshot(3, published())
    assert document.publish(given.version, given.model_dump_json().encode())
    assert registry.refresh()
    assert registry.version == 3
    assert [plan.revision for plan in registry.plans()] == [1]
