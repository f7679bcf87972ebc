from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from enrichment.models import EnrichmentSource, Signal
from tests.enrichment.conftest import Misbehave, Trouble, error

pytestmark = pytest.mark.django_db
Table = Callable[..., str]


def source(table: str, **changes: Any) -> EnrichmentSource:
    values: dict[str, Any] = {
        "slug": "tastes",
        "key_template": "USER#{user_id}",
        "timeout_ms": 2000,
    }
    made = EnrichmentSource.objects.create(table=table, **(values | changes))
    Signal.objects.create(source=made, name="brands")
    Signal.objects.create(source=made, name="loyalty", kind=Signal.Kind.NUMBER)
    return made


def look_up(client: Client, made: EnrichmentSource, **values: str) -> Any:
    data = {"try": "1"} | {f"value.{name}": text for name, text in values.items()}
    return client.get(reverse("admin:enrichment_enrichmentsource_try_it", args=[made.pk]), data)


def text(response: Any) -> str:
    assert response.status_code == 200
    return " ".join(response.content.decode().split())


def test_a_sample_shows_its_typed_signals(admin_client: Client, dynamodb_table: Table):
    table = dynamodb_table(
        [{"pk": "USER#u1", "brands": {"Volt": Decimal("0.9"), "x": "no"}, "loyalty": "0.25"}]
    )

    page = text(look_up(admin_client, source(table), user_id="u1"))

    assert "<code>pk = USER#u1</code>" in page
    assert "<dt>Volt</dt><dd>0.9</dd>" in page
    assert "<p>0.25</p>" in page
    assert "{&quot;Volt&quot;: 0.9, &quot;x&quot;: &quot;no&quot;}" in page
    assert "The time limit is 2000 ms." in page


def test_what_cannot_be_read_is_shown_beside_what_is_stored(
    admin_client: Client, dynamodb_table: Table
):
    table = dynamodb_table([{"pk": "USER#u1", "brands": "Volt & Orbit"}])

    page = text(look_up(admin_client, source(table), user_id="u1"))

    assert "<strong>Absent.</strong> The stored value is no map of numbers" in page
    assert "<code>Volt &amp; Orbit</code>" in page
    assert "The item has nothing at loyalty." in page


def test_a_long_map_is_shown_in_part_heaviest_first(admin_client: Client, dynamodb_table: Table):
    weights = {f"b{n}": Decimal(n) for n in range(50)}
    table = dynamodb_table([{"pk": "USER#u1", "brands": weights}])

    page = text(look_up(admin_client, source(table), user_id="u1"))

    assert page.index("<dt>b49</dt>") < page.index("<dt>b48</dt>")
    assert "and 30 more" in page


def test_an_unknown_user_is_no_failure(admin_client: Client, dynamodb_table: Table):
    page = text(look_up(admin_client, source(dynamodb_table([])), user_id="<u9>"))

    assert "No such item" in page
    assert "<code>pk = USER#&lt;u9&gt;</code>" in page


def test_a_missing_table_is_named_with_what_to_do(admin_client: Client):
    page = text(look_up(admin_client, source("no-such-table"), user_id="u1"))

    assert "No answer: rejected" in page
    assert "Table no-such-table not found in region" in page
    assert "or create the table" in page


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (Trouble(delay_s=2), "No answer: timeout"),
        (error("ThrottlingException"), "No answer: throttled"),
        (Trouble(hang_up=True), "No answer: unavailable"),
    ],
    ids=["slow", "throttled", "down"],
)
def test_trouble_is_told_with_its_consequence(
    admin_client: Client, misbehaving: Misbehave, trouble: Trouble, said: str
):
    made = source("users", region=misbehaving(trouble), timeout_ms=100, required=True)

    page = text(look_up(admin_client, made, user_id="u1"))

    assert said in page
    assert "A surface serves its fallback then." in page


