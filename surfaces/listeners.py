"""What surfaces does when something changes that is served, whoever changes it.

Promoting a build, choosing a key's surfaces and deleting rows happen in other
packages and in the admin; each raises the snapshot's version in its own transaction.
"""

from functools import partial
from typing import Any

from django.db import transaction
from django.db.models.signals import m2m_changed, post_delete

from indexes.models import IndexBuild, IndexDefinition
from indexes.signals import live_build_changed, surfaces_asked
from indexes.validation.surfaces_fit import look_again_at
from surfaces import default_lists, fit, snapshot, wiring
from surfaces.models import ApiKey, Surface
from surfaces.registry import registry


def connect() -> None:
    """Listen, and give this process's registry what it may not import itself."""
    live_build_changed.connect(on_live_build, dispatch_uid="surfaces")
    surfaces_asked.connect(on_build_asked, dispatch_uid="surfaces")
    m2m_changed.connect(on_key_surfaces, sender=ApiKey.surfaces.through, dispatch_uid="surfaces")
    m2m_changed.connect(on_key_indexes, sender=ApiKey.indexes.through, dispatch_uid="surfaces")
    for model in (Surface, ApiKey, IndexDefinition):
        post_delete.connect(on_delete, sender=model, dispatch_uid="surfaces")
    registry.loader = snapshot.read
    registry.prepare = wiring.warm
    registry.recheck = wiring.recheck


def on_live_build(*, definition: IndexDefinition, moved: bool, **_: Any) -> None:
    """Serve from the new build, and take the default lists of its surfaces from it.

    A canary gives no default lists: where it starts or stops, and nothing ``moved``, they stay.
    """
    snapshot.changed()
    if moved:
        transaction.on_commit(lambda: default_lists.refresh(definition))


def on_build_asked(*, build: IndexBuild, **_: Any) -> list[str]:
    """Tell which published surfaces a build would break."""
    return fit.complaints(build)


def on_key_surfaces(
    *, instance: ApiKey | Surface, action: str, pk_set: set[int] | None, **_: Any
) -> None:
    """Keep a key that was given surfaces from becoming a key to every surface."""
    if not action.startswith("post_"):
        return
    with transaction.atomic():
        if action == "post_add":
            # From either side: the set holds surfaces of a key, or keys of a surface.
            keys = {instance.pk} if isinstance(instance, ApiKey) else pk_set or set()
            ApiKey.objects.filter(pk__in=keys).update(scoped=True)
        snapshot.changed()


def on_key_indexes(*, action: str, **_: Any) -> None:
    """Tell every process which indexes a key may change."""
    if action.startswith("post_"):
        with transaction.atomic():
            snapshot.changed()


def on_delete(*, instance: Any, **_: Any) -> None:
    """Stop serving what was deleted."""
    with transaction.atomic():
        snapshot.changed()
        if isinstance(instance, Surface):
            # A build that it did not fit may be free to go live.
            transaction.on_commit(partial(look_again_at, instance.index_id), robust=True)
