"""What names and numbers the models accept."""

from __future__ import annotations

from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator

field_name_validator = RegexValidator(
    r"^[A-Za-z][A-Za-z0-9_]*$",
    "Use letters, digits and underscores, starting with a letter: the search engines take no other.",
)
slug_validator = RegexValidator(
    r"^[a-z0-9]+(-[a-z0-9]+)*$", "Use lower-case letters, digits and single hyphens."
)


def between(low: int, high: int) -> list[MinValueValidator | MaxValueValidator]:
    return [MinValueValidator(low), MaxValueValidator(high)]
