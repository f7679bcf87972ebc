"""The search commands as argument lists, and their replies as values. Pure: no connection here.

Written in the subset that valkey-search and RediSearch share; both reply shapes are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from indexes.naming import VECTOR_FIELD
from indexes.schema import FieldSpec, FieldType, IndexSpec
from indexes.values import SINGLE_VALUE_SEPARATOR

Arg = str | bytes | int
RawHit = tuple[bytes, dict[str, bytes]]
# valkey-search takes no more.
MAX_TIMEOUT_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class IndexState:
    """How far the engine is with an index: ``percent`` runs from 0 to 1."""

    num_docs: int
    ready: bool
    percent: float
    failures: int


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """Which search engine answers: valkey-search, redisearch or None, and its version."""

    name: str | None
    version: str


def create_args(name: str, prefix: str, spec: IndexSpec) -> list[Arg]:
    """Return FT.CREATE for a spec: its searchable fields and the vector."""
    args: list[Arg] = ["FT.CREATE", name, "ON", "HASH", "PREFIX", 1, prefix]
    # No stop words and no stemming: the engines ship different lists.
    args += ["STOPWORDS", 0, "SCHEMA"]
    for item_field in spec.fields:
        args += _field_args(item_field)
    vector: list[Arg] = ["TYPE", "FLOAT32", "DIM", spec.endpoint.dimension]
    vector += ["DISTANCE_METRIC", spec.metric]
    if spec.algorithm == "HNSW":
        vector += ["M", spec.m, "EF_CONSTRUCTION", spec.ef_construction]
        vector += ["EF_RUNTIME", spec.ef_runtime]
    return [*args, VECTOR_FIELD, "VECTOR", spec.algorithm, len(vector), *vector]


@dataclass(frozen=True, slots=True)
class SearchCommand:
    """One FT.SEARCH, of the first ``limit`` hits.

    A sorted search has to return a field: valkey-search ignores SORTBY otherwise.
    """

    index: str
    query: str
    limit: int
    return_fields: tuple[str, ...] = ()
    params: Mapping[str, bytes] = field(default_factory=dict)
    sort_by: str | None = None
    descending: bool = False

    def args(self, timeout_ms: int) -> list[Arg]:
        """Return the command as sent."""
        args: list[Arg] = ["FT.SEARCH", self.index, self.query]
        fields = list(dict.fromkeys(self.return_fields))
        args += ["RETURN", len(fields), *fields] if fields else ["NOCONTENT"]
        if self.sort_by is not None:
            args += ["SORTBY", self.sort_by, "DESC" if self.descending else "ASC"]
        args += ["LIMIT", 0, self.limit, "TIMEOUT", min(max(timeout_ms, 1), MAX_TIMEOUT_MS)]
        if self.params:
            args += ["PARAMS", 2 * len(self.params)]
            for param, value in self.params.items():
                args += [param, value]
        return [*args, "DIALECT", 2]

    def __str__(self) -> str:
        """Return the command as people read it, without its time limit."""
        args = self.args(timeout_ms=0)
        at = args.index("TIMEOUT")
        return printable(args[:at] + args[at + 2 :])

    def read(self, reply: list[Any]) -> tuple[int, list[RawHit]]:
        """Return the total and the hits of its reply."""
        if not self.return_fields:
            return int(reply[0]), [(key, {}) for key in reply[1:]]
        return int(reply[0]), [
            (key, dict(zip(map(bytes.decode, flat[::2]), flat[1::2], strict=True)))
            for key, flat in zip(reply[1::2], reply[2::2], strict=True)
            # RediSearch has found it, but it was deleted before it was read.
            if flat is not None
        ]


def printable(args: Iterable[Arg]) -> str:
    """Return a command as people read it: quoted where needed, each vector as its size."""
    return " ".join(map(_printable, args))


def read_state(reply: list[Any]) -> IndexState:
    """Return the state in one node's FT.INFO reply, of either engine."""
    info = dict(zip(map(_text, reply[::2]), reply[1::2], strict=True))
    if "state" in info:
        ready = _text(info["state"]) == "ready" and int(info["mutation_queue_size"]) == 0
        percent = float(info["backfill_complete_percent"])
    else:
        ready = int(info["indexing"]) == 0
        percent = float(info["percent_indexed"])
    return IndexState(int(info["num_docs"]), ready, percent, int(info["hash_indexing_failures"]))


def add_states(states: Sequence[IndexState]) -> IndexState:
    """Return the state of an index that is spread over several nodes."""
    return IndexState(
        num_docs=sum(state.num_docs for state in states),
        ready=all(state.ready for state in states),
        percent=min(state.percent for state in states),
        failures=sum(state.failures for state in states),
    )


def read_memory(reply: list[Any]) -> int:
    """Return the bytes in one node's FT.INFO reply that an index takes beside its keys.

    valkey-search tells the size of each field; RediSearch tells megabytes, those of vectors apart.
    """
    info = dict(zip(map(_text, reply[::2]), reply[1::2], strict=True))
    if "vector_index_sz_mb" in info:
        megabytes = float(info["vector_index_sz_mb"]) + float(
            info.get("total_index_memory_sz_mb", 0)
        )
        return round(megabytes * 2**20)
    fields = (
        dict(zip(map(_text, flat[::2]), flat[1::2], strict=False)) for flat in info["attributes"]
    )
    return sum(int(field.get("user_indexed_memory", 0)) for field in fields)


def read_facts(modules: list[list[Any]], *, has_aliases: bool) -> EngineFacts:
    """Return the engine of a server that can search. Both call themselves "search"; RediSearch has aliases.

    The version is empty where the server does not tell its modules, as managed ones may not.
    """
    version = ""
    for flat in modules:
        module = dict(zip(map(_text, flat[::2]), flat[1::2], strict=True))
        if _text(module["name"]) == "search":
            number = int(module["ver"])
            parts = (
                (number // 10_000, number // 100 % 100, number % 100)
                if has_aliases
                else (number >> 16, number >> 8 & 0xFF, number & 0xFF)
            )
            version = ".".join(map(str, parts))
    return EngineFacts("redisearch" if has_aliases else "valkey-search", version)


def _field_args(spec: FieldSpec) -> list[Arg]:
    match spec.type:
        case FieldType.TAG:
            separator = spec.separator if spec.multiple else SINGLE_VALUE_SEPARATOR
            return [spec.name, "TAG", "SEPARATOR", separator]
        case FieldType.NUMERIC:
            return [spec.name, "NUMERIC"]
        case FieldType.TEXT:
            return [spec.name, "TEXT", "NOSTEM"]
        case FieldType.STORED:
            return []


def _printable(arg: Arg) -> str:
    if isinstance(arg, bytes):
        return f"<{len(arg)} bytes>"
    text = str(arg)
    if text and text.isprintable() and not set(text) & set(" '\"\\"):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
