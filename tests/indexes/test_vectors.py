"""Where vectors come from in a load: given, reused, from the job, and only then from calls."""

import json
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from django.utils import timezone

from indexes import batch_transform, catalog, hash_writer, shards, valkey
from indexes.builds import start
from indexes.lease import Lease
from indexes.loading import load_slice
from indexes.models import IndexBuild, IndexDefinition
from indexes.naming import CONTENT_FIELD, TEXT_FIELD, VECTOR_FIELD, VERSION_FIELD
from indexes.preconditions import check_source
from indexes.schema import EndpointSpec
from indexes.shards import FEWEST_ROWS, SHARD_SECONDS, Pace

ENDPOINT = EndpointSpec(
    slug="none", endpoint_name="none", dimension=2, normalize=False, max_batch=4
)
FIELDS = [{"name": "title", "type": "text"}, {"name": "price", "type": "numeric"}]


class Embedder:
    """Stands in for an endpoint: the vector (length, 1) of each text, and the texts it was asked for."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, endpoint: EndpointSpec, texts: Sequence[str], timeout_s: float) -> Any:
        self.texts.extend(texts)
        return np.array([[len(text), 1] for text in texts], dtype=np.float32)


@pytest.fixture
def embedder() -> Embedder:
    return Embedder()


@pytest.fixture
def define(new_definition: Callable[..., IndexDefinition]) -> Callable[..., IndexDefinition]:
    """A factory of definitions whose source has a field of vectors and one of versions."""

    def make(content: Any, **changes: Any) -> IndexDefinition:
        given = {"endpoint": ENDPOINT, "fields": FIELDS, "text_template": "{title}"} | changes
        definition = new_definition(content, **given)
        definition.source.vector_field = "v"
        definition.source.version_field = "updated"
        definition.source.save()
        return definition

    return make


def rows(count: int) -> list[dict[str, Any]]:
    return [{"id": f"p{n}", "title": f"product {n}", "price": n} for n in range(1, count + 1)]


def load(definition: IndexDefinition, embedder: Embedder, **changes: Any) -> IndexBuild:
    build = start(definition, enqueue=False)
    spec = build.to_spec()
    valkey.create_index(build.index_name, build.key_prefix, spec)
    changes = {"catalog_version": catalog.version(spec.catalog)} | changes
    IndexBuild.objects.filter(pk=build.pk).update(status=IndexBuild.Status.LOADING, **changes)
    return resume(build, embedder)


def resume(build: IndexBuild, embedder: Any) -> IndexBuild:
    lease = Lease.claim(build.pk)
    assert isinstance(lease, Lease)
    while not load_slice(lease, seconds=0, call=embedder, shard_rows=10):
        pass
    lease.release()
    build.refresh_from_db()
    return build


def kept(definition: IndexDefinition, build: IndexBuild) -> IndexBuild:
    """Let later builds take over the vectors of this one."""
    IndexBuild.objects.filter(pk=build.pk).update(status=IndexBuild.Status.READY)
    return build


def held(build: IndexBuild, item_id: str, *fields: str) -> list[bytes | None]:
    return valkey.hash_fields([build.key_prefix + item_id], fields, fresh=True)[0]


def vector_of(build: IndexBuild, item_id: str) -> list[float]:
    [raw] = held(build, item_id, VECTOR_FIELD)
    assert raw is not None
    return [float(number) for number in np.frombuffer(raw, dtype="<f4")]


def counts(build: IndexBuild) -> dict[str, int]:
    names = ("given", "reused", "embedded", "written", "rejected")
    return {name: count for name in names if (count := getattr(build, name))}


def test_a_vector_of_the_row_is_taken_as_it_is(define, embedder):
    content = rows(25)
    for row in content[:20]:
        row["v"] = [row["price"], 7]
    build = load(define(content), embedder)
    assert counts(build) == {"given": 20, "embedded": 5, "written": 25}
    assert vector_of(build, "p3") == [3, 7]
    assert vector_of(build, "p21") == [10, 1]
    assert sorted(embedder.texts) == [f"product {n}" for n in range(21, 26)]
    # No later build may take it for one that the endpoint made.
    assert held(build, "p3", TEXT_FIELD) == [b""]
    assert held(build, "p21", TEXT_FIELD) != [b""]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_vectors_of_other_formats_give_the_same(define, embedder, tmp_path, kind):
    path = tmp_path / f"c.{kind}"
    if kind == "csv":
        path.write_text('id,title,price,v,updated\np1,a,1,"[3, 4.5]",5\np2,bb,2,,\n')
    else:
        vectors = pa.array([[3, 4.5], None], pa.list_(pa.float32()))
        table = {"id": ["p1", "p2"], "title": ["a", "bb"], "price": [1, 2], "v": vectors}
        pq.write_table(pa.table({**table, "updated": [5, None]}), path)
    build = load(define(path), embedder)
    assert counts(build) == {"given": 1, "embedded": 1, "written": 2}
    assert (vector_of(build, "p1"), vector_of(build, "p2")) == ([3, 4.5], [2, 1])
    assert (held(build, "p1", VERSION_FIELD), held(build, "p2", VERSION_FIELD)) == (
        [b"5.0"],
        [None],
    )


def test_vectors_are_reused_where_the_text_is_the_same(define, embedder, catalog_file):
    definition = define(rows(30))
    kept(definition, load(definition, embedder))
    assert len(embedder.texts) == 30
    embedder.texts.clear()

    changed = rows(31)
    changed[4]["title"] = "other"
    changed[5]["price"] = 1000
    changed[6]["id"] = "renamed"
    definition.source.uri = str(catalog_file(changed))
    definition.source.save()
    build = load(definition, embedder)
    assert build.vectors_from is not None
    assert counts(build) == {"reused": 28, "embedded": 3, "written": 31}
    assert sorted(embedder.texts) == ["other", "product 31", "product 7"]
    assert vector_of(build, "p6") == [9, 1]


def test_given_vectors_are_never_reused_for_a_text(define, embedder, catalog_file):
    definition = define([{**row, "v": [9, 9]} for row in rows(3)])
    kept(definition, load(definition, embedder))
    definition.source.uri = str(catalog_file(rows(3)))
    definition.source.save()
    build = load(definition, embedder)
    assert counts(build) == {"embedded": 3, "written": 3}
    assert vector_of(build, "p1") == [9, 1]


def test_a_build_that_left_the_engine_meanwhile_gives_nothing(define, embedder):
    definition = define(rows(3))
    first = kept(definition, load(definition, embedder))
    valkey.delete_prefix(first.key_prefix)
    assert counts(load(definition, embedder)) == {"embedded": 3, "written": 3}


def test_a_damaged_vector_is_not_reused(define, embedder):
    definition = define(rows(3))
    first = kept(definition, load(definition, embedder))
    valkey.write_hashes([(f"{first.key_prefix}p2", {VECTOR_FIELD: b"\0" * 7})])
    assert counts(load(definition, embedder)) == {"reused": 2, "embedded": 1, "written": 3}


def test_the_output_of_the_job_is_taken_where_there_is_one(define, embedder, monkeypatch):
    asked: list[tuple[int, int]] = []

    def vectors(build: IndexBuild, first_row: int, last_row: int, **_: Any) -> dict[int, Any]:
        asked.append((first_row, last_row))
        every = {row: np.array([row, 5], dtype=np.float32) for row in range(1, 26) if row != 13}
        return {row: vector for row, vector in every.items() if first_row <= row <= last_row}

    monkeypatch.setattr(batch_transform, "vectors", vectors)
    content = rows(25)
    content[0]["v"] = [7, 7]
    job = {"batch_model": "m", "batch_s3_uri": "s3://b/f", "batch_instance_type": "ml.m5.large"}
    definition = define(content, endpoint=ENDPOINT.model_copy(update=job), embed_with="batch")
    build = load(definition, embedder)
    assert counts(build) == {"given": 1, "embedded": 24, "written": 25}
    assert (vector_of(build, "p1"), vector_of(build, "p2")) == ([7, 7], [2, 5])
    assert embedder.texts == ["product 13"]
    assert asked == [(2, 10), (11, 20), (21, 25)]


def test_what_an_interrupted_worker_embedded_is_not_embedded_again(define, embedder, monkeypatch):
    # Each hash is sent as soon as there is another one.
    monkeypatch.setattr(hash_writer, "PIPELINE_COMMANDS", 1)
    definition = define(rows(10))

    class Killed(BaseException):
        pass

    def dying(endpoint: EndpointSpec, texts: Sequence[str], timeout_s: float) -> Any:
        if len(embedder.texts) >= 8:
            raise Killed
        return embedder(endpoint, texts, timeout_s)

    with pytest.raises(Killed):
        load(definition, dying)  # type: ignore[arg-type]  # an embedder that dies
    build = definition.builds.get()
    assert build.written == 0
    past = timezone.now() - timedelta(seconds=1)
    IndexBuild.objects.filter(pk=build.pk).update(lease_until=past)
    resume(build, embedder)
    assert counts(build) == {"embedded": 10, "written": 10}
    assert len(embedder.texts) < 20


def test_each_hash_holds_the_digests_and_the_version_of_its_row(define, embedder, catalog_file):
    content = rows(2)
    content[0]["updated"] = "1970-01-02"
    definition = define(content)
    first = kept(definition, load(definition, embedder))
    assert held(first, "p1", VERSION_FIELD) == [b"86400.0"]
    assert held(first, "p2", VERSION_FIELD) == [None]

    content[0]["updated"] = "1970-01-03"
    content[1]["price"] = 17
    definition.source.uri = str(catalog_file(content))
    definition.source.save()
    second = load(definition, embedder)
    assert held(second, "p1", CONTENT_FIELD) == held(first, "p1", CONTENT_FIELD)
    assert held(second, "p2", CONTENT_FIELD) != held(first, "p2", CONTENT_FIELD)
    assert held(second, "p2", TEXT_FIELD) == held(first, "p2", TEXT_FIELD)


def test_the_endpoint_is_not_called_before_a_load_that_may_not_need_it(define, embedder, container):
    build = start(define([{**rows(1)[0], "v": [1, 2]}]), enqueue=False)
    assert check_source(build) is None
    assert container.calls == []


def test_a_shard_is_bounded_in_bytes(define, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_BYTES", 40_000)
    definition = define([{**row, "title": "x" * 7000} for row in rows(11)])
    spec = definition.to_spec()
    # Each row: its text, the field, and the beginning of the row.
    found = list(shards.read(spec, catalog.read_rows(spec.catalog), Pace(1000)))
    assert [len(shard.items) for shard in found] == [3, 3, 3, 2]
    assert [shard.last for shard in found] == [3, 6, 9, 11]


def test_vectors_count_in_the_size_of_a_shard(define, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_BYTES", 400_000)
    large = ENDPOINT.model_copy(update={"dimension": 20_000})
    spec = define(rows(11), endpoint=large).to_spec()
    found = list(shards.read(spec, catalog.read_rows(spec.catalog), Pace(1000)))
    assert [len(shard.items) for shard in found] == [5, 5, 1]


def test_shards_are_as_long_as_the_endpoint_is_fast():
    pace = Pace(2000)
    pace.took(500, 500 / 30)
    assert pace.rows == 30 * SHARD_SECONDS
    pace.took(300, 3000)
    assert pace.rows == FEWEST_ROWS
    pace.took(64, 0.001)
    assert pace.rows == 2000


def test_rejected_rows_show_their_content_without_the_vector(define, embedder):
    content = [{**row, "v": [1, 2]} for row in rows(12)]
    content[11]["id"] = "p1"
    build = load(define(content), embedder)
    rejected = build.rejected_rows.get()
    assert (rejected.row, rejected.reason) == (12, "duplicate_id")
    assert json.loads(rejected.content) == {"id": "p1", "title": "product 12", "price": 12}
