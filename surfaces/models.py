"""Surfaces as merchandisers edit them, and what is published from them.

A draft is the rows of Surface, SurfaceFilter and Reranker; it never serves
traffic. A revision is the frozen document made from them at publish.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

from enrichment.models import EnrichmentSource
from indexes.models import IndexDefinition, between, slug_validator
from surfaces.document import (
    MAX_WEIGHT,
    FallbackMode,
    Operator,
    TermKind,
    TermSpec,
    ValueFrom,
    WhenMissing,
)


class Reranker(models.Model):
    """A way to order candidates, shared by any number of surfaces."""

    class Kind(models.TextChoices):
        NONE = "none", "None: the order of similarity"
        LINEAR = "linear", "Linear: a weighted sum of the terms below"

    slug = models.SlugField(unique=True, validators=[slug_validator])
    name = models.CharField(max_length=100)
    kind = models.CharField(max_length=20, choices=Kind, default=Kind.LINEAR)

    class Meta:
        ordering = ["slug"]

    def __str__(self) -> str:
        return self.name


class RerankTerm(models.Model):
    """One addend of a linear reranker."""

    class Kind(models.TextChoices):
        SIMILARITY = TermKind.SIMILARITY, "Similarity to the query"
        FIELD = TermKind.FIELD, "Item field (number)"
        SIGNAL = TermKind.SIGNAL, "Signal"

    reranker = models.ForeignKey(Reranker, on_delete=models.CASCADE, related_name="terms")
    kind = models.CharField(max_length=20, choices=Kind)
    signal = models.CharField(
        max_length=64, blank=True, help_text="Name of the signal, for signal terms."
    )
    field = models.CharField(
        max_length=64,
        blank=True,
        help_text="Item field to weigh, or whose value the signal's map is looked up by. "
        "Empty for a signal: looked up by item id.",
    )
    weight = models.FloatField(
        default=1.0,
        validators=[MinValueValidator(-MAX_WEIGHT), MaxValueValidator(MAX_WEIGHT)],
        help_text="Negative to bury.",
    )
    position = models.PositiveIntegerField(default=0)

    class Meta:
        ordering = ["position", "id"]

    def __str__(self) -> str:
        return " ".join(filter(None, (self.kind, self.signal, self.field)))

    def to_spec(self) -> TermSpec:
        """Return the frozen value that is published with a surface."""
        return TermSpec(
            kind=TermKind(self.kind), weight=self.weight, name=self.signal, field=self.field
        )


class Surface(models.Model):
    """A place in the storefront that shows recommended items. What is edited here is the draft."""

    class Fallback(models.TextChoices):
        DEFAULT_LIST = FallbackMode.DEFAULT_LIST, "Serve the default list"
        FAIL = FallbackMode.FAIL, "Fail fast: answer 503"

    slug = models.SlugField(
        unique=True, validators=[slug_validator], help_text="Part of the API's address."
    )
    name = models.CharField(max_length=100)
    description = models.CharField(max_length=300, blank=True)
    index = models.ForeignKey(IndexDefinition, on_delete=models.PROTECT, related_name="surfaces")
    candidates = models.PositiveIntegerField(
        default=100, validators=between(1, 1000), help_text="Items retrieved before reranking (k)."
    )
    limit = models.PositiveIntegerField("results", default=12, validators=between(1, 200))
    max_limit = models.PositiveIntegerField(
        "most results",
        default=48,
        validators=between(1, 1000),
        help_text="The most a caller may ask for.",
    )
    fields = models.JSONField(
        "fields returned",
        default=list,
        blank=True,
        help_text='List such as ["title", "price"]. Empty: all returned fields.',
    )
    sources = models.ManyToManyField(EnrichmentSource, blank=True, related_name="surfaces")
    reranker = models.ForeignKey(
        Reranker,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="surfaces",
        help_text="Empty: the order of similarity.",
    )
    seed_signal = models.CharField(
        "items from signal",
        max_length=64,
        blank=True,
        help_text="Without query and items: find items similar to those that this signal weighs, such as recent views.",
    )
    default_query = models.CharField(
        max_length=300,
        blank=True,
        help_text="Without query, items and signal: search for this text.",
    )
    browse_field = models.CharField(
        max_length=64,
        blank=True,
        help_text="Without any of these: list items by this number field. Also orders the default list.",
    )
    browse_descending = models.BooleanField("highest first", default=True)
    deadline_ms = models.PositiveIntegerField(
        "deadline (ms)", default=100, validators=between(5, 10000)
    )
    fallback = models.CharField(max_length=20, choices=Fallback, default=Fallback.DEFAULT_LIST)
    fallback_item_ids = models.TextField(
        "default list",
        blank=True,
        help_text="Item ids, one a line. Empty: the first items by the browse field.",
    )
    live_revision = models.ForeignKey(
        "SurfaceRevision",
        # Not PROTECT: that would keep a published surface from ever being deleted
        # together with its own revisions.
        on_delete=models.RESTRICT,
        null=True,
        blank=True,
        editable=False,
        related_name="+",
    )
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["slug"]
        permissions = [("publish_surface", "Can publish a surface")]

    def __str__(self) -> str:
        return self.name


class SurfaceFilter(models.Model):
    """One filter clause of a surface: fixed, bound to the request's context, or open to callers."""

    class Op(models.TextChoices):
        ANY_OF = Operator.ANY_OF, "is any of"
        NONE_OF = Operator.NONE_OF, "is none of"
        AT_LEAST = Operator.AT_LEAST, "is at least"
        AT_MOST = Operator.AT_MOST, "is at most"
        WORDS = Operator.WORDS, "has the words"

    class From(models.TextChoices):
        STATIC = ValueFrom.STATIC, "these values"
        CONTEXT = ValueFrom.CONTEXT, "the request's context"
        CALLER = ValueFrom.CALLER, "the caller's filters (any operator)"

    class Missing(models.TextChoices):
        SKIP = WhenMissing.SKIP, "leave the filter out"
        REFUSE = WhenMissing.REFUSE, "refuse the request"
        NOTHING = WhenMissing.NOTHING, "match nothing"

    surface = models.ForeignKey(Surface, on_delete=models.CASCADE, related_name="filters")
    field = models.CharField(max_length=64)
    operator = models.CharField(max_length=20, choices=Op, default=Op.ANY_OF)
    value_from = models.CharField("value from", max_length=20, choices=From, default=From.STATIC)
    values = models.TextField(blank=True, help_text="One value a line.")
    key = models.CharField("context key", max_length=64, blank=True)
    when_missing = models.CharField(max_length=20, choices=Missing, default=Missing.SKIP)
    position = models.PositiveIntegerField(default=0)

    class Meta:
        ordering = ["position", "id"]

    def __str__(self) -> str:
        return f"{self.field} {self.get_operator_display()}"


