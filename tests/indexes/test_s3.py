"""Objects that are written and removed, and what S3 says of those that cannot be."""

import os
import socket
from collections.abc import Iterator

import boto3
import pytest

from indexes import s3
from indexes.errors import CatalogError, CatalogUnavailable

FIELD = s3.WORKING_FOLDER


@pytest.fixture
def bucket(namespace: str) -> Iterator[str]:
    made = boto3.resource("s3").Bucket(f"{namespace}-objects")
    made.create()
    yield f"s3://{made.name}"
    made.objects.delete()
    made.delete()


def test_what_was_written_is_read_and_written_over(bucket):
    uri = f"{bucket}/a/b.jsonl"
    for body in (b"one\n", b"another\nand more\n"):
        s3.write(uri, body, field=FIELD)
        with s3.open_stream(uri) as stream:
            assert stream.read() == body


@pytest.mark.parametrize("slash", ["", "/"])
def test_only_what_lies_in_the_folder_is_removed(bucket, slash, monkeypatch):
    monkeypatch.setattr(s3, "REMOVED_AT_ONCE", 4)
    names = [f"job-1/{n}" for n in range(10)]
    client = boto3.client("s3")
    for name in [*names, "job-10/kept", "job-1.kept"]:
        client.put_object(Bucket=bucket.removeprefix("s3://"), Key=name, Body=b"")
    assert s3.remove_under(f"{bucket}/job-1{slash}", field=FIELD) == 10
    assert s3.remove_under(f"{bucket}/job-1{slash}", field=FIELD) == 0
    left = client.list_objects_v2(Bucket=bucket.removeprefix("s3://"))["Contents"]
    assert [found["Key"] for found in left] == ["job-1.kept", "job-10/kept"]


@pytest.mark.parametrize("uri", ["s3://bucket", "s3://", "/tmp/x", "s3:bucket/x"])
def test_no_whole_bucket_is_ever_removed(uri):
    with pytest.raises(CatalogError, match='in "working folder" of the embedding endpoint'):
        s3.remove_under(uri, field=FIELD)


def test_what_is_missing_names_the_field_it_was_set_in(bucket):
    with pytest.raises(CatalogError, match=r'does not exist\. Correct "working folder"'):
        s3.open_stream(f"{bucket}/none", field=FIELD)
    with pytest.raises(CatalogError, match=r'bucket of .* does not exist\. Correct "working'):
        s3.write("s3://no-such-bucket-of-ours/x", b"", field=FIELD)


def test_s3_that_nobody_answers_is_for_later(monkeypatch):
    if "AWS_ENDPOINT_URL_S3" not in os.environ:
        pytest.skip("S3 itself cannot be stopped")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{unused.getsockname()[1]}")
        s3._client.cache_clear()
        with pytest.raises(CatalogUnavailable, match="S3 gives no answer"):
            s3.write("s3://bucket/x", b"", field=FIELD)
    s3._client.cache_clear()
