"""What is done in Valkey: indexes, searches, hashes and versioned documents.

Every call leaves as a SearchError when it fails.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from indexes import commands
from indexes.commands import EngineFacts, IndexState, RawHit, SearchCommand
from indexes.errors import SearchError, SearchIndexMissing, SearchRejected
from indexes.hash_writer import CONNECTIONS as WRITE_CONNECTIONS  # noqa: F401
from indexes.hash_writer import PIPELINE_BYTES as BATCH_BYTES  # noqa: F401
from indexes.hash_writer import HashWriter
from indexes.schema import IndexSpec
from indexes.valkey_client import read, read_stream, write
from indexes.valkey_client import reader as reader
from indexes.valkey_client import writer as writer
from indexes.valkey_connections import DEFAULT_TIMEOUT_S, time_limit
from indexes.valkey_servers import Command, Servers, Still

Key = str | bytes
_Keyed = tuple[bytes, Command]

# Bounds what a pipeline of reads or removals holds up the server for.
BATCH_COMMANDS: Final = 200
SCAN_KEYS: Final = 500
# Keys that are removed at a time: about a millisecond of the server's time.
REMOVE_KEYS: Final = 100
LONGEST_REST_S: Final = 0.02


def ping(timeout_s: float = 1.0) -> bool:
    """Tell whether Valkey answers."""
    try:
        read(lambda servers: servers.run("PING"), timeout_s)
    except SearchError:
        return False
    return True


def server_facts(timeout_s: float = 2.0) -> EngineFacts:
    """Return which search engine the server has loaded."""
    search_command, alias_command = read(
        lambda servers: servers.run("COMMAND INFO", "FT.SEARCH", "FT.ALIASADD"), timeout_s
    )
    if not search_command:
        return EngineFacts(None, "")
    try:
        modules = read(lambda servers: servers.run("MODULE", "LIST"), timeout_s)
    except SearchRejected:
        modules = []
    return commands.read_facts(modules, has_aliases=bool(alias_command))


def create_index(name: str, prefix: str, spec: IndexSpec) -> bool:
    """Create a build's index. False if it is there already: a resumed build finds its own."""
    try:
        write(lambda servers: servers.run(*commands.create_args(name, prefix, spec)))
    except SearchRejected as error:
        if "already exists" in str(error).lower():
            return False
        raise
    return True


def drop_index(name: str) -> bool:
    """Drop an index and leave its keys. True if it existed."""
    try:
        write(lambda servers: servers.run("FT.DROPINDEX", name))
    except SearchIndexMissing:
        return False
    return True


