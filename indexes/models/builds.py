"""Physical indexes, their history, and the rows that could not become items."""

from __future__ import annotations

from base64 import b64encode

from django.conf import settings
from django.db import models

from indexes.models.definitions import IndexDefinition
from indexes.naming import build_label
from indexes.schema import IndexSpec, LiveIndex


class IndexBuild(models.Model):
    """One physical index, made from a spec frozen at its start."""

    class Status(models.TextChoices):
        PENDING = "pending", "Waiting"
        CREATING = "creating", "Creating the index"
        LOADING = "loading", "Loading items"
        INDEXING = "indexing", "Waiting for the engine"
        VALIDATING = "validating", "Validating"
        READY = "ready", "Ready"
        LIVE = "live", "Live"
        RETIRED = "retired", "Retired"
        FAILED = "failed", "Failed"
        CANCELLED = "cancelled", "Cancelled"

    class Verdict(models.TextChoices):
        """What the validation gates said."""

        NONE = "", "Not validated"
        PASSED = "passed", "Passed every gate"
        BLOCKED = "blocked", "Failed a gate"
        OVERRIDDEN = "overridden", "Failed a gate, overridden"

    RUNNING = (
        Status.PENDING,
        Status.CREATING,
        Status.LOADING,
        Status.INDEXING,
        Status.VALIDATING,
    )
    # What is left of these is taken out of the engine.
    OVER = (Status.RETIRED, Status.FAILED, Status.CANCELLED)

    definition = models.ForeignKey(IndexDefinition, on_delete=models.CASCADE, related_name="builds")
    number = models.PositiveIntegerField()
    status = models.CharField(max_length=10, choices=Status, default=Status.PENDING)
    spec = models.JSONField()
    fingerprint = models.CharField(
        max_length=64, blank=True, help_text="Stands for the embedding model and how it is asked."
    )
    probe = models.BinaryField(
        null=True,
        editable=False,
        help_text="The vector of a fixed text: tells when a model changes.",
    )
    vectors_from = models.ForeignKey(
        "self",
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        help_text="The build whose vectors are taken over where the text is the same.",
    )
    index_name = models.CharField(max_length=200, unique=True)
    key_prefix = models.CharField(max_length=200, unique=True)
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    cursor = models.PositiveBigIntegerField(
        default=0, help_text="Rows of the source that are done."
    )
    total_rows = models.PositiveBigIntegerField(null=True, blank=True)
    catalog_version = models.CharField(
        max_length=200, blank=True, help_text="What the source was when the build began."
    )
    catalog_time = models.DateTimeField(
        null=True, blank=True, help_text="When the source was written."
    )
    batch_job = models.JSONField(
        default=dict, blank=True, help_text="The Batch Transform job that embeds its items."
    )
    written = models.PositiveBigIntegerField(default=0)
    embedded = models.PositiveBigIntegerField(
        default=0, help_text="Vectors that the endpoint or the job made."
    )
    reused = models.PositiveBigIntegerField(
        default=0, help_text="Vectors taken over from another build."
    )
    given = models.PositiveBigIntegerField(
        default=0, help_text="Vectors that the source brought along."
    )
    under_way = models.PositiveIntegerField(
        default=0, help_text="Rows of the shard under way that are done."
    )
    rejected = models.PositiveBigIntegerField(default=0)
    rejected_reasons = models.JSONField(
        default=dict, blank=True, help_text="Number of rejected rows by reason."
    )
    indexed = models.PositiveBigIntegerField(default=0)
    verdict = models.CharField(max_length=10, choices=Verdict, default=Verdict.NONE, blank=True)
    ef_runtime = models.PositiveIntegerField(
        null=True, blank=True, help_text="Tuned to the recall target; serves instead of the spec's."
    )
    memory_bytes = models.PositiveBigIntegerField(
        null=True, blank=True, help_text="What its items and index take in the engine, measured."
    )
    caught_up_at = models.DateTimeField(
        null=True,
        blank=True,
        help_text="When it took over the changes of items that came during its load; "
        "it gets each later one at once.",
    )
    error = models.TextField(blank=True)
    notice = models.CharField(max_length=300, blank=True)
    setbacks = models.PositiveIntegerField(
        default=0, help_text="Temporary failures in a row; a finished shard sets it back to 0."
    )
    lease_until = models.DateTimeField(null=True, blank=True, editable=False)
    heartbeat_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    loading_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    live_at = models.DateTimeField(null=True, blank=True, help_text="When it last became live.")
    superseded_at = models.DateTimeField(
        null=True, blank=True, help_text="When another build took its place."
    )
    served_until = models.DateTimeField(
        null=True, blank=True, help_text="When it last stopped being live or a canary."
    )
    removed_at = models.DateTimeField(
        null=True, blank=True, help_text="When its index and items were taken out of the engine."
    )

    class Meta:
        ordering = ["-created_at"]
        verbose_name = "build"
        permissions = [("override_gates", "Can make a build live that failed a gate")]
        constraints = [
            models.UniqueConstraint(fields=["definition", "number"], name="one_build_per_number"),
        ]

    def __str__(self) -> str:
        return self.label

    @property
    def label(self) -> str:
        """Return the name that people and API answers use, such as ``products-v3``."""
        return build_label(self.spec["slug"], self.number)

    @property
    def is_running(self) -> bool:
        return self.status in self.RUNNING

    def to_spec(self) -> IndexSpec:
        """Return the spec that was frozen when the build started."""
        return IndexSpec.model_validate(self.spec)

    def to_live(self) -> LiveIndex:
        """Return the value that searches run on: physical names and the frozen spec, tuned."""
        spec = self.to_spec()
        if self.ef_runtime is not None:
            spec = spec.model_copy(update={"ef_runtime": self.ef_runtime})
        return LiveIndex(
            label=self.label,
            index_name=self.index_name,
            key_prefix=self.key_prefix,
            spec=spec,
            fingerprint=self.fingerprint,
            probe=b64encode(self.probe).decode() if self.probe else "",
        )


class BuildTransition(models.Model):
    """One step in the life of a build: who made it, when and why."""

    build = models.ForeignKey(IndexBuild, on_delete=models.CASCADE, related_name="transitions")
    from_status = models.CharField(max_length=10, choices=IndexBuild.Status, blank=True)
    to_status = models.CharField(max_length=10, choices=IndexBuild.Status)
    at = models.DateTimeField(auto_now_add=True)
    # Empty: the platform itself.
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    why = models.CharField(max_length=500, blank=True)

    class Meta:
        ordering = ["at", "id"]

    def __str__(self) -> str:
        return f"{self.from_status} → {self.to_status}"


class RejectedRow(models.Model):
    """A catalog row that could not become an item, kept with the reason."""

    build = models.ForeignKey(IndexBuild, on_delete=models.CASCADE, related_name="rejected_rows")
    row = models.PositiveBigIntegerField(help_text="Number of the row in the source, from 1.")
    reason = models.CharField(max_length=40)
    message = models.CharField(max_length=500)
    content = models.TextField(blank=True)

    class Meta:
        ordering = ["row"]
        constraints = [
            models.UniqueConstraint(fields=["build", "row"], name="one_rejection_per_row")
        ]

    def __str__(self) -> str:
        return f"row {self.row}: {self.reason}"
