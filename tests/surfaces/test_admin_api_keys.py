"""API keys in the admin: shown once, scoped, revoked for good."""

import pytest
from django.contrib.auth.models import Permission
from django.urls import reverse

from surfaces import keys, snapshot
from surfaces.digest import digest
from surfaces.document import KeyScope
from surfaces.models import ApiKey, Surface

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("own_snapshot")]

ADD = "admin:surfaces_apikey_add"
LIST = "admin:surfaces_apikey_changelist"


@pytest.fixture
def key(db):
    return keys.issue("Web shop")[0]


def revoke_url(key):
    return reverse("admin:surfaces_apikey_revoke", args=[key.pk])


def change_url(key):
    return reverse("admin:surfaces_apikey_change", args=[key.pk])


@pytest.mark.parametrize("button", ["_save", "_continue", "_addanother"])
def test_a_new_key_is_shown_once_and_works(admin_client, button):
    response = admin_client.post(reverse(ADD), {"name": "Web shop", button: "1"})
    assert response.status_code == 200
    assert "no-store" in response["Cache-Control"]
    plaintext = response.context["plaintext"]
    assert plaintext in response.content.decode()
    key = ApiKey.objects.get()
    assert key.digest == digest(plaintext)
    assert key.name == "Web shop"
    assert not key.scoped
    for url in (reverse(LIST), change_url(key)):
        page = admin_client.get(url).content.decode()
        assert key.prefix in page
        assert plaintext not in page
        assert key.digest not in page


def test_a_key_without_a_name_is_not_made(admin_client):
    response = admin_client.post(reverse(ADD), {"name": ""})
    assert response.context["errors"]
    assert not ApiKey.objects.exists()


def test_a_key_is_made_for_some_surfaces(admin_client, surface):
    admin_client.post(reverse(ADD), {"name": "App", "surfaces": [surface.pk]})
    key = ApiKey.objects.get()
    assert key.scoped
    assert list(key.surfaces.all()) == [surface]


def test_the_surfaces_of_a_key_can_be_changed(admin_client, surface, key):
    admin_client.post(change_url(key), {"name": "Web", "surfaces": [surface.pk]})
    key.refresh_from_db()
    assert (key.name, key.scoped) == ("Web", True)
    admin_client.post(change_url(key), {"name": "Web"})
    key.refresh_from_db()
    assert not key.scoped


def test_the_indexes_of_a_key_are_chosen(admin_client, definition):
    page = admin_client.get(reverse(ADD)).content.decode()
    assert "None ticked: of no index." in page
    admin_client.post(reverse(ADD), {"name": "Feed", "indexes": [definition.pk]})
    key = ApiKey.objects.get()
    assert list(key.indexes.all()) == [definition]
    assert not key.scoped
    assert definition.slug in admin_client.get(reverse(LIST)).content.decode()
    admin_client.post(change_url(key), {"name": "Feed"})
    assert not key.indexes.exists()
    assert "no index" in admin_client.get(reverse(LIST)).content.decode()


def test_a_key_whose_surface_is_gone_does_not_say_every_surface(admin_client, surface, key):
    keys.rescope(key, [surface])
    Surface.objects.all().delete()
    page = admin_client.get(reverse(LIST)).content.decode()
    assert "none any more" in page
    assert "every surface" not in page


def test_renaming_such_a_key_opens_no_surface_to_it(admin_client, surface, key):
    keys.rescope(key, [surface])
    Surface.objects.all().delete()
    admin_client.post(change_url(key), {"name": "Old shop"})
    key.refresh_from_db()
    assert (key.name, key.scoped) == ("Old shop", True)
    assert snapshot.build().keys[key.digest] == KeyScope(name="Old shop", surfaces=())


def test_revoking_asks_first(admin_client, key):
    assert "Revoke the key of Web shop?" in admin_client.get(revoke_url(key)).content.decode()
    key.refresh_from_db()
    assert key.revoked_at is None


def test_a_revoked_key_stays_revoked(admin_client, key):
    response = admin_client.post(revoke_url(key))
    assert response.status_code == 302
    key.refresh_from_db()
    assert key.revoked_at is not None
    assert "Revoked" in admin_client.get(reverse(LIST)).content.decode()
    # Nothing is left to be done with it.
    assert admin_client.post(revoke_url(key)).status_code == 403
    assert admin_client.post(change_url(key), {"name": "Back"}).status_code == 403
    assert (
        admin_client.get(reverse("admin:surfaces_apikey_delete", args=[key.pk])).status_code == 403
    )


def test_revoking_needs_the_permission_to_change_keys(client, django_user_model, key):
    user = django_user_model.objects.create_user("mia", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="view_apikey"))
    client.force_login(user)
    assert client.get(change_url(key)).status_code == 200
    assert client.post(revoke_url(key)).status_code == 403
    key.refresh_from_db()
    assert key.revoked_at is None
