"""System checks of the settings that name Valkey: each says which one to change."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, register

SCHEMES = ("valkey", "valkeys", "redis", "rediss")


@register()
def check_valkey_settings(**kwargs: Any) -> list[CheckMessage]:
    """Check that the settings can name a server or a cluster."""
    return list(_problems())


def _problems() -> Iterator[CheckMessage]:
    urls = {"VALKEY_URL": settings.VALKEY_URL}
    urls |= {
        f"VALKEY_REPLICA_URLS (number {number})": url
        for number, url in enumerate(settings.VALKEY_REPLICA_URLS, 1)
    }
    for name, url in urls.items():
        if not _is_server(url):
            yield Error(
                f"{name} does not name a Valkey server.",
                hint="Write valkey://[user:password@]host:port/0, or valkeys:// for TLS.",
                id="indexes.E001",
            )
    if settings.VALKEY_CLUSTER and settings.VALKEY_REPLICA_URLS:
        yield Error(
            "VALKEY_REPLICA_URLS cannot be combined with VALKEY_CLUSTER=1.",
            hint="A cluster names its own nodes: leave VALKEY_REPLICA_URLS empty.",
            id="indexes.E002",
        )
    if settings.VALKEY_CLUSTER and urlsplit(settings.VALKEY_URL).path.strip("/") not in ("", "0"):
        yield Error(
            "VALKEY_URL names a database, and a cluster has only database 0.",
            hint="Leave the number out of VALKEY_URL.",
            id="indexes.E003",
        )
    if settings.VALKEY_CLUSTER and _same_server(settings.CELERY_BROKER_URL, settings.VALKEY_URL):
        yield Error(
            "CELERY_BROKER_URL names the cluster of VALKEY_URL, which Celery cannot use.",
            hint="Set CELERY_BROKER_URL to a single Valkey server.",
            id="indexes.E005",
        )
    if not re.fullmatch(r"[A-Za-z0-9_-]+", settings.VALKEY_NAMESPACE):
        yield Error(
            "VALKEY_NAMESPACE holds characters that index names cannot have.",
            hint="Use letters, digits, hyphens and underscores.",
            id="indexes.E004",
        )


def _is_server(url: str) -> bool:
    try:
        parts = urlsplit(url)
        # Reading the port refuses one that is no number.
        return parts.scheme in SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _same_server(one: str, other: str) -> bool:
    return urlsplit(one).netloc == urlsplit(other).netloc
