"""The preview's form: all that a caller may send, with inputs for what this surface knows."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from django import forms
from django.http import QueryDict
from pydantic import ValidationError

from enrichment.errors import EnrichmentError
from enrichment.keys import REQUEST_NAMES
from enrichment.sources import key_names
from indexes.schema import FieldType, IndexSpec
from surfaces.contracts import RecommendRequest
from surfaces.document import SurfaceDocument, ValueFrom
from surfaces.errors import FieldError

DRAFT, LIVE = "draft", "live"
# The ends of a range, as a caller writes them.
BOUNDS = ("gte", "lte")
BETWEEN_IDS = re.compile(r"[\s,]+")


class QuestionForm(forms.Form):
    """One question to one surface, read from the page's address so that it can be shared."""

    query = forms.CharField(label="Query", required=False)
    item_ids = forms.CharField(label="Similar to items", required=False)
    user_id = forms.CharField(label="User", required=False)
    session_id = forms.CharField(label="Session", required=False)
    exclude_ids = forms.CharField(label="Leave out items", required=False)
    limit = forms.IntegerField(label="Results", required=False)
    context = forms.CharField(label="More context", required=False, widget=forms.Textarea)
    filters = forms.CharField(label="More filters", required=False, widget=forms.Textarea)

    def __init__(self, data: QueryDict, document: SurfaceDocument, spec: IndexSpec | None) -> None:
        super().__init__(data)
        self._context_keys = context_keys(document)
        self._open = {field: _type(field, spec) for field in open_fields(document)}
        for key in self._context_keys:
            self.fields[f"context.{key}"] = forms.CharField(label=key, required=False)
        for field, type_ in self._open.items():
            for name in _inputs(field, type_):
                self.fields[name] = forms.CharField(label=field, required=False)
        self.fields["limit"].widget.attrs["placeholder"] = document.limit

    def context_inputs(self) -> list[forms.BoundField]:
        """Return an input for each key that a filter or source of the surface names."""
        return [self[f"context.{key}"] for key in self._context_keys]

    def filter_inputs(self) -> list[tuple[str, list[forms.BoundField]]]:
        """Return the inputs of each open field: one for values, two for the ends of a range."""
        return [
            (field, [self[name] for name in _inputs(field, type_)])
            for field, type_ in self._open.items()
        ]

    def question(self) -> RecommendRequest | None:
        """Return what the API would be sent, or None with the errors on the form's fields."""
        if not self.is_valid():
            return None
        context, filters = self._context(), self._filters()
        if self.errors:
            return None
        values = self.cleaned_data
        try:
            return RecommendRequest(
                query=values["query"] or None,
                item_ids=_ids(values["item_ids"]),
                user_id=values["user_id"] or None,
                session_id=values["session_id"] or None,
                exclude_ids=_ids(values["exclude_ids"]),
                limit=values["limit"],
                context=context,
                filters=filters,
                explain=True,
            )
        except ValidationError as error:
            self.show(
                [
                    FieldError(".".join(map(str, wrong["loc"])), wrong["type"], wrong["msg"])
                    for wrong in error.errors()
                ]
            )
            return None

    def show(self, errors: Sequence[FieldError]) -> None:
        """Put errors of a request, such as those of ``filters.price``, on the inputs they came from."""
        for error in errors:
            self.add_error(self._input(error.field), error.message)

    def _input(self, path: str) -> str | None:
        """Return the input that gave this part of the request; None for the form as a whole."""
        head, _, rest = path.partition(".")
        candidates = (path, f"{path}.{BOUNDS[0]}", f"{head}.{rest.partition('.')[0]}", head)
        return next((name for name in candidates if name in self.fields), None)

    def _context(self) -> dict[str, Any]:
        context: dict[str, Any] = {}
        for line in self.cleaned_data["context"].splitlines():
            key, equals, value = line.partition("=")
            if equals and key.strip():
                context[key.strip()] = value.strip()
            elif line.strip():
                self.add_error("context", f'Write key=value on each line, not "{line.strip()}".')
        for key in self._context_keys:
            if value := self.cleaned_data[f"context.{key}"]:
                context[key] = value
        return context

    def _filters(self) -> dict[str, Any]:
        filters: dict[str, Any] = {}
        if text := self.cleaned_data["filters"]:
            try:
                filters = json.loads(text)
            except (ValueError, RecursionError) as error:
                self.add_error("filters", f"This is not JSON: {error}.")
            if not isinstance(filters, dict):
                self.add_error("filters", 'Write an object, such as {"price": {"lte": 30}}.')
                return {}
        for field, type_ in self._open.items():
            value = self._filter(field, type_)
            if value:
                filters[field] = value
        return filters

    def _filter(self, field: str, type_: FieldType | None) -> Any:
        texts = [self.cleaned_data[name] for name in _inputs(field, type_)]
        if type_ is FieldType.NUMERIC:
            bounds = zip(BOUNDS, texts, strict=True)
            return {bound: _number(text) for bound, text in bounds if text}
        if type_ is FieldType.TEXT:
            return texts[0]
        return [value.strip() for value in texts[0].split(",") if value.strip()]


def context_keys(document: SurfaceDocument) -> tuple[str, ...]:
    """Return the context keys that the surface's filters and sources name."""
    keys = [item.key for item in document.filters if item.value_from is ValueFrom.CONTEXT]
    for source in document.sources:
        try:
            keys += key_names(source)
        except EnrichmentError:
            # Said by the problems of the draft.
            continue
    return tuple(dict.fromkeys(key for key in keys if key and key not in REQUEST_NAMES))


def open_fields(document: SurfaceDocument) -> Iterator[str]:
    """Yield the fields that callers may filter by."""
    opened = (item.field for item in document.filters if item.value_from is ValueFrom.CALLER)
    yield from dict.fromkeys(opened)


def _type(field: str, spec: IndexSpec | None) -> FieldType | None:
    found = spec.field(field) if spec else None
    return found.type if found else None


def _inputs(field: str, type_: FieldType | None) -> tuple[str, ...]:
    if type_ is FieldType.NUMERIC:
        return tuple(f"filters.{field}.{bound}" for bound in BOUNDS)
    return (f"filters.{field}",)


def _ids(text: str) -> list[str]:
    return [item_id for item_id in BETWEEN_IDS.split(text) if item_id]


def _number(text: str) -> int | float | str:
    """Return the number as JSON would hold it; a text that is none stays, for its error to show it."""
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text
