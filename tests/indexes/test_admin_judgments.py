"""The page of judgments: uploaded, shown, replaced and removed."""

import pytest
from django.contrib.auth.models import Permission, User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from indexes.models import Judgment
from tests.pages import text_of

GOOD = b"query,product_id,grade\nface cream,sku-1,3\nface cream,sku-2,1\nboots,sku-11,2\nboots,sku-11,3\n"


@pytest.fixture
def address(new_definition) -> str:
    definition = new_definition([{"id": "1", "title": "a"}])
    return reverse("admin:indexes_indexdefinition_judgments", args=[definition.pk])


def upload(client: Client, address: str, content: bytes):
    file = SimpleUploadedFile("judgments.csv", content, "text/csv")
    return client.post(address, {"file": file}, follow=True)


def test_a_file_is_uploaded_and_shown(admin_client, address):
    empty = text_of(admin_client.get(address))
    assert "No judgments yet" in empty
    assert "Remove" not in empty
    said = text_of(upload(admin_client, address, GOOD))
    assert "The index has 3 judgments of 2 queries." in said
    assert "1 lines said a pair again" in said
    assert "3 judgments of 2 queries" in said
    assert "boots 1 3 face cream 2 3" in said
    assert Judgment.objects.count() == 3


def test_another_file_replaces_it(admin_client, address):
    upload(admin_client, address, GOOD)
    upload(admin_client, address, b"query,product_id,grade\nlamp,sku-3,1\n")
    assert [one.query for one in Judgment.objects.all()] == ["lamp"]


def test_a_bad_file_changes_nothing_and_says_where(admin_client, address):
    upload(admin_client, address, GOOD)
    said = text_of(upload(admin_client, address, b"query,product_id,grade\nlamp,sku-3,x\n,,1\n"))
    assert "Nothing was changed" in said
    assert 'Line 2: grade "x" is not a number from 0 to 100.' in said
    assert "Line 3: query is empty." in said
    assert Judgment.objects.count() == 3
    assert "Choose a file." in text_of(admin_client.post(address))


def test_a_large_file_is_read_from_disk(admin_client, address, settings):
    settings.FILE_UPLOAD_MAX_MEMORY_SIZE = 10
    upload(admin_client, address, GOOD)
    assert Judgment.objects.count() == 3


def test_they_are_removed(admin_client, address):
    upload(admin_client, address, GOOD)
    said = text_of(admin_client.post(address, {"remove": "1"}, follow=True))
    assert "3 judgments are removed." in said
    assert not Judgment.objects.exists()


def test_who_may_only_look_changes_nothing(address):
    user = User.objects.create_user("viewer", is_staff=True)
    client = Client()
    client.force_login(user)
    assert client.get(address).status_code == 403
    user.user_permissions.set(Permission.objects.filter(codename="view_indexdefinition"))
    page = client.get(address)
    assert 'type="file"' not in page.content.decode()
    assert upload(client, address, GOOD).status_code == 403
    assert client.post(address, {"remove": "1"}).status_code == 403
    assert not Judgment.objects.exists()


def test_an_index_that_is_gone(admin_client, address):
    missing = reverse("admin:indexes_indexdefinition_judgments", args=[0])
    assert admin_client.get(missing).status_code in (302, 404)
