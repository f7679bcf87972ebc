"""A re-build embeds only what changed, through the whole life of a build: the endpoint's calls are counted."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from indexes import builds
from indexes.models import IndexBuild, IndexDefinition, IndexField
from indexes.schema import PROBE_TEXT
from tests.indexes.containers import Container, answer
from tests.indexes.counted import ENDPOINT, Counted

Status = IndexBuild.Status
ITEMS = 300
FIELDS = [{"name": "title", "type": "text"}, {"name": "price", "type": "numeric"}]


@pytest.fixture
def counted(container: Container) -> Iterator[Counted]:
    counted = Counted(container)
    yield counted
    container.respond = lambda call: answer([])


def rows(count: int = ITEMS) -> list[dict[str, Any]]:
    return [
        {"id": f"p{n}", "title": f"product {n}", "price": n, "brand": f"brand {n % 7}"}
        for n in range(1, count + 1)
    ]


@pytest.fixture
def definition(new_definition: Callable[..., IndexDefinition]) -> IndexDefinition:
    return new_definition(rows(), endpoint=ENDPOINT, fields=FIELDS, text_template="{title}")


def build(definition: IndexDefinition) -> IndexBuild:
    done = builds.start(definition, enqueue=False)
    builds.run_to_end(done.pk)
    done.refresh_from_db()
    assert done.status == Status.LIVE, (done.error, done.notice)
    return done


def test_a_field_more_costs_no_call(definition, counted):
    first = build(definition)
    assert (first.embedded, first.reused) == (ITEMS, 0)
    assert set(counted.texts) >= {row["title"] for row in rows()}

    counted.texts.clear()
    counted.container.calls.clear()
    IndexField.objects.create(definition=definition, name="brand", type="tag", position=9)
    second = build(definition)
    assert (second.reused, second.embedded, second.written) == (ITEMS, 0, ITEMS)
    assert counted.container.calls == []
    assert second.probe == first.probe


def test_one_percent_of_texts_changed_embeds_one_percent(definition, counted, catalog_file):
    build(definition)
    counted.texts.clear()
    changed = rows()
    for row in changed[::100]:
        row["title"] = f"changed {row['id']}"
    for row in changed[50::100]:
        row["price"] = 0
    definition.source.uri = str(catalog_file(changed))
    definition.source.save()
    second = build(definition)
    share = ITEMS // 100
    assert (second.embedded, second.reused) == (share, ITEMS - share)
    assert sorted(counted.texts) == sorted(row["title"] for row in changed[::100])


def test_another_model_embeds_everything_again(definition, counted):
    build(definition)
    counted.texts.clear()
    definition.endpoint.model = "counted@2"
    definition.endpoint.save()
    again = builds.start(definition, enqueue=False)
    builds.run_to_end(again.pk)
    again.refresh_from_db()
    # Vectors of another model wait for a person.
    assert (again.status, again.reused, again.embedded) == (Status.READY, 0, ITEMS)
    assert set(counted.texts) >= {row["title"] for row in rows()}
    assert PROBE_TEXT in counted.texts


def test_vectors_of_two_models_are_not_taken_over(definition, counted):
    first = builds.start(definition, enqueue=False)
    while IndexBuild.objects.get(pk=first.pk).status != Status.VALIDATING:
        assert builds.run(first.pk, seconds=0) is not None
    # As if the model had been replaced while it loaded.
    IndexBuild.objects.filter(pk=first.pk).update(probe=bytes(4 * ENDPOINT.dimension))
    builds.run_to_end(first.pk)
    first.refresh_from_db()
    assert (first.status, first.verdict) == (Status.READY, IndexBuild.Verdict.BLOCKED)

    second = build(definition)
    assert (second.embedded, second.reused) == (ITEMS, 0)
    assert second.vectors_from is None


def test_vectors_of_the_source_are_only_compared_with_the_endpoint(new_definition, counted):
    content = [{**row, "v": counted.vector(row["title"])} for row in rows(200)]
    definition = new_definition(content, endpoint=ENDPOINT, fields=FIELDS, text_template="{title}")
    definition.source.vector_field = "v"
    definition.source.save()
    done = build(definition)
    assert (done.given, done.embedded, done.written, done.probe) == (200, 0, 200, None)
    # A gate asks for a few items whether the model behind the endpoint made such vectors.
    assert len(counted.texts) <= 20

    counted.texts.clear()
    again = build(definition)
    assert (again.given, counted.texts) == (200, [])
