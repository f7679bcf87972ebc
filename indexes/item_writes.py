"""What a change of an item is in one build: which fields of its hash are set, removed, or all gone.

Each build has its own frozen fields, text template and endpoint, so that the same row
is another item in each. Its vector is made anew only where its text is another one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from django.conf import settings

from indexes import valkey_client
from indexes.hash_writer import CONNECTIONS, PIPELINE_BYTES, PIPELINE_COMMANDS
from indexes.item_rows import named_fields, read_vector
from indexes.items import NO_DIGEST, ItemMaker, encode_vector, item_hash
from indexes.models import IndexBuild
from indexes.naming import (
    CONTENT_FIELD,
    ROW_FIELD,
    TEXT_FIELD,
    VECTOR_FIELD,
    VERSION_FIELD,
)
from indexes.valkey import key_bytes
from indexes.valkey_servers import Arg, Command

# Of one pipeline. A call that waits longer is answered sooner by a refusal.
TIMEOUT_S: Final = 10.0
# In place of the number of a catalog row: this hash is no longer what one row gave.
NO_ROW: Final = 0

_Keyed = tuple[bytes, Command]


class State(NamedTuple):
    """What a build holds of an item: ``row`` is 0 where it was changed since it was loaded."""

    exists: bool = False
    text: bytes | None = None
    version: float | None = None
    row: int | None = None


ABSENT: Final = State()


@dataclass(frozen=True, slots=True)
class Change:
    """What shall become of an item: a row, some fields, or its end."""

    id: str
    version: float | None
    row: Mapping[str, Any] | None
    partial: bool = False


@dataclass(slots=True)
class Write:
    """The commands of one change; ``text`` still has to become its vector."""

    key: bytes
    set: dict[str, Any] = field(default_factory=dict)
    remove: list[str] = field(default_factory=list)
    delete: bool = False
    text: str | None = None
    # Items more or fewer.
    delta: int = 0

    def commands(self) -> Iterator[_Keyed]:
        """Yield what is sent."""
        if self.delete:
            yield self.key, ("UNLINK", self.key)
            return
        values: Iterable[Arg] = itertools.chain.from_iterable(self.set.items())
        yield self.key, ("HSET", self.key, *values)
        if self.remove:
            yield self.key, ("HDEL", self.key, *self.remove)

    def without_text(self) -> Write | None:
        """Return the write that leaves text and vector as they are; None for a new item."""
        if self.delta:
            return None
        kept = {name: raw for name, raw in self.set.items() if name not in _OF_THE_TEXT}
        return Write(self.key, kept, [*self.remove, CONTENT_FIELD])


_OF_THE_TEXT: Final = (TEXT_FIELD, CONTENT_FIELD)


class Target:
    """One build that changes are written to."""

    def __init__(self, build: IndexBuild) -> None:
        self.build = build
        self.spec = build.to_spec()
        # The way back may have a model that nobody runs any more: it must not hold changes up.
        self.required = build.superseded_at is None
        self._maker = ItemMaker.of(self.spec)

    @property
    def label(self) -> str:
        return self.build.label

    def key(self, item_id: str) -> bytes:
        return key_bytes(self.build.key_prefix + item_id)

    def states(self, ids: Sequence[str]) -> dict[str, State]:
        """Return what the build holds of these items. Raises SearchError."""
        commands: list[_Keyed] = []
        for key in map(self.key, ids):
            commands += (
                (key, ("HEXISTS", key, VECTOR_FIELD)),
                (key, ("HMGET", key, TEXT_FIELD, VERSION_FIELD, ROW_FIELD)),
            )
        replies = list(_replies(commands))
        return {
            item_id: State(
                bool(exists),
                text,
                None if version is None else float(version),
                None if row is None else int(row),
            )
            for item_id, exists, (text, version, row) in zip(
                ids, replies[::2], replies[1::2], strict=True
            )
        }

    def plan(self, change: Change, state: State) -> Write | None:
        """Return what to write, None for nothing. Raises RowError where the row is no item here."""
        if None not in (change.version, state.version) and state.version > change.version:  # type: ignore[operator]  # neither is None
            return None
        if change.row is None:
            return Write(self.key(change.id), delete=True, delta=-1) if state.exists else None
        if change.partial:
            return self._part(change, change.row, state) if state.exists else None
        return self._whole(change, change.row, state)

    def _whole(self, change: Change, row: Mapping[str, Any], state: State) -> Write:
        item = self._maker.make(row)
        values = item_hash(item, b"", row=NO_ROW)
        text = None
        if item.vector is not None:
            values[VECTOR_FIELD] = encode_vector(item.vector)
        else:
            del values[VECTOR_FIELD]
            text = None if state.exists and state.text == values[TEXT_FIELD] else item.text
        _set_version(values, change.version)
        gone = [spec.name for spec in self.spec.fields if spec.name not in item.fields]
        return Write(
            self.key(change.id),
            values,
            gone if state.exists else [],
            text=text,
            delta=0 if state.exists else 1,
        )

    def _part(self, change: Change, row: Mapping[str, Any], state: State) -> Write:
        fields = named_fields(row, self.spec)
        values: dict[str, Any] = {name: raw for name, raw in fields.items() if raw is not None}
        values[ROW_FIELD] = NO_ROW
        vector = read_vector(row, self.spec)
        if vector is not None:
            values |= {VECTOR_FIELD: encode_vector(vector), TEXT_FIELD: NO_DIGEST}
        _set_version(values, change.version)
        # What the whole item came from is not known here: a refresh has to compare it anew.
        gone = [CONTENT_FIELD, *(name for name, raw in fields.items() if raw is None)]
        return Write(self.key(change.id), values, gone)


def send(writes: Sequence[Write]) -> None:
    """Send the writes in short pipelines over several connections. Raises SearchError."""
    for _ in _replies([command for write in writes for command in write.commands()]):
        pass


def send_surely(writes: Sequence[Write]) -> None:
    """Send the writes and wait until replicas, where there are any, have them too.

    Raises SearchError; SearchUnavailable also where another server took over meanwhile, as some
    may be lost: they can be sent again.
    """
    if not writes:
        return
    servers = valkey_client.primaries()
    send(writes)
    valkey_client.confirm_writes(f"{settings.VALKEY_NAMESPACE}:written", since=servers)


def _replies(commands: Sequence[_Keyed]) -> Iterator[Any]:
    batches = list(_batches(commands))
    if len(batches) < 2:
        return itertools.chain.from_iterable(map(_run, batches))
    with ThreadPoolExecutor(CONNECTIONS, "item-writes") as pool:
        return itertools.chain.from_iterable(list(pool.map(_run, batches)))


def _run(batch: Sequence[_Keyed]) -> list[Any]:
    return valkey_client.write(
        lambda servers: servers.pipeline(batch), timeout_s=TIMEOUT_S, repeatable=True
    )


def _batches(commands: Sequence[_Keyed]) -> Iterator[list[_Keyed]]:
    """Yield the commands in short runs; those of one key stay together and in order."""
    batch: list[_Keyed] = []
    size = 0
    for _, same in itertools.groupby(commands, key=lambda keyed: keyed[0]):
        own = list(same)
        added = sum(len(arg) for _, command in own for arg in command if not isinstance(arg, int))
        full = size + added > PIPELINE_BYTES or len(batch) + len(own) > PIPELINE_COMMANDS
        if batch and full:
            yield batch
            batch, size = [], 0
        batch += own
        size += added
    if batch:
        yield batch


def _set_version(values: dict[str, Any], version: float | None) -> None:
    """Write the change's version; without one that of the item stays."""
    values.pop(VERSION_FIELD, None)
    if version is not None:
        values[VERSION_FIELD] = repr(version)
