"""Catalog sources: every format and packing, local and in S3, with bad rows as values."""

import csv
import gzip
import io
import json
import os
import socket
import socketserver
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexes import catalog, s3
from indexes.catalog import count_rows, read_rows, version
from indexes.errors import CatalogError, CatalogUnavailable, RowError
from indexes.formats import delimited
from indexes.formats.rows import MAX_CONTENT
from indexes.schema import CatalogSpec

ROWS = [{"id": str(number), "title": f"Ünï “{number}”\nline"} for number in range(1, 6)]


def spec(uri: Path | str, kind: str = "auto") -> CatalogSpec:
    return CatalogSpec.model_validate({"uri": str(uri), "format": kind, "text_template": "{title}"})


def values(uri: Path | str, **options: Any) -> list[Any]:
    return [row.values for row in read_rows(spec(uri), **options)]


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode()


def comma_separated(rows: list[dict[str, Any]], delimiter: str = ",") -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def parquet(rows: list[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=2)
    return file.getvalue()


FILES: dict[str, bytes] = {
    "c.jsonl": jsonl(ROWS),
    "c.jsonl.gz": gzip.compress(jsonl(ROWS), mtime=0),
    "C.NDJSON": b"\xef\xbb\xbf" + jsonl(ROWS).rstrip(),
    "two-members.jsonl.gz": gzip.compress(jsonl(ROWS[:2]), mtime=0)
    + gzip.compress(jsonl(ROWS[2:]), mtime=0),
    "c.csv": comma_separated(ROWS),
    "c.csv.gz": gzip.compress(comma_separated(ROWS), mtime=0),
    "semicolon.csv": b"\xef\xbb\xbf" + comma_separated(ROWS, ";"),
    "c.tsv": comma_separated(ROWS, "\t"),
    "c.parquet": parquet(ROWS),
}


@pytest.fixture
def bucket(namespace: str) -> Iterator[Callable[[str, bytes], str]]:
    """A factory: puts bytes under a key of a new bucket and returns the URI."""
    s3 = boto3.resource("s3")
    made = s3.Bucket(f"{namespace}-catalogs")
    region = os.environ.get("AWS_DEFAULT_REGION", "us-east-1")
    if region == "us-east-1":
        made.create()
    else:
        made.create(CreateBucketConfiguration={"LocationConstraint": region})  # type: ignore[typeddict-item]  # any region

    def put(key: str, body: bytes) -> str:
        made.put_object(Key=key, Body=body)
        return f"s3://{made.name}/{key}"

    yield put
    made.objects.delete()
    made.delete()


@pytest.mark.unit
@pytest.mark.parametrize("name", FILES)
def test_every_local_format_gives_the_same_rows(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(FILES[name])
    assert values(path) == ROWS
    assert values(path, start=3) == ROWS[3:]
    assert values(path, start=99) == []
    assert count_rows(spec(path)) == len(ROWS)


@pytest.mark.parametrize("name", ["c.jsonl.gz", "c.csv", "c.parquet"])
def test_s3_gives_the_same_rows(bucket, name):
    uri = bucket(f"folder/{name}", FILES[name])
    assert values(uri) == ROWS
    assert values(uri, start=3) == ROWS[3:]
    assert count_rows(spec(uri)) == len(ROWS)


def test_s3_streams_an_object_larger_than_its_buffer(bucket):
    rows = [{"id": str(number), "text": os.urandom(2000).hex()} for number in range(1500)]
    assert values(bucket("big.jsonl.gz", gzip.compress(jsonl(rows), 1))) == rows


@pytest.mark.unit
def test_numbers_that_are_no_json_spoil_their_field_only(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text('{"id": 1, "v": [1, NaN, -Infinity], "title": "x"}\n')
    [row] = read_rows(spec(path))
    assert isinstance(row.values, dict)
    assert (row.values["id"], row.values["title"]) == (1, "x")
    assert str(row.values["v"]) == "[1, nan, -inf]"


@pytest.mark.unit
def test_row_numbers_are_line_numbers(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text('\n{"id": 1}\n\n  \n{"id": 2}')
    assert [(row.number, row.values) for row in read_rows(spec(path))] == [
        (2, {"id": 1}),
        (5, {"id": 2}),
    ]


@pytest.mark.unit
@pytest.mark.parametrize(
    ("line", "reason", "said"),
    [
        (b'{"id": 1', "bad_json", "Not valid JSON"),
        (b'{"id": NaN', "bad_json", "Not valid JSON"),
        (b"[" * 200_000 + b"NaN", "bad_json", "Not valid JSON"),
        (b'{"id": "\xff\xfe"}', "bad_encoding", "Not UTF-8 at byte 9"),
        (b'[{"id": 1}]', "not_an_object", "this is a list"),
        (b"12", "not_an_object", "this is a single value"),
        (b"x" * (3 << 20), "too_long", "longer than 1 MiB"),
    ],
)
def test_a_bad_json_line_is_a_row_error_and_the_rest_is_read(tmp_path, line, reason, said):
    path = tmp_path / "c.jsonl"
    path.write_bytes(b'{"id": 1}\n' + line + b'\n{"id": 2}\n')
    first, bad, last = read_rows(spec(path))
    assert (first.values, last.values) == ({"id": 1}, {"id": 2})
    assert bad.number == 2
    assert isinstance(bad.values, RowError)
    assert bad.values.reason == reason
    assert said in str(bad.values)
    assert bad.content[:5] == line.decode(errors="replace")[:5]
    assert len(bad.content) <= MAX_CONTENT


@pytest.mark.unit
@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"1,a,b", "column_count"),
        (b"1", "column_count"),
        (b"1,\xff", "bad_encoding"),
        (b'1,"' + b"x" * 1_100_000 + b'"', "bad_csv"),
    ],
)
def test_a_bad_csv_record_is_a_row_error_and_the_rest_is_read(tmp_path, record, reason):
    path = tmp_path / "c.csv"
    path.write_bytes(b"id,title\n1,one\n" + record + b"\n3,three\n")
    first, bad, last = read_rows(spec(path))
    assert (first.number, first.values) == (1, {"id": "1", "title": "one"})
    assert (last.number, last.values) == (3, {"id": "3", "title": "three"})
    assert isinstance(bad.values, RowError)
    assert (bad.number, bad.values.reason) == (2, reason)


@pytest.mark.unit
def test_empty_csv_cells_are_missing_and_blank_lines_are_passed_over(tmp_path):
    path = tmp_path / "c.csv"
    path.write_text("id,title,\n1,,x\n\n2,two,y\n")
    assert values(path) == [{"id": "1", "title": None}, {"id": "2", "title": "two"}]


@pytest.mark.unit
def test_the_delimiter_is_counted_outside_quotes(tmp_path):
    path = tmp_path / "c.csv"
    path.write_text('"id";"price, with, tax"\n1;2,50\n')
    assert values(path) == [{"id": "1", "price, with, tax": "2,50"}]


@pytest.mark.unit
def test_parquet_values_come_as_json_would_hold_them(tmp_path):
    path = tmp_path / "c.parquet"
    table = pa.table(
        {
            "price": pa.array([Decimal("12.50")]),
            "count": pa.array([Decimal("3.00")]),
            "released": pa.array([date(2009, 12, 10)]),
            "updated": pa.array(
                [datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)], pa.timestamp("ns", "UTC")
            ),
            "nano": pa.array([1_600_000_000_123_456_789], pa.timestamp("ns")),
            "tags": pa.array([["a", "b"]]),
            "attributes": pa.array([{"colour": "red", "none": None}]),
            "raw": pa.array([b"bytes"]),
        }
    )
    pq.write_table(table, path)
    assert values(path) == [
        {
            "price": 12.5,
            "count": 3,
            "released": "2009-12-10",
            "updated": "2020-01-02T03:04:05+00:00",
            "nano": "2020-09-13T12:26:40.123456",
            "tags": ["a", "b"],
            "attributes": {"colour": "red", "none": None},
            "raw": "bytes",
        }
    ]


