"""SageMaker's control API before moto's, which keeps jobs but runs none: here a job takes a while, and runs."""

import json
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
import urllib3

from indexes import sagemaker_jobs
from tests.indexes.containers import Answer, Call, Container, answer

Play = Callable[[dict[str, Any]], None]


def refused(kind: str, message: str, status: int = 400) -> Answer:
    """An answer in the error form of this API."""
    return answer({"__type": kind, "message": message}, status)


def objects(uri: str) -> dict[str, bytes]:
    """What lies below an address in S3, by its name."""
    parts = urlsplit(uri)
    bucket = boto3.resource("s3").Bucket(parts.netloc)
    found = bucket.objects.filter(Prefix=parts.path.lstrip("/"))
    return {entry.key: entry.get()["Body"].read() for entry in found}


def records(job: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The records of each input file of a job."""
    source = job["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"]
    return {
        key.rsplit("/", 1)[-1]: [json.loads(line) for line in body.splitlines()]
        for key, body in objects(source).items()
    }


def call_model(job: dict[str, Any], record: dict[str, Any]) -> Any:
    """Send one record to the real model, as the job's container does with BatchStrategy SingleRecord."""
    runtime = boto3.client("sagemaker-runtime")
    given = runtime.invoke_endpoint(
        EndpointName=job["ModelName"],
        ContentType=job["TransformInput"]["ContentType"],
        Body=json.dumps(record).encode(),
    )
    return json.loads(given["Body"].read())


def run(
    job: dict[str, Any],
    model: Callable[[dict[str, Any], dict[str, Any]], Any] = call_model,
    *,
    change: Callable[[list[bytes]], list[bytes]] = lambda lines: lines,
) -> None:
    """Do what SageMaker does with a job: a file of joined lines for each input, here in any order."""
    assert job["BatchStrategy"] == "SingleRecord"
    assert job["TransformInput"]["SplitType"] == job["TransformOutput"]["AssembleWith"] == "Line"
    assert job["DataProcessing"]["JoinSource"] == "Input"
    assert job["DataProcessing"]["OutputFilter"] == "$['rp_row','SageMakerOutput']"
    target = urlsplit(job["TransformOutput"]["S3OutputPath"])
    for name, found in records(job).items():
        lines = [
            json.dumps({"rp_row": record["rp_row"], "SageMakerOutput": model(job, record)}).encode()
            for record in found
        ]
        random.shuffle(lines)
        boto3.client("s3").put_object(
            Bucket=target.netloc,
            Key=f"{target.path.strip('/')}/{name}.out",
            Body=b"".join(line + b"\n" for line in change(lines)),
        )


@dataclass
class JobService:
    """Passes calls on to moto, but a job is in progress for ``looks`` looks and then runs by ``play``."""

    play: Play = run
    looks: int = 1
    outcome: dict[str, str] = field(default_factory=lambda: {"TransformJobStatus": "Completed"})
    refuse: Callable[[str], Answer | None] = lambda operation: None
    created: list[dict[str, Any]] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    operations: list[str] = field(default_factory=list)

    def respond(self, call: Call) -> Answer:
        operation = call.headers["X-Amz-Target"].partition(".")[2]
        self.operations.append(operation)
        if answered := self.refuse(operation):
            return answered
        name = call.body["TransformJobName"]
        if operation == "StopTransformJob":
            self.stopped.append(name)
            return answer({})
        if operation == "CreateTransformJob":
            if any(job["TransformJobName"] == name for job in self.created):
                return refused("ResourceInUse", "a job with this name already exists")
            self.created.append(call.body)
        # moto tells services apart by the signature, which it does not check.
        passed = ("Authorization", "Content-Type", "X-Amz-Target")
        given = urllib3.request(
            "POST",
            os.environ["TEST_MOTO_SAGEMAKER"],
            body=json.dumps(call.body),
            headers={name: call.headers[name] for name in passed},
        )
        body = given.json()
        if operation == "DescribeTransformJob" and given.status == 200:
            body |= self._progress(name)
        return answer(body, given.status)

    def _progress(self, name: str) -> dict[str, str]:
        if name in self.stopped:
            return {"TransformJobStatus": "Stopped"}
        if self.looks:
            self.looks -= 1
            return {"TransformJobStatus": "InProgress"}
        if self.outcome["TransformJobStatus"] == "Completed":
            job = next(job for job in self.created if job["TransformJobName"] == name)
            self.play(job)
        return self.outcome


@contextmanager
def job_service() -> Iterator[JobService]:
    """Let the client of SageMaker's control API speak to a service of the test's own."""
    service = JobService()
    container = Container(respond=service.respond)
    container.start()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TEST_MOTO_SAGEMAKER", os.environ["AWS_ENDPOINT_URL_SAGEMAKER"])
        environment.setenv("AWS_ENDPOINT_URL_SAGEMAKER", container.url)
        sagemaker_jobs._client.cache_clear()
        yield service
    sagemaker_jobs._client.cache_clear()
    container.stop()
