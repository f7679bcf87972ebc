"""Forms of the draft: names are chosen from what the index and the sources have."""

from __future__ import annotations

from typing import Any

from django import forms
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget

from enrichment.spec import SignalKind
from indexes.models import IndexDefinition
from indexes.schema import FieldType
from surfaces.admin.choices import SEARCHABLE, Choices, field_choices, offer, signal_choices
from surfaces.models import RerankTerm, Surface, SurfaceFilter


class NamesField(forms.MultipleChoiceField):
    """Names ticked from those offered; a stored one that is offered no longer may stay."""

    widget = UnfoldAdminCheckboxSelectMultipleWidget

    def offer(self, choices: Choices, stored: list[str]) -> None:
        known = {name for name, _ in choices}
        gone = [(name, f"{name} (not in the index)") for name in stored if name not in known]
        self.choices = [*choices, *gone]

    def valid_value(self, value: Any) -> bool:
        return isinstance(value, str)


def tick_boxes(field: forms.Field, help_text: str) -> None:
    """Show a field that chooses several rows as tick boxes, without the admin's buttons beside it."""
    field.widget = UnfoldAdminCheckboxSelectMultipleWidget(choices=field.widget.choices)
    field.help_text = help_text


class SurfaceForm(forms.ModelForm):  # type: ignore[type-arg]  # not generic at run time
    """The draft of a surface. Whoever may only view it gets a form without these fields."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        index = _index(self.instance)
        returned = self.fields.get("fields")
        if isinstance(returned, NamesField):
            returned.offer(
                field_choices(index, list(FieldType), returned=True), self.instance.fields
            )
        if "browse_field" in self.fields:
            offer(self, "browse_field", field_choices(index, [FieldType.NUMERIC]))
        if "seed_signal" in self.fields:
            offer(self, "seed_signal", signal_choices(SignalKind.WEIGHTS))


def filter_form(surface: Surface | None) -> type[forms.ModelForm[SurfaceFilter]]:
    """Return the form of a filter row, which offers the fields of the surface's index."""
    choices = field_choices(_index(surface) if surface else None, SEARCHABLE)

    class SurfaceFilterForm(forms.ModelForm):  # type: ignore[type-arg]  # not generic at run time
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            if "field" in self.fields:
                offer(self, "field", choices)

    return SurfaceFilterForm


def term_form() -> type[forms.ModelForm[RerankTerm]]:
    """Return the form of a reranker's term, which offers the fields of every index: it is shared."""
    fields = field_choices(None, [FieldType.NUMERIC, FieldType.TAG])
    signals = signal_choices()

    class RerankTermForm(forms.ModelForm):  # type: ignore[type-arg]  # not generic at run time
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            if "field" in self.fields:
                offer(self, "field", fields)
                offer(self, "signal", signals)

        def clean(self) -> dict[str, Any]:
            cleaned: dict[str, Any] = super().clean() or {}
            kind = cleaned.get("kind")
            if kind == RerankTerm.Kind.SIGNAL and not cleaned.get("signal"):
                self.add_error("signal", "Choose the signal to weigh.")
            if kind == RerankTerm.Kind.FIELD and not cleaned.get("field"):
                self.add_error("field", "Choose the number field to weigh.")
            return cleaned

    return RerankTermForm


def _index(surface: Surface) -> IndexDefinition | None:
    return surface.index if surface.index_id else None
