"""Refreshes in the admin: the list, one refresh, the button of the index page, and what runs by itself."""

import re
from html import unescape
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django_celery_beat.models import CrontabSchedule, IntervalSchedule, PeriodicTask

from indexes.models import IndexDefinition, IndexRefresh
from tests.indexes.admin_pages import address, staff
from tests.indexes.item_calls import build_live, row
from tests.indexes.refresh.sources import rewrite, run

CHANGES = "change_indexdefinition"


@pytest.fixture
def live(define: Any, model: Any) -> IndexDefinition:
    definition: IndexDefinition = define()
    build_live(definition)
    definition.refresh_from_db()
    return definition


def text(client: Client, url: str) -> str:
    response = client.get(url)
    assert response.status_code == 200
    body = re.sub(r"<[^>]+>", " ", response.content.decode())
    return " ".join(unescape(body).split())


def test_a_refresh_says_what_it_did(live):
    content = [row(number, price=number * 2) for number in range(1, 5)]
    content[3]["price"] = "cheap"
    rewrite(live, [*content, row(5)])
    done = run(live)
    client = staff("sam")
    page = text(client, address("indexrefresh_change", done))
    assert "4 items written (1 embedded), 1 removed, 0 unchanged, 1 rows rejected." in page
    assert "bad numeric: 1" in page
    assert "products-v1" in text(client, address("indexrefresh_changelist"))


def test_a_failed_refresh_says_why_and_what_to_do(live):
    rewrite(live, [])
    failed = run(live)
    assert "Export the catalog again" in text(staff("sam"), address("indexrefresh_change", failed))


def test_refreshes_are_only_looked_at(live):
    done = run(live)
    client = staff("sam", "change_indexrefresh", "delete_indexrefresh", "add_indexrefresh")
    assert client.get(address("indexrefresh_delete", done)).status_code == 403
    assert client.get(address("indexrefresh_add")).status_code == 403


def test_the_button_starts_a_refresh(live):
    client = staff("kim", CHANGES)
    response = client.post(address("indexdefinition_refresh", live), follow=True)
    started = IndexRefresh.objects.get()
    assert "products-v1 is being refreshed." in response.content.decode()
    assert address("indexrefresh_change", started) in response.content.decode()
    assert started.requested_by is not None
    assert started.requested_by.username == "kim"
    again = client.post(address("indexdefinition_refresh", live), follow=True)
    assert "products-v1 is being refreshed already." in again.content.decode()
    assert IndexRefresh.objects.count() == 1


def test_the_button_is_for_those_who_may_change_the_index(live):
    url = address("indexdefinition_refresh", live)
    assert staff("sam").post(url).status_code == 403
    assert staff("kim", CHANGES).get(url).status_code == 405
    assert IndexRefresh.objects.count() == 0


def test_what_runs_by_itself_is_a_list_in_words(new_definition, admin_client):
    new_definition(rebuild_cron="0 3 * * 1")
    interval = IntervalSchedule.objects.create(every=30, period="seconds")
    PeriodicTask.objects.create(name="push", task="t", interval=interval)
    page = text(admin_client, reverse("admin:django_celery_beat_periodictask_changelist"))
    assert "products: full rebuild At 03:00 on Mondays" in page
    assert "push Every 30 seconds" in page
    task = PeriodicTask.objects.get(name="push")
    change = reverse("admin:django_celery_beat_periodictask_change", args=[task.pk])
    assert admin_client.post(change, {"enabled": False}).status_code == 403


def test_a_crontab_of_another_hand_is_shown_too(admin_client, db):
    odd = CrontabSchedule.objects.create(minute="0", hour="4", day_of_week="7")
    PeriodicTask.objects.create(name="odd", task="t", crontab=odd)
    page = text(admin_client, reverse("admin:django_celery_beat_periodictask_changelist"))
    assert "odd 0 4 * * 7" in page
