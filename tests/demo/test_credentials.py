"""The demo's logins: the same on every start, as long as they work."""

import stat

import pytest
from django.contrib.auth import authenticate, get_user_model

from recplatform.demo import credentials
from surfaces import keys, snapshot
from surfaces.digest import digest
from surfaces.models import ApiKey

pytestmark = pytest.mark.django_db


@pytest.fixture
def path(tmp_path, namespace, settings):
    # Keys push the serving snapshot.
    settings.VALKEY_NAMESPACE = namespace
    return tmp_path / "kept" / "credentials.json"


def test_the_logins_work_and_are_kept_for_the_owner_only(path):
    made = credentials.ensure(path)
    user = authenticate(username=made.admin_user, password=made.admin_password)
    assert user is not None
    assert user.is_superuser
    assert ApiKey.objects.filter(digest=digest(made.api_key), revoked_at=None).exists()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_key_may_change_items_of_the_demo(path, definition):
    api_key = credentials.ensure(path, definition).api_key
    credentials.ensure(path, definition)

    assert snapshot.build().keys[digest(api_key)].indexes == (definition.slug,)


def test_a_second_run_gives_the_same(path):
    assert credentials.ensure(path) == credentials.ensure(path)
    assert ApiKey.objects.count() == 1


def test_a_changed_password_is_set_back(path):
    made = credentials.ensure(path)
    user = get_user_model().objects.get()
    user.set_password("something else")
    user.save()
    assert credentials.ensure(path) == made
    assert authenticate(username="admin", password=made.admin_password)


def test_a_revoked_key_is_replaced(path):
    made = credentials.ensure(path)
    keys.revoke(ApiKey.objects.get())
    again = credentials.ensure(path)
    assert again.api_key != made.api_key
    assert credentials.read(path) == again


def test_a_lost_file_leaves_one_key_that_works(path):
    made = credentials.ensure(path)
    path.unlink()
    credentials.ensure(path)
    assert ApiKey.objects.filter(revoked_at=None).count() == 1
    assert not ApiKey.objects.filter(digest=digest(made.api_key), revoked_at=None).exists()


def test_a_new_database_gets_the_kept_password(path):
    made = credentials.ensure(path)
    get_user_model().objects.all().delete()
    ApiKey.objects.all().delete()
    again = credentials.ensure(path)
    assert again.admin_password == made.admin_password
    assert authenticate(username="admin", password=made.admin_password)


@pytest.mark.parametrize("text", ["", "{", '{"admin_user": "admin"}'])
def test_a_broken_file_is_as_none(tmp_path, text):
    path = tmp_path / "credentials.json"
    path.write_text(text)
    assert credentials.read(path) is None
