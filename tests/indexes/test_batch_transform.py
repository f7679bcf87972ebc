"""Embedding by a Batch Transform job: what it is given, what is made of its outputs, and how it ends."""

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import numpy as np
import pytest

from indexes import (
    batch_inputs,
    batch_outputs,
    batch_transform,
    builds,
    catalog,
    removal,
    s3,
    sagemaker,
    valkey,
)
from indexes.embedding import embed_passages
from indexes.errors import BuildError, CatalogError, EmbeddingUnavailable
from indexes.items import decode_vector, encode_vector
from indexes.lease import Lease
from indexes.models import IndexBuild, IndexDefinition
from indexes.schema import PROBE_TEXT, EndpointSpec
from tests.fixtures_indexes import PRODUCTS
from tests.indexes.transform_jobs import (
    JobService,
    job_service,
    objects,
    records,
    refused,
    run,
)

Status = IndexBuild.Status
FEW = PRODUCTS[:8]


@pytest.fixture
def folder(namespace: str) -> Iterator[str]:
    """A working folder in a bucket of the test's own."""
    bucket = boto3.resource("s3").Bucket(f"{namespace}-work")
    bucket.create()
    yield f"s3://{bucket.name}/batch"
    bucket.objects.delete()
    bucket.delete()


@pytest.fixture
def jobs(settings: Any) -> Iterator[JobService]:
    settings.BATCH_POLL_SECONDS = 0.01
    with job_service() as service:
        yield service


@pytest.fixture
def batch_definition(
    new_definition: Callable[..., IndexDefinition],
    endpoint_spec: EndpointSpec,
    folder: str,
    jobs: JobService,
) -> Callable[..., IndexDefinition]:
    """A factory of definitions whose items a job embeds, by the model that the endpoint has."""

    def make(rows: Any = FEW, **changes: Any) -> IndexDefinition:
        own = {
            "batch_model": endpoint_spec.endpoint_name,
            "batch_s3_uri": folder,
            "batch_instance_type": "ml.g4dn.xlarge",
            **changes.pop("endpoint", {}),
        }
        endpoint = endpoint_spec.model_copy(update=own)
        return new_definition(rows, endpoint=endpoint, embed_with="batch", **changes)

    return make


@pytest.fixture
def loading(batch_definition: Callable[..., IndexDefinition]) -> Callable[..., Lease]:
    """A factory: a build that is about to load, and the right to work on it."""

    def make(rows: Any = FEW, *, vectors_from: IndexBuild | None = None, **changes: Any) -> Lease:
        started = builds.start(batch_definition(rows, **changes), enqueue=False)
        spec = started.to_spec()
        [probe] = embed_passages(spec.endpoint, [PROBE_TEXT])
        IndexBuild.objects.filter(pk=started.pk).update(
            status=Status.LOADING,
            catalog_version=catalog.version(spec.catalog),
            probe=encode_vector(probe),
            vectors_from=vectors_from,
        )
        return claim(started)

    return make


def claim(build: IndexBuild) -> Lease:
    lease = Lease.claim(build.pk)
    assert lease is not None
    return lease


def prepared(lease: Lease) -> dict[int, Any]:
    """Carry the job to its end and return all its vectors."""
    while batch_transform.prepare(lease, seconds=5) is not None:
        pass
    return held(lease, 1, 10**9)


def held(lease: Lease, first_row: int, last_row: int) -> dict[int, Any]:
    found = batch_transform.vectors(lease.build, first_row, last_row)
    assert found is not None
    return found


def job_of(lease: Lease) -> batch_transform.Job:
    job = batch_transform.of(lease.build)
    assert job is not None
    return job


def text_of(product: dict[str, Any]) -> str:
    return f"{product['title']} {product['brand']} {', '.join(product['category'])}"


def expected(lease: Lease, rows: Any) -> Any:
    return embed_passages(lease.build.to_spec().endpoint, [text_of(row) for row in rows])


def test_a_job_gives_the_vectors_that_calls_would(loading, jobs):
    lease = loading(FEW, endpoint={"passage_prefix": "passage: ", "request_extra": {"top": 1}})
    waits = []
    while (wait := batch_transform.prepare(lease, seconds=5)) is not None:
        waits.append(wait)
    assert waits == [0.01, 0.01]
    found = held(lease, 1, 8)
    assert sorted(found) == list(range(1, 9))
    np.testing.assert_allclose([found[n] for n in range(1, 9)], expected(lease, FEW), atol=1e-5)
    assert found[1].dtype == np.float32
    [job] = jobs.created
    [(name, lines)] = records(job).items()
    assert name == "part-00000.jsonl"
    assert lines[0] == {"rp_row": 0, "inputs": f"passage: {PROBE_TEXT}", "top": 1}
    assert lines[3] == {"rp_row": 3, "inputs": f"passage: {text_of(FEW[2])}", "top": 1}
    assert (job["ModelName"], job["TransformResources"]["InstanceCount"]) == ("minilm-l6-v2", 1)


