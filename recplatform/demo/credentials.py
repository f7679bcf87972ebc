"""The demo's logins: made once, kept in a file outside version control, printed on every start."""

import json
import os
import secrets
from pathlib import Path

from django.conf import settings
from django.contrib.auth import get_user_model
from pydantic import BaseModel, ValidationError

from indexes.models import IndexDefinition
from surfaces import keys
from surfaces.digest import digest
from surfaces.models import ApiKey

DEFAULT_PATH: Path = settings.BASE_DIR / ".local" / "demo-credentials.json"
KEY_NAME = "Demo storefront"


class Credentials(BaseModel):
    """What the demo prints, and scripts read, to log in."""

    admin_user: str = "admin"
    admin_password: str
    api_key: str


def ensure(path: Path, index: IndexDefinition | None = None) -> Credentials:
    """Return logins that work now: those kept at ``path`` as far as the database knows them.

    The key may change the items of ``index``.
    """
    kept = read(path)
    credentials = Credentials(
        admin_password=_password(kept.admin_password if kept else ""),
        api_key=_api_key(kept.api_key if kept else ""),
    )
    if index is not None:
        _allow(credentials.api_key, index)
    if credentials != kept:
        _write(path, credentials)
    return credentials


def read(path: Path) -> Credentials | None:
    """Return the logins kept at ``path``, or None when there are none to be read."""
    try:
        return Credentials.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _password(kept: str) -> str:
    """Return the admin user's password: the kept one, or a new one when it is not theirs."""
    user, _ = get_user_model().objects.get_or_create(
        username="admin", defaults={"is_staff": True, "is_superuser": True}
    )
    if kept and user.has_usable_password() and user.check_password(kept):
        return kept
    password = kept or secrets.token_urlsafe(12)
    user.set_password(password)
    user.save(update_fields=["password"])
    return password


def _api_key(kept: str) -> str:
    """Return a key of the demo storefront: the kept one unless it is unknown or revoked."""
    if kept and ApiKey.objects.filter(digest=digest(kept), revoked_at=None).exists():
        return kept
    for stale in ApiKey.objects.filter(name=KEY_NAME, revoked_at=None):
        keys.revoke(stale)
    return keys.issue(KEY_NAME)[1]


def _allow(api_key: str, index: IndexDefinition) -> None:
    key = ApiKey.objects.get(digest=digest(api_key))
    if not key.indexes.contains(index):
        keys.allow_indexes(key, [*key.indexes.all(), index])


def _write(path: Path, credentials: Credentials) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(credentials.model_dump(), file, indent=2)
