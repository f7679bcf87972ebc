"""The doors to Valkey: a read or a write within its time, at whichever server can answer it."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any, TypeVar

from django.conf import settings

from indexes.errors import SearchIndexMissing, SearchTimeout, SearchUnavailable
from indexes.replica_health import Health
from indexes.valkey_connections import DEFAULT_TIMEOUT_S, Client, time_limit
from indexes.valkey_errors import refused_by_replica, translated
from indexes.valkey_servers import Cluster, Servers, Single, servers_at

T = TypeVar("T")


def _primary() -> Single | Cluster:
    return servers_at(settings.VALKEY_URL, settings.VALKEY_CLUSTER)


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
    return _primary().client if url is None else servers_at(url, False).client


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
        answer = _attempt(lambda: servers_at(replica, False), call)
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
            if not repeatable and not refused_by_replica(error):
                raise
            return _attempt(_primary, call)


def replica_state(url: str, timeout_s: float = 2.0) -> dict[str, Any]:
    """Return what a replica says of its replication (INFO replication). Raises SearchError."""
    with time_limit(timeout_s):
        state: dict[str, Any] = _attempt(
            lambda: servers_at(url, False), lambda servers: servers.run("INFO", "replication")
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
