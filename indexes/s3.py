"""Objects in S3: read as byte streams, written and removed. The only module that imports the S3 client."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from typing import IO, TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004  (the client's: it is no HTTPClientError)
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    ResponseStreamingError,
)
from django.conf import settings

from indexes.errors import CatalogError, CatalogUnavailable

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BUFFER_BYTES = 1 << 20
# One stream is read for as long as its rows take to embed: connections do break.
RECONNECTS = 5
# The most that one call may name.
REMOVED_AT_ONCE = 1000
# Where the addresses come from, as errors name it.
CATALOG = '"path or s3:// URI" of the catalog source'
WORKING_FOLDER = '"working folder" of the embedding endpoint'


def open_stream(uri: str, *, field: str = CATALOG) -> io.BufferedReader:
    """Open an object for reading from its start to its end, in bounded memory."""
    return io.BufferedReader(_ObjectStream(uri, field), BUFFER_BYTES)


def write(uri: str, body: bytes, *, field: str) -> None:
    """Write an object, over the one that is there. ``field`` is where its address was set."""
    bucket, key = split(uri, field=field)
    with translated(uri, action="s3:PutObject", field=field):
        _client().put_object(Bucket=bucket, Key=key, Body=body)


def remove_under(folder: str, *, field: str) -> int:
    """Remove every object below ``s3://bucket/folder``; return how many there were."""
    # The slash keeps out folders whose names begin alike.
    bucket, prefix = split(f"{folder.rstrip('/')}/", field=field)
    removed = 0
    while True:
        with translated(folder, action="s3:ListBucket", field=field):
            listed = _client().list_objects_v2(
                Bucket=bucket, Prefix=prefix, MaxKeys=REMOVED_AT_ONCE
            )
        keys = [found["Key"] for found in listed.get("Contents", ())]
        if not keys:
            return removed
        with translated(folder, action="s3:DeleteObject", field=field):
            answer = _client().delete_objects(
                Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True}
            )
        if refused := answer.get("Errors"):
            raise CatalogError(
                f"S3 refuses to remove s3://{bucket}/{refused[0].get('Key')}: "
                f"{refused[0].get('Message')} Allow the worker's role s3:DeleteObject on it."
            )
        removed += len(keys)


def download(uri: str, file: IO[bytes]) -> None:
    """Copy an object into a file."""
    bucket, key = split(uri)
    with translated(uri):
        _client().download_fileobj(bucket, key, file)


def version(uri: str) -> str:
    """Return what changes whenever the object does."""
    bucket, key = split(uri)
    with translated(uri):
        head = _client().head_object(Bucket=bucket, Key=key)
    return f"{head['ContentLength']}-{head['ETag'].strip(chr(34))}"


def split(uri: str, *, field: str = CATALOG) -> tuple[str, str]:
    """Return bucket and key of an ``s3://`` URI, or raise CatalogError."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket or not key:
        raise CatalogError(
            f'"{uri}" is not the address of an object: write s3://bucket/key in {field}.'
        )
    return bucket, key


@contextmanager
def translated(uri: str, *, action: str = "s3:GetObject", field: str = CATALOG) -> Iterator[None]:
    """Turn the client's errors into CatalogError, with the next step."""
    try:
        yield
    except ClientError as error:
        raise _refused(uri, error, action, field) from error
    except NoCredentialsError as error:
        raise CatalogError(
            f"No AWS credentials for {uri}: give the worker a role or AWS_ACCESS_KEY_ID."
        ) from error
    except (
        ConnectionError,
        HTTPClientError,
        IncompleteReadError,
        ResponseStreamingError,
    ) as error:
        raise CatalogUnavailable(f"S3 gives no answer for {uri}: {error}") from error
    except BotoCoreError as error:
        raise CatalogError(f"S3 cannot be asked for {uri}: {error}") from error


def _refused(uri: str, error: ClientError, action: str, field: str) -> CatalogError:
    code = error.response.get("Error", {}).get("Code", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in ("404", "NoSuchKey", "NoSuchBucket", "NotFound"):
        if code == "NoSuchBucket":
            return CatalogError(f"The bucket of {uri} does not exist. Correct {field}.")
        step = ", or upload the file" if field == CATALOG else ""
        return CatalogError(f"{uri} does not exist. Correct {field}{step}.")
    if code in ("403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"):
        return CatalogError(f"S3 denies access to {uri}: allow the worker's role {action} on it.")
    if code == "PreconditionFailed":
        return CatalogError(f"{uri} was replaced while it was read: start the build again.")
    if status >= 500 or code in ("SlowDown", "Throttling", "RequestTimeout"):
        return CatalogUnavailable(f"S3 gives no answer for {uri}: {code}")
    return CatalogError(f"S3 refuses {action} on {uri}: {error}")


@cache
def _client() -> S3Client:
    config = Config(connect_timeout=5, read_timeout=30, retries={"mode": "standard"})
    return boto3.client("s3", region_name=settings.AWS_REGION, config=config)


def modified_at(uri: str) -> datetime:
    """Return when the object was last written."""
    bucket, key = split(uri)
    with translated(uri):
        return _client().head_object(Bucket=bucket, Key=key)["LastModified"]


class _ObjectStream(io.RawIOBase):
    """An object's body that reconnects where it broke off, as long as the object is the same."""

    def __init__(self, uri: str, field: str) -> None:
        self._uri = uri
        self._field = field
        self._bucket, self._key = split(uri, field=field)
        self._position = 0
        self._reconnects = 0
        self._etag = ""
        self._body: Any = None
        self._open()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            try:
                with translated(self._uri, field=self._field):
                    chunk = self._body.read(len(buffer))
                break
            except CatalogUnavailable:
                self._reconnects += 1
                if self._reconnects > RECONNECTS:
                    raise
                self._open()
        buffer[: len(chunk)] = chunk
        self._position += len(chunk)
        return len(chunk)

    def close(self) -> None:
        if self._body is not None:
            self._body.close()
        super().close()

    def _open(self) -> None:
        with translated(self._uri, field=self._field):
            if not self._position:
                answer = _client().get_object(Bucket=self._bucket, Key=self._key)
            else:
                answer = _client().get_object(
                    Bucket=self._bucket,
                    Key=self._key,
                    Range=f"bytes={self._position}-",
                    IfMatch=self._etag,
                )
        self._etag = answer["ETag"]
        self._body = answer["Body"]
