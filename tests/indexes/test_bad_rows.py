"""A large catalog with every kind of bad row: each is skipped, counted by its reason, kept and downloadable."""

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.urls import reverse

from indexes import builds, catalog, loading, valkey
from indexes.errors import BuildError
from indexes.lease import Lease
from indexes.models import IndexBuild
from indexes.preconditions import check_loaded
from indexes.schema import EndpointSpec
from indexes.shards import FIRST_ROWS

ROWS = 10_000
EACH = 20
ENDPOINT = EndpointSpec(slug="none", endpoint_name="none", dimension=4, max_batch=64)
FIELDS = [
    {"name": "title", "type": "text"},
    {"name": "brand", "type": "tag"},
    {"name": "category", "type": "tag", "multiple": True},
    {"name": "price", "type": "numeric"},
    {"name": "image", "type": "stored"},
]


def good(number: int) -> dict[str, Any]:
    row = {
        "id": f"p{number}",
        "title": f"product {number}",
        "brand": "Acme",
        "category": ["a", "b"],
        "price": number,
        "image": {"src": f"{number}.png"},
        "updated": "2026-01-02",
    }
    # Some rows bring their vector along.
    return {**row, "v": [number, 1, 2, 3]} if number % 2 else row


def changed(**changes: Any) -> Callable[[int], bytes]:
    return lambda number: json.dumps(good(number) | changes).encode()


def without(name: str) -> Callable[[int], bytes]:
    return lambda number: json.dumps(
        {key: value for key, value in good(number).items() if key != name}
    ).encode()


# What a bad row looks like, and the reason it is counted under.
KINDS: tuple[tuple[str, Callable[[int], bytes]], ...] = (
    ("missing_id", without("id")),
    ("missing_id", changed(id="")),
    ("bad_id", changed(id=["a"])),
    ("bad_id", changed(id="x" * 257)),
    ("empty_text", changed(title="  ")),
    ("bad_text", changed(title="x", category=["a"], brand="b", text={"de": "x"})),
    ("bad_tag", changed(brand=["a", "b"])),
    ("bad_tag", changed(category=["a|b"])),
    ("long_tag", changed(brand="b" * 4001)),
    ("bad_numeric", changed(price="cheap")),
    ("bad_numeric", changed(price=float("nan"))),
    ("bad_stored", lambda number: b'{"id": "s%d", "title": "x", "image": "\\ud800", "n": NaN}' % number),
    ("bad_vector", changed(v=[1, 2, float("nan"), 4])),
    ("bad_vector", changed(v=[1, float("inf"), 3, 4])),
    ("bad_vector", changed(v=[1, 2, 3])),
    ("bad_vector", changed(v="not a vector")),
    ("bad_vector", changed(v=[0, 0, 0, 0])),
    ("bad_version", changed(updated="yesterday")),
    ("bad_json", lambda number: b'{"id": "p%d", "title": ' % number),
    ("bad_encoding", lambda number: b'{"id": "p%d", "title": "\xff"}' % number),
    ("not_an_object", lambda number: b'["p%d"]' % number),
    ("too_long", lambda number: b'{"id": "p%d", "title": "' % number + b"x" * (1 << 20) + b'"}'),
)  # fmt: skip
# Rows before it whose ids they repeat: in the same shard and in one before.
DUPLICATES = {
    **{row: row - 1 for row in range(FIRST_ROWS + 4000, ROWS, 1000)},
    **{row: row - 4010 for row in range(FIRST_ROWS + 4050, ROWS, 1000)},
}


def embed(endpoint: EndpointSpec, texts: Sequence[str], timeout_s: float) -> Any:
    return np.array([[len(text), 1, 2, 3] for text in texts], dtype=np.float32)


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, tuple[str, bytes]]]:
    """The catalog, and of each bad row the reason and the line."""
    taken = {*DUPLICATES, *DUPLICATES.values()}
    free = [row for row in range(1, ROWS + 1) if row not in taken]
    rows = iter(random.Random(1).sample(free, len(free)))
    bad: dict[int, tuple[str, bytes]] = {}
    for reason, make in KINDS:
        # A mebibyte each: two are enough.
        for _ in range(2 if reason == "too_long" else EACH):
            row = next(rows)
            bad[row] = (reason, make(row))
    for row, first in DUPLICATES.items():
        line = json.dumps(good(row) | {"id": f"p{first}"}).encode()
        bad[row] = ("duplicate_id", line)
    path = tmp_path_factory.mktemp("bad") / "catalog.jsonl"
    with path.open("wb") as file:
        for row in range(1, ROWS + 1):
            file.write(bad[row][1] if row in bad else json.dumps(good(row)).encode())
            file.write(b"\n")
    return path, bad


@pytest.fixture
def loaded(new_definition, seeded) -> IndexBuild:
    definition = new_definition(
        seeded[0],
        endpoint=ENDPOINT,
        fields=[*FIELDS, {"name": "text", "type": "text"}],
        text_template="{title}",
    )
    definition.source.vector_field = "v"
    definition.source.version_field = "updated"
    definition.source.save()
    build = builds.start(definition, enqueue=False)
    spec = build.to_spec()
    valkey.create_index(build.index_name, build.key_prefix, spec)
    IndexBuild.objects.filter(pk=build.pk).update(
        status=IndexBuild.Status.LOADING, catalog_version=catalog.version(spec.catalog)
    )
    lease = Lease.claim(build.pk)
    assert isinstance(lease, Lease)
    assert loading.load_slice(lease, seconds=600, call=embed)
    lease.release()
    build.refresh_from_db()
    return build


def test_every_bad_row_is_counted_kept_and_downloadable(loaded, seeded, admin_client):
    _, bad = seeded
    reasons = Counter(reason for reason, _ in bad.values())
    assert len({reason for reason, _ in KINDS} | {"duplicate_id"}) == len(reasons) == 15
    assert loaded.rejected_reasons == reasons
    assert (loaded.cursor, loaded.rejected, loaded.written) == (ROWS, len(bad), ROWS - len(bad))
    assert loaded.given + loaded.embedded == loaded.written
    assert valkey.index_info(loaded.index_name).num_docs == ROWS - len(bad)
    check_loaded(loaded)

    kept = {row.row: row for row in loaded.rejected_rows.all()}
    assert {number: row.reason for number, row in kept.items()} == {
        number: reason for number, (reason, _) in bad.items()
    }
    for number, (_, line) in bad.items():
        assert recognised(kept[number].content, line)

    address = reverse("admin:indexes_indexbuild_rejected", args=[loaded.pk])
    lines = b"".join(admin_client.get(address).streaming_content).splitlines()
    assert [json.loads(line)["row"] for line in lines] == sorted(bad)


def test_more_bad_rows_than_the_index_allows_end_the_build(loaded):
    loaded.definition.max_rejected_percent = 1
    with pytest.raises(
        BuildError, match=r"4 %\); at most 1 % may be.*\(100 rows\): v: .*vector field"
    ):
        check_loaded(loaded)


def recognised(content: str, line: bytes) -> bool:
    """Tell whether what is kept of a row is its beginning, as text or as JSON written anew."""
    text = line.decode(errors="replace")
    if text.startswith(content):
        return True
    try:
        row = json.loads(line)
    except ValueError:
        return False
    without_vector = {name: value for name, value in row.items() if name != "v"}
    plain = [
        json.dumps(r, ensure_ascii=False, separators=(",", ":")) for r in (row, without_vector)
    ]
    return any(text.replace("\ud800", "\ufffd").startswith(content) for text in plain)
