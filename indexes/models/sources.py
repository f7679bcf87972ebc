"""Where vectors and items come from: embedding endpoints and catalogs."""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models

from indexes.models.validators import between, slug_validator
from indexes.schema import CatalogSpec, EndpointSpec


class EmbeddingEndpoint(models.Model):
    """A SageMaker real-time endpoint: text in, vector out."""

    slug = models.SlugField(unique=True, validators=[slug_validator])
    endpoint_name = models.CharField(
        max_length=63, help_text="Name of the SageMaker endpoint, as in InvokeEndpoint."
    )
    region = models.CharField(
        max_length=32, blank=True, help_text="AWS region. Empty: the region of this installation."
    )
    model = models.CharField(
        max_length=200,
        blank=True,
        help_text="Name and version of the model behind it, such as all-MiniLM-L6-v2@1. "
        "Part of the fingerprint: vectors of one model are never searched with another's.",
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
    concurrency = models.PositiveIntegerField(
        "calls at once",
        default=2,
        validators=between(1, 64),
        help_text="Calls that one build has under way at the same time.",
    )
    max_calls_per_second = models.FloatField(
        "calls a second",
        default=0,
        validators=[MinValueValidator(0)],
        help_text="The most that all builds together make. 0: no limit.",
    )
    normalize = models.BooleanField(default=True, help_text="Scale each vector to length 1.")
    query_prefix = models.CharField(
        max_length=200, blank=True, help_text='Put before each query text, such as "query: ".'
    )
    passage_prefix = models.CharField(
        max_length=200, blank=True, help_text='Put before each item text, such as "passage: ".'
    )
    batch_model = models.CharField(
        "SageMaker model",
        max_length=63,
        blank=True,
        help_text="Name of the model that a Batch Transform job runs, as in CreateTransformJob.",
    )
    batch_s3_uri = models.CharField(
        "working folder",
        max_length=500,
        blank=True,
        help_text="s3://bucket/folder where a job reads its texts and leaves its vectors.",
    )
    batch_instance_type = models.CharField(
        "instance type", max_length=63, default="ml.g4dn.xlarge", blank=True
    )
    batch_instance_count = models.PositiveIntegerField(
        "instances", default=1, validators=between(1, 100)
    )

    class Meta:
        ordering = ["slug"]

    def __str__(self) -> str:
        return self.slug

    def clean(self) -> None:
        if not isinstance(self.request_extra, dict):
            raise ValidationError({"request_extra": "Write a JSON object, such as {}."})
        if self.batch_model and not self.batch_s3_uri.startswith("s3://"):
            raise ValidationError(
                {"batch_s3_uri": "A Batch Transform job needs a folder such as s3://bucket/folder."}
            )

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
    vector_field = models.CharField(
        max_length=100,
        blank=True,
        help_text="Field that holds a ready vector. Rows without one are embedded.",
    )
    version_field = models.CharField(
        max_length=100,
        blank=True,
        help_text="Field that tells which of two rows of an item is newer: a number or a date. "
        "Empty: the time of the file.",
    )

    class Meta:
        ordering = ["slug"]

    def __str__(self) -> str:
        return self.slug

    def to_spec(self) -> CatalogSpec:
        """Return the frozen value that loading runs on."""
        return CatalogSpec(**{name: getattr(self, name) for name in CatalogSpec.model_fields})
