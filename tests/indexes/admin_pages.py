"""What tests of the admin's pages on indexes share."""

from typing import Any

from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from indexes import builds
from indexes.models import IndexBuild, IndexDefinition
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


def staff(name: str, *permissions: str) -> Client:
    """Return a client of a member of staff who sees everything here, and may do these things."""
    user = User.objects.create_user(name, is_staff=True)
    here = Permission.objects.filter(content_type__app_label="indexes")
    seen = here.filter(codename__startswith="view_")
    user.user_permissions.set([*seen, *here.filter(codename__in=permissions)])
    client = Client()
    client.force_login(user)
    return client
