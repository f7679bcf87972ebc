"""The preview's pages on the real pipeline: live and draft, and everything that can be missing."""

import json
from pathlib import Path
from urllib.parse import urlencode

import pytest
from django.contrib.auth.models import Permission
from django.urls import reverse

from enrichment.models import EnrichmentSource, Signal
from indexes import builds
from indexes.models import IndexBuild, IndexDefinition
from surfaces import publishing
from surfaces.models import Reranker, RerankTerm, Surface, SurfaceRevision
from tests.pages import text_of

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("own_snapshot")]


@pytest.fixture
def look(admin_client):
    """Open a surface's preview with a question in its address."""

    def look(slug="shelf", **question):
        response = admin_client.get(
            f"{reverse('preview-surface', args=[slug])}?{urlencode(question)}"
        )
        assert response.status_code == 200
        return response

    return look


@pytest.fixture
def ranked(surface):
    """The surface with a reranker."""
    surface.reranker = Reranker.objects.create(slug="mix", name="Mix")
    RerankTerm.objects.create(reranker=surface.reranker, kind="similarity", weight=1)
    RerankTerm.objects.create(reranker=surface.reranker, kind="field", field="rating", weight=0.5)
    surface.save()
    return surface


def answer(response):
    return response.context["page"].answer


def shown(response):
    return [card.item.id for card in answer(response)["cards"]]


def notes(response):
    return " ".join(note.text for note in response.context["page"].notes)


def test_live_shows_what_is_served_and_draft_what_is_saved(look, ranked):
    publishing.publish(ranked)
    Surface.objects.update(limit=3)
    live = look(query="running shoes")
    assert answer(live)["response"].revision == 1
    assert len(shown(live)) == 12
    draft = look(query="running shoes", revision="draft")
    assert answer(draft)["response"].revision == 0
    assert len(shown(draft)) == 3
    assert shown(live)[:3] == shown(draft)


def test_a_card_shows_its_score_as_parts(look, ranked):
    response = look(query="running shoes for trails")
    card = answer(response)["cards"][0]
    assert [part.label for part in card.parts] == ["similarity", "rating"]
    assert sum(part.value for part in card.parts) == pytest.approx(card.item.score)
    text = text_of(response)
    assert card.title in text
    assert "Nearest to the query, best of" in text
    assert "Searching the index" in text
    assert "FT.SEARCH" in text


def test_a_draft_is_compared_with_what_is_live(look, ranked):
    publishing.publish(ranked)
    RerankTerm.objects.filter(kind="field").update(weight=-3)
    response = look(query="warm jacket", revision="draft")
    live = {id_: rank for rank, id_ in enumerate(shown(look(query="warm jacket", limit="48")), 1)}
    cards = answer(response)["cards"]
    assert [card.live_rank for card in cards] == [live.get(card.item.id) for card in cards]
    assert [card.live_rank for card in cards] != list(range(1, len(cards) + 1))
    assert "compared with what is live" in text_of(response)


def test_live_is_compared_with_nothing(look, ranked):
    publishing.publish(ranked)
    assert all(card.live_rank is None for card in answer(look(query="jacket"))["cards"])


def test_another_build_is_tried_and_compared_with_what_is_live(look, surface):
    publishing.publish(surface)
    index = surface.index
    live = index.live_build
    # A build of its own, of the catalog without the first product that answers.
    [first, *_] = shown(look(query="running shoes"))
    index.source.uri = str(_without(index.source.uri, first))
    index.source.save()
    IndexDefinition.objects.update(promotion="manual")
    second = builds.start(IndexDefinition.objects.get(), enqueue=False)
    builds.run_to_end(second.pk)
    IndexDefinition.objects.update(canary_build=second, canary_percent=10)

    as_callers = look(query="running shoes")
    assert answer(as_callers)["response"].build == live.label
    assert not answer(as_callers)["compared"]
    response = look(query="running shoes", build="products-v2")
    assert answer(response)["response"].build == "products-v2"
    assert first not in shown(response)
    assert answer(response)["cards"][0].live_rank == 2
    text = text_of(response)
    assert "products-v2 · canary, 10 %" in text
    assert f"{live.label} · live" in text
    # A draft is tried on it too, and a build that is not there is what callers get.
    draft = look(query="running shoes", build="products-v2", revision="draft")
    assert answer(draft)["response"].build == "products-v2"
    assert answer(look(query="shoes", build="nosuch"))["response"].build == live.label


def test_with_one_build_there_is_nothing_to_choose(look, surface):
    assert b'name="build"' not in look(query="shoes").content


