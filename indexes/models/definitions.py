"""The logical index that surfaces name, and its fields."""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

from indexes import cron
from indexes.models.sources import CatalogSource, EmbeddingEndpoint
from indexes.models.validators import between, field_name_validator, slug_validator
from indexes.naming import RESERVED_PREFIX
from indexes.schema import FieldSpec, FieldType, IndexSpec


class IndexDefinition(models.Model):
    """The logical index that surfaces name. One of its builds is live."""

    class Metric(models.TextChoices):
        COSINE = "COSINE", "Cosine"
        L2 = "L2", "Euclidean (L2)"
        IP = "IP", "Inner product"

    class Algorithm(models.TextChoices):
        HNSW = "HNSW", "HNSW: approximate, fast at any size"
        FLAT = "FLAT", "FLAT: exact, for up to some ten thousand items"

    class EmbedWith(models.TextChoices):
        REALTIME = "realtime", "Calls to the endpoint"
        BATCH = "batch", "A SageMaker Batch Transform job"

    class Promotion(models.TextChoices):
        AUTO = "auto", "Make it live when it passes every gate"
        MANUAL = "manual", "Wait for a person"

    slug = models.SlugField(unique=True, validators=[slug_validator])
    name = models.CharField(max_length=100)
    endpoint = models.ForeignKey(
        EmbeddingEndpoint, on_delete=models.PROTECT, related_name="indexes"
    )
    source = models.ForeignKey(CatalogSource, on_delete=models.PROTECT, related_name="indexes")
    embed_with = models.CharField(
        "embed items by", max_length=10, choices=EmbedWith, default=EmbedWith.REALTIME
    )
    metric = models.CharField(max_length=10, choices=Metric, default=Metric.COSINE)
    algorithm = models.CharField(max_length=10, choices=Algorithm, default=Algorithm.HNSW)
    m = models.PositiveIntegerField(
        "M",
        default=16,
        validators=between(2, 512),
        help_text="Links of a node: more is better recall and more memory.",
    )
    ef_construction = models.PositiveIntegerField(
        "EF_CONSTRUCTION",
        default=200,
        validators=between(1, 4096),
        help_text="Care taken while building.",
    )
    ef_runtime = models.PositiveIntegerField(
        "EF_RUNTIME",
        default=100,
        validators=between(1, 4096),
        help_text="Care taken while searching, until a build is tuned to the recall target.",
    )
    promotion = models.CharField(
        "a finished build",
        max_length=10,
        choices=Promotion,
        default=Promotion.AUTO,
        help_text="A build with another embedding model than the live one always waits for a person.",
    )
    max_rejected_percent = models.PositiveIntegerField(
        "rejected rows (%)",
        default=50,
        validators=between(0, 100),
        help_text="A build with more of them fails.",
    )
    recall_target = models.FloatField(
        default=0.99,
        validators=[MinValueValidator(0.5), MaxValueValidator(1)],
        help_text="Share of the true 10 nearest items that a search finds. Each build is tuned to it.",
    )
    min_items_percent = models.PositiveIntegerField(
        "items against live (%)",
        default=50,
        validators=between(0, 100),
        help_text="A build with fewer items than this share of the live build's is held back.",
    )
    max_latency_ratio = models.FloatField(
        "latency against live",
        default=2.0,
        validators=[MinValueValidator(1), MaxValueValidator(100)],
        help_text="A build that searches slower than so many times the live build is held back.",
    )
    min_self_retrieval = models.FloatField(
        "self-retrieval",
        default=0.9,
        validators=[MinValueValidator(0), MaxValueValidator(1)],
        help_text="Share of sampled items that their own text finds.",
    )
    min_overlap = models.FloatField(
        "overlap with live",
        default=0.0,
        validators=[MinValueValidator(0), MaxValueValidator(1)],
        help_text="Share of the live build's 10 first items that stay. 0: shown, never held back.",
    )
    max_ndcg_drop = models.FloatField(
        "nDCG below live",
        default=0.02,
        validators=[MinValueValidator(0), MaxValueValidator(1)],
        help_text="What nDCG@10 may lose against the live build, where there are judgments.",
    )
    keep_hours = models.PositiveIntegerField(
        "keep for rollback (hours)",
        default=24,
        validators=between(0, 24 * 90),
        help_text="The build that was live before stays in the engine so long.",
    )
    rebuild_cron = models.CharField(
        "full rebuild", max_length=100, blank=True, help_text='Such as "0 3 * * *": daily at 3:00.'
    )
    refresh_cron = models.CharField(
        "refresh of changes",
        max_length=100,
        blank=True,
        help_text='Such as "*/15 * * * *": every quarter of an hour.',
    )
    schedule_notice = models.CharField(
        max_length=500,
        blank=True,
        editable=False,
        help_text="Why its schedule last started nothing.",
    )
    # RESTRICT, not PROTECT: what serves cannot be deleted alone, but goes with its definition.
    live_build = models.ForeignKey(
        "IndexBuild",
        on_delete=models.RESTRICT,
        null=True,
        blank=True,
        editable=False,
        related_name="+",
    )
    canary_build = models.ForeignKey(
        "IndexBuild",
        on_delete=models.RESTRICT,
        null=True,
        blank=True,
        editable=False,
        related_name="+",
    )
    canary_percent = models.PositiveIntegerField(
        default=0, validators=between(0, 100), editable=False
    )

    class Meta:
        ordering = ["slug"]
        verbose_name = "index"
        verbose_name_plural = "indexes"

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        wrong = {}
        for name in ("rebuild_cron", "refresh_cron"):
            if not (text := getattr(self, name)):
                continue
            try:
                cron.parse(text)
            except ValueError as error:
                wrong[name] = str(error)
        if wrong:
            raise ValidationError(wrong)

    def to_spec(self) -> IndexSpec:
        """Return the frozen value that a build is made from."""
        return IndexSpec(
            slug=self.slug,
            endpoint=self.endpoint.to_spec(),
            catalog=self.source.to_spec(),
            metric=self.metric,
            algorithm=self.algorithm,
            m=self.m,
            ef_construction=self.ef_construction,
            ef_runtime=self.ef_runtime,
            embed_with=self.embed_with,
            fields=tuple(field.to_spec() for field in self.fields.all()),
        )


