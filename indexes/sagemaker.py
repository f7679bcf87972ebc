"""SageMaker runtime: one call to a real-time endpoint. The only importer of its client.

No call is retried here: the caller knows how much time is left.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    InvalidRegionError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    ReadTimeoutError,
)
from django.conf import settings

from indexes.errors import (
    EmbeddingError,
    EmbeddingRejected,
    EmbeddingThrottled,
    EmbeddingTimeout,
    EmbeddingUnavailable,
)
from indexes.schema import EndpointSpec

if TYPE_CHECKING:
    from mypy_boto3_sagemaker_runtime import SageMakerRuntimeClient

# A client's time limits are fixed when it is made, which is slow: calls share
# one for the next of these limits.
BUCKETS_S: Final = (
    0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0,
)  # fmt: skip

_clients: dict[tuple[str, float], SageMakerRuntimeClient] = {}
# Shared, as it holds what is slow to read for the first client.
_session: boto3.session.Session | None = None
_making = threading.Lock()


def invoke(endpoint: EndpointSpec, body: bytes, *, timeout_s: float | None = None) -> bytes:
    """Send a JSON body to the endpoint and return its answer. Raises EmbeddingError."""
    limit = endpoint.timeout_ms / 1000 if timeout_s is None else timeout_s
    if limit <= 0:
        raise EmbeddingTimeout("No time is left to call the embedding endpoint.")
    with _translated(endpoint):
        answer = _client(endpoint, limit).invoke_endpoint(
            EndpointName=endpoint.endpoint_name,
            ContentType="application/json",
            Accept="application/json",
            Body=body,
        )
        return answer["Body"].read()


def forget_clients() -> None:
    """Make new clients from now on: after a fork, or when the environment has changed."""
    global _making, _session
    _making = threading.Lock()
    _session = None
    _clients.clear()


# Two processes must not share a connection.
os.register_at_fork(after_in_child=forget_clients)


def _client(endpoint: EndpointSpec, limit: float) -> SageMakerRuntimeClient:
    region = endpoint.region or settings.AWS_REGION
    if not region:
        raise EmbeddingRejected(
            f'The embedding endpoint "{endpoint.slug}" has no region: set it on the endpoint, '
            "or set AWS_REGION."
        )
    bucket = next((bucket for bucket in BUCKETS_S if limit <= bucket), BUCKETS_S[-1])
    client = _clients.get((region, bucket))
    if client is None:
        # A session makes one client at a time.
        with _making:
            client = _clients.get((region, bucket))
            if client is None:
                client = _clients[region, bucket] = _make(region, bucket)
    return client


def _make(region: str, bucket: float) -> SageMakerRuntimeClient:
    global _session
    if _session is None:
        _session = boto3.session.Session()
    config = Config(
        connect_timeout=bucket,
        read_timeout=bucket,
        retries={"total_max_attempts": 1},
        tcp_keepalive=True,
        max_pool_connections=64,
    )
    try:
        return _session.client("sagemaker-runtime", region_name=region, config=config)
    except ValueError as error:
        raise EmbeddingRejected(f"{error}. Check AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME.") from error


@contextmanager
def _translated(endpoint: EndpointSpec) -> Iterator[None]:
    name = f'The embedding endpoint "{endpoint.slug}"'
    try:
        yield
    except (ReadTimeoutError, ConnectTimeoutError) as error:
        raise EmbeddingTimeout(f"{name} did not answer in time.") from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise EmbeddingRejected(
            f"{name} cannot be called without AWS credentials: set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or give this machine a role."
        ) from error
    except (ParamValidationError, InvalidRegionError, ProfileNotFound) as error:
        raise EmbeddingRejected(
            f"{name} cannot be called: {error} Check its name and region, and AWS_PROFILE."
        ) from error
    except ClientError as error:
        raise _translated_answer(name, endpoint, error) from error
    except BotoCoreError as error:
        raise EmbeddingUnavailable(f"{name} cannot be reached: {error}") from error


def _translated_answer(name: str, endpoint: EndpointSpec, error: ClientError) -> EmbeddingError:
    response: Any = error.response
    code = str(response.get("Error", {}).get("Code", ""))
    message = str(response.get("Error", {}).get("Message", ""))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code == "ModelError":
        original = int(response.get("OriginalStatusCode", 500))
        said = str(response.get("OriginalMessage") or message)[:300]
        if original == 429:
            return EmbeddingThrottled(f"The model of {_lower(name)} is busy: {said}")
        if 400 <= original < 500:
            return EmbeddingRejected(
                f"The model of {_lower(name)} refused the request ({original}): {said} "
                "Check the request key and the extra fields of the endpoint."
            )
        return EmbeddingUnavailable(f"The model of {_lower(name)} failed ({original}): {said}")
    if status == 429 or "Throttl" in code or code == "TooManyRequestsException":
        return EmbeddingThrottled(f"{name} is throttled: {message}")
    if status >= 500 or code in ("ServiceUnavailable", "ModelNotReadyException"):
        return EmbeddingUnavailable(f"{name} failed ({code}): {message}")
    step = "Check its name and region."
    if status in (401, 403):
        step = "Check the AWS credentials and that they allow sagemaker:InvokeEndpoint."
    return EmbeddingRejected(f'{name} ("{endpoint.endpoint_name}") refused: {message} {step}')


def _lower(name: str) -> str:
    return name[0].lower() + name[1:]