def _without(uri: str, item_id: str) -> Path:
    """A copy of a catalog, without one item."""
    source = Path(uri)
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    copy = source.with_name(f"without-{item_id}.jsonl")
    copy.write_text("".join(f"{json.dumps(row)}\n" for row in rows if row["id"] != item_id))
    return copy


def test_before_the_first_publish_the_draft_is_shown_with_a_hint(look, surface):
    response = look(query="jacket")
    assert shown(response)
    assert "Nothing of this surface is published yet" in text_of(response)


def test_filters_and_context_of_the_address_count(look, surface, add_filter):
    add_filter("price", value_from="caller")
    add_filter("region", value_from="context", key="region")
    response = look(**{"query": "shoes", "filters.price.lte": "90", "context.region": "us"})
    items = [card.item for card in answer(response)["cards"]]
    assert items
    assert all(item.fields["price"] <= 90 for item in items)
    assert "@region" in answer(response)["response"].debug.search


def test_a_surface_without_a_question_shows_its_own_start(look, surface):
    response = look()
    assert answer(response)["retrieval"] == "Listed by the browse field"
    assert shown(response)


def test_a_surface_without_a_start_asks_for_a_question(look, surface):
    Surface.objects.update(browse_field="", fallback_item_ids="sku-1")
    response = look()
    assert "Ask something" in text_of(response)
    assert not answer(response)
    # It is a mistake only where something was asked.
    assert "Give a query or item_ids" in text_of(look(limit="3"))


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"limit": "49"}, "at most 48"),
        ({"filters": '{"colour": "red"}'}, "does not filter by it"),
        ({"filters": "{"}, "not JSON"),
        ({"filters.price.lte": "cheap"}, "Give a number"),
    ],
)
def test_wrong_values_are_said_on_the_page(look, surface, add_filter, question, message):
    add_filter("price", value_from="caller")
    response = look(query="tea", **question)
    assert not answer(response)
    errors = response.context["page"].form.errors
    assert message in " ".join(text for messages in errors.values() for text in messages)
    assert 'class="rp-error"' in response.content.decode()


def test_no_item_passes(look, surface, add_filter):
    add_filter("price", value_from="caller")
    response = look(**{"query": "tea", "filters.price.lte": "0.01"})
    assert "No item passes" in text_of(response)


def test_without_a_live_build_it_says_what_to_do_next(look, surface):
    publishing.publish(surface)
    IndexDefinition.objects.update(live_build=None)
    for revision in ("live", "draft"):
        response = look(query="tea", revision=revision)
        assert "has no live build" in text_of(response)
        link = reverse("admin:indexes_indexdefinition_change", args=[surface.index_id])
        assert link in response.content.decode()
    # What was resolved when it was published is still there to fall back to.
    assert shown(look(query="tea"))


def test_with_the_engine_down_the_fallback_is_shown_with_its_reason(look, surface, outage):
    publishing.publish(surface)
    outage.begin()
    response = look(query="tea")
    draft = look(query="tea", revision="draft")
    outage.end()
    for page in (response, draft):
        assert shown(page)
        assert "Searching the index cannot be reached, so the default list is shown." in notes(page)


def test_a_broken_endpoint_is_named_with_its_page(look, surface):
    publishing.publish(surface)
    build = IndexBuild.objects.get()
    build.spec["endpoint"]["endpoint_name"] = "no-such-endpoint"
    IndexBuild.objects.update(spec=build.spec, fingerprint=build.to_spec().fingerprint)
    response = look(query="tea")
    assert "Embedding the query" in notes(response)
    assert "so the default list is shown" in notes(response)
    endpoint = reverse("admin:indexes_embeddingendpoint_change", args=[surface.index.endpoint_id])
    assert endpoint in response.content.decode()
    # Without a query nothing needs the endpoint.
    assert notes(look()) == ""


def test_a_surface_that_fails_fast_says_that_callers_get_503(look, surface, outage):
    Surface.objects.update(fallback="fail")
    publishing.publish(Surface.objects.get())
    outage.begin()
    response = look(query="tea")
    outage.end()
    assert "callers get 503" in notes(response)
    assert not answer(response)


def test_a_lost_source_is_named_with_its_page(look, surface):
    source = EnrichmentSource.objects.create(
        slug="prefs", table="no-such-table", key_template="USER#{user_id}", timeout_ms=3000
    )
    Signal.objects.create(source=source, name="likes")
    surface.sources.add(source)
    response = look(query="tea", user_id="u1")
    assert shown(response)
    assert "Signals from prefs refused the request" in notes(response)
    page = reverse("admin:enrichment_enrichmentsource_change", args=[source.pk])
    assert page in response.content.decode()
    assert notes(look(query="tea")) == ""