class SurfaceRevision(models.Model):
    """An immutable, numbered, published configuration: the only thing that serves traffic."""

    surface = models.ForeignKey(Surface, on_delete=models.CASCADE, related_name="revisions")
    number = models.PositiveIntegerField()
    document = models.JSONField()
    note = models.CharField(max_length=300, blank=True)
    published_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    published_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-number"]
        constraints = [
            models.UniqueConstraint(fields=["surface", "number"], name="one_revision_per_number")
        ]

    def __str__(self) -> str:
        return f"{self.surface.slug} revision {self.number}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self.pk is not None:
            raise TypeError("A revision is immutable: publish a new one.")
        super().save(*args, **kwargs)


class DefaultList(models.Model):
    """The items a surface serves when its pipeline cannot: resolved ahead, held in every process."""

    surface = models.OneToOneField(Surface, on_delete=models.CASCADE, related_name="default_list")
    items = models.JSONField(default=list)
    build_label = models.CharField(max_length=120, blank=True)
    refreshed_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"default list of {self.surface.slug}"


class ApiKey(models.Model):
    """A storefront's key. Only its digest is stored; the key is shown once, when made."""

    name = models.CharField(max_length=100)
    prefix = models.CharField(max_length=12, editable=False)
    digest = models.CharField(max_length=64, unique=True, editable=False)
    surfaces = models.ManyToManyField(Surface, blank=True, help_text="Empty: every surface.")
    indexes = models.ManyToManyField(
        IndexDefinition,
        blank=True,
        related_name="+",
        help_text="Indexes whose items it may change. Empty: none.",
    )
    # Set as soon as a surface is chosen: a key that loses its last surface, because
    # that surface was deleted, must not become a key to every surface.
    scoped = models.BooleanField(default=False, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        verbose_name = "API key"
        ordering = ["name"]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"


class ServingState(models.Model):
    """The version of all that is published; one row, raised in the transaction of each change.

    ``surfaces.snapshot`` is its only writer and says how versions are made.
    """

    version = models.PositiveBigIntegerField(default=0)

    def __str__(self) -> str:
        return f"version {self.version}"
