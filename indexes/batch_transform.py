"""Embedding a whole catalog by a SageMaker Batch Transform job, as the other way beside calls.

The texts that need a vector are written to S3 in parts, a job runs the model over
them, and its outputs are joined back by row number. All that is known of it is
``IndexBuild.batch_job``, written through the lease: a killed worker costs one part,
which is written again as a whole, and a job that was created twice is one job, as
its name follows from the build.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Mapping
from contextlib import closing
from hashlib import blake2b
from itertools import chain, islice
from typing import Any, Final, Literal

import structlog
from django.conf import settings
from pydantic import BaseModel, ConfigDict

from indexes import batch_inputs, batch_outputs, catalog, s3, sagemaker_jobs
from indexes.embedding import Vectors
from indexes.errors import BuildError, EmbeddingUnavailable, IndexesError
from indexes.items import decode_vector
from indexes.lease import Lease
from indexes.models import IndexBuild
from indexes.probe import MIN_COSINE, cosine
from indexes.schema import EndpointSpec, IndexSpec

log = structlog.get_logger(__name__)

# A turn goes on this many times as long as it took to get to its first row, so
# that reopening a big packed file never becomes the main work.
WORK_PER_SKIP: Final = 4
_MAX_NAME: Final = 63


class Job(BaseModel):
    """A job and how far it is; ``ends`` are the last rows of its parts in the source."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    region: str
    folder: str
    stage: Literal["writing", "starting", "running", "done", "removed"] = "writing"
    row: int = 0
    texts: int = 0
    ends: tuple[int, ...] = ()
    since: float = 0

    def part(self, number: int) -> str:
        return f"{self.folder}/input/part-{number:05}.jsonl"

    def output(self, number: int) -> str:
        return f"{self.folder}/output/part-{number:05}.jsonl.out"

    def at(self, **changes: Any) -> Job:
        return self.model_copy(update=changes)


def prepare(lease: Lease, *, seconds: float) -> float | None:
    """Carry the job of a loading build forward: write its texts, start it, look at it.

    Return the seconds to wait before the next look, or None when its vectors are there.
    Raises BuildError when the job failed, and what S3 and SageMaker refuse.
    """
    build = lease.build
    spec = build.to_spec()
    job = of(build) or _planned(build, spec.endpoint)
    if job.stage == "writing":
        job = _write(lease, job, spec, seconds)
    if job.stage == "writing":
        return 0
    if job.stage == "starting":
        sagemaker_jobs.create(
            spec.endpoint, job.name, source=f"{job.folder}/input/", target=f"{job.folder}/output"
        )
        _save(lease, job.at(stage="running", since=time.time()))
        return settings.BATCH_POLL_SECONDS
    if job.stage == "running":
        return _look(lease, job, spec.endpoint)
    return None


def vectors(
    build: IndexBuild, first_row: int, last_row: int, *, beat: Callable[[], None] = lambda: None
) -> dict[int, Vectors] | None:
    """Return the vectors of the source's rows from first to last, each of shape (dimension,).

    A row that is not in it has no usable output: the endpoint is to be called for it. None:
    this build has no job. ``beat`` is called all along. Raises BuildError where an output
    file is missing.
    """
    job = of(build)
    if job is None or job.stage != "done":
        return None
    endpoint = build.to_spec().endpoint
    found: dict[int, Vectors] = {}
    for number in range(bisect_left(job.ends, first_row), len(job.ends)):
        if number and job.ends[number - 1] >= last_row:
            break
        part = batch_outputs.read(job.output(number), endpoint, beat)
        found |= {row: part[row] for row in part if first_row <= row <= last_row}
    return found


def finish(lease: Lease) -> None:
    """Remove the working folder of a build that has loaded its vectors.

    What cannot be removed now is removed with the build.
    """
    job = of(lease.build)
    if job is None or job.stage == "removed":
        return
    try:
        remove(lease.build.batch_job)
    except IndexesError as error:
        log.warning("working folder left", build=lease.build.label, error=str(error))
    else:
        _save(lease, job.at(stage="removed"))


def remove(batch_job: Mapping[str, Any]) -> None:
    """Stop a job that may run and remove its working folder. May be repeated.

    Takes ``IndexBuild.batch_job``, as the build may be deleted. Raises what S3 and SageMaker refuse.
    """
    if not batch_job:
        return
    job = Job.model_validate(batch_job)
    # Between "starting" and "running" a worker may have died with the job created.
    if job.stage in ("starting", "running"):
        state = sagemaker_jobs.state(job.region, job.name)
        if state is not None and state.running:
            sagemaker_jobs.stop(job.region, job.name)
    if job.stage != "removed":
        s3.remove_under(job.folder, field=s3.WORKING_FOLDER)
        batch_outputs.forget()


