"""The build_index command."""

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from indexes.models import IndexBuild
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