def index_info(name: str, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> IndexState:
    """Return how far the engine is with an index, over all nodes of a cluster."""
    replies = read(lambda servers: servers.run_on_all("FT.INFO", name), timeout_s, fresh=True)
    return commands.add_states([commands.read_state(reply) for reply in replies])


def search(command: SearchCommand, *, timeout_s: float) -> tuple[int, list[RawHit]]:
    """Run FT.SEARCH and return the total and the hits as (key, fields)."""
    # The engine's own limit ends after ours: it would answer with part of the
    # hits and no sign of it, so that answer must never be waited for.
    args = command.args(timeout_ms=math.ceil(timeout_s * 1000) + 1)
    return command.read(read(lambda servers: servers.run(*args), timeout_s))


def hash_fields(
    keys: Sequence[Key],
    fields: Sequence[str],
    *,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    fresh: bool = False,
    at_once: int = BATCH_COMMANDS,
) -> list[list[bytes | None]]:
    """Return the fields of each hash in the order asked, None where one is missing.

    ``fresh`` for what was written a moment ago: it asks the primary, not a replica.
    ``at_once`` bounds a pipeline; the time limit covers them all.
    """
    if not keys or not fields:
        return [[] for _ in keys]
    wanted: list[_Keyed] = [(key, ("HMGET", key, *fields)) for key in map(key_bytes, keys)]
    rows: list[list[bytes | None]] = []
    with time_limit(timeout_s):
        for start in range(0, len(wanted), at_once):
            part = wanted[start : start + at_once]
            rows += read(_pipeline(part), timeout_s, fresh=fresh)
    return rows


def write_hashes(items: Iterable[tuple[Key, Mapping[str, Any]]]) -> int:
    """Write hashes in short pipelines over several connections; return how many."""
    with HashWriter() as writer:
        for key, mapping in items:
            writer.put(key_bytes(key), mapping)
        return writer.flush()


def delete_prefix(prefix: str, *, seconds: float = math.inf, still: Still = lambda: True) -> bool:
    """Remove the keys that start with the prefix, for about ``seconds``; True when none is left.

    In small steps, each with a pause as long as the step took, so that searches run between.
    It ends when ``still``, asked before each step, says that they are not to be removed any more.
    """
    pattern = _starting_with(prefix)
    # Counted from the first step, as the first key may lie behind many others.
    until: float | None = None

    def rest(took: float) -> bool:
        nonlocal until
        now = time.monotonic()
        if until is None:
            until = now - took + seconds
        if now >= until:
            return False
        time.sleep(min(took, LONGEST_REST_S))
        return True

    return write(
        lambda servers: servers.remove(pattern, REMOVE_KEYS, rest, still),
        timeout_s=None,
        repeatable=True,
    )


def scan_keys(prefix: str) -> Iterator[list[bytes]]:
    """Yield every key that starts with the prefix, in parts; one may come twice.

    The order has nothing to do with the names or the time of writing.
    """
    pattern = _starting_with(prefix)
    return read_stream(lambda servers: servers.scan(pattern, SCAN_KEYS))


def scan_hashes(
    prefix: str, fields: Sequence[str]
) -> Iterator[list[tuple[bytes, list[bytes | None]]]]:
    """Yield the hashes whose keys start with the prefix, with these fields, a part in memory at a time."""
    for keys in scan_keys(prefix):
        yield list(zip(keys, hash_fields(keys, fields, fresh=True), strict=True))


def memory_usage(keys: Sequence[Key]) -> list[int]:
    """Return the bytes that each key takes with its value; 0 where there is none."""
    wanted: list[_Keyed] = [
        (key, ("MEMORY USAGE", key, "SAMPLES", 0)) for key in map(key_bytes, keys)
    ]
    replies = read(lambda servers: servers.pipeline(wanted), DEFAULT_TIMEOUT_S, fresh=True)
    return [reply or 0 for reply in replies]


def index_memory(name: str) -> int:
    """Return the bytes that the engine says an index takes beside its keys, over all nodes."""
    replies = read(
        lambda servers: servers.run_on_all("FT.INFO", name), DEFAULT_TIMEOUT_S, fresh=True
    )
    return sum(map(commands.read_memory, replies))


def key_bytes(key: Key) -> bytes:
    """Return a key as sent: ids may hold anything, even halves of surrogate pairs."""
    return key if isinstance(key, bytes) else key.encode("utf-8", "surrogatepass")


@dataclass(frozen=True)
class VersionedDocument:
    """A document in one hash that only ever moves to a newer version."""

    key: str

    def publish(self, version: int, body: bytes) -> bool:
        """Write the document if it is newer than the one there; tell whether it was."""
        key = key_bytes(self.key)
        command = (key, ("EVAL", _PUBLISH, 1, key, version, body))
        return write(lambda servers: servers.pipeline([command]), timeout_s=5.0) == [1]

    def version(self, *, timeout_s: float = 1.0) -> int | None:
        """Return the version that is there."""
        [[version]] = hash_fields([self.key], ["version"], timeout_s=timeout_s, fresh=True)
        return None if version is None else int(version)

    def read(self, *, timeout_s: float = 5.0) -> tuple[int, bytes] | None:
        """Return the version and the document, which belong together."""
        [[version, body]] = hash_fields(
            [self.key], ["version", "body"], timeout_s=timeout_s, fresh=True
        )
        return None if version is None or body is None else (int(version), body)


_PUBLISH: Final = """
local current = tonumber(redis.call('HGET', KEYS[1], 'version') or '-1')
if tonumber(ARGV[1]) <= current then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[1], 'body', ARGV[2])
return 1
"""


def _pipeline(commands: Sequence[_Keyed]) -> Callable[[Servers], list[Any]]:
    return lambda servers: servers.pipeline(commands)


def _starting_with(prefix: str) -> str:
    return "".join(f"\\{c}" if c in "*?[]\\^" else c for c in prefix) + "*"
