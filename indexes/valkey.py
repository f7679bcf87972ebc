"""Valkey: connections, time limits, errors and commands. The only importer of its client.

Every call runs on pooled connections under a time limit that covers connecting,
sending and reading together, and leaves as a SearchError when it fails.
"""

from __future__ import annotations

import functools
import itertools
import math
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, TypeVar, cast

import valkey
from django.conf import settings
from valkey import ValkeyCluster, exceptions

from indexes import commands
from indexes.commands import Arg, EngineFacts, IndexState, RawHit, SearchCommand
from indexes.errors import (
    SearchError,
    SearchIndexMissing,
    SearchRejected,
    SearchTimeout,
    SearchUnavailable,
)
from indexes.schema import IndexSpec

T = TypeVar("T")
Client = valkey.Valkey | ValkeyCluster
Key = str | bytes
_Hash = tuple[bytes, Mapping[str, Any]]

# What a call may take where its caller sets no limit: builds and admin pages.
DEFAULT_TIMEOUT_S: Final = 30.0
# Some deployments of valkey-search stall on long pipelines (its issue 1293), so
# they are kept short, and several connections make up for it.
BATCH_BYTES: Final = 1 << 20
BATCH_COMMANDS: Final = 200
WRITE_CONNECTIONS: Final = 4

_limit = threading.local()


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Let all calls of this thread inside the block take no longer than that together."""
    outer: float | None = getattr(_limit, "until", None)
    until = monotonic() + seconds
    _limit.until = until if outer is None else min(outer, until)
    try:
        yield
    finally:
        _limit.until = outer


def _remaining() -> float:
    until: float | None = getattr(_limit, "until", None)
    if until is None:
        return DEFAULT_TIMEOUT_S
    left = until - monotonic()
    if left <= 0:
        raise exceptions.TimeoutError("No time is left for this call")
    return left


class _Limited(valkey.Connection):
    """A connection that waits no longer than the running time limit allows.

    A limit on the connection itself would need a pool for each duration.
    """

    def _connect(self) -> Any:
        # The second one bounds a TLS handshake.
        self.socket_connect_timeout = self.socket_timeout = _remaining()
        return super()._connect()

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        if self._sock is None:
            self.connect()
        if self._sock is not None:
            self._sock.settimeout(_remaining())
        super().send_packed_command(command, check_health)

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            if self._sock is not None:
                self._sock.settimeout(_remaining())
        except exceptions.TimeoutError:
            # The reply is still to come: the connection cannot be used again.
            self.disconnect()
            raise
        return super().read_response(*args, **kwargs)


class _LimitedTLS(_Limited, valkey.SSLConnection):
    pass


@functools.cache
def _client(url: str, cluster: bool) -> Client:
    scheme, _, rest = url.partition("://")
    secure = scheme in ("valkeys", "rediss")
    options: dict[str, Any] = {
        "connection_class": _LimitedTLS if secure else _Limited,
        "protocol": 2,
        "socket_timeout": DEFAULT_TIMEOUT_S,
        "socket_keepalive": True,
        "lib_name": None,
        "lib_version": None,
    }
    # The client would put its own connection class in for a TLS scheme.
    plain = f"valkey://{rest}"
    if cluster:
        return ValkeyCluster(url=plain, cluster_error_retry_attempts=1, **options)
    return valkey.Valkey(connection_pool=valkey.ConnectionPool.from_url(plain, **options))


def writer() -> Client:
    """Return the client of the primary, or of the cluster."""
    return _client(settings.VALKEY_URL, settings.VALKEY_CLUSTER)


def reader() -> Client:
    """Return the client of a replica if there are any, else the writer."""
    if settings.VALKEY_REPLICA_URLS:
        return _client(random.choice(settings.VALKEY_REPLICA_URLS), False)
    return writer()


_MISSING: Final = ("no such index", "unknown index name", "index with name")
_UNAVAILABLE: Final = (
    "oom ",
    "loading",
    "readonly",
    "moved ",
    "ask ",
    "tryagain",
    "clusterdown",
    "masterdown",
    "busy",
    "consistency check failed",
)  # fmt: skip


@contextmanager
def translated() -> Iterator[None]:
    """Turn the client's errors into SearchErrors. The engines word theirs differently, so meaning is matched."""
    try:
        yield
    except exceptions.TimeoutError as error:
        raise SearchTimeout("Valkey did not answer in time.") from error
    except exceptions.AuthenticationError as error:
        raise SearchUnavailable(
            f"Valkey refused the login: {error}. Check the user and password in VALKEY_URL."
        ) from error
    except (exceptions.ConnectionError, exceptions.ClusterDownError) as error:
        raise SearchUnavailable(f"Valkey cannot be reached: {error}") from error
    except exceptions.ResponseError as error:
        raise _translated_reply(str(error)) from error
    except exceptions.ValkeyError as error:
        raise SearchUnavailable(f"Valkey cannot be used: {error}") from error


