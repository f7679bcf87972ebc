"""The names that a form offers: item fields of an index, signals of the sources.

They are offered, not enforced: publishing checks every name against the live build
and says what is wrong, and a name that is gone stays visible until it is replaced.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from django import forms
from unfold.widgets import UnfoldAdminSelectWidget

from enrichment.models import Signal
from enrichment.spec import SignalKind
from indexes.models import IndexDefinition, IndexField
from indexes.schema import FieldType

Choices = list[tuple[str, str]]

SEARCHABLE = (FieldType.TAG, FieldType.NUMERIC, FieldType.TEXT)
KINDS = {
    FieldType.TAG: "tag",
    FieldType.NUMERIC: "number",
    FieldType.TEXT: "text",
    FieldType.STORED: "stored",
}


def field_choices(
    index: IndexDefinition | None, types: Sequence[str], *, returned: bool = False
) -> Choices:
    """Return the fields of these types of an index; of every index where none is chosen yet."""
    rows = IndexField.objects.filter(type__in=types)
    if index is not None:
        rows = rows.filter(definition=index)
    if returned:
        rows = rows.filter(returned=True)
    names = dict(rows.values_list("name", "type"))
    return [(name, f"{name} ({KINDS[FieldType(kind)]})") for name, kind in names.items()]


def signal_choices(kind: SignalKind | None = None) -> Choices:
    """Return the signals of all sources, or those of a kind."""
    rows = Signal.objects.order_by("name")
    if kind is not None:
        rows = rows.filter(kind=kind)
    return [(name, name) for name in rows.values_list("name", flat=True).distinct()]


class NameSelect(UnfoldAdminSelectWidget):
    """A select over names which also shows a stored name that is no longer offered."""

    def __init__(self, choices: Iterable[tuple[str, str]]) -> None:
        super().__init__(choices=[("", "—"), *choices])

    def optgroups(self, name: str, value: list[str], attrs: Any = None) -> list[Any]:
        offered: Choices = list(self.choices)
        known = {choice for choice, _ in offered}
        gone = [(entry, f"{entry} (not in the index)") for entry in value if entry not in known]
        self.choices: Choices = [*offered, *gone]
        groups: list[Any] = super().optgroups(name, value, attrs)
        return groups


def offer(form: forms.BaseForm, name: str, choices: Choices) -> None:
    """Let the field of a form be chosen from names; any name typed before is kept."""
    form.fields[name].widget = NameSelect(choices)
