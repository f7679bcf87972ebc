"""A shop to visit: a catalog, its index, two surfaces, somebody who may log in, and a key."""

import gzip
import json
from pathlib import Path

from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.contrib.auth.models import User

from indexes import builds
from indexes.models import IndexBuild
from indexes.schema import EndpointSpec
from recplatform.demo import catalog, content
from surfaces import keys, publishing
from surfaces.models import Surface
from tests.fixtures_indexes import insert_definition

# A part of the demo's catalog: all of it takes a minute to embed.
SHELF = [row for row in catalog.products() if row["sku"][-3:] <= "012"]
SURFACES = {"search-carousel": "Search carousel", "similar-items": "Similar items"}


def open_shop(folder: Path, endpoint: EndpointSpec, username: str, password: str) -> str:
    """Fill the database, build the index and publish the surfaces; return an API key."""
    path = folder / "products.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(f"{json.dumps(row, ensure_ascii=False)}\n" for row in SHELF)
    fields = (
        {"name": name, "type": type_, **options}
        for name, (type_, options) in content.INDEX_FIELDS.items()
    )
    template = content.TEXT_TEMPLATE
    definition = insert_definition(
        # Patient, as a busy machine answers late.
        endpoint.model_copy(update={"timeout_ms": 10_000}),
        path,
        fields=fields,
        text_template=template,
        id_field="sku",
    )
    build = builds.start(definition, enqueue=False)
    builds.run_to_end(build.pk)
    build.refresh_from_db()
    assert build.status == IndexBuild.Status.LIVE, build.error
    for slug, name in SURFACES.items():
        # A machine that runs tests answers late at times.
        surface = Surface.objects.create(
            slug=slug, name=name, index=definition, deadline_ms=10_000, browse_field="popularity"
        )
        publishing.publish(surface, user=None, note="First")
    User.objects.create(
        username=username,
        # By a hasher that the site's processes know; the tests' own is a quicker one.
        password=PBKDF2PasswordHasher().encode(password, "salt"),
        is_staff=True,
        is_superuser=True,
    )
    _, key = keys.issue("storefront")
    return key
