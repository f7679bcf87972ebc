"""Connections to Valkey: one server, replicas or a cluster, with time limits. The only importer of the client.

A time limit covers connecting, sending and reading together. In a cluster only the
map of slots is the client's; commands run on the nodes' own connections, because
its retries would outlast the time given and forget nodes that were slow.

A primary that became a replica refuses writes on the connections that were made
to it while the name it is reached by leads to its successor already: after such
a refusal every connection made before is replaced at its next use.
"""

from __future__ import annotations

import functools
import random
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from itertools import chain, islice
from time import monotonic
from typing import Any, Final, NoReturn, Protocol, TypeVar

import valkey
from django.conf import settings
from valkey import ValkeyCluster, exceptions

from indexes.errors import (
    SearchError,
    SearchIndexMissing,
    SearchRejected,
    SearchTimeout,
    SearchUnavailable,
)
from indexes.replica_health import Health

T = TypeVar("T")
Client = valkey.Valkey | ValkeyCluster
Arg = str | bytes | int
Command = tuple[Arg, ...]
# Told how long a step took, in seconds; waits, and says whether to go on.
Rest = Callable[[float], bool]

# What a call may take where its caller sets no limit: builds and admin pages.
DEFAULT_TIMEOUT_S: Final = 30.0
# What a node may take to tell the map of the cluster, which another can tell too.
_MAP_TIMEOUT_S: Final = 1.0
# What a removal looks through at a time: there may be many keys between those to remove.
_SCAN_KEYS: Final = 1000
# How long replicas may take to confirm what was written: they are milliseconds behind.
_CONFIRM_MS: Final = 1000
# Keys tried until each node of a cluster has one: plenty for the most nodes there are.
_KEYS_TRIED: Final = 20_000

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
        return getattr(_limit, "each", DEFAULT_TIMEOUT_S)
    left = until - monotonic()
    if left <= 0:
        raise exceptions.TimeoutError("No time is left for this call")
    return left


# When an address last refused a write as a replica does.
_demoted_at: dict[tuple[str, int], float] = {}


class _Limited(valkey.Connection):
    """A connection that waits no longer than the running time limit allows.

    A limit on the connection itself would need a pool for each duration.
    """

    _since = 0.0

    def _connect(self) -> Any:
        self._since = monotonic()
        # The second one bounds a TLS handshake.
        self.socket_connect_timeout = self.socket_timeout = _remaining()
        return super()._connect()

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        if self._sock is not None and self._since <= _demoted_at.get((self.host, self.port), -1):
            self.disconnect()
        if self._sock is None:
            self.connect()
        if self._sock is not None:
            self._sock.settimeout(_remaining())
        super().send_packed_command(command, check_health)

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            if self._sock is not None:
                limit = _remaining()
                current = self._sock.gettimeout() or 0.0
                # For each of the replies to a pipeline: setting it gives up the interpreter.
                if not limit <= current <= limit * 1.02:
                    self._sock.settimeout(limit)
        except exceptions.TimeoutError:
            # The reply is still to come: the connection cannot be used again.
            self.disconnect()
            raise
        try:
            return super().read_response(*args, **kwargs)
        except exceptions.ReadOnlyError:
            _demoted_at[self.host, self.port] = monotonic()
            raise


class _LimitedTLS(_Limited, valkey.SSLConnection):
    pass


class Servers(Protocol):
    """Where commands run: on one server, or on the nodes of a cluster."""

    def run(self, *command: Arg) -> Any:
        """Run a command that has no key, on any server that can answer it."""

    def run_on_all(self, *command: Arg) -> list[Any]:
        """Run a command on each server that holds keys."""

    def pipeline(self, commands: Sequence[tuple[bytes, Command]]) -> list[Any]:
        """Run commands, each with its key, in as few round trips as there are servers."""

    def scan(self, pattern: str, step: int) -> Iterator[list[bytes]]:
        """Yield the keys that match a pattern in parts of about ``step``, also empty ones.

        One may come twice.
        """

    def remove(self, pattern: str, step: int, rest: Rest) -> bool:
        """Remove the keys that match a pattern, so many at a time, with a rest after each time.

        True when none is left; False when a rest said that it is enough for now.
        """

    def confirm(self, key: str) -> bool:
        """Wait until the replicas have what was written; False when one does not say so in time."""

    def recover(self, *, wait: bool) -> None:
        """Do what can be done after an error, before another try or without waiting for it."""


