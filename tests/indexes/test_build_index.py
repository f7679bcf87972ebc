"""The build_index command."""

from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from indexes.models import IndexBuild, IndexDefinition
from tests.fixtures_indexes import PRODUCTS

FEW = PRODUCTS[:8]


def run(*args: str) -> str:
    out = StringIO()
    call_command("build_index", *args, stdout=out, no_color=True)
    return out.getvalue()


def test_it_builds_here_and_says_what_is_live(new_definition):
    new_definition([*FEW, {"title": "no id"}])
    out = run("products", "--inline")
    assert out.startswith("Building products-v1\n")
    assert out.endswith("products-v1 is live: 8 items, 1 rows rejected.\n")


def test_a_failure_is_a_command_error_with_the_reason(new_definition):
    new_definition("/nowhere/c.jsonl")
    with pytest.raises(CommandError, match=r"products-v1 is failed\. There is no file /nowhere"):
        run("products", "--inline")


@pytest.mark.django_db(transaction=True)
def test_it_waits_for_the_worker(new_definition):
    new_definition(FEW)
    assert "products-v1 is live: 8 items." in run("products")


def test_it_returns_at_once_when_told_so(new_definition):
    definition = new_definition(FEW)
    assert run("products", "--no-wait") == "Building products-v1\n"
    assert definition.builds.get().status == IndexBuild.Status.PENDING


def test_a_third_build_at_once_is_refused(new_definition):
    new_definition(FEW)
    run("products", "--no-wait")
    run("products", "--no-wait")
    with pytest.raises(CommandError, match="products-v1 and products-v2 are still being built"):
        run("products")


def test_an_unknown_slug_names_the_known_ones(new_definition):
    with pytest.raises(CommandError, match=r'no index "shoes".*There are: none yet'):
        run("shoes")
    new_definition(FEW)
    with pytest.raises(CommandError, match=r'no index "shoes".*There are: products'):
        run("shoes")


def test_a_build_that_waits_for_a_person_is_a_success(new_definition):
    new_definition(FEW, promotion=IndexDefinition.Promotion.MANUAL)
    out = run("products", "--inline")
    assert "products-v1 is ready: 8 items." in out
    assert "waits for a person" in out
    assert out.endswith("Make it live on its page in the admin.\n")


def test_a_build_that_a_gate_holds_back_is_none(new_definition):
    definition = new_definition(FEW)
    run("products", "--inline")
    definition.refresh_from_db()
    definition.min_items_percent = 100
    definition.source.uri = str(write_fewer(definition.source.uri))
    definition.source.save()
    definition.save()
    with pytest.raises(CommandError, match=r"products-v2 is ready\. .*gate.* items") as caught:
        run("products", "--inline")
    assert caught.value.returncode == 1


def test_a_terminal_gets_a_bar(new_definition):
    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    new_definition(FEW)
    out = Terminal()
    call_command("build_index", "products", "--inline", stdout=out, no_color=True)
    assert "\r\033[K" + "█" * 24 in out.getvalue()


def write_fewer(uri: str) -> Path:
    """Write the first half of a catalog beside it."""
    path = Path(uri)
    lines = path.read_text().splitlines(keepends=True)
    fewer = path.with_name("fewer.jsonl")
    fewer.write_text("".join(lines[: len(lines) // 2]))
    return fewer
