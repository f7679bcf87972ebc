"""The whole demo, as ``make demo`` runs it: loaded, reported, checked through HTTP, loaded again."""

import json
import re

import pytest
from django.core.management import CommandError, call_command

from enrichment import dynamodb
from indexes import valkey
from indexes.models import IndexBuild
from indexes.valkey import VersionedDocument
from recplatform.demo import catalog, content, credentials, users
from surfaces.models import Surface, SurfaceRevision
from surfaces.registry import document_key, registry

# What the calls and checks are about, and as much around it: all of it takes a minute to embed.
VIEWED = {sku for shopper in users.user_items() for sku in shopper["recent"]}
SHELF = tuple(
    row
    for row in catalog.products()
    if row["category"] in ("jackets", "running shoes", "headphones", "coffee", "toys")
    and (row["sku"][-3:] <= "060" or row["sku"] in VIEWED)
)

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def own_names(namespace, settings, monkeypatch, tmp_path):
    """Files, tables and keys of this test's own, and time enough on a machine that is busy."""
    settings.VALKEY_NAMESPACE = namespace
    tables = (f"{namespace}-users", f"{namespace}-trends")
    renamed = dict(zip((users.USERS_TABLE, users.TRENDS_TABLE), tables, strict=True))
    for slug, (table, *rest) in content.SOURCES.items():
        monkeypatch.setitem(content.SOURCES, slug, (renamed[table], *rest))
    monkeypatch.setattr(users, "USERS_TABLE", tables[0])
    monkeypatch.setattr(users, "TRENDS_TABLE", tables[1])
    monkeypatch.setattr(content, "CATALOG_PATH", tmp_path / "products.jsonl.gz")
    monkeypatch.setattr(catalog, "products", lambda: SHELF)
    monkeypatch.setattr(content, "DEADLINE_MS", 10_000)
    monkeypatch.setattr(content, "SOURCE_TIMEOUT_MS", 5_000)
    yield
    for table in tables:
        dynamodb.delete_table(table)


@pytest.fixture
def serving(own_names, monkeypatch):
    """The web server's registry, on this test's snapshot instead of that of its process."""
    registry.stop()
    monkeypatch.setattr(registry, "_store", VersionedDocument(document_key()))
    registry.start()
    yield registry
    registry.stop()


def test_the_demo_keeps_its_promises_and_can_be_loaded_again(
    live_server, serving, tmp_path, capsys
):
    kept, document = tmp_path / "credentials.json", tmp_path / "demo.json"
    call_command("load_demo", credentials=kept)
    loaded = capsys.readouterr().out
    assert f"{len(SHELF)} products in the catalog" in loaded
    assert f"products-v1 is live: {len(SHELF)} items" in loaded

    call_command("demo_report", base_url=live_server.url, credentials=kept, document=document)
    report = capsys.readouterr().out
    logins = credentials.read(kept)
    assert logins is not None
    assert json.loads(document.read_text()) == {
        "base_url": live_server.url,
        "api_key": logins.api_key,
        "admin_user": "admin",
        "admin_password": logins.admin_password,
        "surfaces": ["search-carousel", "similar-items", "home-row", "deals-row"],
        "indexes": ["products"],
    }
    for text in (*content.SURFACES, logins.api_key, logins.admin_password, "curl -s", "ms: total"):
        assert text in report
    # Each surface shows a table of its best items with what made them so.
    assert len(re.findall(r"^1 .*(?:similarity|discount|affinity) \d\.\d\d", report, re.M)) == 4
    assert "Waterproof Hiking Jacket" in report

    call_command("demo_check", base_url=live_server.url, credentials=kept)
    checked = capsys.readouterr().out
    assert "✗" not in checked
    assert checked.count("✓") >= 15

    Surface.objects.filter(slug="home-row").update(limit=5)
    call_command("load_demo", credentials=kept)
    again = capsys.readouterr().out
    assert "products-v1 is live already" in again
    assert "published" not in again
    assert credentials.read(kept) == logins
    assert IndexBuild.objects.count() == 1
    assert SurfaceRevision.objects.count() == 4
    assert Surface.objects.get(slug="home-row").limit == 5

    # Another Valkey, or one that lost its data, gets the index again.
    valkey.drop_index(IndexBuild.objects.get().index_name)
    call_command("load_demo", credentials=kept)
    moved = capsys.readouterr().out
    assert "products-v1 is not in this Valkey" in moved
    assert f"products-v2 is live: {len(SHELF)} items" in moved
    call_command("demo_check", base_url=live_server.url, credentials=kept)
    assert "✗" not in capsys.readouterr().out

    # A surface that somebody broke and published is found by the checks.
    dynamodb.put_items(users.USERS_TABLE, [{"pk": "USER#anna"}])
    with pytest.raises(CommandError, match="1 checks failed"):
        call_command("demo_check", base_url=live_server.url, credentials=kept)
    assert "✗ a shopper's taste changes the order" in capsys.readouterr().out


def test_without_a_load_report_and_check_say_what_to_do(tmp_path):
    for command in ("demo_report", "demo_check"):
        with pytest.raises(CommandError, match="load_demo first"):
            call_command(command, base_url="http://127.0.0.1:1", credentials=tmp_path / "none.json")


def test_a_server_that_is_down_is_named(tmp_path):
    kept = tmp_path / "credentials.json"
    kept.write_text('{"admin_password": "x", "api_key": "y"}')
    with pytest.raises(CommandError, match=r"http://127\.0\.0\.1:1/.* gives no answer"):
        call_command("demo_report", base_url="http://127.0.0.1:1", credentials=kept)


def test_dynamodb_that_is_down_is_named(monkeypatch, tmp_path, namespace, settings):
    settings.VALKEY_NAMESPACE = namespace
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", "http://127.0.0.1:1")
    monkeypatch.setattr(content, "CATALOG_PATH", tmp_path / "products.jsonl.gz")
    # Clients are kept by region: this one is met here for the first time.
    settings.AWS_REGION = "eu-central-2"
    with pytest.raises(CommandError, match="DynamoDB tables cannot be written"):
        call_command("load_demo", credentials=tmp_path / "credentials.json")
