"""What tests of refreshes share: a catalog that is written again, and refreshes that run here."""

import json
import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from indexes import refresh, valkey
from indexes.models import IndexDefinition, IndexRefresh

Rows = Iterable[Mapping[str, Any]]


def rewrite(definition: IndexDefinition, rows: Rows, at: datetime | None = None) -> None:
    """Write the catalog of an index anew, as if at a moment."""
    path = Path(definition.source.uri)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    if at is not None:
        os.utime(path, (at.timestamp(), at.timestamp()))


def run(definition: IndexDefinition) -> IndexRefresh:
    """Refresh an index here, to its end."""
    definition.refresh_from_db()
    started = refresh.start(definition, enqueue=False)
    refresh.run_to_end(started.pk)
    return IndexRefresh.objects.get(pk=started.pk)


def refreshed(definition: IndexDefinition, rows: Rows, at: datetime | None = None) -> IndexRefresh:
    """Refresh an index here from a catalog that was written anew; it must end well."""
    rewrite(definition, rows, at)
    done = run(definition)
    assert done.status == IndexRefresh.Status.DONE, done.error
    return done


def counters(done: IndexRefresh) -> dict[str, int]:
    """The counters of a refresh that are not 0."""
    names = ("unchanged", "written", "embedded", "kept", "removed", "rejected")
    return {name: getattr(done, name) for name in names if getattr(done, name)}


def ids(definition: IndexDefinition) -> set[str]:
    """The ids of the items that the live build has in Valkey."""
    definition.refresh_from_db()
    assert definition.live_build is not None
    prefix = definition.live_build.key_prefix
    return {key.decode()[len(prefix) :] for part in valkey.scan_keys(prefix) for key in part}