def test_what_is_asked_for_is_a_range_of_rows(loading, monkeypatch):
    monkeypatch.setattr(batch_inputs, "PART_ROWS", 3)
    lease = loading(FEW)
    everything = prepared(lease)
    assert sorted(everything) == list(range(1, 9))
    assert len(job_of(lease).ends) == 3
    for first, last in [(1, 3), (2, 5), (4, 4), (7, 8), (8, 99), (9, 99)]:
        assert sorted(held(lease, first, last)) == [
            row for row in range(1, 9) if first <= row <= last
        ]


def test_parts_are_bounded_in_bytes_and_by_the_memory_of_their_vectors(loading, monkeypatch):
    monkeypatch.setattr(batch_inputs, "CHUNK_ROWS", 1)
    monkeypatch.setattr(batch_inputs, "PART_BYTES", 1)
    lease = loading(FEW)
    build, spec = lease.build, lease.build.to_spec()

    def ends() -> list[int]:
        rows = catalog.read_rows(spec.catalog)
        return [part.last_row for part in batch_inputs.parts(build, spec, rows, with_probe=False)]

    assert ends() == list(range(1, 9))
    monkeypatch.undo()
    monkeypatch.setattr(batch_inputs, "PART_VECTOR_BYTES", 5 * 4 * 384)
    assert ends() == [5, 8]


def test_rows_that_cannot_be_items_are_left_out(loading, jobs):
    lease = loading([FEW[0], {"id": "x"}, {**FEW[1], "price": "cheap"}, FEW[2]])
    assert sorted(prepared(lease)) == [1, 4]


def test_given_vectors_and_those_of_another_build_are_not_made_again(
    loading, batch_definition, jobs, new_definition, endpoint_spec
):
    earlier = builds.start(new_definition(FEW, slug="earlier"), enqueue=False)
    builds.run_to_end(earlier.pk)
    changed = {**FEW[3], "title": "Another title"}
    given = {**FEW[4], "id": "new", "vector": [1.0] * 384}
    rows = [*FEW[:3], changed, given, {**FEW[5], "id": "unknown"}]
    lease = loading(rows, vectors_from=earlier)
    lease.build.spec["catalog"]["vector_field"] = "vector"
    assert sorted(prepared(lease)) == [4, 6]
    [lines] = records(jobs.created[0]).values()
    assert [line["rp_row"] for line in lines] == [0, 4, 6]


def test_no_job_is_made_where_nothing_is_left_to_embed(loading, jobs, new_definition):
    earlier = builds.start(new_definition(FEW, slug="earlier"), enqueue=False)
    builds.run_to_end(earlier.pk)
    lease = loading(FEW, vectors_from=earlier)
    assert batch_transform.prepare(lease, seconds=5) is None
    assert batch_transform.vectors(lease.build, 1, 8) == {}
    assert jobs.operations == []


def test_a_build_without_a_job_has_no_vectors(loading):
    assert batch_transform.vectors(loading().build, 1, 8) is None


def test_what_was_written_before_a_kill_is_not_written_again(loading, jobs, monkeypatch):
    monkeypatch.setattr(batch_inputs, "PART_ROWS", 3)
    monkeypatch.setattr(batch_transform, "WORK_PER_SKIP", 0)
    written: list[str] = []
    write = s3.write

    class Killed(BaseException):
        """Not an exception that anything handles."""

    def killed_at_the_second(uri: str, body: bytes, *, field: str) -> None:
        write(uri, body, field=field)
        written.append(uri.rsplit("/", 1)[-1])
        if len(written) == 2:
            raise Killed

    monkeypatch.setattr(s3, "write", killed_at_the_second)
    lease = loading(FEW)
    assert batch_transform.prepare(lease, seconds=0) == 0
    with pytest.raises(Killed):
        batch_transform.prepare(lease, seconds=0)
    IndexBuild.objects.update(lease_until=None)
    lease = claim(lease.build)
    assert sorted(prepared(lease)) == list(range(1, 9))
    parts = ["part-00000.jsonl", "part-00001.jsonl", "part-00001.jsonl", "part-00002.jsonl"]
    assert written == parts
    rows = [[line["rp_row"] for line in lines] for lines in records(jobs.created[0]).values()]
    assert rows == [[0, 1, 2, 3], [4, 5, 6], [7, 8]]


