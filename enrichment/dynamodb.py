"""DynamoDB: the only module that imports its client, and where its errors become ours.

Reads on the hot path never retry: the deadline of a request is shorter than any
back-off. Table and batch calls, made by loaders and tests, use a patient client.
"""

import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from decimal import Decimal
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

import boto3
from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from botocore import exceptions as aws
from botocore.config import Config
from django.conf import settings

from enrichment.errors import (
    EnrichmentError,
    EnrichmentRejected,
    EnrichmentThrottled,
    EnrichmentTimeout,
    EnrichmentUnavailable,
)

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

# Request threads of one process; more would open connections within a request.
POOL_SIZE = 64
# A host that does not answer a handshake in this time is down, however patient the source.
LONGEST_CONNECT_S = 0.5
# The most that BatchWriteItem takes.
BATCH_SIZE = 25
BATCH_ATTEMPTS = 8

THROTTLED = {
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
}
BAD_CREDENTIALS = {
    "AccessDeniedException",
    "ExpiredTokenException",
    "IncompleteSignatureException",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationTokenException",
    "UnrecognizedClientException",
}

_deserialize = TypeDeserializer().deserialize
_serialize = TypeSerializer().serialize
_session_lock = threading.Lock()
# Shared, as it holds what is slow to read for the first client.
_session: boto3.session.Session | None = None


def get_item(
    table: str,
    key: Mapping[str, str],
    *,
    attributes: Sequence[str] = (),
    region: str = "",
    timeout_ms: int,
) -> dict[str, Any] | None:
    """Return the named top-level attributes (none named: all) of one item, or None without one.

    Reads are eventually consistent. Numbers are Decimal. Raises EnrichmentError.
    """
    request: dict[str, Any] = {
        "TableName": table,
        "Key": {name: {"S": value} for name, value in key.items()},
    }
    if attributes:
        # Placeholders, since plain names could be words reserved by DynamoDB.
        names = {f"#{n}": name for n, name in enumerate(dict.fromkeys(attributes))}
        request["ProjectionExpression"] = ",".join(names)
        request["ExpressionAttributeNames"] = names
    with _translated(table, region):
        item = _reader(_region(region), timeout_ms).get_item(**request).get("Item")
    if item is None:
        return None
    return {name: _decoded(value) for name, value in item.items()}


def _decoded(value: Any) -> Any:
    try:
        return _deserialize(value)
    except (TypeError, ArithmeticError):
        # A type or a number that this client does not know is no reason to lose the others.
        return None


def warm(*, region: str = "", timeout_ms: int) -> None:
    """Make the client that ``get_item`` will use. Sends nothing to DynamoDB."""
    with _translated("", region):
        _reader(_region(region), timeout_ms)


def create_table(
    name: str, *, partition_key: str = "pk", sort_key: str = "", region: str = ""
) -> None:
    """Create an on-demand table with text keys and wait until it is active; an existing one stays."""
    keys = [(partition_key, "HASH"), *([(sort_key, "RANGE")] if sort_key else [])]
    client = _patient(_region(region))
    with _translated(name, region):
        with suppress(client.exceptions.ResourceInUseException):
            client.create_table(
                TableName=name,
                BillingMode="PAY_PER_REQUEST",
                AttributeDefinitions=[
                    {"AttributeName": key, "AttributeType": "S"} for key, _ in keys
                ],
                KeySchema=[{"AttributeName": key, "KeyType": role} for key, role in keys],  # type: ignore[typeddict-item]  # role is one of the two words
            )
        client.get_waiter("table_exists").wait(
            TableName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
        )


def delete_table(name: str, *, region: str = "") -> None:
    """Delete a table with its items."""
    with _translated(name, region):
        _patient(_region(region)).delete_table(TableName=name)


def put_items(table: str, items: Iterable[Mapping[str, Any]], *, region: str = "") -> int:
    """Write whole items in batches, replacing those with the same key; return their number.

    Floats are stored as numbers. Raises EnrichmentError, EnrichmentThrottled when the table
    keeps refusing part of a batch.
    """
    client = _patient(_region(region))
    remaining = iter(items)
    written = 0
    while batch := list(islice(remaining, BATCH_SIZE)):
        _put_batch(client, table, batch, region)
        written += len(batch)
    return written


