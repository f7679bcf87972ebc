"""The capacity planner against a real server's memory, and what it says of it."""

import json
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client, override_settings

from indexes import capacity, valkey
from indexes.commands import EngineFacts
from indexes.fleet.costs import FieldShape, Shape, estimate
from indexes.fleet.server import Memory, ServerFacts
from indexes.models import IndexDefinition
from indexes.naming import CONTENT_FIELD, ROW_FIELD, TEXT_FIELD
from indexes.schema import CatalogSpec, EndpointSpec, FieldType, IndexSpec
from tests.indexes.conftest import field, item_hash
from tests.indexes.servers import PrivateServer
from tests.pages import text_of

ITEMS = 3000
MB = 10**6
FIELDS = (
    field("title", FieldType.TEXT),
    field("brand", FieldType.TAG),
    field("colours", FieldType.TAG, multiple=True),
    field("price", FieldType.NUMERIC),
    field("image", FieldType.STORED),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateServer]:
    server = PrivateServer(tmp_path_factory.mktemp("server"))
    yield server
    server.stop()


def rows() -> list[dict[str, Any]]:
    chance = random.Random(4)
    return [
        {
            "id": f"sku-{number}",
            "title": " ".join(f"word{int(chance.paretovariate(0.8))}" for _ in range(7)),
            "brand": f"Brand {chance.randrange(40)}",
            "colours": chance.sample(["red", "green", "blue", "black", "white"], 2),
            "price": round(chance.uniform(1, 500), 2),
            "image": f"https://images.example/{number}.webp",
        }
        for number in range(ITEMS)
    ]


@pytest.mark.parametrize(
    ("dimension", "options", "fields"),
    [
        (32, {"m": 16}, FIELDS),
        (384, {"m": 16}, FIELDS),
        (384, {"m": 64}, ()),
        (256, {"algorithm": "FLAT"}, FIELDS[1:2]),
    ],
)
def test_an_estimate_is_within_a_quarter_of_what_a_server_takes(
    server: PrivateServer,
    catalog_file: Callable[[Iterable[Mapping[str, Any]]], Path],
    dimension: int,
    options: dict[str, Any],
    fields: Any,
):
    items = rows()
    spec = IndexSpec(
        slug="shoes",
        endpoint=EndpointSpec(slug="e", endpoint_name="e", dimension=dimension),
        catalog=CatalogSpec(uri=str(catalog_file(items)), text_template="{title}"),
        fields=fields,
        **options,
    )
    chance = np.random.default_rng(1)
    own = {ROW_FIELD: b"1234", TEXT_FIELD: b"x" * 16, CONTENT_FIELD: b"x" * 16}
    with server.in_use() as client:
        plan = capacity.plan(spec)
        assert (plan.items, plan.items_from, plan.sampled) == (ITEMS, "counted in the source", True)
        before = used_memory(client)
        valkey.create_index("rp_shoes_v1", "rp:shoes:v1:", spec)
        valkey.write_hashes(
            (
                f"rp:shoes:v1:{row['id']}",
                item_hash(spec, chance.standard_normal(dimension), row) | own,
            )
            for row in items
        )
        while not valkey.index_info("rp_shoes_v1").ready:
            time.sleep(0.01)
        taken = used_memory(client) - before
        client.flushall()
        valkey.drop_index("rp_shoes_v1")
    assert plan.one.total == pytest.approx(taken, rel=0.25)


def used_memory(client: Any) -> int:
    return int(client.info("memory")["used_memory"])


@pytest.mark.parametrize("engine", ["valkey-search", "redisearch"])
def test_more_of_anything_takes_more(engine: Any):
    small = Shape(64, m=8, fields=(FieldShape("a", FieldType.TAG, 10),))
    grown = [
        estimate(Shape(128, m=8, fields=small.fields), 100_000, engine),
        estimate(Shape(64, m=16, fields=small.fields), 100_000, engine),
        estimate(Shape(64, m=8, fields=(*small.fields, FieldShape("b", FieldType.TEXT, 40))), 100_000, engine),
        estimate(small, 200_000, engine),
    ]  # fmt: skip
    least = estimate(small, 100_000, engine)
    assert all(more.total > least.total for more in grown)
    assert estimate(Shape(64, algorithm="FLAT"), 1000, engine).graph == 0


def plan_of(total: int, used: int, *, standing: bool = False, limit: int = 1000 * MB):
    memory = Memory(used=used, limit=limit, system=0, policy="noeviction", evicted=0)
    facts = ServerFacts(EngineFacts("valkey-search", "1.2.1"), (9, 1, 0), "", 1, memory)
    one = estimate(Shape(1), 1).__class__(hashes=total, vectors=0, graph=0, fields=0)
    return capacity.Plan(1, "as you typed", True, "valkey-search", one, facts, standing, ())