@pytest.mark.parametrize("may_see", [True, False])
def test_stored_values_are_shown_to_those_who_may_try_the_source(
    client, django_user_model, surface, dynamodb_table, may_see
):
    table = dynamodb_table([{"pk": "USER#u1", "likes": {"Kestrel-of-u1": 3}}])
    source = EnrichmentSource.objects.create(
        slug="prefs", table=table, key_template="USER#{user_id}", timeout_ms=3000
    )
    Signal.objects.create(source=source, name="likes")
    surface.sources.add(source)
    codenames = ["view_surface", "view_enrichmentsource"]
    user = django_user_model.objects.create_user("mia", is_staff=True)
    user.user_permissions.set(
        Permission.objects.filter(codename__in=[*codenames, *["change_enrichmentsource"] * may_see])
    )
    client.force_login(user)
    address = f"{reverse('preview-surface', args=['shelf'])}?query=tea&user_id=u1"
    text = text_of(client.get(address))
    assert "likes" in text
    assert ("Kestrel-of-u1 3" in text) is may_see
    assert ("Kestrel" in text) is may_see
    assert ("Their values are hidden" in text) is not may_see


def test_a_draft_that_cannot_run_lists_its_problems(look, surface, add_filter):
    publishing.publish(surface)
    add_filter("colour", "red")
    response = look(query="tea", revision="draft")
    assert "This draft cannot be run yet" in text_of(response)
    assert [problem.label for problem in response.context["page"].problems] == [
        "Filter 1 (colour): field"
    ]
    assert shown(look(query="tea"))


def test_the_question_can_be_pasted_into_a_shell(look, surface):
    curl = answer(look(query="dog's tea; rm -rf", user_id="u1"))["curl"]
    assert "http://testserver/api/v1/surfaces/shelf/recommendations" in curl
    assert """'{"query": "dog'"'"'s tea; rm -rf", "user_id": "u1", "explain": true}'""" in curl


def test_product_data_is_never_markup(new_definition, look, settings):
    definition = new_definition(
        [
            {
                "id": '"><script>alert(1)</script>',
                "title": "<script>alert(2)</script> tea",
                "brand": "<img src=x onerror=alert(3)>",
                "category": ["tea"],
                "price": 1,
                "rating": 1,
                "image": "javascript:alert(4)",
            }
        ]
    )
    builds.run_to_end(builds.start(definition).pk)
    Surface.objects.create(
        slug="hostile", name="H", index=definition, browse_field="rating", deadline_ms=5000
    )
    page = look("hostile", query="<script>alert(5)</script> tea").content.decode()
    for number in range(1, 6):
        assert f"alert({number})" in page
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert 'src="javascript' not in page


def test_the_choice_of_surfaces_shows_their_states(admin_client, surface):
    page = admin_client.get(reverse("preview"))
    assert "Shelf" in text_of(page)
    assert "Not published" in text_of(page)


def test_an_unknown_surface_is_not_found(admin_client):
    assert admin_client.get(reverse("preview-surface", args=["nothing"])).status_code == 404


@pytest.mark.parametrize("name", ["preview", "preview-surface"])
def test_only_staff_with_the_permission_may_look(client, django_user_model, surface, name):
    url = reverse(name, args=["shelf"] if name == "preview-surface" else [])
    assert client.get(url).url.startswith(reverse("admin:login"))
    user = django_user_model.objects.create_user("mia")
    user.user_permissions.set(Permission.objects.filter(codename="view_surface"))
    client.force_login(user)
    assert client.get(url).status_code == 302
    user.is_staff = True
    user.save()
    assert client.get(url).status_code == 200
    user.user_permissions.clear()
    assert client.get(url).status_code == 403


def test_nothing_can_be_posted(admin_client, surface):
    assert admin_client.post(reverse("preview-surface", args=["shelf"])).status_code == 405


def test_a_live_revision_that_cannot_be_read_is_passed_over(look, surface):
    publishing.publish(surface)
    SurfaceRevision.objects.update(document={"slug": "shelf", "of": "an older release"})
    page = look(query="lamp").context["page"]
    assert page.wants_draft
    assert page.answer


def test_problems_of_what_is_live_are_shown_whatever_the_draft_is(look, surface, add_filter):
    add_filter("price", "10", operator="at_least")
    publishing.publish(surface)
    surface.filters.all().delete()
    build = surface.index.live_build
    build.spec["fields"] = [one for one in build.spec["fields"] if one["name"] != "price"]
    build.save()
    assert 'has no field "price"' in text_of(look(query="lamp"))
