"""What changes in an index between two builds: items sent one by one, and refreshes from the source."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from indexes.models.builds import IndexBuild
from indexes.models.definitions import IndexDefinition


class ItemChange(models.Model):
    """The newest change of one item that came through the API; builds under way catch up on it."""

    definition = models.ForeignKey(
        IndexDefinition, on_delete=models.CASCADE, related_name="item_changes"
    )
    item_id = models.CharField(max_length=256)
    # What the change is compared by with the source. Empty where the caller gave none: then the
    # time decides.
    version = models.FloatField(null=True, blank=True)
    # The highest version ever taken: nothing older is, whatever came without one in between.
    newest = models.FloatField(null=True, blank=True)
    deleted = models.BooleanField(default=False)
    # Only some fields: the rest is what the source or the item has.
    partial = models.BooleanField(default=False)
    # JSON. Not a JSONField, as its type in the database refuses NUL characters in texts.
    row = models.TextField()
    changed_at = models.DateTimeField()
    # When a source was seen to hold the same or newer: no later build needs the change.
    settled_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["changed_at"]
        constraints = [
            models.UniqueConstraint(fields=["definition", "item_id"], name="one_change_per_item")
        ]
        indexes = [models.Index(fields=["definition", "changed_at"])]

    def __str__(self) -> str:
        return self.item_id


class IndexRefresh(models.Model):
    """One pass over the source that writes to the live build only what has changed."""

    class Status(models.TextChoices):
        PENDING = "pending", "Waiting"
        READING = "reading", "Reading the source"
        REMOVING = "removing", "Removing what is gone"
        DONE = "done", "Done"
        FAILED = "failed", "Failed"

    RUNNING = (Status.PENDING, Status.READING, Status.REMOVING)

    build = models.ForeignKey(IndexBuild, on_delete=models.CASCADE, related_name="refreshes")
    status = models.CharField(max_length=10, choices=Status, default=Status.PENDING)
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    catalog_version = models.CharField(max_length=200, blank=True)
    catalog_time = models.DateTimeField(null=True, blank=True)
    total_rows = models.PositiveBigIntegerField(null=True, blank=True)
    cursor = models.PositiveBigIntegerField(default=0)
    unchanged = models.PositiveBigIntegerField(default=0)
    written = models.PositiveBigIntegerField(default=0)
    embedded = models.PositiveBigIntegerField(default=0)
    kept = models.PositiveBigIntegerField(
        default=0, help_text="Items left alone, as they were changed after the source was written."
    )
    removed = models.PositiveBigIntegerField(default=0)
    rejected = models.PositiveBigIntegerField(default=0)
    rejected_reasons = models.JSONField(default=dict, blank=True)
    error = models.TextField(blank=True)
    notice = models.CharField(max_length=300, blank=True)
    setbacks = models.PositiveIntegerField(default=0)
    lease_until = models.DateTimeField(null=True, blank=True, editable=False)
    heartbeat_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]
        verbose_name = "refresh"
        verbose_name_plural = "refreshes"
        constraints = [
            models.UniqueConstraint(
                fields=["build"],
                condition=models.Q(status__in=["pending", "reading", "removing"]),
                name="one_running_refresh",
            )
        ]

    def __str__(self) -> str:
        return f"refresh of {self.build.label}"

    @property
    def is_running(self) -> bool:
        return self.status in self.RUNNING


class RefreshShard(models.Model):
    """The ids that one shard of a refresh saw, as 64-bit digests: what is in none of them is gone."""

    refresh = models.ForeignKey(IndexRefresh, on_delete=models.CASCADE, related_name="shards")
    cursor = models.PositiveBigIntegerField()
    seen = models.BinaryField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["refresh", "cursor"], name="one_shard_per_cursor")
        ]

    def __str__(self) -> str:
        return f"shard to row {self.cursor}"
