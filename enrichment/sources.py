"""The door to enrichment: one configured source and a request's values give signals."""

from collections.abc import Mapping
from typing import Any

import structlog

from enrichment import dynamodb
from enrichment.keys import fill_template, template_names
from enrichment.signals import Signals, read_signal
from enrichment.spec import SourceSpec

log = structlog.get_logger(__name__)


def key_names(source: SourceSpec) -> tuple[str, ...]:
    """Return the request values that the source's key is made of, without ``context.``."""
    return tuple(
        dict.fromkeys(
            (*template_names(source.key_template), *template_names(source.sort_key_template))
        )
    )


def item_key(source: SourceSpec, values: Mapping[str, str]) -> dict[str, str]:
    """Return the key of the request's item: its partition key, and its sort key where there is one."""
    key = {source.partition_key: fill_template(source.key_template, values)}
    if source.sort_key:
        key[source.sort_key] = fill_template(source.sort_key_template, values)
    return key


def fetch(source: SourceSpec, values: Mapping[str, str]) -> Signals:
    """Return the signals of the request's item; empty when the table has no such item.

    Raises EnrichmentError. The source's time limit bounds each wait on the network, not
    the whole call: who has a deadline must also stop waiting by itself.
    """
    item = stored_item(source, values)
    if item is None:
        log.debug("no enrichment item", source=source.slug, table=source.table)
        return {}
    read = {signal.name: read_signal(signal, item) for signal in source.signals}
    return {name: signal for name, signal in read.items() if signal is not None}


def stored_item(source: SourceSpec, values: Mapping[str, str]) -> dict[str, Any] | None:
    """Return what the table holds of the request's item, as far as signals need it, or None.

    Raises EnrichmentError.
    """
    return dynamodb.get_item(
        source.table,
        item_key(source, values),
        attributes=[signal.attribute.split(".", 1)[0] for signal in source.signals],
        region=source.region,
        timeout_ms=source.timeout_ms,
    )


def warm(source: SourceSpec) -> None:
    """Make the source's client now: it takes longer than a request has."""
    dynamodb.warm(region=source.region, timeout_ms=source.timeout_ms)
