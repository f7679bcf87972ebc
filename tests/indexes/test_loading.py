"""Loading in shards: nothing is lost or doubled, whatever happens between two of them."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexes import builds, catalog, loading, valkey
from indexes.errors import BuildError, EmbeddingRejected
from indexes.lease import Lease, LeaseLost
from indexes.loading import load_slice
from indexes.models import IndexBuild, IndexDefinition
from indexes.naming import VECTOR_FIELD
from indexes.schema import EndpointSpec

DIMENSION = 4
ENDPOINT = EndpointSpec(slug="none", endpoint_name="none", dimension=DIMENSION, max_batch=1)
FIELDS = [{"name": "title", "type": "text"}, {"name": "price", "type": "numeric"}]


class Killed(BaseException):
    """The worker process ends at this line."""


def embed(endpoint: EndpointSpec, texts: Sequence[str], timeout_s: float) -> Any:
    """Stands in for an endpoint: a vector from the length of each text."""
    return np.array([[len(text), 1, 2, 3] for text in texts], dtype=np.float32)


def killed_at(call: int) -> Callable[..., Any]:
    """Return an ``embed`` that works until its call of that number, from 1."""
    calls = iter(range(1, 10_000))

    def embed_until(endpoint: EndpointSpec, texts: Sequence[str], timeout_s: float) -> Any:
        if next(calls) >= call:
            raise Killed
        return embed(endpoint, texts, timeout_s)

    return embed_until


def rows(count: int) -> list[dict[str, Any]]:
    return [{"id": f"p{n}", "title": f"product {n}", "price": n} for n in range(1, count + 1)]


@pytest.fixture
def loading_build(new_definition: Callable[..., IndexDefinition]) -> Callable[..., Lease]:
    """A factory: a build of those rows that is about to load, with its lease taken."""

    def make(content: Any, **changes: Any) -> Lease:
        changes = {"endpoint": ENDPOINT, "fields": FIELDS, "text_template": "{title}", **changes}
        build = builds.start(new_definition(content, **changes), enqueue=False)
        spec = build.to_spec()
        valkey.create_index(build.index_name, build.key_prefix, spec)
        IndexBuild.objects.filter(pk=build.pk).update(
            status=IndexBuild.Status.LOADING, catalog_version=catalog.version(spec.catalog)
        )
        return claim(build)

    return make


def claim(build: IndexBuild) -> Lease:
    lease = Lease.claim(build.pk)
    assert lease is not None
    return lease


def after_expiry(lease: Lease) -> Lease:
    """Return the lease that the next worker gets once the first is not heard of any more."""
    past = timezone.now() - timedelta(seconds=1)
    IndexBuild.objects.filter(pk=lease.build.pk).update(lease_until=past)
    return claim(lease.build)


def load_all(lease: Lease, **options: Any) -> IndexBuild:
    while not load_slice(lease, seconds=0, **{"call": embed, "shard_rows": 10, **options}):
        pass
    lease.release()
    return IndexBuild.objects.get(pk=lease.build.pk)


def held(build: IndexBuild, item_id: str, field: str) -> bytes | None:
    return valkey.hash_fields([build.key_prefix + item_id], [field])[0][0]


def test_every_row_becomes_one_item(loading_build):
    build = load_all(loading_build(rows(35)))
    assert (build.written, build.embedded, build.rejected, build.cursor) == (35, 35, 0, 35)
    assert valkey.index_info(build.index_name).num_docs == 35
    assert held(build, "p7", "price") == b"7"
    assert held(build, "p7", VECTOR_FIELD) == np.array([9, 1, 2, 3], dtype="<f4").tobytes()


def test_a_slice_ends_in_time_and_the_next_goes_on_at_the_cursor(loading_build):
    lease = loading_build(rows(2000))
    assert load_slice(lease, seconds=0, call=embed, shard_rows=10) is False
    first = lease.build.cursor
    assert 10 <= first < 2000
    assert load_all(lease, shard_rows=1000).written == 2000


class KilledAtCommit(Lease):
    """Lets the worker die when a shard is written and not committed yet."""

    def save(self, *, why: str = "", **changes: Any) -> None:
        if changes.get("cursor", 0) > 10:
            raise Killed
        super().save(why=why, **changes)


def test_a_killed_worker_costs_its_shard_and_doubles_nothing(loading_build):
    content = rows(40)
    content[12]["id"] = "p12"  # a duplicate in the shard that is repeated
    lease = loading_build(content)
    with pytest.raises(Killed):
        load_slice(KilledAtCommit(lease.build, lease.until), seconds=60, call=embed, shard_rows=10)
    lease.build.refresh_from_db()
    assert (lease.build.cursor, lease.build.written) == (10, 10)
    assert held(lease.build, "p18", "price") == b"18"

    embedded: list[str] = []

    def counting(endpoint: EndpointSpec, texts: Sequence[str], timeout_s: float) -> Any:
        embedded.extend(texts)
        return embed(endpoint, texts, timeout_s)

    build = load_all(after_expiry(lease), call=counting)
    assert (build.cursor, build.written, build.embedded, build.rejected) == (40, 39, 39, 1)
    assert valkey.index_info(build.index_name).num_docs == 39
    assert build.rejected_rows.get().row == 13
    # What the first worker had embedded is not embedded again.
    assert sorted(embedded) == sorted(f"product {n}" for n in range(21, 41))


def test_a_worker_that_was_replaced_changes_nothing_any_more(loading_build, monkeypatch):
    # The lease is renewed at every item, so that it is noticed in the middle of a shard.
    monkeypatch.setattr(loading, "BEAT_S", 0)
    slow = loading_build(rows(30))
    finished: list[IndexBuild] = []

    class Paused(Lease):
        def save(self, *, why: str = "", **changes: Any) -> None:
            if not finished:
                finished.append(load_all(after_expiry(slow)))
            super().save(why=why, **changes)

    with pytest.raises(LeaseLost):
        load_slice(Paused(slow.build, slow.until), seconds=60, call=embed, shard_rows=10)
    build = IndexBuild.objects.get(pk=slow.build.pk)
    assert (build.written, build.rejected, build.cursor) == (30, 0, 30)
    assert build.heartbeat_at == finished[0].heartbeat_at


def test_the_first_of_two_rows_with_one_id_is_kept(loading_build):
    content = rows(25)
    content[3] = {"id": "p2", "title": "same shard", "price": 1000}
    content[22] = {"id": "p5", "title": "a later shard", "price": 2000}
    build = load_all(loading_build(content))
    assert (build.written, build.rejected) == (23, 2)
    assert (held(build, "p2", "price"), held(build, "p5", "price")) == (b"2", b"5")
    assert list(build.rejected_rows.values_list("row", "reason", "message")) == [
        (4, "duplicate_id", 'The id "p2" is that of row 2, which is kept.'),
        (23, "duplicate_id", 'The id "p5" is that of row 5, which is kept.'),
    ]


def test_bad_rows_are_kept_with_number_reason_and_content(loading_build, tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_bytes(
        b'{"id": "a", "title": "good"}\n{"id": "b", \x00\xff broken\n'
        b'{"id": "c", "title": "x", "price": "cheap"}\n{"title": "no id"}\n'
    )
    build = load_all(loading_build(path))
    assert (build.written, build.rejected, build.cursor) == (1, 3, 4)
    assert list(build.rejected_rows.values_list("row", "reason", "content")) == [
        (2, "bad_encoding", '{"id": "b", \ufffd\ufffd broken'),
        (3, "bad_numeric", '{"id":"c","title":"x","price":"cheap"}'),
        (4, "missing_id", '{"title":"no id"}'),
    ]


def test_rejected_rows_are_counted_beyond_those_kept(loading_build, monkeypatch):
    monkeypatch.setattr(loading, "MAX_KEPT_ROWS", 15)
    build = load_all(loading_build([*rows(5), *[{"title": "no id"}] * 40]))
    assert (build.written, build.rejected) == (5, 40)
    assert build.rejected_rows.count() == 15
    assert build.rejected_reasons == {"missing_id": 40}


def test_a_text_that_the_endpoint_refuses_costs_its_row_only(loading_build):
    def refusing(endpoint: EndpointSpec, texts: Sequence[str], timeout_s: float) -> Any:
        if any("poison" in text for text in texts):
            raise EmbeddingRejected("Input is too long.")
        return embed(endpoint, texts, timeout_s)

    content = rows(20)
    content[13]["title"] = "poison"
    build = load_all(loading_build(content), call=refusing)
    assert (build.written, build.rejected) == (19, 1)
    rejected = build.rejected_rows.get()
    assert (rejected.row, rejected.reason) == (14, "text_refused")
    assert "Input is too long." in rejected.message


def test_an_endpoint_that_refuses_every_text_ends_the_load(loading_build):
    def refusing(endpoint: EndpointSpec, texts: Sequence[str], timeout_s: float) -> Any:
        raise EmbeddingRejected("No such endpoint.")

    with pytest.raises(BuildError, match=r"refuses every text, .*No such endpoint"):
        load_all(loading_build(rows(20)), call=refusing)


def test_many_bad_texts_do_not_end_a_load_while_others_are_embedded(loading_build):
    def refusing(endpoint: EndpointSpec, texts: Sequence[str], timeout_s: float) -> Any:
        if any("poison" in text for text in texts):
            raise EmbeddingRejected("Input is too long.")
        return embed(endpoint, texts, timeout_s)

    content = rows(40)
    for row in content[5:35]:
        row["title"] = f"poison {row['id']}"
    build = load_all(loading_build(content), call=refusing, shard_rows=40)
    assert (build.written, build.rejected_reasons) == (10, {"text_refused": 30})


def test_a_catalog_that_changes_on_the_way_ends_the_load(loading_build, catalog_file):
    path = catalog_file(rows(20))
    lease = loading_build(path)
    path.write_text('{"id": "other", "title": "other"}\n')
    with pytest.raises(BuildError, match="changed while it was loaded"):
        load_slice(lease, seconds=0, call=embed)


def test_an_index_that_the_engine_lost_ends_the_load(loading_build):
    lease = loading_build(rows(20))
    valkey.drop_index(lease.build.index_name)
    with pytest.raises(BuildError, match=r"lost .* Start a new build"):
        load_slice(lease, seconds=0, call=embed)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    ids=st.lists(st.sampled_from([*"abcdefghijklmnop", None]), min_size=1, max_size=40),
    kills=st.lists(st.integers(1, 6), max_size=4),
)
def test_any_catalog_loads_as_if_nothing_had_happened(loading_build, catalog_file, ids, kills):
    content = [{"id": item_id, "title": "x", "price": row} for row, item_id in enumerate(ids, 1)]
    kept = {item_id: row for row, item_id in reversed(list(enumerate(ids, 1))) if item_id}
    number = IndexDefinition.objects.count()
    lease = loading_build(catalog_file(content), slug=f"any-{number}")
    for call in kills:
        try:
            load_slice(lease, seconds=60, call=killed_at(call), shard_rows=7)
        except Killed:
            lease = after_expiry(lease)
    build = load_all(lease, shard_rows=7)
    assert (build.cursor, build.written) == (len(ids), len(kept))
    assert build.rejected == len(ids) - len(kept) == build.rejected_rows.count()
    assert valkey.index_info(build.index_name).num_docs == len(kept)
    for item_id, row in kept.items():
        assert held(build, item_id, "price") == str(row).encode()