class IndexField(models.Model):
    """One item field of an index."""

    class Type(models.TextChoices):
        TAG = FieldType.TAG, "Tag: exact values"
        NUMERIC = FieldType.NUMERIC, "Number, or date"
        TEXT = FieldType.TEXT, "Text: words"
        STORED = FieldType.STORED, "Stored: only shown"

    definition = models.ForeignKey(IndexDefinition, on_delete=models.CASCADE, related_name="fields")
    name = models.CharField(max_length=64, validators=[field_name_validator])
    type = models.CharField(max_length=10, choices=Type)
    source_path = models.CharField(
        max_length=200,
        blank=True,
        help_text="Where a row holds it, such as attributes.colour. Empty: the name.",
    )
    separator = models.CharField(
        max_length=1, default="|", help_text="Between several values of a tag."
    )
    multiple = models.BooleanField("several values", default=False)
    returned = models.BooleanField(default=True, help_text="Part of the answers.")
    position = models.PositiveIntegerField(default=0)

    class Meta:
        ordering = ["position", "id"]
        constraints = [
            models.UniqueConstraint(fields=["definition", "name"], name="one_index_field_per_name")
        ]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        if self.name.startswith(RESERVED_PREFIX):
            raise ValidationError(
                {"name": f'Names that start with "{RESERVED_PREFIX}" are taken by the platform.'}
            )

    def to_spec(self) -> FieldSpec:
        """Return the frozen value that builds and filters run on."""
        return FieldSpec(
            name=self.name,
            type=FieldType(self.type),
            source=self.source_path or self.name,
            separator=self.separator,
            multiple=self.multiple,
            returned=self.returned,
        )
