"""What the Valkey servers are and how much memory they have, summed over the primaries of a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from indexes import valkey
from indexes.commands import EngineFacts
from indexes.valkey_client import read

# A page or a command waits for facts no longer than this.
TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory in bytes. ``limit`` is maxmemory, 0 where none is set; ``system`` is the machines'."""

    used: int
    limit: int
    system: int
    policy: str
    evicted: int

    @property
    def total(self) -> int:
        """Return what items and indexes can have together: maxmemory, else the machines' memory."""
        return self.limit or self.system

    @property
    def free(self) -> int:
        return max(0, self.total - self.used)

    @property
    def evicts(self) -> bool:
        """Tell whether a full server throws keys away. Without a limit it never does."""
        return self.policy not in ("", "noeviction")


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """The search engine and what it runs on. ``managed`` is the AWS service, empty elsewhere."""

    engine: EngineFacts
    version: tuple[int, ...]
    managed: str
    nodes: int
    memory: Memory

    def __str__(self) -> str:
        number = ".".join(map(str, self.version))
        service = f"{self.managed} for Valkey" if self.managed else "Valkey"
        search = f"{self.engine.name} {self.engine.version}".strip()
        return f"{service} {number} with {search}" if self.engine.name else f"{service} {number}"


def facts(timeout_s: float = TIMEOUT_S) -> ServerFacts:
    """Ask the servers what they are. Raises SearchError."""
    engine = valkey.server_facts(timeout_s)
    nodes = read(lambda servers: servers.run_on_all("INFO"), timeout_s, fresh=True)
    return read_facts(engine, nodes)


def read_facts(engine: EngineFacts, nodes: Sequence[Mapping[str, Any]]) -> ServerFacts:
    """Return the facts in the INFO replies of the primaries. Managed servers leave some lines out."""
    first = nodes[0]
    system = str(first.get("os", "")).lower()
    managed = next((name for name in ("ElastiCache", "MemoryDB") if name.lower() in system), "")
    version = str(first.get("valkey_version") or first.get("redis_version") or "")
    policies = {str(node.get("maxmemory_policy", "")) for node in nodes}
    # One node that evicts is enough to lose items.
    policy = next((name for name in sorted(policies) if name not in ("", "noeviction")), "")
    limits = [int(node.get("maxmemory", 0)) for node in nodes]
    return ServerFacts(
        engine=engine,
        version=tuple(int(part) for part in version.split(".") if part.isdigit()),
        managed=managed,
        nodes=len(nodes),
        memory=Memory(
            used=sum(int(node.get("used_memory", 0)) for node in nodes),
            # A node without a limit takes what its machine has.
            limit=sum(limits) if all(limits) else 0,
            system=sum(int(node.get("total_system_memory", 0)) for node in nodes),
            policy=policy or "noeviction",
            evicted=sum(int(node.get("evicted_keys", 0)) for node in nodes),
        ),
    )