class _Single:
    def __init__(self, client: valkey.Valkey) -> None:
        self.client = client

    def run(self, *command: Arg) -> Any:
        return self.client.execute_command(*command)

    def run_on_all(self, *command: Arg) -> list[Any]:
        return [self.run(*command)]

    def pipeline(self, commands: Sequence[tuple[bytes, Command]]) -> list[Any]:
        # A transaction would hold up the engine's own writers.
        pipeline = self.client.pipeline(transaction=False)
        for _, command in commands:
            pipeline.execute_command(*command)
        replies: list[Any] = pipeline.execute(raise_on_error=False)
        for reply in replies:
            if isinstance(reply, exceptions.ValkeyError):
                raise reply
        return replies

    def scan(self, pattern: str, step: int) -> Iterator[list[bytes]]:
        cursor, over = 0, False
        while not over:
            cursor, keys = self.run("SCAN", cursor, "MATCH", pattern, "COUNT", step)
            over = cursor == 0
            yield keys

    def remove(self, pattern: str, step: int, rest: Rest) -> bool:
        keys = chain.from_iterable(self.scan(pattern, _SCAN_KEYS))
        while batch := list(islice(keys, step)):
            started = monotonic()
            self.pipeline([(key, ("UNLINK", key)) for key in batch])
            if not rest(monotonic() - started):
                return False
        return True

    def confirm(self, key: str) -> bool:
        # A primary that was demoted refuses it, and a node of a cluster says who took over.
        command = ("SET", key, "1", "PX", _CONFIRM_MS)
        self.run(*command)
        replicas = int(self.run("INFO", "replication")["connected_slaves"])
        if not replicas:
            return True
        # Only what the connection itself wrote is waited for: this comes after all of it.
        pipeline = self.client.pipeline(transaction=False)
        pipeline.execute_command(*command)
        pipeline.execute_command("WAIT", replicas, _CONFIRM_MS)
        _, confirmed = pipeline.execute()
        return bool(confirmed >= replicas)

    def recover(self, *, wait: bool) -> None:
        """Do nothing: connections that broke, or lead to a replica, are replaced when used."""


class _Cluster:
    def __init__(self, client: ValkeyCluster) -> None:
        self.client = client
        self._recovering = threading.Lock()

    def run(self, *command: Arg) -> Any:
        return random.choice(self._nodes()).run(*command)

    def run_on_all(self, *command: Arg) -> list[Any]:
        return [node.run(*command) for node in self._nodes()]

    def pipeline(self, commands: Sequence[tuple[bytes, Command]]) -> list[Any]:
        places: dict[str, list[int]] = defaultdict(list)
        nodes = {}
        for place, (key, _) in enumerate(commands):
            node = self.client.get_node_from_key(key)
            nodes[node.name] = node
            places[node.name].append(place)
        replies: list[Any] = [None] * len(commands)
        for name, own in places.items():
            answered = self._node(nodes[name]).pipeline([commands[place] for place in own])
            for place, reply in zip(own, answered, strict=True):
                replies[place] = reply
        return replies

    def scan(self, pattern: str, step: int) -> Iterator[list[bytes]]:
        for node in self._nodes():
            yield from node.scan(pattern, step)

    def remove(self, pattern: str, step: int, rest: Rest) -> bool:
        return all(node.remove(pattern, step, rest) for node in self._nodes())

    def confirm(self, key: str) -> bool:
        # Each node takes only keys of its own slots.
        found: dict[str, str] = {}
        nodes = {node.name: node for node in self.client.get_primaries()}
        for number in range(_KEYS_TRIED):
            own = f"{key}:{number}"
            found.setdefault(self.client.get_node_from_key(own).name, own)
            if len(found) >= len(nodes):
                break
        confirmed = [
            self._node(nodes[name]).confirm(own) for name, own in found.items() if name in nodes
        ]
        return all(confirmed)

    def recover(self, *, wait: bool) -> None:
        """Read the map of slots again, once at a time; a slow node must not hold up a request."""
        thread = threading.Thread(target=self._read_map, daemon=True)
        thread.start()
        if wait:
            with suppress(exceptions.TimeoutError):
                thread.join(_remaining())

    def _read_map(self) -> None:
        if not self._recovering.acquire(blocking=False):
            return
        try:
            _limit.each = _MAP_TIMEOUT_S
            with suppress(exceptions.ValkeyError, exceptions.ValkeyClusterException):
                self.client.nodes_manager.initialize()
        finally:
            self._recovering.release()

    def _nodes(self) -> list[_Single]:
        return [self._node(node) for node in self.client.get_primaries()]

    def _node(self, node: Any) -> _Single:
        return _Single(self.client.get_valkey_connection(node))


