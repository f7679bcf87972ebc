"""Watching a build until it is live, and saying what is wrong when it is not."""

import pytest
from django.core.management.base import CommandError

from indexes.models import IndexBuild
from recplatform.demo.building import build_and_wait, progress


@pytest.mark.django_db(transaction=True)
def test_it_returns_when_the_build_is_live(new_definition):
    definition = new_definition()
    lines: list[str] = []
    build_and_wait(definition, lines.append)
    definition.refresh_from_db()
    assert definition.live_build.status == IndexBuild.Status.LIVE
    assert "products-v1 is live: 60 items" in lines[-1]


@pytest.mark.django_db(transaction=True)
def test_a_failed_build_is_told_with_its_reason(new_definition, tmp_path):
    definition = new_definition(tmp_path / "nowhere.jsonl")
    with pytest.raises(CommandError, match=r"nowhere\.jsonl"):
        build_and_wait(definition, lambda line: None)


def test_without_a_worker_it_says_how_to_start_one(new_definition, capsys):
    definition = new_definition()
    running = IndexBuild.objects.create(
        definition=definition,
        number=1,
        spec=definition.to_spec().model_dump(mode="json"),
        index_name="waiting",
        key_prefix="waiting:",
    )
    lines: list[str] = []
    with pytest.raises(CommandError, match="celery -A recplatform worker"):
        build_and_wait(definition, lines.append, pick_up=0.5)
    # It joined the build that was there instead of starting another.
    assert definition.builds.get() == running
    assert lines == ["products-v1: waiting"]


def test_progress_counts_items_while_loading():
    build = IndexBuild(
        number=3, spec={"slug": "products"}, status=IndexBuild.Status.LOADING, written=1000
    )
    assert progress(build) == "products-v3: loading items, 1,000 items"
    build.total_rows = 3300
    assert progress(build) == "products-v3: loading items, 1,000 of 3,300 items"
