"""What is configured and built: endpoints, catalogs, index definitions and their builds.

Rows are edited in the admin; everything that runs reads the frozen specs of
``indexes.schema`` made from them. Only builds carry state.
"""

from __future__ import annotations

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models

from indexes.naming import RESERVED_PREFIX, build_label
from indexes.schema import CatalogSpec, EndpointSpec, FieldSpec, FieldType, IndexSpec, LiveIndex

field_name_validator = RegexValidator(
    r"^[A-Za-z][A-Za-z0-9_]*$",
    "Use letters, digits and underscores, starting with a letter: the search engines take no other.",
)
slug_validator = RegexValidator(
    r"^[a-z0-9]+(-[a-z0-9]+)*$", "Use lower-case letters, digits and single hyphens."
)


def between(low: int, high: int) -> list[MinValueValidator | MaxValueValidator]:
    return [MinValueValidator(low), MaxValueValidator(high)]


class EmbeddingEndpoint(models.Model):
    """A SageMaker real-time endpoint: text in, vector out."""

    slug = models.SlugField(unique=True, validators=[slug_validator])
    endpoint_name = models.CharField(
        max_length=63, help_text="Name of the SageMaker endpoint, as in InvokeEndpoint."
    )
    region = models.CharField(
        max_length=32, blank=True, help_text="AWS region. Empty: the region of this installation."
    )
    dimension = models.PositiveIntegerField(
        default=384, validators=between(1, 32768), help_text="Numbers in one vector."
    )
    request_key = models.CharField(
        max_length=64,
        default="inputs",
        help_text='Name under which the texts are sent: "inputs" gives {"inputs": …}.',
    )
    request_extra = models.JSONField(
        default=dict, blank=True, help_text="JSON object merged into each request body."
    )
    response_key = models.CharField(
        max_length=64,
        blank=True,
        help_text="Where the answer holds the vectors. Empty: recognised by its shape.",
    )
    timeout_ms = models.PositiveIntegerField(
        "timeout (ms)", default=2000, validators=between(1, 60000)
    )
    max_batch = models.PositiveIntegerField(
        "largest batch", default=32, validators=between(1, 2048), help_text="Texts in one call."
    )
    normalize = models.BooleanField(default=True, help_text="Scale each vector to length 1.")
    query_prefix = models.CharField(
        max_length=200, blank=True, help_text='Put before each query text, such as "query: ".'
    )
    passage_prefix = models.CharField(
        max_length=200, blank=True, help_text='Put before each item text, such as "passage: ".'
    )

    class Meta:
        ordering = ["slug"]

    def __str__(self) -> str:
        return self.slug

    def clean(self) -> None:
        if not isinstance(self.request_extra, dict):
            raise ValidationError({"request_extra": "Write a JSON object, such as {}."})

    def to_spec(self) -> EndpointSpec:
        """Return the frozen value that embedding runs on."""
        return EndpointSpec(**{name: getattr(self, name) for name in EndpointSpec.model_fields})


class CatalogSource(models.Model):
    """Where items come from and how a row becomes an item."""

    class Format(models.TextChoices):
        AUTO = "auto", "By the file's ending"
        JSONL = "jsonl", "JSON lines (.jsonl, .jsonl.gz)"
        CSV = "csv", "CSV (.csv, .csv.gz)"
        PARQUET = "parquet", "Parquet"

    slug = models.SlugField(unique=True, validators=[slug_validator])
    uri = models.CharField(
        "path or s3:// URI", max_length=500, help_text="/data/products.jsonl.gz or s3://bucket/key."
    )
    format = models.CharField(max_length=10, choices=Format, default=Format.AUTO)
    id_field = models.CharField(
        max_length=100, default="id", help_text="Field that identifies an item."
    )
    text_template = models.CharField(
        max_length=500,
        default="{title}",
        help_text="Text that is embedded, such as {title} {brand} {attributes.colour}.",
    )

    class Meta:
        ordering = ["slug"]

    def __str__(self) -> str:
        return self.slug

    def to_spec(self) -> CatalogSpec:
        """Return the frozen value that loading runs on."""
        return CatalogSpec(**{name: getattr(self, name) for name in CatalogSpec.model_fields})


class IndexDefinition(models.Model):
    """The logical index that surfaces name. One of its builds is live."""

    class Metric(models.TextChoices):
        COSINE = "COSINE", "Cosine"
        L2 = "L2", "Euclidean (L2)"
        IP = "IP", "Inner product"

    class Algorithm(models.TextChoices):
        HNSW = "HNSW", "HNSW: approximate, fast at any size"
        FLAT = "FLAT", "FLAT: exact, for up to some ten thousand items"

    slug = models.SlugField(unique=True, validators=[slug_validator])
    name = models.CharField(max_length=100)
    endpoint = models.ForeignKey(
        EmbeddingEndpoint, on_delete=models.PROTECT, related_name="indexes"
    )
    source = models.ForeignKey(CatalogSource, on_delete=models.PROTECT, related_name="indexes")
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
        help_text="Care taken while searching.",
    )
    # RESTRICT, not PROTECT: a live build cannot be deleted alone, but goes with its definition.
    live_build = models.ForeignKey(
        "IndexBuild",
        on_delete=models.RESTRICT,
        null=True,
        blank=True,
        editable=False,
        related_name="+",
    )

    class Meta:
        ordering = ["slug"]
        verbose_name = "index"
        verbose_name_plural = "indexes"

    def __str__(self) -> str:
        return self.name

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


class IndexBuild(models.Model):
    """One physical index, made from a spec frozen at its start."""

    class Status(models.TextChoices):
        PENDING = "pending", "Waiting"
        CREATING = "creating", "Creating the index"
        LOADING = "loading", "Loading items"
        INDEXING = "indexing", "Waiting for the engine"
        READY = "ready", "Ready"
        LIVE = "live", "Live"
        RETIRED = "retired", "Retired"
        FAILED = "failed", "Failed"

    RUNNING = (Status.PENDING, Status.CREATING, Status.LOADING, Status.INDEXING)

    definition = models.ForeignKey(IndexDefinition, on_delete=models.CASCADE, related_name="builds")
    number = models.PositiveIntegerField()
    status = models.CharField(max_length=10, choices=Status, default=Status.PENDING)
    spec = models.JSONField()
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
    written = models.PositiveBigIntegerField(default=0)
    embedded = models.PositiveBigIntegerField(
        default=0, help_text="Items with their vector: those written, and of the shard under way."
    )
    rejected = models.PositiveBigIntegerField(default=0)
    indexed = models.PositiveBigIntegerField(default=0)
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
    removed_at = models.DateTimeField(
        null=True, blank=True, help_text="When its index and items were taken out of the engine."
    )

    class Meta:
        ordering = ["-created_at"]
        verbose_name = "build"
        constraints = [
            models.UniqueConstraint(fields=["definition", "number"], name="one_build_per_number"),
            models.UniqueConstraint(
                fields=["definition"],
                condition=models.Q(status__in=["pending", "creating", "loading", "indexing"]),
                name="one_running_build",
            ),
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
        """Return the value that searches run on: physical names and the frozen spec."""
        return LiveIndex(
            label=self.label,
            index_name=self.index_name,
            key_prefix=self.key_prefix,
            spec=self.to_spec(),
        )


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