def _put_batch(
    client: "DynamoDBClient", table: str, batch: list[Mapping[str, Any]], region: str
) -> None:
    requests: Any = {
        table: [
            {"PutRequest": {"Item": {k: _serialize(_storable(v)) for k, v in item.items()}}}
            for item in batch
        ]
    }
    for attempt in range(BATCH_ATTEMPTS):
        with _translated(table, region):
            requests = client.batch_write_item(RequestItems=requests).get("UnprocessedItems")
        if not requests:
            return
        time.sleep(0.05 * 2**attempt)
    raise EnrichmentThrottled(
        f"Table {table} kept refusing {len(requests[table])} items: raise its write capacity."
    )


def _storable(value: Any) -> Any:
    if isinstance(value, float):
        return Decimal(repr(value))
    if isinstance(value, Mapping):
        return {key: _storable(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_storable(entry) for entry in value]
    return value


def _region(region: str) -> str:
    return region or settings.AWS_REGION


# More than there are pairs of a region and a time limit: making one takes longer than a request has.
@lru_cache(maxsize=256)
def _reader(region: str, timeout_ms: int) -> "DynamoDBClient":
    timeout_s = timeout_ms / 1000
    return _client(
        region,
        Config(
            connect_timeout=min(timeout_s, LONGEST_CONNECT_S),
            read_timeout=timeout_s,
            retries={"total_max_attempts": 1, "mode": "standard"},
            max_pool_connections=POOL_SIZE,
            tcp_keepalive=True,
            # Keys and names are made here: checking them again costs as much as sending them.
            parameter_validation=False,
        ),
    )


@lru_cache(maxsize=8)
def _patient(region: str) -> "DynamoDBClient":
    return _client(
        region,
        Config(
            connect_timeout=5,
            read_timeout=20,
            retries={"total_max_attempts": 4, "mode": "standard"},
        ),
    )


def _client(region: str, config: Config) -> "DynamoDBClient":
    global _session
    # Clients are safe to share between threads; making them from one session is not.
    with _session_lock:
        if _session is None:
            _session = boto3.session.Session()
        return _session.client("dynamodb", region_name=region, config=config)


def _forget_clients() -> None:
    global _session, _session_lock
    _session_lock = threading.Lock()
    _session = None
    _reader.cache_clear()
    _patient.cache_clear()


# Two processes must not share a connection, nor a lock that a thread of the other holds.
os.register_at_fork(after_in_child=_forget_clients)


@contextmanager
def _translated(table: str, region: str) -> Iterator[None]:
    try:
        yield
    except aws.ClientError as error:
        raise _from_answer(error, table, _region(region)) from error
    except (aws.ReadTimeoutError, aws.ConnectTimeoutError) as error:
        raise EnrichmentTimeout(
            f"DynamoDB gave no answer in time for table {table} in region {_region(region)}: "
            "raise the source's timeout, or look at the network."
        ) from error
    except (aws.ConnectionError, aws.HTTPClientError) as error:
        raise EnrichmentUnavailable(
            f"DynamoDB cannot be reached: {error} Check the region and the network."
        ) from error
    except aws.WaiterError as error:
        raise EnrichmentUnavailable(f"Table {table} did not become active: {error}") from error
    except (aws.NoCredentialsError, aws.PartialCredentialsError) as error:
        raise EnrichmentRejected(
            f"{error}. Give this process AWS credentials that may read table {table}."
        ) from error
    except aws.BotoCoreError as error:
        raise EnrichmentRejected(f"DynamoDB cannot be asked: {error}") from error


def _from_answer(error: aws.ClientError, table: str, region: str) -> EnrichmentError:
    code = error.response.get("Error", {}).get("Code", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    said = error.response.get("Error", {}).get("Message", "") or code
    if code in THROTTLED:
        return EnrichmentThrottled(f"DynamoDB throttles table {table}: raise its capacity. {said}")
    if code == "ResourceNotFoundException":
        return EnrichmentRejected(
            f"Table {table} not found in region {region}: "
            "correct the source's table and region, or create the table."
        )
    if code in BAD_CREDENTIALS:
        return EnrichmentRejected(
            f"AWS refuses the credentials for table {table} in region {region}: {said} "
            "Allow dynamodb:GetItem on it."
        )
    if code == "ValidationException":
        return EnrichmentRejected(
            f"Table {table} refuses the key: {said} "
            "Compare the source's partition and sort key with the table's; both must be text."
        )
    if status >= 500:
        return EnrichmentUnavailable(f"DynamoDB failed with status {status}: {said}")
    return EnrichmentRejected(f"DynamoDB refuses to read table {table}: {said}")
