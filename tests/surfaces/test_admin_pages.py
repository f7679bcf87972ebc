"""Every page of the admin opens, in the sidebar and out of it, with data and without."""

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission
from django.urls import reverse

from surfaces import publishing
from surfaces.admin import dashboard

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("own_snapshot")]

MODELS = sorted(model._meta.label_lower for model in admin.site._registry)


@pytest.mark.parametrize("label", MODELS)
@pytest.mark.parametrize("page", ["changelist", "add"])
def test_each_model_has_its_pages(admin_client, definition, label, page):
    url = reverse(f"admin:{label.replace('.', '_')}_{page}")
    # What may not be added by hand says so.
    assert admin_client.get(url).status_code in ((200,) if page == "changelist" else (200, 403))


def test_each_link_of_the_sidebar_opens(admin_client, surface):
    page = admin_client.get(reverse("admin:index"))
    groups = page.context["sidebar_navigation"]
    assert [group["title"] for group in groups] == ["Surfaces", "Indexes", "Enrichment", "System"]
    links = [str(item["link"]) for group in groups for item in group["items"]]
    assert len(links) == len(set(links)) == 15
    for link in links:
        assert admin_client.get(link).status_code == 200


def test_the_sidebar_shows_what_the_user_may_see(client, django_user_model):
    user = django_user_model.objects.create_user("mia", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="view_surface"))
    client.force_login(user)
    page = client.get(reverse("admin:index"))
    shown = [
        item["title"]
        for group in page.context["sidebar_navigation"]
        for item in group["items"]
        if item["has_permission"]
    ]
    assert shown == ["Overview", "Surfaces", "Preview"]
    assert "surfaces" in page.context
    assert "indexes" not in page.context


def test_the_overview_shows_surfaces_and_indexes(admin_client, surface):
    page = admin_client.get(reverse("admin:index")).content.decode()
    assert "Shelf" in page
    assert "Not published" in page
    assert "products-v1" in page
    publishing.publish(surface)
    assert "Revision 1 is live" in admin_client.get(reverse("admin:index")).content.decode()


def test_an_empty_installation_says_where_to_begin(admin_client):
    page = admin_client.get(reverse("admin:index")).content.decode()
    assert reverse("admin:indexes_indexdefinition_add") in page
    assert reverse("admin:surfaces_surface_add") in page


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("production", ["Production", "danger"]),
        ("staging", ["Staging", "warning"]),
        ("shop of anna", ["Shop of anna", "info"]),
    ],
)
def test_the_environment_is_labelled(settings, rf, name, label):
    settings.ENVIRONMENT = name
    assert dashboard.environment(rf.get("/")) == label
