"""What runs by itself, and when: a list to look at.

Schedules of indexes are set on their pages, the others in the code; whatever was changed
here would be put back within minutes.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django_celery_beat.models import (
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicTask,
    SolarSchedule,
)
from unfold.admin import ModelAdmin
from unfold.decorators import display

from indexes import schedules

for model in (ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask, SolarSchedule):
    admin.site.unregister(model)


@admin.register(PeriodicTask)
class PeriodicTaskAdmin(ModelAdmin):
    list_display = ["name", "schedule", "last_run_at", "total_run_count", "enabled"]
    list_display_links = None
    list_select_related = ["crontab", "interval"]
    search_fields = ["name"]
    ordering = ["name"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @display(description="When")
    def schedule(self, obj: PeriodicTask) -> str:
        if obj.crontab is None:
            said = str(obj.interval or obj.solar or obj.clocked)
            return said[:1].upper() + said[1:]
        cron = obj.crontab
        parts = (cron.minute, cron.hour, cron.day_of_month, cron.month_of_year, cron.day_of_week)
        text = " ".join(parts)
        try:
            return schedules.in_words(text)
        except ValueError:
            # Of another hand, in words that only the scheduler knows.
            return text