def _translated_reply(message: str) -> SearchError:
    text = message.lower()
    if any(word in text for word in _MISSING):
        return SearchIndexMissing(f"The search index is missing: {message}")
    if "unknown command" in text and "ft." in text:
        return SearchRejected(
            "The server at VALKEY_URL has no vector search: load the valkey-search module."
        )
    if text.startswith(_UNAVAILABLE):
        return SearchUnavailable(f"Valkey cannot answer now: {message}")
    if "timeout" in text:
        return SearchTimeout("The search engine did not finish in time.")
    return SearchRejected(f"The search engine refused the command: {message}")


def _read(call: Callable[[Client], T], timeout_s: float, *, fresh: bool = False) -> T:
    """Run a read within the time, once more elsewhere when the first server cannot answer.

    ``fresh`` asks the primary first: a replica may be behind. With one server the
    second try replaces a connection that a restart broke.
    """
    first, second = (writer, reader) if fresh else (reader, writer)
    with time_limit(timeout_s):
        try:
            with translated():
                return call(first())
        except SearchUnavailable:
            with translated():
                return call(second())


def _write(call: Callable[[Client], T], timeout_s: float = DEFAULT_TIMEOUT_S) -> T:
    with time_limit(timeout_s), translated():
        return call(writer())


def _ft(client: Client, *args: Arg) -> Any:
    """Run a search command: it has no keys, so any primary of a cluster will do."""
    if isinstance(client, ValkeyCluster):
        node = random.choice(client.get_primaries())
        return client.execute_command(*args, target_nodes=node)
    return client.execute_command(*args)


def ping(timeout_s: float = 1.0) -> bool:
    """Tell whether Valkey answers."""
    try:
        return bool(_read(lambda client: client.ping(), timeout_s))
    except SearchError:
        return False


def server_facts(timeout_s: float = 2.0) -> EngineFacts:
    """Return which search engine the server has loaded."""

    def ask(client: Client) -> EngineFacts:
        modules = _ft(client, "MODULE", "LIST")
        [alias_command] = _ft(client, "COMMAND INFO", "FT.ALIASADD")
        return commands.read_facts(modules, has_aliases=bool(alias_command))

    return _read(ask, timeout_s)


def create_index(name: str, prefix: str, spec: IndexSpec) -> bool:
    """Create a build's index. False if it is there already: a resumed build finds its own."""
    try:
        _write(lambda client: _ft(client, *commands.create_args(name, prefix, spec)))
    except SearchRejected as error:
        if "already exists" in str(error).lower():
            return False
        raise
    return True


def drop_index(name: str) -> bool:
    """Drop an index and leave its keys. True if it existed."""
    try:
        _write(lambda client: _ft(client, "FT.DROPINDEX", name))
    except SearchIndexMissing:
        return False
    return True