def of(build: IndexBuild) -> Job | None:
    """Return the job of a build, None where there is none."""
    return Job.model_validate(build.batch_job) if build.batch_job else None


def _planned(build: IndexBuild, endpoint: EndpointSpec) -> Job:
    if not endpoint.batch_model or not endpoint.batch_s3_uri:
        raise BuildError(
            f'The embedding endpoint "{endpoint.slug}" has no SageMaker model and working folder for '
            "Batch Transform: fill them in, or embed items by calls to the endpoint."
        )
    # Names are taken for good in an AWS account: a build of the same number in another
    # database, or after this one was emptied, must have another.
    own = f"{build.pk} {build.created_at.isoformat()}".encode()
    digest = blake2b(own, digest_size=5).hexdigest()
    words = build.index_name.replace("_", "-").strip("-")[: _MAX_NAME - len(digest) - 1]
    name = f"{words.rstrip('-')}-{digest}"
    folder = f"{endpoint.batch_s3_uri.rstrip('/')}/{name}"
    return Job(name=name, region=sagemaker_jobs.region(endpoint), folder=folder)


def _write(lease: Lease, job: Job, spec: IndexSpec, seconds: float) -> Job:
    """Write parts from the job's row on, for about ``seconds``; at the end of the source, move on."""
    build = lease.build
    if catalog.version(spec.catalog) != build.catalog_version:
        raise BuildError(f"{spec.catalog.uri} changed while it was read: start the build again.")
    opened = time.monotonic()
    with closing(catalog.read_rows(spec.catalog, start=job.row)) as rows:
        first = list(islice(rows, 1))
        now = time.monotonic()
        until = now + max(seconds, WORK_PER_SKIP * (now - opened))
        stream = chain(first, rows)
        for part in batch_inputs.parts(build, spec, stream, with_probe=not job.ends):
            if part.texts:
                s3.write(job.part(len(job.ends)), part.body, field=s3.WORKING_FOLDER)
                job = job.at(ends=(*job.ends, part.last_row))
            job = job.at(row=part.last_row, texts=job.texts + part.texts)
            _save(lease, job)
            if time.monotonic() > until:
                return job
    # Where every vector is given or taken over, there is nothing to run.
    job = job.at(stage="starting" if job.texts else "done")
    _save(lease, job)
    return job


def _look(lease: Lease, job: Job, endpoint: EndpointSpec) -> float | None:
    """Look at a running job once."""
    state = sagemaker_jobs.state(job.region, job.name)
    if state is None:
        raise EmbeddingUnavailable(
            f"SageMaker in {job.region} knows no Batch Transform job {job.name}."
        )
    if state.running:
        _save(lease, job)
        return settings.BATCH_POLL_SECONDS
    if state.status != "Completed":
        raise _failure(job, state)
    _check_model(lease.build, job, endpoint)
    _save(lease, job.at(stage="done"))
    return None


def _failure(job: Job, state: sagemaker_jobs.JobState) -> BuildError:
    if state.status == "Stopped":
        return BuildError(
            f"The Batch Transform job {job.name} was stopped in AWS. Start a new build when it may run."
        )
    reason = state.reason.strip().rstrip(".") or f"its state is {state.status}"
    return BuildError(
        f"The Batch Transform job {job.name} failed: {reason}. The log group "
        "/aws/sagemaker/TransformJobs in CloudWatch says more. Mend the model, its role or the "
        "instance type of the endpoint, then start a new build."
    )


def _check_model(build: IndexBuild, job: Job, endpoint: EndpointSpec) -> None:
    """Raise BuildError when the job's model is not the one that answers queries."""
    made = batch_outputs.first(job.output(0), batch_inputs.PROBE_ROW, endpoint)
    if made is None or not build.probe:
        return
    probe = decode_vector(bytes(build.probe))
    if cosine(made, probe) < MIN_COSINE:
        raise BuildError(
            f'The SageMaker model "{endpoint.batch_model}" gives other vectors than the endpoint '
            f'"{endpoint.endpoint_name}" for the same text. Name the model that the endpoint runs.'
        )


def _save(lease: Lease, job: Job) -> None:
    """Write the state of the job to its build, with a sentence for the people who watch it."""
    changes = {} if job.stage == "removed" else {"notice": _notice(job)}
    lease.save(batch_job=job.model_dump(mode="json"), **changes)


def _notice(job: Job) -> str:
    match job.stage:
        case "writing":
            return f"{job.row:,} rows read for a Batch Transform job: {job.texts:,} texts to embed."
        case "starting":
            return f"Starting the Batch Transform job {job.name}."
        case "running":
            minutes = max(0, time.time() - job.since) / 60
            return (
                f"The Batch Transform job {job.name} embeds {job.texts:,} texts, "
                f"for {minutes:.0f} min now."
            )
    return ""
