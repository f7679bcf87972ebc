"""SageMaker's control API: Batch Transform jobs. The only importer of its client.

A job runs a model on instances of its own over the lines of files in S3, and leaves
one output file beside each. See docs/batch-transform.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004  (the client's: it is no HTTPClientError)
    HTTPClientError,
    NoCredentialsError,
    ParamValidationError,
)
from django.conf import settings

from indexes.errors import (
    EmbeddingError,
    EmbeddingRejected,
    EmbeddingThrottled,
    EmbeddingUnavailable,
)
from indexes.naming import ROW_FIELD
from indexes.schema import EndpointSpec

if TYPE_CHECKING:
    from mypy_boto3_sagemaker import SageMakerClient

# A record is a text of at most 8,000 characters; SageMaker allows 100 MB for all
# records under way together.
_PAYLOAD_MB: Final = 1
_MOST_CONCURRENT: Final = 100 // _PAYLOAD_MB
_JOINED: Final = f"$['{ROW_FIELD}','SageMakerOutput']"
_UNKNOWN: Final = ("could not find", "not found", "does not exist")


@dataclass(frozen=True)
class JobState:
    """What AWS says of a job: InProgress, Completed, Failed, Stopping or Stopped; and why."""

    status: str
    reason: str = ""

    @property
    def running(self) -> bool:
        return self.status in ("InProgress", "Stopping")


def create(endpoint: EndpointSpec, name: str, *, source: str, target: str) -> bool:
    """Start a job over the JSON lines below ``source``; False where it was started before.

    Each output line holds the ``rp_row`` of its input and the model's answer as
    ``SageMakerOutput``. Raises EmbeddingError.
    """
    with _translated(name, "sagemaker:CreateTransformJob"):
        try:
            _client(region(endpoint)).create_transform_job(
                TransformJobName=name,
                ModelName=endpoint.batch_model,
                # One line a request: containers that take application/json read a body as one document.
                BatchStrategy="SingleRecord",
                MaxPayloadInMB=_PAYLOAD_MB,
                MaxConcurrentTransforms=min(endpoint.concurrency, _MOST_CONCURRENT),
                TransformInput={
                    "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": source}},
                    "ContentType": "application/json",
                    "SplitType": "Line",
                },
                TransformOutput={
                    "S3OutputPath": target,
                    "Accept": "application/json",
                    "AssembleWith": "Line",
                },
                DataProcessing={"JoinSource": "Input", "OutputFilter": _JOINED},
                TransformResources={
                    # Any name: AWS has more types than the client's list.
                    "InstanceType": endpoint.batch_instance_type,  # type: ignore[typeddict-item]
                    "InstanceCount": endpoint.batch_instance_count,
                },
            )
        except ClientError as error:
            if _code(error) == "ResourceInUse":
                return False
            raise
    return True


def state(region: str, name: str) -> JobState | None:
    """Return how far a job is, None where AWS knows none of that name. Raises EmbeddingError."""
    with _translated(name, "sagemaker:DescribeTransformJob"):
        try:
            found = _client(region).describe_transform_job(TransformJobName=name)
        except ClientError as error:
            if _is_unknown(error):
                return None
            raise
    return JobState(found["TransformJobStatus"], found.get("FailureReason", ""))


def stop(region: str, name: str) -> None:
    """Stop a job; one that has ended or never was is left as it is. Raises EmbeddingError."""
    with _translated(name, "sagemaker:StopTransformJob"):
        try:
            _client(region).stop_transform_job(TransformJobName=name)
        except ClientError as error:
            if not _is_unknown(error) and _code(error) != "ValidationException":
                raise


def region(endpoint: EndpointSpec) -> str:
    """Return the region in which the jobs of an endpoint run."""
    return endpoint.region or settings.AWS_REGION


@cache
def _client(region: str) -> SageMakerClient:
    # With its retries within the time that a worker holds a build.
    config = Config(connect_timeout=5, read_timeout=10, retries={"mode": "standard"})
    return boto3.client("sagemaker", region_name=region, config=config)


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _is_unknown(error: ClientError) -> bool:
    if _code(error) == "ResourceNotFound":
        return True
    # No code of its own: a job that is not there is a bad parameter.
    said = str(error).lower()
    return _code(error).startswith("Validation") and any(word in said for word in _UNKNOWN)


@contextmanager
def _translated(name: str, action: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        raise _refused(name, action, error) from error
    except NoCredentialsError as error:
        raise EmbeddingRejected(
            f"No AWS credentials for the Batch Transform job {name}: give the worker a role, or "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        ) from error
    except (ConnectionError, HTTPClientError) as error:
        raise EmbeddingUnavailable(
            f"SageMaker gives no answer about job {name}: {error}"
        ) from error
    except (BotoCoreError, ValueError) as error:
        step = "Check its model, instance type and region on the endpoint, and AWS_ENDPOINT_URL_SAGEMAKER."
        if isinstance(error, ParamValidationError):
            step = "Check its model and instance type on the endpoint."
        raise EmbeddingRejected(
            f"SageMaker cannot be asked for the Batch Transform job {name}: {error} {step}"
        ) from error


def _refused(name: str, action: str, error: ClientError) -> EmbeddingError:
    code = _code(error)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    said = f"{error.response.get('Error', {}).get('Message', '')}".strip() or code
    if status == 429 or "Throttl" in code or code == "TooManyRequestsException":
        return EmbeddingThrottled(f"SageMaker throttles questions about job {name}: {said}")
    if status >= 500 or code == "ServiceUnavailable":
        return EmbeddingUnavailable(f"SageMaker gives no answer about job {name}: {said}")
    step = "Check the model, the instance type and the working folder on the endpoint."
    if status in (401, 403) or "AccessDenied" in code:
        step = f"Allow the worker's role {action}."
    elif code == "ResourceLimitExceeded":
        step = (
            "Ask AWS for a higher quota, choose another instance type or fewer instances on the "
            "endpoint, or wait until other jobs have ended; then start a new build."
        )
    return EmbeddingRejected(f"SageMaker refuses the Batch Transform job {name}: {said} {step}")