def test_a_kill_after_the_job_was_created_makes_no_second_one(loading, jobs):
    lease = loading(FEW)
    batch_transform.prepare(lease, seconds=5)
    state = {**lease.build.batch_job, "stage": "starting"}
    lease.save(batch_job=state)
    assert sorted(prepared(lease)) == list(range(1, 9))
    assert jobs.operations.count("CreateTransformJob") == 2
    assert len(jobs.created) == 1


def test_a_source_that_changes_meanwhile_ends_the_build(loading, jobs):
    lease = loading(FEW)
    lease.save(catalog_version="another")
    with pytest.raises(BuildError, match="changed while it was read"):
        batch_transform.prepare(lease, seconds=5)
    assert jobs.operations == []


def without_some(lines: list[bytes]) -> list[bytes]:
    """Lose one line, cut one, give one an error and one another dimension."""
    kept = {json.loads(line)["rp_row"]: line for line in lines}
    del kept[2]
    kept[3] = kept[3][:40]
    kept[5] = b'{"rp_row": 5, "SageMakerOutput": {"error": "CUDA out of memory"}}'
    kept[6] = b'{"rp_row": 6, "SageMakerOutput": [[0.5, 0.5]]}'
    return [b"null", b"", *kept.values(), b'{"rp_row": "7", "SageMakerOutput": [[1]]}']


def test_records_without_a_usable_output_are_left_to_the_endpoint(loading, jobs):
    jobs.play = lambda job: run(job, change=without_some)
    assert sorted(prepared(loading(FEW))) == [1, 4, 7, 8]


@pytest.mark.parametrize(
    ("shape", "changes"),
    [
        (lambda vector: vector, {}),
        (lambda vector: [vector], {}),
        (lambda vector: [[vector, vector]], {}),
        (lambda vector: [[[number * 3 for number in vector]]], {}),
        (lambda vector: {"embedding": vector}, {}),
        (lambda vector: {"data": [{"index": 0, "embedding": vector}]}, {}),
        (lambda vector: {"a": {"b": [vector]}}, {"response_key": "a.b"}),
    ],
)
def test_every_shape_of_an_answer_is_read(loading, jobs, shape, changes):
    lease = loading(FEW[:2])
    plain = lease.build.to_spec().endpoint

    def model(job: dict[str, Any], record: dict[str, Any]) -> Any:
        [vector] = embed_passages(plain, [record["inputs"]])
        return shape(vector.tolist())

    jobs.play = lambda job: run(job, model)
    lease.build.spec["endpoint"] |= changes
    found = prepared(lease)
    made = embed_passages(plain, [text_of(row) for row in FEW[:2]])
    np.testing.assert_allclose([found[1], found[2]], made, atol=1e-5)


def test_vectors_are_normalised_as_the_endpoint_says(loading, jobs):
    def twice(job: dict[str, Any], record: dict[str, Any]) -> Any:
        [vector] = embed_passages(lease.build.to_spec().endpoint, [record["inputs"]])
        return [(vector * 2).tolist()]

    jobs.play = lambda job: run(job, twice)
    lease = loading(FEW[:2], endpoint={"normalize": False})
    assert np.linalg.norm(prepared(lease)[1]) == pytest.approx(2, abs=1e-4)


def test_another_model_than_the_endpoints_ends_the_build(loading, jobs):
    jobs.play = lambda job: run(job, lambda job, record: np.ones(384).tolist())
    with pytest.raises(BuildError, match="gives other vectors than the endpoint"):
        prepared(loading(FEW))


def test_a_model_of_another_dimension_ends_the_build(loading, jobs):
    jobs.play = lambda job: run(job, lambda job, record: [0.5] * 256)
    with pytest.raises(BuildError, match="vectors of 256 numbers, not 384"):
        prepared(loading(FEW))


