"""Which indexes and key prefixes of this installation the engine holds, whoever owns them.

Installations may share a server, under namespaces that begin alike. A key prefix is
unambiguous, as no namespace holds a colon; an index name is not: ``rp_b_shoes_v1`` may be
index ``b-shoes`` of ``rp`` or ``shoes`` of ``rp_b``. So an index is told by its prefix.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings

from indexes import valkey
from indexes.errors import SearchIndexMissing
from indexes.naming import index_name
from indexes.valkey_client import read
from indexes.valkey_connections import DEFAULT_TIMEOUT_S

_SLUG = r"[a-z0-9]+(?:-[a-z0-9]+)*"


@dataclass
class Keys:
    """Keys by the prefix of a build. ``complete`` is False when the time did not suffice."""

    counts: Counter[str] = field(default_factory=Counter)
    complete: bool = True


def indexes() -> dict[str, str]:
    """Return the indexes of this installation's own form: name to key prefix. Raises SearchError."""
    names = read(lambda servers: servers.run("FT._LIST"), DEFAULT_TIMEOUT_S, fresh=True)
    found = {}
    start = f"{settings.VALKEY_NAMESPACE}_".replace("-", "_")
    for name in (raw.decode(errors="replace") for raw in names):
        # Asking each about its prefix costs a round trip: only those that may be ours.
        prefix = own_prefix(name) if name.startswith(start) else None
        if prefix is not None:
            found[name] = prefix
    return found


def own_prefix(name: str) -> str | None:
    """Return the key prefix of an index that this installation made, None where it did not."""
    try:
        reply = read(lambda servers: servers.run("FT.INFO", name), DEFAULT_TIMEOUT_S, fresh=True)
    except SearchIndexMissing:
        return None
    prefixes = _prefixes(reply)
    if len(prefixes) != 1 or name_of(prefixes[0]) != name:
        return None
    return prefixes[0]


def name_of(prefix: str) -> str | None:
    """Return the index that goes with a key prefix, None for one of another form or namespace."""
    match = re.fullmatch(rf"{re.escape(settings.VALKEY_NAMESPACE)}:({_SLUG}):v(\d+):", prefix)
    return index_name(settings.VALKEY_NAMESPACE, match[1], int(match[2])) if match else None


def keys(seconds: float) -> Keys:
    """Count keys under prefixes of builds, for about ``seconds``. Raises SearchError."""
    found = Keys()
    until = time.monotonic() + seconds
    pattern = re.compile(
        rf"{re.escape(settings.VALKEY_NAMESPACE)}:{_SLUG}:v\d+:".encode(), re.DOTALL
    )
    for part in valkey.scan_keys(f"{settings.VALKEY_NAMESPACE}:"):
        found.counts.update(match[0].decode() for key in part if (match := pattern.match(key)))
        if time.monotonic() > until:
            found.complete = False
            break
    return found


def count(prefix: str, *, enough: int, seconds: float = 30) -> int:
    """Count the keys of one prefix; stop at ``enough``, or when the time is over."""
    until = time.monotonic() + seconds
    number = 0
    for part in valkey.scan_keys(prefix):
        number += len(part)
        if number >= enough or time.monotonic() > until:
            break
    return number


def _prefixes(reply: list[Any]) -> list[str]:
    info = dict(zip(reply[::2], reply[1::2], strict=True))
    definition = info.get(b"index_definition", [])
    inner = dict(zip(definition[::2], definition[1::2], strict=True))
    return [raw.decode(errors="replace") for raw in inner.get(b"prefixes", [])]
