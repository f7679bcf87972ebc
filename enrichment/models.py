"""Enrichment sources as merchandisers and engineers configure them."""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models

from enrichment.errors import KeyTemplateInvalid
from enrichment.keys import template_names
from enrichment.spec import SignalKind, SignalSpec, SourceSpec

name_validator = RegexValidator(
    r"^[a-z][a-z0-9_]*$", "Use lower-case letters, digits and underscores, starting with a letter."
)
table_validator = RegexValidator(
    r"^[A-Za-z0-9_.:/-]{3,}$",
    "Write a DynamoDB table name (letters, digits, _ . -) of 3 characters or more, or its ARN.",
)
attribute_validator = RegexValidator(
    r"^[^.]+(\.[^.]+)*$", "Write attribute names joined by single dots, such as affinities.brand."
)


def validate_key_template(template: str) -> None:
    """Refuse a key template that no request could fill."""
    try:
        template_names(template)
    except KeyTemplateInvalid as error:
        raise ValidationError(str(error), code="key_template") from error


class EnrichmentSource(models.Model):
    """A DynamoDB table that holds signals, and how a request finds its item there."""

    slug = models.SlugField(unique=True)
    table = models.CharField(max_length=255, validators=[table_validator])
    region = models.CharField(
        max_length=32, blank=True, help_text="Empty: the region of this installation."
    )
    partition_key = models.CharField("partition key attribute", max_length=255, default="pk")
    key_template = models.CharField(
        max_length=255,
        validators=[validate_key_template],
        help_text="Key of the item, with values of the request in braces: USER#{user_id}, "
        "SESSION#{session_id}, or any context key as in TRENDING#{region}.",
    )
    sort_key = models.CharField("sort key attribute", max_length=255, blank=True)
    sort_key_template = models.CharField(
        max_length=255,
        blank=True,
        validators=[validate_key_template],
        help_text="For tables with a sort key: written like the key template, such as PROFILE.",
    )
    timeout_ms = models.PositiveIntegerField(
        "timeout (ms)", default=50, validators=[MinValueValidator(1), MaxValueValidator(10000)]
    )
    required = models.BooleanField(
        default=False,
        help_text="Required: without it the surface serves its fallback. Otherwise it serves without these signals.",
    )

    class Meta:
        ordering = ["slug"]

    def __str__(self) -> str:
        return self.slug

    def clean(self) -> None:
        if bool(self.sort_key) != bool(self.sort_key_template):
            missing = "sort_key_template" if self.sort_key else "sort_key"
            raise ValidationError(
                {missing: "A table with a sort key needs both its attribute and its template."}
            )
        if self.sort_key and self.sort_key == self.partition_key:
            raise ValidationError({"sort_key": "The partition key has this name already."})

    def to_spec(self) -> SourceSpec:
        """Return the frozen value that is published with a surface."""
        return SourceSpec(
            slug=self.slug,
            table=self.table,
            region=self.region,
            partition_key=self.partition_key,
            key_template=self.key_template,
            sort_key=self.sort_key,
            sort_key_template=self.sort_key_template,
            timeout_ms=self.timeout_ms,
            required=self.required,
            signals=tuple(signal.to_spec() for signal in self.signals.all()),
        )


class Signal(models.Model):
    """One attribute of the source's item that becomes a named signal."""

    class Kind(models.TextChoices):
        NUMBER = SignalKind.NUMBER, "Number"
        WEIGHTS = SignalKind.WEIGHTS, "Weights, by value or by item id"

    source = models.ForeignKey(EnrichmentSource, on_delete=models.CASCADE, related_name="signals")
    name = models.CharField(max_length=64, validators=[name_validator])
    attribute = models.CharField(
        max_length=255,
        blank=True,
        validators=[attribute_validator],
        help_text="Attribute of the item; a dot leads into a map, as in affinities.brand. "
        "Empty: the name.",
    )
    kind = models.CharField(max_length=10, choices=Kind, default=Kind.WEIGHTS)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["source", "name"], name="one_signal_per_name")
        ]

    def __str__(self) -> str:
        return self.name

    def to_spec(self) -> SignalSpec:
        return SignalSpec(
            name=self.name, attribute=self.attribute or self.name, kind=SignalKind(self.kind)
        )