def test_a_job_without_outputs_ends_the_build(loading, jobs):
    jobs.play = lambda job: None
    with pytest.raises(
        BuildError, match=r"cannot be read: .*part-00000\.jsonl\.out does not exist"
    ):
        prepared(loading(FEW))


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (
            {"TransformJobStatus": "Failed", "FailureReason": "AlgorithmError: no GPU."},
            r"failed: AlgorithmError: no GPU\. The log group /aws/sagemaker/TransformJobs",
        ),
        ({"TransformJobStatus": "Failed"}, "failed: its state is Failed"),
        ({"TransformJobStatus": "Stopped"}, "was stopped in AWS. Start a new build"),
    ],
)
def test_a_job_that_failed_ends_the_build_with_its_reason(loading, jobs, outcome, said):
    jobs.outcome = outcome
    with pytest.raises(BuildError, match=said):
        prepared(loading(FEW))


def test_a_job_that_aws_does_not_know_is_looked_for_again(loading, jobs):
    lease = loading(FEW)
    batch_transform.prepare(lease, seconds=5)
    lease.save(batch_job={**lease.build.batch_job, "name": "no-such-job"})
    with pytest.raises(EmbeddingUnavailable, match="knows no Batch Transform job no-such-job"):
        batch_transform.prepare(lease, seconds=5)


def test_an_endpoint_without_a_model_for_jobs_is_named(batch_definition):
    definition = batch_definition(FEW, endpoint={"batch_model": ""})
    with pytest.raises(BuildError, match="lacks a SageMaker model"):
        builds.start(definition, enqueue=False)


def test_names_differ_where_numbers_do_not(loading):
    lease = loading(FEW)
    batch_transform.prepare(lease, seconds=5)
    first = job_of(lease)
    assert first.name.startswith(lease.build.index_name.replace("_", "-"))
    assert len(first.name) <= 63
    lease.build.created_at = lease.build.definition.builds.get().created_at.replace(year=2001)
    lease.save(batch_job={})
    batch_transform.prepare(lease, seconds=5)
    assert job_of(lease).name != first.name


def test_a_file_of_vectors_is_read_once_for_the_shards_of_a_load(loading, monkeypatch):
    lease = loading(FEW)
    prepared(lease)
    opened: list[str] = []
    open_stream = s3.open_stream

    def counted(uri: str, **options: Any) -> Any:
        opened.append(uri)
        return open_stream(uri, **options)

    monkeypatch.setattr(s3, "open_stream", counted)
    batch_outputs.forget()
    for row in range(1, 9):
        assert list(held(lease, row, row)) == [row]
    assert len(opened) == 1


# --- Whole builds ------------------------------------------------------------


def finished(build: IndexBuild) -> IndexBuild:
    builds.run_to_end(build.pk)
    build.refresh_from_db()
    return build


