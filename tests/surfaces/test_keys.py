import re

import pytest

from surfaces import keys, snapshot
from surfaces.models import ApiKey, ServingState, Surface

pytestmark = pytest.mark.django_db


@pytest.fixture
def other(surface):
    return Surface.objects.create(slug="other", name="Other", index=surface.index)


def scope(key: ApiKey):
    return snapshot._scope(ApiKey.objects.get(pk=key.pk))


def version() -> int:
    return ServingState.objects.get().version


def test_a_key_is_shown_once_and_stored_as_its_digest():
    key, plaintext = keys.issue("shop")
    assert re.fullmatch(r"rp_[A-Za-z0-9_-]{43}", plaintext)
    assert key.digest == keys.digest(plaintext)
    assert plaintext.startswith(key.prefix)
    assert len(key.prefix) == 9
    stored = ApiKey.objects.values().get()
    assert plaintext not in map(str, stored.values())


def test_no_two_keys_are_alike():
    assert len({keys.issue("shop")[1] for _ in range(20)}) == 20


def test_a_key_for_no_surface_in_particular_is_for_every_one():
    key, _ = keys.issue("shop")
    assert scope(key).surfaces is None


def test_a_key_for_surfaces_names_those_that_are_published(surface, other):
    from surfaces import publishing

    key, _ = keys.issue("shop", [surface, other])
    assert scope(key).surfaces == ()
    publishing.publish(surface)
    assert scope(key).surfaces == ("shelf",)


def test_a_key_that_loses_its_last_surface_is_for_none(surface, other):
    key, _ = keys.issue("shop", [surface])
    surface.delete()
    assert ApiKey.objects.get(pk=key.pk).surfaces.count() == 0
    assert scope(key).surfaces == ()


def test_surfaces_chosen_in_a_form_bind_the_key_too(surface):
    key, _ = keys.issue("shop")
    key.surfaces.add(surface)
    key.surfaces.clear()
    assert scope(key).surfaces == ()


def test_keys_chosen_for_a_surface_are_bound_too(surface):
    key, _ = keys.issue("shop")
    surface.apikey_set.add(key)
    surface.apikey_set.clear()
    assert scope(key).surfaces == ()


def test_rescoping_can_open_a_key_again(surface):
    key, _ = keys.issue("shop", [surface])
    keys.rescope(key, [])
    assert scope(key).surfaces is None


def test_every_change_of_a_key_raises_the_version(surface):
    key, _ = keys.issue("shop")
    seen = [version()]
    for change in (
        lambda: key.surfaces.add(surface),
        lambda: key.surfaces.remove(surface),
        lambda: keys.rescope(key, []),
        lambda: keys.revoke(key),
        key.delete,
    ):
        change()
        seen.append(version())
    assert seen == sorted(set(seen))


def test_a_key_names_the_indexes_whose_items_it_may_change(definition):
    key, _ = keys.issue("shop")
    assert scope(key).indexes == ()
    keys.allow_indexes(key, [definition])
    assert scope(key).indexes == (definition.slug,)
    assert scope(key).surfaces is None
    keys.allow_indexes(key, [])
    assert scope(key).indexes == ()
    assert scope(keys.issue("feed", [], [definition])[0]).indexes == (definition.slug,)


def test_a_key_loses_an_index_that_is_deleted(definition):
    """Or it could change the items of a later one of the same name."""
    key, _ = keys.issue("feed", [], [definition])
    before = version()
    definition.delete()
    assert version() > before
    assert scope(key).indexes == ()


def test_every_change_of_its_indexes_raises_the_version(definition):
    key, _ = keys.issue("shop")
    seen = [version()]
    for change in (
        lambda: key.indexes.add(definition),
        lambda: keys.allow_indexes(key, []),
    ):
        change()
        seen.append(version())
    assert seen == sorted(set(seen))


def test_a_revoked_key_is_gone_for_good():
    key, plaintext = keys.issue("shop")
    assert keys.digest(plaintext) in snapshot.build().keys
    keys.revoke(key)
    assert keys.digest(plaintext) not in snapshot.build().keys
    revoked_at = ApiKey.objects.get().revoked_at
    keys.revoke(key)
    assert ApiKey.objects.get().revoked_at == revoked_at
