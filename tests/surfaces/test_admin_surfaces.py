"""Surfaces in the admin: drafts are saved, seen against what is live, and published on purpose."""

import re

import pytest
from django.contrib.auth.models import Permission
from django.contrib.messages import get_messages
from django.urls import reverse

from enrichment.models import EnrichmentSource, Signal
from indexes.models import IndexDefinition
from surfaces import publishing
from surfaces.models import Reranker, RerankTerm, Surface, SurfaceRevision
from tests.pages import text_of

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("own_snapshot")]


@pytest.fixture
def change_url(surface):
    return reverse("admin:surfaces_surface_change", args=[surface.pk])


@pytest.fixture
def publish_url(surface):
    return reverse("admin:surfaces_surface_publish", args=[surface.pk])


@pytest.fixture
def staff_client(client, django_user_model):
    """A factory of logged-in staff with some permissions on surfaces."""

    def make(*codenames):
        user = django_user_model.objects.create_user("mia", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client.force_login(user)
        return client

    return make


def form_of(response):
    """The values that a browser would send back from the change form."""
    data = {}
    page = response.context
    forms = [
        page["adminform"].form,
        *(f.formset.management_form for f in page["inline_admin_formsets"]),
    ]
    for formset in page["inline_admin_formsets"]:
        forms += formset.formset.forms
    for form in forms:
        for field in form:
            value = field.value()
            if value is True:
                data[field.html_name] = "on"
            elif value is not None and value is not False:
                data[field.html_name] = value
    return data


def shown_messages(response):
    return [str(message) for message in get_messages(response.wsgi_request)]


def publish(client, url, note="A good reason"):
    page = client.get(url)
    return client.post(url, {"note": note, "draft": page.context["form"]["draft"].value()})


def test_a_surface_is_made_from_the_form(admin_client, definition):
    url = reverse("admin:surfaces_surface_add")
    data = form_of(admin_client.get(url)) | {
        "name": "Carousel",
        "slug": "carousel",
        "index": definition.pk,
        "fields": ["title", "price"],
        "browse_field": "rating",
        "filters-TOTAL_FORMS": "1",
        "filters-0-field": "price",
        "filters-0-value_from": "static",
        "filters-0-operator": "at_most",
        "filters-0-values": "100",
        "filters-0-when_missing": "skip",
        "filters-0-position": "0",
    }
    response = admin_client.post(url, data)
    assert response.status_code == 302, response.context["errors"]
    surface = Surface.objects.get(slug="carousel")
    assert surface.fields == ["title", "price"]
    assert surface.filters.get().values == "100"
    assert surface.live_revision is None


def test_saving_never_publishes(admin_client, surface, change_url):
    publishing.publish(surface)
    data = form_of(admin_client.get(change_url)) | {"limit": "5"}
    assert admin_client.post(change_url, data).status_code == 302
    surface.refresh_from_db()
    assert surface.limit == 5
    assert surface.live_revision.number == 1
    assert surface.live_revision.document["limit"] == 12
    assert "Unpublished changes" in text_of(admin_client.get(change_url))


def test_an_unchanged_form_changes_no_draft(admin_client, surface, add_filter, change_url):
    add_filter("in_stock", "true")
    publishing.publish(surface)
    admin_client.post(change_url, form_of(admin_client.get(change_url)))
    assert not publishing.has_unpublished_changes(Surface.objects.get(pk=surface.pk))


def test_the_form_offers_the_fields_of_the_index(admin_client, surface, add_filter, change_url):
    add_filter("colour", "red")
    form = admin_client.get(change_url).context["adminform"].form
    offered = dict(form.fields["fields"].choices)
    assert offered["image"] == "image (stored)"
    assert {name for name, _ in form.fields["browse_field"].widget.choices} == {
        "",
        "price",
        "rating",
    }
    page = admin_client.get(change_url).content.decode()
    # Stored, but gone from the index: shown, so that saving does not lose it.
    assert '<option value="colour" selected>colour (not in the index)</option>' in page
    # A filter on a stored field cannot work, and is not offered.
    assert '<option value="image"' not in page


def test_a_stored_name_that_is_gone_survives_a_save(admin_client, surface, change_url):
    surface.fields = ["title", "colour"]
    surface.browse_field = "popularity"
    surface.save()
    admin_client.post(change_url, form_of(admin_client.get(change_url)))
    surface.refresh_from_db()
    assert surface.fields == ["title", "colour"]
    assert surface.browse_field == "popularity"


@pytest.mark.parametrize(
    ("published", "changed", "state"),
    [
        (False, False, "Not published"),
        (True, False, "Live"),
        (True, True, "Unpublished changes"),
    ],
)
def test_the_list_shows_the_state(admin_client, surface, published, changed, state):
    if published:
        publishing.publish(surface)
    if changed:
        Surface.objects.update(limit=3)
    row = admin_client.get(reverse("admin:surfaces_surface_changelist"))
    assert state in text_of(row)


def test_a_change_of_the_reranker_is_an_unpublished_change(admin_client, surface):
    reranker = Reranker.objects.create(slug="mix", name="Mix")
    term = RerankTerm.objects.create(reranker=reranker, kind="similarity", weight=1)
    surface.reranker = reranker
    surface.save()
    publishing.publish(surface)
    term.weight = 2
    term.save()
    page = admin_client.get(reverse("admin:surfaces_surface_changelist"))
    assert "Unpublished changes" in text_of(page)


def test_the_list_does_not_ask_for_each_surface(
    admin_client, surface, definition, django_assert_max_num_queries
):
    url = reverse("admin:surfaces_surface_changelist")
    for number in range(8):
        copy = Surface.objects.create(
            slug=f"s{number}", name=f"S{number}", index=definition, browse_field="rating"
        )
        publishing.publish(copy)
    # Session, user, counts, rows, and one for each of the four relations of a draft.
    with django_assert_max_num_queries(14):
        admin_client.get(url)


def test_publishing_shows_what_changes_and_makes_it_live(admin_client, surface, publish_url):
    publishing.publish(surface)
    Surface.objects.update(limit=5)
    page = admin_client.get(publish_url)
    assert "What changes against revision 1" in text_of(page)
    assert [tuple(change) for change in page.context["changes"]] == [
        ("Results", ("12, at most 48",), ("5, at most 48",))
    ]
    response = publish(admin_client, publish_url)
    assert response.status_code == 302
    revision = SurfaceRevision.objects.get(number=2)
    assert revision.note == "A good reason"
    assert revision.published_by is not None
    assert revision.published_by.username == "admin"
    assert revision.document["limit"] == 5
    surface.refresh_from_db()
    assert surface.live_revision == revision
    assert shown_messages(response)[0] == "Revision 2 of Shelf is live."


def test_the_first_publish_shows_the_whole_configuration(admin_client, publish_url):
    page = text_of(admin_client.get(publish_url))
    assert "What will be served" in page
    assert "items by rating, highest first" in page


def test_looking_at_the_page_publishes_nothing(admin_client, publish_url):
    admin_client.get(publish_url)
    assert not SurfaceRevision.objects.exists()


def test_a_draft_that_changed_meanwhile_is_looked_at_again(admin_client, surface, publish_url):
    page = admin_client.get(publish_url)
    Surface.objects.update(limit=5)
    response = admin_client.post(
        publish_url, {"draft": page.context["form"]["draft"].value(), "note": ""}
    )
    assert response.status_code == 302
    assert response.url == publish_url
    assert not SurfaceRevision.objects.exists()
    assert "changed after this page was opened" in shown_messages(response)[0]


def test_nothing_to_publish_is_said(admin_client, surface, publish_url):
    publishing.publish(surface)
    assert "Nothing to publish" in text_of(admin_client.get(publish_url))
    assert publish(admin_client, publish_url).status_code == 409
    assert SurfaceRevision.objects.count() == 1


def test_every_problem_is_shown_with_the_field_to_mend(
    admin_client, surface, add_filter, change_url, publish_url
):
    add_filter("in_stock", "true", position=1)
    add_filter("price", "cheap", operator="at_most", position=2)
    surface.reranker = Reranker.objects.create(slug="empty", name="Empty")
    surface.fields = ["colour"]
    surface.limit = 60
    surface.save()
    page = admin_client.get(publish_url)
    problems = {problem.label: problem for problem in page.context["problems"]}
    assert problems.keys() == {
        "Results",
        "Fields returned",
        "Filter 2 (price): values",
        "Reranker Empty",
    }
    values = problems["Filter 2 (price): values"]
    assert values.link == f"{change_url}#id_filters-1-values"
    # The link leads to an element that is there.
    form = admin_client.get(change_url).content.decode()
    for problem in problems.values():
        target, _, anchor = problem.link.partition("#")
        assert target != change_url or f'id="{anchor}"' in form
    assert values.message in text_of(page)
    assert values.message in text_of(admin_client.get(change_url))
    assert not re.search(r">\s*Publish\s*</button>", page.content.decode())
    assert publish(admin_client, publish_url).status_code == 409
    assert not SurfaceRevision.objects.exists()


def test_an_index_without_a_build_is_a_problem_and_no_error(admin_client, surface, publish_url):
    IndexDefinition.objects.update(live_build=None)
    page = admin_client.get(publish_url)
    assert [problem.label for problem in page.context["problems"]] == ["Index"]
    assert "build it first" in text_of(page)


@pytest.mark.parametrize(
    ("permissions", "look", "act"),
    [
        ([], 403, 403),
        (["view_surface"], 403, 403),
        (["view_surface", "change_surface"], 403, 403),
        (["view_surface", "publish_surface"], 200, 302),
    ],
)
def test_publishing_needs_its_own_permission(
    staff_client, surface, publish_url, permissions, look, act
):
    client = staff_client(*permissions)
    assert client.get(publish_url).status_code == look
    if look == 200:
        assert publish(client, publish_url).status_code == act
    else:
        assert client.post(publish_url, {"draft": "x"}).status_code == act
    assert SurfaceRevision.objects.exists() is (act == 302)


def test_whoever_may_only_look_sees_the_form_without_inputs(staff_client, surface, change_url):
    page = staff_client("view_surface").get(change_url)
    assert page.status_code == 200
    assert 'name="limit"' not in page.content.decode()


def test_publishing_while_valkey_is_down_says_that_it_waits(
    admin_client, surface, publish_url, outage, django_capture_on_commit_callbacks
):
    outage.begin()
    with django_capture_on_commit_callbacks(execute=True):
        response = publish(admin_client, publish_url)
    outage.end()
    assert response.status_code == 302
    assert "as soon as it is back" in shown_messages(response)[1]


def test_names_are_escaped_wherever_they_are_shown(admin_client, surface, change_url, publish_url):
    hostile = "<script>alert(1)</script>"
    Surface.objects.update(name=hostile, description=hostile)
    source = EnrichmentSource.objects.create(slug="s", table=hostile, key_template="{user_id}")
    Signal.objects.create(source=source, name="likes")
    surface.sources.add(source)
    for url in (
        change_url,
        publish_url,
        reverse("admin:index"),
        reverse("admin:surfaces_surface_changelist"),
        reverse("preview"),
    ):
        page = admin_client.get(url)
        assert page.status_code == 200
        assert "<script>alert(1)" not in page.content.decode()
        assert "alert(1)" in text_of(page)


def test_a_revision_is_shown_in_words_and_cannot_be_changed(admin_client, surface, add_filter):
    add_filter("in_stock", "true")
    revision = publishing.publish(surface, note="First")
    url = reverse("admin:surfaces_surfacerevision_change", args=[revision.pk])
    page = admin_client.get(url)
    assert "in_stock is any of true" in text_of(page)
    assert admin_client.post(url, {"note": "Other"}).status_code == 403
    assert admin_client.get(reverse("admin:surfaces_surfacerevision_add")).status_code == 403
    delete_url = reverse("admin:surfaces_surfacerevision_delete", args=[revision.pk])
    assert admin_client.post(delete_url, {"post": "yes"}).status_code == 403
    revision.refresh_from_db()
    assert revision.note == "First"


def test_the_revisions_of_a_surface_are_listed_on_it(admin_client, surface, change_url):
    publishing.publish(surface, note="Summer sale")
    assert "Summer sale" in text_of(admin_client.get(change_url))


def test_a_published_surface_can_be_deleted(admin_client, surface):
    publishing.publish(surface)
    url = reverse("admin:surfaces_surface_delete", args=[surface.pk])
    assert "perms_lacking" not in admin_client.get(url).content.decode()
    assert admin_client.post(url, {"post": "yes"}).status_code == 302
    assert not Surface.objects.exists()
    assert not SurfaceRevision.objects.exists()


def test_a_live_revision_that_cannot_be_read_can_be_replaced(
    admin_client, surface, publish_url, change_url
):
    revision = publishing.publish(surface)
    SurfaceRevision.objects.update(document={"slug": "shelf", "of": "an older release"})
    page = admin_client.get(reverse("admin:surfaces_surfacerevision_change", args=[revision.pk]))
    assert "Another release wrote it" in page.content.decode()
    assert admin_client.get(change_url).status_code == 200
    publish(admin_client, publish_url)
    surface.refresh_from_db()
    assert surface.live_revision.number == revision.number + 1