@pytest.mark.unit
@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
        ("missing.jsonl", None, "There is no file"),
        ("c.txt", b"{}", 'choose one in "format"'),
        ("c.parquet", b"no parquet at all", "not a readable Parquet file"),
        ("c.parquet", gzip.compress(b"PAR1", mtime=0), "cannot be packed"),
        ("cut.jsonl.gz", FILES["c.jsonl.gz"][:-20], "damaged or was cut off"),
        (
            "flipped.jsonl.gz",
            FILES["c.jsonl.gz"][:40] + b"xxxx" + FILES["c.jsonl.gz"][44:],
            "damaged",
        ),
        ("c.jsonl", "x".encode("utf-16"), "UTF-16"),
        ("c.csv", "id,title\n".encode("utf-16"), "UTF-16"),
        ("c.csv", b"id,id\n1,2\n", 'names "id" twice'),
    ],
)
def test_a_source_that_cannot_be_read_says_why(tmp_path, name, body, said):
    path = tmp_path / name
    if body is not None:
        path.write_bytes(body)
    with pytest.raises(CatalogError, match=said):
        list(read_rows(spec(path)))


@pytest.mark.unit
@pytest.mark.parametrize("uri", ["s3://", "s3://bucket", "s3://bucket/", "s3:bucket/key"])
def test_a_bad_s3_address_says_how_to_write_it(uri):
    with pytest.raises(CatalogError, match="write s3://bucket/key"):
        list(read_rows(spec(uri, "jsonl")))