@functools.cache
def _servers(url: str, cluster: bool) -> _Single | _Cluster:
    scheme, _, rest = url.partition("://")
    options: dict[str, Any] = {
        "connection_class": _LimitedTLS if scheme in ("valkeys", "rediss") else _Limited,
        "protocol": 2,
        "socket_keepalive": True,
        "lib_name": None,
        "lib_version": None,
    }
    if options["connection_class"] is _LimitedTLS and not cluster:
        # Else any certificate of a known authority would do. The nodes of a cluster may go by
        # addresses that their certificates do not hold. An option in the URL says otherwise.
        options["ssl_check_hostname"] = True
    # The client would put its own connection class in for a TLS scheme.
    plain = f"valkey://{rest}"
    if cluster:
        return _Cluster(ValkeyCluster(url=plain, **options))
    return _Single(valkey.Valkey(connection_pool=valkey.ConnectionPool.from_url(plain, **options)))


def _primary() -> _Single | _Cluster:
    return _servers(settings.VALKEY_URL, settings.VALKEY_CLUSTER)


_health: dict[str, Health] = defaultdict(Health)


def _replica(*, rested: bool) -> str | None:
    """Return the address of a replica, or None; with ``rested`` of one that is not to rest."""
    urls = [url for url in settings.VALKEY_REPLICA_URLS if not (rested and _health[url].rests)]
    return random.choice(urls) if urls else None


def writer() -> Client:
    """Return the client of the primary, or of the cluster."""
    return _primary().client


def reader() -> Client:
    """Return the client of a replica if there are any, else the writer."""
    url = _replica(rested=False)
    return _primary().client if url is None else _servers(url, False).client


def read(call: Callable[[Servers], T], timeout_s: float, *, fresh: bool = False) -> T:
    """Run a read within the time, once more elsewhere when the first server cannot answer.

    ``fresh`` asks the primary first: a replica may be behind. With one server the
    second try replaces a connection that a restart broke.
    """
    first = None if fresh else _replica(rested=True)
    with time_limit(timeout_s):
        try:
            return _ask(first, call)
        except (SearchUnavailable, SearchIndexMissing):
            # A replica that is behind may not have the index yet.
            second = _replica(rested=False) if first is None else None
            return _ask(second, call)


def _ask(replica: str | None, call: Callable[[Servers], T]) -> T:
    """Run a read on a replica, and keep in mind how it went; on the primary where it is None."""
    if replica is None:
        return _attempt(_primary, call)
    health = _health[replica]
    try:
        answer = _attempt(lambda: _servers(replica, False), call)
    except SearchUnavailable:
        health.was_away()
        raise
    except SearchTimeout:
        health.was_slow()
        raise
    health.answered()
    return answer


def read_stream(call: Callable[[Servers], Iterator[T]]) -> Iterator[T]:
    """Yield what a read of many steps gives, from the primaries, each step within the default time.

    An error ends it: what a server has said so far cannot be gone on with at another.
    """
    with translated():
        servers = _primary()
    try:
        with translated():
            yield from call(servers)
    except SearchUnavailable:
        servers.recover(wait=False)
        raise


def write(
    call: Callable[[Servers], T],
    timeout_s: float | None = DEFAULT_TIMEOUT_S,
    *,
    repeatable: bool = False,
) -> T:
    """Run a write within the time; None: however many commands it takes, each within the default.

    ``repeatable``: doing it twice does no harm, so it is tried once more as a read is.
    What a replica refused was not done, and is tried once more too.
    """
    with nullcontext() if timeout_s is None else time_limit(timeout_s):
        try:
            return _attempt(_primary, call)
        except SearchUnavailable as error:
            if not repeatable and not isinstance(error.__cause__, exceptions.ReadOnlyError):
                raise
            return _attempt(_primary, call)


def replica_state(url: str, timeout_s: float = 2.0) -> dict[str, Any]:
    """Return what a replica says of its replication (INFO replication). Raises SearchError."""
    with time_limit(timeout_s):
        state: dict[str, Any] = _attempt(
            lambda: _servers(url, False), lambda servers: servers.run("INFO", "replication")
        )
    return state


