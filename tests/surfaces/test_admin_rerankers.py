"""Rerankers in the admin: terms are complete, and who uses one is told what to publish."""

import pytest
from django.contrib.messages import get_messages
from django.urls import reverse

from surfaces.models import Reranker, RerankTerm

pytestmark = pytest.mark.django_db


@pytest.fixture
def reranker(db):
    return Reranker.objects.create(slug="mix", name="Mix")


def post(client, reranker, **term):
    url = reverse("admin:surfaces_reranker_change", args=[reranker.pk])
    row = {"kind": "similarity", "signal": "", "field": "", "weight": "1", "position": "0"} | term
    data = {
        "name": reranker.name,
        "slug": reranker.slug,
        "kind": "linear",
        "terms-TOTAL_FORMS": "1",
        "terms-INITIAL_FORMS": "0",
    }
    return client.post(url, data | {f"terms-0-{name}": value for name, value in row.items()})


def test_terms_are_saved_and_shown_as_a_formula(admin_client, reranker):
    response = post(admin_client, reranker, kind="field", field="rating", weight="0.5")
    assert response.status_code == 302
    term = RerankTerm.objects.get()
    assert (term.kind, term.field, term.weight) == ("field", "rating", 0.5)
    page = admin_client.get(reverse("admin:surfaces_reranker_changelist"))
    assert "0.5 × rating" in page.content.decode()


@pytest.mark.parametrize(("kind", "field"), [("signal", "signal"), ("field", "field")])
def test_a_term_without_its_name_is_refused_on_the_field(admin_client, reranker, kind, field):
    response = post(admin_client, reranker, kind=kind)
    assert response.status_code == 200
    (inline,) = response.context["inline_admin_formsets"]
    assert list(inline.formset.errors[0]) == [field]
    assert not RerankTerm.objects.exists()


def test_a_change_names_the_surfaces_that_need_a_publish(admin_client, reranker, surface):
    surface.reranker = reranker
    surface.save()
    response = post(admin_client, reranker)
    told = [str(message) for message in get_messages(response.wsgi_request)]
    assert "Not served before it is published: shelf." in told


def test_fields_and_signals_are_offered(admin_client, reranker, definition):
    url = reverse("admin:surfaces_reranker_change", args=[reranker.pk])
    (inline,) = admin_client.get(url).context["inline_admin_formsets"]
    offered = [name for name, _ in inline.formset.empty_form.fields["field"].widget.choices]
    assert {"brand", "price"} <= set(offered)
    assert "image" not in offered
