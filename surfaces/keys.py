"""API keys: made once, stored as a digest, revoked for good."""

import secrets
from collections.abc import Iterable

from django.db import transaction
from django.utils import timezone

from indexes.models import IndexDefinition
from surfaces import snapshot
from surfaces.digest import digest
from surfaces.models import ApiKey, Surface

__all__ = ["allow_indexes", "digest", "issue", "rename", "rescope", "revoke"]

PREFIX = "rp_"


def issue(
    name: str, surfaces: Iterable[Surface] = (), indexes: Iterable[IndexDefinition] = ()
) -> tuple[ApiKey, str]:
    """Make a key for these surfaces (none: for every surface) and return it with its plaintext.

    It may change the items of these indexes (none: of none). The plaintext is nowhere stored:
    show it once.
    """
    plaintext = PREFIX + secrets.token_urlsafe(32)
    with transaction.atomic():
        key = ApiKey.objects.create(
            name=name, prefix=plaintext[: len(PREFIX) + 6], digest=digest(plaintext)
        )
        rescope(key, surfaces)
        allow_indexes(key, indexes)
    return key, plaintext


def rename(key: ApiKey, name: str) -> None:
    """Give the key another name for people and logs; what it may call stays."""
    with transaction.atomic():
        key.name = name
        key.save(update_fields=["name"])
        snapshot.changed()


def rescope(key: ApiKey, surfaces: Iterable[Surface]) -> None:
    """Let the key call exactly these surfaces; none: every surface."""
    chosen = list(surfaces)
    with transaction.atomic():
        key.surfaces.set(chosen)
        # After the line above, which marks the key as scoped.
        key.scoped = bool(chosen)
        key.save(update_fields=["scoped"])
        snapshot.changed()


def allow_indexes(key: ApiKey, indexes: Iterable[IndexDefinition]) -> None:
    """Let the key change the items of exactly these indexes."""
    with transaction.atomic():
        key.indexes.set(indexes)
        snapshot.changed()


def revoke(key: ApiKey) -> None:
    """End the key: each web process refuses it within a second. Revoking again changes nothing."""
    if key.revoked_at is not None:
        return
    with transaction.atomic():
        key.revoked_at = timezone.now()
        key.save(update_fields=["revoked_at"])
        snapshot.changed()