@pytest.mark.parametrize(
    ("plan", "fits", "both", "words"),
    [
        (plan_of(400 * MB, 0), True, True, "second one beside it fits"),
        (plan_of(450 * MB, 0), True, False, "not two at once"),
        (plan_of(450 * MB, 400 * MB, standing=True), True, True, "beside the live one fits"),
        (plan_of(460 * MB, 400 * MB, standing=True), False, False, "does not fit"),
        (plan_of(900 * MB, 0), False, False, "does not fit"),
        (plan_of(1, 0, limit=0), None, None, "not known"),
    ],
)
def test_two_builds_at_once_have_to_fit(
    plan: capacity.Plan, fits: bool | None, both: bool | None, words: str
):
    assert (plan.fits, plan.both_fit) == (fits, both)
    assert words in plan.sentence()


@pytest.mark.django_db
class TestOfAnIndex:
    def test_measured_builds_are_compared(self, definition: IndexDefinition):
        build = definition.live_build
        assert build is not None
        build.memory_bytes = capacity.of_build(build, "redisearch") * 2
        build.save()
        plan = capacity.plan(definition.to_spec(), definition=definition)
        assert plan.standing is True
        [measured] = plan.measured
        assert measured.label == "products-v1"
        if plan.engine == "redisearch":
            assert measured.off_percent == -50

    def test_a_source_that_is_away_is_assumed(self, definition: IndexDefinition):
        definition.source.uri = "/no/such.jsonl"
        plan = capacity.plan(definition.to_spec(), definition=definition)
        assert plan.sampled is False
        assert plan.items_from == "as in products-v1"
        assert plan.one.total > 0
        assert "assumed" in capacity.plan(definition.to_spec()).items_from

    def test_the_command(self, definition: IndexDefinition):
        out = StringIO()
        call_command("indexes", "capacity", "products", stdout=out)
        assert "64 items" in out.getvalue() or "items, counted in the source" in out.getvalue()
        with pytest.raises(CommandError, match="does not fit"):
            call_command("indexes", "capacity", "products", "--items", str(10**11), stdout=out)
        with pytest.raises(CommandError, match="There are: products"):
            call_command("indexes", "capacity", "nosuch")

    def test_without_a_server_it_still_estimates(self, definition: IndexDefinition):
        with override_settings(VALKEY_URL="valkey://127.0.0.1:1/0", VALKEY_CLUSTER=False):
            plan = capacity.plan(definition.to_spec())
        assert plan.one.total > 0
        assert "not known" in plan.sentence()


@pytest.mark.django_db
class TestOnThePage:
    URL = "/admin/indexes/indexdefinition/capacity/"

    def form(self, definition: IndexDefinition, **changes: Any) -> dict[str, Any]:
        fields = [
            {"name": spec.name, "type": spec.type, "source": spec.source, "multiple": spec.multiple}
            for spec in definition.to_spec().fields
        ]
        values = {
            "endpoint": definition.endpoint_id,
            "source": definition.source_id,
            "algorithm": "HNSW",
            "m": 16,
            "fields_of_item": json.dumps(fields),
        }
        return values | changes

    @pytest.mark.parametrize("pk", ["²", "x", ""])
    def test_an_index_that_is_none_is_left_out(self, admin_client: Client, pk: str):
        assert admin_client.get(self.URL, {"index": pk}).status_code == 200

    def test_it_follows_the_form(self, definition: IndexDefinition, admin_client: Client):
        page = text_of(admin_client.post(self.URL, self.form(definition)))
        assert "counted in the source" in page
        # Three times as many links in the graph, more items: nothing of it is saved.
        typed = self.form(definition, items=2_000_000, m=48)
        more = text_of(admin_client.post(f"{self.URL}?index={definition.pk}", typed))
        assert "2000000 items, as you typed" in more or "2,000,000 items" in more
        assert " GB" in more

    def test_a_form_that_is_being_filled_in(
        self, definition: IndexDefinition, admin_client: Client
    ):
        assert "Choose a source" in text_of(admin_client.post(self.URL, {"items": "x"}))
        odd = [{"name": "a"}, {"type": "tag"}, {"name": "b", "type": "nosuch"}, 3]
        form = self.form(definition, fields_of_item=json.dumps(odd))
        assert admin_client.post(self.URL, form).status_code == 200
        assert "Choose a source" in text_of(
            admin_client.post(self.URL, self.form(definition, fields_of_item="{"))
        )

    def test_strangers_see_nothing(self, definition: IndexDefinition, client: Client):
        user = User.objects.create_user("nobody", is_staff=True)
        client.force_login(user)
        assert client.post(self.URL, self.form(definition)).status_code == 403
