"""The refresh_index command."""

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from indexes.models import IndexRefresh
from tests.indexes.item_calls import build_live, row
from tests.indexes.refresh.sources import rewrite


def run(*args: str) -> str:
    out = StringIO()
    call_command("refresh_index", *args, stdout=out, no_color=True)
    return out.getvalue()


@pytest.fixture
def live(define, model):
    definition = define()
    build_live(definition)
    definition.refresh_from_db()
    return definition


def test_it_refreshes_here_and_says_what_it_did(live):
    rewrite(live, [row(number, price=number % 2) for number in range(1, 6)])
    out = run("products", "--inline")
    assert out.startswith("Refreshing products-v1\n")
    assert out.endswith(
        "products-v1 is up to date: 4 items written (1 embedded), 0 removed, 1 unchanged.\n"
    )


def test_an_unchanged_source_is_said(live):
    assert "The source has not changed since it was last read" in run("products", "--inline")


def test_a_failure_is_a_command_error_with_the_reason(live):
    rewrite(live, [])
    with pytest.raises(CommandError, match=r"products-v1 could not be refreshed\. The source has"):
        run("products", "--inline")


@pytest.mark.django_db(transaction=True)
def test_it_waits_for_the_worker(live):
    rewrite(live, [row(number) for number in range(1, 6)])
    assert "1 items written" in run("products")


def test_it_returns_at_once_when_told_so(live):
    assert run("products", "--no-wait") == "Refreshing products-v1\n"
    assert IndexRefresh.objects.get().status == IndexRefresh.Status.PENDING
    with pytest.raises(CommandError, match="is being refreshed already"):
        run("products")


def test_what_cannot_be_refreshed_says_why(define, model):
    define()
    with pytest.raises(CommandError, match="Nothing is live"):
        run("products")
    with pytest.raises(CommandError, match=r'no index "shoes".*There are: products'):
        run("shoes")