def primaries(timeout_s: float = 5.0) -> frozenset[str]:
    """Return what tells the processes that take writes now: another set after a failover or restart."""
    replies = read(lambda servers: servers.run_on_all("INFO", "server"), timeout_s, fresh=True)
    return frozenset(str(reply.get("run_id", "")) for reply in replies)


def confirm_writes(key: str, *, since: frozenset[str], timeout_s: float = 5.0) -> bool:
    """Make sure that what was written since ``primaries()`` gave ``since`` outlives a failover.

    Waits until the replicas, where there are any, have it; False when one does not say so in
    time, as it is far behind or being cut off. ``key`` is written for a second to tell. Raises
    SearchUnavailable where other processes take writes by now: some of it may be lost.
    """
    confirmed = write(lambda servers: servers.confirm(key), timeout_s, repeatable=True)
    if primaries(timeout_s) != since:
        raise SearchUnavailable("Another server took over while items were written.")
    return confirmed


def _attempt(choose: Callable[[], Servers], call: Callable[[Servers], T]) -> T:
    with translated():
        servers = choose()
    try:
        with translated():
            return call(servers)
    except SearchUnavailable:
        servers.recover(wait=True)
        raise
    except SearchTimeout:
        servers.recover(wait=False)
        raise


@contextmanager
def translated() -> Iterator[None]:
    """Turn the client's errors into SearchErrors."""
    try:
        yield
    except exceptions.TimeoutError as error:
        raise SearchTimeout("Valkey did not answer in time.") from error
    except exceptions.AuthenticationError as error:
        raise SearchUnavailable(
            f"Valkey refused the login: {error}. Check the user and password in VALKEY_URL."
        ) from error
    except exceptions.ConnectionError as error:
        raise SearchUnavailable(f"Valkey cannot be reached: {error}") from error
    except _NOT_NOW as error:
        raise SearchUnavailable(f"Valkey cannot answer now: {error}") from error
    except exceptions.ResponseError as error:
        raise _by_wording(str(error)) from error
    except exceptions.ValkeyError as error:
        raise SearchUnavailable(f"Valkey cannot be reached: {error}") from error
    # What a cluster raises of which no node tells the map of slots; it is not one of the others.
    except exceptions.ValkeyClusterException as error:
        _raise_of_cluster(error)


def _raise_of_cluster(error: exceptions.ValkeyClusterException) -> NoReturn:
    """Raise what the last node said, if one did."""
    with translated():
        if isinstance(error.__cause__, exceptions.ValkeyError):
            raise error.__cause__
    step = "Unset VALKEY_CLUSTER if it is a single server." if "not enabled" in str(error) else ""
    raise SearchUnavailable(f"Valkey cannot be reached: {error}. {step}".rstrip()) from error


_NOT_NOW: Final = (
    exceptions.OutOfMemoryError,
    exceptions.ReadOnlyError,
    exceptions.AskError,  # and MovedError
    exceptions.ClusterDownError,
    exceptions.MasterDownError,
    exceptions.TryAgainError,
)
# No code tells these apart, and the two engines word them differently.
_MISSING_WORDS: Final = ("no such index", "unknown index name", "index with name")
_NOT_NOW_WORDS: Final = (
    "busy ", "clusterdown ", "masterdown ", "tryagain ", "consistency check",
)  # fmt: skip
_TIMEOUT_WORDS: Final = ("due to timeout", "timeout limit")


def _by_wording(message: str) -> SearchError:
    text = message.lower()

    def says(words: Iterable[str]) -> bool:
        return any(word in text for word in words)

    if says(_MISSING_WORDS):
        return SearchIndexMissing(f"The search index is missing: {message}")
    if "unknown command" in text and "ft." in text:
        return SearchRejected(
            "The server at VALKEY_URL has no vector search: load the valkey-search module."
        )
    # The client of a cluster has a class for it.
    if text.startswith("moved "):
        return SearchUnavailable(
            f"VALKEY_URL names a node of a cluster: set VALKEY_CLUSTER=1. It said: {message}"
        )
    if says(_NOT_NOW_WORDS):
        return SearchUnavailable(f"Valkey cannot answer now: {message}")
    if says(_TIMEOUT_WORDS):
        return SearchTimeout("The search engine did not finish in time.")
    return SearchRejected(f"The search engine refused the command: {message}")
