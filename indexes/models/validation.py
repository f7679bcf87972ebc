"""What a build was measured by before it could go live, and the judgments some of it rests on."""

from __future__ import annotations

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

from indexes.models.builds import IndexBuild
from indexes.models.definitions import IndexDefinition


class GateResult(models.Model):
    """One validation gate of one build: its figure against its threshold."""

    class Outcome(models.TextChoices):
        PASSED = "passed", "Passed"
        FAILED = "failed", "Failed"
        # Shown for people to judge; it holds nothing back.
        REPORTED = "reported", "For information"
        SKIPPED = "skipped", "Not applicable"

    build = models.ForeignKey(IndexBuild, on_delete=models.CASCADE, related_name="gates")
    gate = models.CharField(max_length=40)
    outcome = models.CharField(max_length=10, choices=Outcome)
    figure = models.FloatField(null=True, blank=True)
    threshold = models.FloatField(null=True, blank=True)
    message = models.CharField(max_length=500, help_text="The result in words.")
    detail = models.JSONField(default=dict, blank=True)
    position = models.PositiveIntegerField(default=0)
    measured_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["position", "id"]
        constraints = [
            models.UniqueConstraint(fields=["build", "gate"], name="one_result_per_gate")
        ]

    def __str__(self) -> str:
        return f"{self.gate}: {self.outcome}"


class Judgment(models.Model):
    """How well a product answers a query, as people judged it."""

    definition = models.ForeignKey(
        IndexDefinition, on_delete=models.CASCADE, related_name="judgments"
    )
    query = models.CharField(max_length=300)
    product_id = models.CharField(max_length=256)
    grade = models.FloatField(validators=[MinValueValidator(0), MaxValueValidator(100)])

    class Meta:
        ordering = ["query", "product_id"]
        constraints = [
            models.UniqueConstraint(
                fields=["definition", "query", "product_id"], name="one_judgment_per_product"
            )
        ]

    def __str__(self) -> str:
        return f"{self.query}: {self.product_id} = {self.grade:g}"


class JudgedQuery(models.Model):
    """The vector of a judged query, kept so that each model is asked for it once."""

    definition = models.ForeignKey(
        IndexDefinition, on_delete=models.CASCADE, related_name="judged_queries"
    )
    # Of the endpoint, as ``EndpointSpec.fingerprint``.
    fingerprint = models.CharField(max_length=16)
    query = models.CharField(max_length=300)
    vector = models.BinaryField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["definition", "fingerprint", "query"], name="one_vector_per_query"
            )
        ]

    def __str__(self) -> str:
        return self.query