def index_info(name: str, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> IndexState:
    """Return how far the engine is with an index, over all nodes of a cluster."""

    def ask(client: Client) -> IndexState:
        if isinstance(client, ValkeyCluster):
            nodes = client.get_primaries()
            replies = [client.execute_command("FT.INFO", name, target_nodes=n) for n in nodes]
        else:
            replies = [client.execute_command("FT.INFO", name)]
        return commands.add_states([commands.read_state(reply) for reply in replies])

    return _read(ask, timeout_s, fresh=True)


def list_indexes() -> list[str]:
    """Return the names of all indexes on the server."""
    return sorted(name.decode() for name in _write(lambda client: _ft(client, "FT._LIST")))


def search(command: SearchCommand, *, timeout_s: float) -> tuple[int, list[RawHit]]:
    """Run FT.SEARCH and return the total and the hits as (key, fields)."""
    # The engine's own limit ends after ours: it would answer with part of the
    # hits and no sign of it, so that answer must never be waited for.
    args = command.args(timeout_ms=math.ceil(timeout_s * 1000) + 1)
    return command.read(_read(lambda client: _ft(client, *args), timeout_s))


def hash_fields(
    keys: Sequence[Key],
    fields: Sequence[str],
    *,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    fresh: bool = False,
) -> list[list[bytes | None]]:
    """Return the fields of each hash in the order asked, None where one is missing.

    ``fresh`` for what was written a moment ago: it asks the primary, not a replica.
    """
    if not keys or not fields:
        return [[] for _ in keys]

    def ask(client: Client) -> list[list[bytes | None]]:
        pipeline = client.pipeline(transaction=False)
        for key in keys:
            pipeline.execute_command("HMGET", key_bytes(key), *fields)
        return cast("list[list[bytes | None]]", pipeline.execute())

    return _read(ask, timeout_s, fresh=fresh)


def write_hashes(items: Iterable[tuple[Key, Mapping[str, Any]]]) -> int:
    """Write hashes in short pipelines over several connections; return how many."""
    written = 0
    with ThreadPoolExecutor(WRITE_CONNECTIONS, "valkey-write") as pool:
        running: set[Future[int]] = set()
        for batch in _batches(items):
            if len(running) >= WRITE_CONNECTIONS:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                written += sum(future.result() for future in done)
            running.add(pool.submit(_write_batch, batch))
        written += sum(future.result() for future in running)
    return written


def _batches(items: Iterable[tuple[Key, Mapping[str, Any]]]) -> Iterator[list[_Hash]]:
    batch: list[_Hash] = []
    size = 0
    for key, mapping in items:
        batch.append((key_bytes(key), mapping))
        size += sum(len(value) for value in mapping.values() if isinstance(value, str | bytes))
        if size >= BATCH_BYTES or len(batch) >= BATCH_COMMANDS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _write_batch(batch: list[_Hash]) -> int:
    def send(client: Client) -> int:
        pipeline = client.pipeline(transaction=False)
        for key, mapping in batch:
            pipeline.execute_command("HSET", key, *itertools.chain.from_iterable(mapping.items()))
        pipeline.execute()
        return len(batch)

    return _write(send)


def delete_prefix(prefix: str) -> int:
    """Remove every key that starts with the prefix, in small steps; return how many."""
    pattern = "".join(f"\\{c}" if c in "*?[]\\^" else c for c in prefix) + "*"
    removed = 0
    with translated():
        client = writer()
        keys = client.scan_iter(match=pattern, count=BATCH_COMMANDS)
        while batch := list(itertools.islice(keys, BATCH_COMMANDS)):
            pipeline = client.pipeline(transaction=False)
            for key in batch:
                pipeline.unlink(key)
            removed += sum(pipeline.execute())
    return removed


def key_bytes(key: Key) -> bytes:
    """Return a key as sent: ids may hold anything, even halves of surrogate pairs."""
    return key if isinstance(key, bytes) else key.encode("utf-8", "surrogatepass")


@dataclass(frozen=True)
class VersionedDocument:
    """A document in one hash that only ever moves to a newer version."""

    key: str

    def publish(self, version: int, body: bytes) -> bool:
        """Write the document if it is newer than the one there; tell whether it was."""
        return bool(
            _write(
                lambda client: client.execute_command("EVAL", _PUBLISH, 1, self.key, version, body),
                timeout_s=5.0,
            )
        )

    def version(self, *, timeout_s: float = 1.0) -> int | None:
        """Return the version that is there."""
        raw = _read(lambda client: client.hget(self.key, "version"), timeout_s, fresh=True)
        return None if raw is None else int(cast("bytes", raw))

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