def test_a_missing_object_names_the_field(bucket):
    uri = bucket("there.jsonl", b"{}").replace("there", "not-there")
    for attempt in (lambda: list(read_rows(spec(uri))), lambda: version(spec(uri))):
        with pytest.raises(CatalogError, match=r'does not exist.*"path or s3:// URI"'):
            attempt()


def test_the_version_changes_with_the_source(tmp_path, bucket):
    path = tmp_path / "c.jsonl"
    path.write_text("{}")
    before = version(spec(path)), version(spec(bucket("c.jsonl", b"{}")))
    assert version(spec(path)) == before[0]
    path.write_text('{"id": 1}')
    after = version(spec(path)), version(spec(bucket("c.jsonl", b"[]")))
    assert before[0] != after[0]
    assert before[1] != after[1]


@pytest.mark.unit
def test_counting_gives_up_when_it_takes_too_long(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_bytes(b"{}\n" * 20_000)
    assert count_rows(spec(path)) == 20_000
    assert count_rows(spec(path), seconds=-1) is None


@pytest.mark.unit
@pytest.mark.parametrize("name", ["c.jsonl", "c.csv"])
def test_memory_does_not_grow_with_the_catalog(tmp_path, name):
    path = tmp_path / name
    row = b'{"id": 1, "title": "%s"}\n' if name == "c.jsonl" else b'1,"%s"\n'
    path.write_bytes(b"id,title\n" + row % (b"x" * 2000) * 10_000)
    tracemalloc.start()
    assert sum(1 for _ in read_rows(spec(path))) >= 10_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


@pytest.mark.unit
@given(
    cells=st.lists(
        st.lists(
            st.text(st.characters(codec="utf-8", exclude_characters="\r\0")), min_size=2, max_size=2
        ),
        max_size=5,
    ),
    delimiter=st.sampled_from(delimited.DELIMITERS),
)
def test_any_cell_survives_csv(tmp_path_factory, cells, delimiter):
    rows = [{"first column": first or None, "second": second or None} for first, second in cells]
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerows([["first column", "second"], *cells])
    path = tmp_path_factory.mktemp("csv") / "c.csv"
    path.write_text(text.getvalue(), newline="")
    assert values(path) == rows


@pytest.mark.unit
@given(st.binary(max_size=400))
def test_no_bytes_make_the_reader_fail_but_by_a_catalog_error(tmp_path_factory, body):
    path = tmp_path_factory.mktemp("any") / "c"
    path.write_bytes(body)
    for kind in catalog.FORMATS:
        try:
            for row in read_rows(spec(path, kind)):
                assert isinstance(row.values, dict | RowError)
        except CatalogError:
            pass


class CuttingProxy(socketserver.ThreadingTCPServer):
    """Passes connections on to S3, and cuts the first answers off in their middle."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, target: str, cuts: int) -> None:
        self.target = urlsplit(target)
        self.cuts = cuts
        super().__init__(("127.0.0.1", 0), CuttingHandler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class CuttingHandler(socketserver.BaseRequestHandler):
    server: CuttingProxy

    def handle(self) -> None:
        address = (self.server.target.hostname or "", self.server.target.port or 80)
        with socket.create_connection(address) as upstream:
            upstream.sendall(self.request.recv(1 << 16))
            passed = 0
            while chunk := upstream.recv(1 << 16):
                self.request.sendall(chunk)
                passed += len(chunk)
                if passed > 300_000 and self.server.cuts > 0:
                    self.server.cuts -= 1
                    return


@pytest.fixture
def cutting_proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], CuttingProxy]]:
    """A factory: sends the S3 client through a proxy that cuts off that many answers."""
    if "AWS_ENDPOINT_URL_S3" not in os.environ:
        pytest.skip("S3 itself cannot be made to cut connections")
    running = []

    def start(cuts: int) -> CuttingProxy:
        proxy = CuttingProxy(os.environ["AWS_ENDPOINT_URL_S3"], cuts)
        running.append(proxy)
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        s3._client.cache_clear()
        return proxy

    yield start
    for proxy in running:
        proxy.shutdown()
        proxy.server_close()
    s3._client.cache_clear()


def test_a_broken_connection_is_taken_up_where_it_broke(bucket, cutting_proxy):
    rows = [{"id": str(number), "text": "x" * 1000} for number in range(2000)]
    uri = bucket("big.jsonl", jsonl(rows))
    proxy = cutting_proxy(2)
    assert values(uri) == rows
    assert proxy.cuts == 0


def test_a_connection_that_keeps_breaking_is_a_temporary_error(bucket, cutting_proxy):
    uri = bucket("big.jsonl", jsonl([{"id": "1", "text": "x" * 5_000_000}]))
    cutting_proxy(99)
    with pytest.raises(CatalogUnavailable):
        values(uri)
