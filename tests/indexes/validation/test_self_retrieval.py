"""Items found by their own text; and when the endpoint is asked for that."""

import json
from pathlib import Path

import numpy as np
import pytest

from indexes import valkey
from indexes.lease import Lease
from indexes.models import GateResult, IndexBuild
from indexes.naming import VECTOR_FIELD
from indexes.validation import self_retrieval
from indexes.validation.bench import Bench
from tests.indexes.containers import refusal
from tests.indexes.validation.cases import built, gate
from tests.indexes.validation.words import ENDPOINT, embedder, meaning, rows, texts_of

Outcome = GateResult.Outcome
PREFIXED = ENDPOINT.model_copy(update={"query_prefix": "query: "})


def other_model(text: str) -> np.ndarray:
    """Embeds queries as another model would, and items as ever."""
    return meaning(text, salt="other" if text.startswith("query: ") else "")


def bench(build: IndexBuild) -> Bench:
    IndexBuild.objects.filter(pk=build.pk).update(status=IndexBuild.Status.VALIDATING)
    lease = Lease.claim(build.pk)
    assert lease is not None
    return Bench(lease)


def test_queries_of_another_model_hold_a_build_back(index, words):
    words.respond = embedder(other_model)
    build = built(index(200, endpoint=PREFIXED))
    result = gate(build, "self_retrieval")
    assert (result.outcome, build.verdict) == (Outcome.FAILED, "blocked")
    assert result.figure < 0.5
    assert result.threshold == 0.9
    assert "query and passage prefixes" in result.message
    lost = result.detail["not_found"][0]
    assert lost["item"] == lost["text"] != lost["id"]


def test_the_threshold_is_that_of_the_index(index, words):
    words.respond = embedder(other_model)
    build = built(index(200, endpoint=PREFIXED, min_self_retrieval=0.0))
    assert gate(build, "self_retrieval").outcome == Outcome.PASSED
    assert build.verdict == "passed"


def test_items_of_the_same_text_do_not_fail(index):
    alike = [{"id": f"p{n}", "title": "the same words", "kind": "a"} for n in range(60)]
    build = built(index(alike))
    assert gate(build, "self_retrieval").figure == 1


def test_texts_are_asked_of_the_endpoint_once_for_each_model(index, words):
    definition = index()
    first = gate(built(definition), "self_retrieval")
    assert first.detail["calls"] == 20
    assert "found by their own text" in first.message
    # As a build does whose vectors are all taken over from the one before.
    words.calls.clear()
    build = definition.builds.get()
    build.embedded, build.reused = 0, 60
    assert not self_retrieval.asks(bench_of(definition, build))
    build.embedded, build.reused = 1, 59
    assert not self_retrieval.asks(bench_of(definition, build))
    # Other texts for nearly all of them may be asked.
    build.embedded, build.reused = 59, 1
    assert self_retrieval.asks(bench_of(definition, build))
    assert not words.calls


def bench_of(definition, build: IndexBuild) -> Bench:
    """A bench for what would be a later build of the same endpoint."""
    later = built_beside(definition, build)
    return bench(later)


def built_beside(definition, build: IndexBuild) -> IndexBuild:
    number = definition.builds.count() + 1
    return IndexBuild.objects.create(
        definition=definition,
        number=number,
        spec=build.spec,
        fingerprint=build.fingerprint,
        index_name=f"{build.index_name}_{number}",
        key_prefix=f"{build.key_prefix}{number}:",
        embedded=build.embedded,
        reused=build.reused,
        given=build.given,
    )


def test_an_index_that_never_passed_is_asked_again(index, words):
    words.respond = embedder(other_model)
    definition = index(200, endpoint=PREFIXED)
    build = built(definition)
    build.embedded, build.reused = 0, 200
    assert self_retrieval.asks(bench_of(definition, build))


def test_another_model_is_asked_again(index):
    definition = index()
    build = built(definition)
    build.embedded, build.reused = 0, 60
    spec = build.to_spec()
    other = spec.endpoint.model_copy(update={"model": "two"})
    spec = spec.model_copy(update={"endpoint": other})
    build.spec, build.fingerprint = spec.model_dump(mode="json"), spec.fingerprint
    assert self_retrieval.asks(bench_of(definition, build))


@pytest.mark.parametrize(("salt", "asked"), [("", False), ("other", True)])
def test_vectors_that_a_source_gives_are_compared_with_those_before(index, salt, asked):
    definition = index()
    build = built(definition)
    build.embedded, build.given = 0, 60
    later = built_beside(definition, build)
    valkey.write_hashes(
        (
            later.key_prefix + row["id"],
            {VECTOR_FIELD: meaning(row["title"], salt).astype("<f4").tobytes()},
        )
        for row in rows(60)
    )
    assert self_retrieval.asks(bench(later)) is asked


def test_stored_vectors_do_where_the_source_is_gone(index, words):
    definition = index()
    build = built(definition)
    Path(definition.source.uri).unlink()
    build.gates.all().delete()
    words.calls.clear()
    result = self_retrieval.measure(bench(build))
    assert (result.outcome, result.figure, result.detail["calls"]) == (Outcome.PASSED, 1, 0)
    assert "no row of the source could be read again" in result.message
    assert not words.calls


def test_rows_that_are_not_what_was_loaded_are_left_out(index, words):
    definition = index()
    build = built(definition)
    changed = [{**row, "title": "something else"} for row in rows(60)]
    changed[7] = rows(60)[7]
    Path(definition.source.uri).write_text("".join(json.dumps(row) + "\n" for row in changed))
    build.gates.all().delete()
    words.calls.clear()
    result = self_retrieval.measure(bench(build))
    # Of 40 rows that are drawn, at most one is as it was.
    assert texts_of(words.calls) in ([changed[7]["title"]], [])
    assert result.outcome == Outcome.PASSED


def test_an_endpoint_that_refuses_queries_holds_a_build_back(index, words):
    def respond(call):
        if isinstance(call.body["inputs"], str) and call.body["inputs"].startswith("query: "):
            return refusal(424, "ModelError", "too long", OriginalStatusCode=400)
        return embedder()(call)

    words.respond = respond
    result = gate(built(index(endpoint=PREFIXED)), "self_retrieval")
    assert (result.outcome, result.figure) == (Outcome.FAILED, 0)
    assert "The endpoint refused texts" in result.message
