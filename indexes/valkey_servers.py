"""Where commands run: on one server, or on the nodes of a cluster.

In a cluster only the map of slots is the client's; commands run on the nodes' own
connections, because its retries would outlast the time given and forget nodes that
were slow.
"""

from __future__ import annotations

import functools
import random
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice
from time import monotonic
from typing import Any, Final, Protocol

import valkey
from valkey import ValkeyCluster, exceptions

from indexes.valkey_connections import connect, limit_each, remaining

Arg = str | bytes | int
Command = tuple[Arg, ...]
# Told how long a step took, in seconds; waits, and says whether to go on.
Rest = Callable[[float], bool]
# Asked right before each step of a removal whether its keys are still to be removed.
Still = Callable[[], bool]

# What a node may take to tell the map of the cluster, which another can tell too.
_MAP_TIMEOUT_S: Final = 1.0
# What a removal looks through at a time: there may be many keys between those to remove.
_SCAN_KEYS: Final = 1000
# How long replicas may take to confirm what was written: they are milliseconds behind.
_CONFIRM_MS: Final = 1000
# Keys tried until each node of a cluster has one: plenty for the most nodes there are.
_KEYS_TRIED: Final = 20_000


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

    def remove(self, pattern: str, step: int, rest: Rest, still: Still = lambda: True) -> bool:
        """Remove the keys that match a pattern, so many at a time, with a rest after each time.

        True when none is left; False when a rest said that it is enough for now, or when
        they are not to be removed any more.
        """

    def confirm(self, key: str) -> bool:
        """Wait until the replicas have what was written; False when one does not say so in time."""

    def recover(self, *, wait: bool) -> None:
        """Do what can be done after an error, before another try or without waiting for it."""


class Single:
    """One server."""

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

    def remove(self, pattern: str, step: int, rest: Rest, still: Still = lambda: True) -> bool:
        keys = chain.from_iterable(self.scan(pattern, _SCAN_KEYS))
        while batch := list(islice(keys, step)):
            # Among many other keys, finding these may have taken long.
            if not still():
                return False
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


class Cluster:
    """The nodes of a cluster that take writes."""

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

    def remove(self, pattern: str, step: int, rest: Rest, still: Still = lambda: True) -> bool:
        return all(node.remove(pattern, step, rest, still) for node in self._nodes())

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
                thread.join(remaining())

    def _read_map(self) -> None:
        if not self._recovering.acquire(blocking=False):
            return
        try:
            limit_each(_MAP_TIMEOUT_S)
            with suppress(exceptions.ValkeyError, exceptions.ValkeyClusterException):
                self.client.nodes_manager.initialize()
        finally:
            self._recovering.release()

    def _nodes(self) -> list[Single]:
        return [self._node(node) for node in self.client.get_primaries()]

    def _node(self, node: Any) -> Single:
        return Single(self.client.get_valkey_connection(node))


@functools.cache
def servers_at(url: str, cluster: bool) -> Single | Cluster:
    """Return the server at an address or its cluster: always the same, with its connections."""
    client = connect(url, cluster=cluster)
    return Cluster(client) if isinstance(client, ValkeyCluster) else Single(client)