@pytest.fixture
def asked_while_loading(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that the endpoint is asked for until a build has loaded."""
    asked: list[str] = []
    invoke, finish = sagemaker.invoke, batch_transform.finish

    def listening(endpoint: EndpointSpec, body: bytes, **options: Any) -> bytes:
        inputs = json.loads(body)["inputs"]
        asked.extend([inputs] if isinstance(inputs, str) else inputs)
        return invoke(endpoint, body, **options)

    def loaded(lease: Lease) -> None:
        monkeypatch.setattr(sagemaker, "invoke", invoke)
        finish(lease)

    monkeypatch.setattr(sagemaker, "invoke", listening)
    monkeypatch.setattr(batch_transform, "finish", loaded)
    return asked


def test_a_build_by_a_job_calls_the_endpoint_only_for_the_probe(
    batch_definition, folder, jobs, monkeypatch, asked_while_loading
):
    monkeypatch.setattr(batch_inputs, "PART_ROWS", 3)
    done = finished(builds.start(batch_definition(FEW), enqueue=False))
    assert (done.status, done.error) == (Status.LIVE, "")
    assert (done.written, done.embedded, done.reused, done.rejected) == (8, 8, 0, 0)
    assert len(jobs.created) == 1
    assert set(asked_while_loading) == {PROBE_TEXT, text_of(FEW[0])}
    assert objects(folder) == {}
    keys = [done.key_prefix + row["id"] for row in FEW]
    stored = valkey.hash_fields(keys, ["rp_vector"], fresh=True)
    made = embed_passages(done.to_spec().endpoint, [text_of(row) for row in FEW])
    found = np.array([decode_vector(raw or b"") for [raw] in stored])
    np.testing.assert_allclose(found, made, atol=1e-5)


def test_the_endpoint_is_asked_for_what_the_job_left_out(
    batch_definition, jobs, asked_while_loading
):
    jobs.play = lambda job: run(job, change=without_some)
    done = finished(builds.start(batch_definition(FEW), enqueue=False))
    assert (done.status, done.written, done.embedded) == (Status.LIVE, 8, 8)
    left_out = {text_of(FEW[row - 1]) for row in (2, 3, 5, 6)}
    assert set(asked_while_loading) == {PROBE_TEXT, text_of(FEW[0])} | left_out


def test_a_failed_job_fails_the_build_and_leaves_nothing(
    batch_definition, folder, jobs, django_capture_on_commit_callbacks
):
    jobs.outcome = {"TransformJobStatus": "Failed", "FailureReason": "No capacity"}
    with django_capture_on_commit_callbacks(execute=True):
        done = finished(builds.start(batch_definition(FEW), enqueue=False))
    assert done.status == Status.FAILED
    assert "No capacity" in done.error
    done.refresh_from_db()
    assert done.removed_at is not None
    assert objects(folder) == {}
    assert jobs.stopped == []


def test_cancelling_a_build_stops_its_job(
    batch_definition, folder, jobs, django_capture_on_commit_callbacks
):
    jobs.looks = 99
    started = builds.start(batch_definition(FEW), enqueue=False)
    while not jobs.created:
        assert builds.run(started.pk) is not None
    started.refresh_from_db()
    assert "Batch Transform job" in started.notice
    assert objects(folder) != {}
    with django_capture_on_commit_callbacks(execute=True):
        builds.cancel(started)
    assert jobs.stopped == [jobs.created[0]["TransformJobName"]]
    assert objects(folder) == {}
    started.refresh_from_db()
    assert started.removed_at is not None
    assert builds.run(started.pk) is None


def test_deleting_an_index_stops_its_job(
    batch_definition, folder, jobs, django_capture_on_commit_callbacks
):
    jobs.looks = 99
    started = builds.start(batch_definition(FEW), enqueue=False)
    while not jobs.created:
        builds.run(started.pk)
    with django_capture_on_commit_callbacks(execute=True):
        started.definition.delete()
    assert len(jobs.stopped) == 1
    assert objects(folder) == {}


def test_aws_keeps_no_build_in_the_engine(
    batch_definition, jobs, django_capture_on_commit_callbacks
):
    jobs.looks = 99
    started = builds.start(batch_definition(FEW), enqueue=False)
    while not jobs.created:
        builds.run(started.pk)
    jobs.refuse = lambda operation: refused("ServiceUnavailable", "down", 503)
    with django_capture_on_commit_callbacks(execute=True):
        builds.cancel(started)
    started.refresh_from_db()
    # Tried again by the scheduler.
    assert started.removed_at is None
    assert valkey.drop_index(started.index_name) is False
    jobs.refuse = lambda operation: refused("AccessDeniedException", "no")
    removal.remove(started.pk)
    started.refresh_from_db()
    assert started.removed_at is not None


def test_throttling_delays_a_build_and_a_refusal_ends_it(batch_definition, jobs):
    jobs.refuse = lambda operation: refused("ThrottlingException", "Rate exceeded")
    started = builds.start(batch_definition(FEW), enqueue=False)
    assert builds.run(started.pk) is not None
    started.refresh_from_db()
    assert started.status == Status.LOADING
    assert "Rate exceeded" in started.notice
    jobs.refuse = lambda operation: refused("AccessDeniedException", "Not you")
    assert builds.run(started.pk) is None
    started.refresh_from_db()
    assert started.status == Status.FAILED
    assert "Allow the worker's role sagemaker:CreateTransformJob" in started.error


def test_a_missing_bucket_names_the_field_to_correct(loading):
    lease = loading(FEW, endpoint={"batch_s3_uri": "s3://no-such-bucket-of-ours/x"})
    with pytest.raises(CatalogError, match=r'does not exist. Correct "working folder"'):
        batch_transform.prepare(lease, seconds=5)


def test_the_job_is_known_to_aws_as_it_was_asked_for(loading, jobs, endpoint_spec):
    lease = loading(FEW, endpoint={"concurrency": 7})
    batch_transform.prepare(lease, seconds=5)
    job = job_of(lease)
    aws = boto3.client("sagemaker", endpoint_url=os.environ["TEST_MOTO_SAGEMAKER"])
    found = aws.describe_transform_job(TransformJobName=job.name)
    source = found["TransformInput"]["DataSource"]["S3DataSource"]
    assert source == {"S3DataType": "S3Prefix", "S3Uri": f"{job.folder}/input/"}
    assert found["TransformOutput"]["S3OutputPath"] == f"{job.folder}/output"
    assert found["MaxConcurrentTransforms"] == 7
    assert found["TransformResources"] == {"InstanceType": "ml.g4dn.xlarge", "InstanceCount": 1}
