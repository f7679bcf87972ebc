"""Enrichment sources in a dictionary: table, then key, then the signals of that item."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from enrichment.errors import EnrichmentRejected
from enrichment.keys import fill_template
from enrichment.signals import Signals, read_signal
from enrichment.spec import SourceSpec


@dataclass
class FakeSources:
    """Fails with the ``errors`` of a slug, or waits for its ``gates``."""

    tables: dict[str, dict[str, Mapping[str, Any]]] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)
    gates: dict[str, threading.Event | threading.Barrier] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)

    def fetch(self, source: SourceSpec, values: Mapping[str, str]) -> Signals:
        self.fetched.append(source.slug)
        key = fill_template(source.key_template, values)
        if gate := self.gates.get(source.slug):
            gate.wait(5)
        if source.slug in self.errors:
            raise self.errors[source.slug]
        if source.table not in self.tables:
            raise EnrichmentRejected(f"table {source.table} not found")
        item = self.tables[source.table].get(key, {})
        read = {spec.name: read_signal(spec, item) for spec in source.signals}
        return {name: signal for name, signal in read.items() if signal is not None}
