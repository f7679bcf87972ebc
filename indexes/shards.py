"""A catalog cut into shards: rows that became items, and rows that did not, bounded in number and bytes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeVar

import orjson

from indexes.errors import RowError
from indexes.formats.rows import MAX_CONTENT, SourceRow, as_json, shown
from indexes.items import CatalogItem, ItemMaker
from indexes.models import RejectedRow
from indexes.schema import IndexSpec

T = TypeVar("T")

SHARD_ROWS: Final = 2000
# Of texts, fields and vectors: what a shard of 2,000 rows and 1,024 dimensions has. Two
# shards are in memory, one being written and one being read.
SHARD_BYTES: Final = 12 << 20
# A shard takes about so long, whatever the endpoint: it is what a killed worker costs.
SHARD_SECONDS: Final = 10.0
FIRST_ROWS: Final = 500
FEWEST_ROWS: Final = 64
BEAT_S: Final = 1.0
_ITEM_BYTES: Final = 500


class Numbered(NamedTuple):
    """An item with the number of its row, and the beginning of the row as text."""

    row: int
    item: CatalogItem
    content: str


@dataclass
class Shard:
    """What becomes of some rows of the source; ``last`` is the number of the last one.

    ``written_by`` has the rows that wrote the keys of its items, as far as that is known.
    """

    last: int = 0
    items: list[Numbered] = field(default_factory=list)
    rejected: list[RejectedRow] = field(default_factory=list)
    written_by: dict[int, int | None] = field(default_factory=dict)

    def reject(self, row: int, error: RowError, content: str) -> None:
        """Keep a row that is no item, with the reason."""
        message = shown(str(error))[:500]
        self.rejected.append(
            RejectedRow(row=row, reason=error.reason, message=message, content=content)
        )


@dataclass
class Pace:
    """How many rows the next shard has: fewer where an endpoint is slow, never more than ``most``."""

    most: int = SHARD_ROWS
    rows: int = 0

    def __post_init__(self) -> None:
        self.rows = self.rows or min(FIRST_ROWS, self.most)

    def took(self, rows: int, seconds: float) -> None:
        """Take note of how long a shard took."""
        wanted = round(rows * SHARD_SECONDS / max(seconds, 0.01))
        self.rows = min(max(wanted, FEWEST_ROWS), self.most)


def read(spec: IndexSpec, rows: Iterable[SourceRow], pace: Pace) -> Iterator[Shard]:
    """Yield the rows as shards; of rows with one id in a shard the first is its item."""
    maker = ItemMaker.of(spec)
    stream = iter(rows)
    while shard := _next(maker, stream, spec, pace.rows):
        yield shard


def duplicate(item: CatalogItem, first: int) -> RowError:
    """Return why a row is no item whose id an earlier row has."""
    return RowError("duplicate_id", f'The id "{item.id}" is that of row {first}, which is kept.')


def ahead(stream: Iterator[T], beat: Callable[[], None]) -> Generator[T, None, None]:
    """Yield from the stream, making the next value in a thread meanwhile.

    ``beat`` is called about once a second while a value is waited for.
    """
    with ThreadPoolExecutor(1, "read-ahead") as pool:
        coming: Future[T | None] = pool.submit(next, stream, None)
        while (value := _awaited(coming, beat)) is not None:
            coming = pool.submit(next, stream, None)
            yield value


def _awaited(future: Future[T], beat: Callable[[], None]) -> T:
    while True:
        try:
            return future.result(BEAT_S)
        except FutureTimeout:
            if future.done():
                raise
            beat()


def _next(
    maker: ItemMaker, stream: Iterator[SourceRow], spec: IndexSpec, most: int
) -> Shard | None:
    shard = Shard()
    seen: dict[str, int] = {}
    size = read = 0
    for number, values, content in stream:
        read += 1
        shard.last = number
        try:
            if isinstance(values, RowError):
                raise values
            item = maker.make(values)
            first = seen.setdefault(item.id, number)
            if first != number:
                raise duplicate(item, first)
        except RowError as error:
            content = content or as_json(values)
            shard.reject(number, error, content)
        else:
            content = _content(values, spec.catalog.vector_field)
            shard.items.append(Numbered(number, item, content))
            size += len(item.text) + sum(map(len, item.fields.values()))
            size += _ITEM_BYTES + 4 * spec.endpoint.dimension
        size += len(content)
        if read >= most or size >= SHARD_BYTES:
            break
    return shard if read else None


def _content(values: dict[str, Any], vector_field: str) -> str:
    """Return the beginning of a row as text, should its item be refused later. The vector is left out."""
    if vector_field in values:
        values = {name: value for name, value in values.items() if name != vector_field}
    try:
        return shown(orjson.dumps(values, default=str)[:MAX_CONTENT])
    except (TypeError, ValueError):
        # Integers beyond 64 bits, which Parquet's decimals become, and broken Unicode.
        return as_json(values)
