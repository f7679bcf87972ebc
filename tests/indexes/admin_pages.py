"""What tests of the admin's pages on indexes share."""

from typing import Any

from django.conf import settings
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from indexes import builds, valkey
from indexes.models import IndexBuild, IndexDefinition
from indexes.naming import index_name, key_prefix
from tests.fixtures_indexes import PRODUCTS

FEW = PRODUCTS[:8]


def address(name: str, obj: Any = None) -> str:
    """Return the address of a page of this package's admin, such as ``indexbuild_promote``."""
    return reverse(f"admin:indexes_{name}", args=[obj.pk] if obj else [])


def built(definition: IndexDefinition) -> IndexBuild:
    """Build the definition here, to its end."""
    build = builds.start(definition, enqueue=False)
    builds.run_to_end(build.pk)
    build.refresh_from_db()
    return build


def ready(definition: IndexDefinition, **changes: Any) -> IndexBuild:
    """Add a build that is ready beside the live one, over an index without items."""
    number = definition.builds.count() + 1
    names = (settings.VALKEY_NAMESPACE, definition.slug, number)
    spec = definition.to_spec()
    values: dict[str, Any] = {
        "status": IndexBuild.Status.READY,
        "verdict": IndexBuild.Verdict.PASSED,
        "spec": spec.model_dump(mode="json"),
        "fingerprint": spec.fingerprint,
        "index_name": index_name(*names),
        "key_prefix": key_prefix(*names),
        "finished_at": timezone.now(),
    }
    build = IndexBuild.objects.create(definition=definition, number=number, **(values | changes))
    valkey.drop_index(build.index_name)
    valkey.create_index(build.index_name, build.key_prefix, spec)
    return build


def staff(name: str, *permissions: str) -> Client:
    """Return a client of a member of staff who sees everything here, and may do these things."""
    user = User.objects.create_user(name, is_staff=True)
    here = Permission.objects.filter(content_type__app_label="indexes")
    seen = here.filter(codename__startswith="view_")
    user.user_permissions.set([*seen, *here.filter(codename__in=permissions)])
    client = Client()
    client.force_login(user)
    return client
