"""The Celery application and every periodic schedule but those that people give to indexes."""

import os
from datetime import timedelta

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "recplatform.settings")

app = Celery("recplatform")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
app.conf.beat_schedule = {
    # A process that dies between the commit and the push leaves Valkey one
    # version behind PostgreSQL; this closes the gap.
    "push-serving-snapshot": {
        "task": "surfaces.tasks.push_snapshot",
        "schedule": timedelta(seconds=30),
    },
    "refresh-default-lists": {
        "task": "surfaces.tasks.refresh_default_lists",
        "schedule": timedelta(minutes=5),
    },
    # A worker killed inside a load leaves a build whose lease runs out.
    "resume-stalled-builds": {
        "task": "indexes.tasks.resume_stalled_builds",
        "schedule": timedelta(seconds=30),
    },
    "resume-stalled-refreshes": {
        "task": "indexes.tasks.resume_stalled_refreshes",
        "schedule": timedelta(seconds=30),
    },
    # Schedules of indexes are rows beside these, written when an index is saved; this
    # mends what was written past that.
    "keep-schedules": {
        "task": "indexes.tasks.keep_schedules",
        "schedule": timedelta(minutes=5),
    },
    "prune-item-changes": {
        "task": "indexes.tasks.prune_item_changes",
        "schedule": timedelta(hours=1),
    },
    "retire-expired-builds": {
        "task": "indexes.tasks.retire_expired_builds",
        "schedule": timedelta(minutes=10),
    },
}