def test_a_key_of_several_values_asks_for_each(admin_client: Client, dynamodb_table: Table):
    made = source("users", key_template="{region}#{context.channel}", sort_key="sk")
    EnrichmentSource.objects.filter(pk=made.pk).update(sort_key_template="{user_id}")

    response = admin_client.get(reverse("admin:enrichment_enrichmentsource_try_it", args=[made.pk]))

    page = text(response)
    for name in ("value.region", "value.channel", "value.user_id"):
        assert f'name="{name}"' in page
    assert "This field is required" not in page


def test_a_sample_without_a_value_says_which(admin_client: Client, misbehaving: Misbehave):
    trouble = Trouble()
    made = source("users", region=misbehaving(trouble))

    page = text(look_up(admin_client, made, user_id=""))

    assert "This field is required" in page
    assert trouble.calls == []


def test_a_template_that_cannot_be_read_is_told(admin_client: Client):
    page = text(look_up(admin_client, source("users", key_template="USER#{user_id")))

    assert "The key template cannot be read" in page


def test_seeing_sources_is_not_enough_to_look_people_up(client: Client):
    staff = User.objects.create_user("viewer", password="x", is_staff=True)
    staff.user_permissions.add(Permission.objects.get(codename="view_enrichmentsource"))
    client.force_login(staff)
    made = source("users")

    assert look_up(client, made, user_id="u1").status_code == 403
    change = reverse("admin:enrichment_enrichmentsource_change", args=[made.pk])
    assert client.get(change).status_code == 200


def test_nobody_looks_up_without_a_login(client: Client):
    assert look_up(client, source("users"), user_id="u1").status_code == 302


FORM = {
    "slug": "trends",
    "table": "shop",
    "region": "",
    "partition_key": "pk",
    "sort_key": "",
    "key_template": "TRENDING#{region}",
    "sort_key_template": "",
    "timeout_ms": "50",
    "signals-TOTAL_FORMS": "1",
    "signals-INITIAL_FORMS": "0",
    "signals-0-name": "trending",
    "signals-0-kind": "weights",
    "signals-0-attribute": "items",
}


def test_a_source_is_made_with_its_signals(admin_client: Client):
    response = admin_client.post(reverse("admin:enrichment_enrichmentsource_add"), FORM)

    assert response.status_code == 302, text(response)
    spec = EnrichmentSource.objects.get().to_spec()
    assert spec.key_template == "TRENDING#{region}"
    assert [(signal.name, signal.attribute) for signal in spec.signals] == [("trending", "items")]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"key_template": "TRENDING#{region"}, "The braces in"),
        ({"key_template": "TRENDING#{}"}, "has no name"),
        ({"sort_key": "sk"}, "needs both its attribute and its template"),
        ({"sort_key_template": "x"}, "needs both its attribute and its template"),
        ({"sort_key": "pk", "sort_key_template": "x"}, "has this name already"),
        ({"table": "my table"}, "DynamoDB table name"),
        ({"timeout_ms": "0"}, "greater than or equal to 1"),
        ({"signals-0-name": "Trending Now"}, "lower-case letters"),
        ({"signals-0-attribute": "a..b"}, "single dots"),
        ({"signals-TOTAL_FORMS": "0"}, "at least 1"),
    ],
)
def test_a_wrong_form_says_so_on_its_field(
    admin_client: Client, changes: dict[str, str], said: str
):
    response = admin_client.post(reverse("admin:enrichment_enrichmentsource_add"), FORM | changes)

    assert said in text(response).replace("&quot;", '"')
    assert not EnrichmentSource.objects.exists()


def test_the_list_shows_items_and_signals_in_few_queries(
    admin_client: Client, django_assert_max_num_queries: Any
):
    for number in range(5):
        source("users", slug=f"s{number}")

    with django_assert_max_num_queries(10):
        page = text(admin_client.get(reverse("admin:enrichment_enrichmentsource_changelist")))

    assert "USER#{user_id}" in page
    assert "brands, loyalty" in page
