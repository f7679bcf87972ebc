"""Request bodies and query strings, read with bounds and turned into the contract's types."""

import re
from collections.abc import Sequence
from typing import Any, TypeVar, overload
from urllib.parse import parse_qsl

import orjson
from django.http import HttpRequest
from pydantic import ValidationError

from surfaces.api.contract import MOST_REQUESTS
from surfaces.api.problems import ApiProblem
from surfaces.contracts import RecommendRequest
from surfaces.errors import BadRequest, FieldError

LARGEST_BODY = 64 * 1024
# A server closes on a body that was not read, and the close can outrun the answer.
LARGEST_DISCARDED = 2 * 1024 * 1024
MOST_PARAMETERS = 1000
JSON_TYPE = "application/json"

FIELDS = tuple(RecommendRequest.model_fields)
LISTS = ("item_ids", "exclude_ids")
MAPS = ("filters", "context")

R = TypeVar("R", bound=RecommendRequest)

_BRACKETS = re.compile(r"(filters|context)\[([^\[\]]+)\](?:\[([^\[\]]+)\])?")
_TRUTH = {"true": True, "1": True, "false": False, "0": False}

# By pydantic's error type: our code, and a sentence with the limits in braces.
_SENTENCES = {
    "missing": ("required", "This field is needed."),
    "string_type": ("invalid", "Write a text."),
    "int_type": ("invalid", "Write a whole number."),
    "bool_type": ("invalid", "Write true or false."),
    "list_type": ("invalid", "Write a list."),
    "dict_type": ("invalid", "Write an object."),
    "string_too_short": ("invalid", "Write at least {min_length} character."),
    "string_too_long": ("too_large", "Write at most {max_length} characters."),
    "too_long": ("too_large", "Give at most {max_length} entries."),
    "greater_than_equal": ("invalid", "Write a number from {ge}."),
    "less_than_equal": ("too_large", "Write a number up to {le}."),
}


def read_json(request: HttpRequest, largest: int = LARGEST_BODY) -> Any:
    """Return the JSON value of the body; raise the problem of any other body.

    No more than the ``largest`` body, in bytes, is ever held, whatever the length said to come.
    """
    declared = request.content_type or ""
    if declared != JSON_TYPE:
        raise ApiProblem(
            "unsupported_media_type",
            f'Send the body as "Content-Type: {JSON_TYPE}", not "{declared[:100]}".',
        )
    try:
        return orjson.loads(_read(request, largest))
    except orjson.JSONDecodeError as error:
        raise ApiProblem("malformed_json", f"The body cannot be read as JSON: {error}.") from error


def _read(request: HttpRequest, largest: int) -> bytes:
    length = 0
    stream: Any = request
    if "chunked" in request.META.get("HTTP_TRANSFER_ENCODING", "").lower():
        # Django reads no further than Content-Length, which a chunked body has not.
        if not request.META.get("wsgi.input_terminated"):
            raise ApiProblem("length_required", "Send the body with a Content-Length.")
        stream = request.META["wsgi.input"]
    else:
        length = _content_length(request)
    body: bytes = b"" if length > largest else stream.read(largest + 1)
    if length <= largest and len(body) <= largest:
        return body
    discarded = max(LARGEST_DISCARDED, 2 * largest)
    if length <= discarded:
        _discard(stream, discarded)
    raise ApiProblem("too_large", f"Send at most {largest} bytes.")


def _discard(stream: Any, left: int) -> None:
    while left > 0 and (piece := stream.read(LARGEST_BODY)):
        left -= len(piece)


def _content_length(request: HttpRequest) -> int:
    try:
        return int(request.META.get("CONTENT_LENGTH") or 0)
    except ValueError:
        return 0


@overload
def parse_request(value: Any) -> RecommendRequest: ...


@overload
def parse_request(value: Any, form: type[R]) -> R: ...


def parse_request(value: Any, form: type[RecommendRequest] = RecommendRequest) -> RecommendRequest:
    """Return the request that a JSON value is; raise BadRequest with every wrong field."""
    if not isinstance(value, dict):
        raise BadRequest([FieldError("body", "invalid", "Write a JSON object.")])
    try:
        return form.model_validate(value, strict=True)
    except ValidationError as error:
        raise BadRequest(_field_errors(error, form)) from error


def parse_page(value: Any) -> list[Any]:
    """Return the entries of a page's body, not yet parsed; raise BadRequest for any other body."""
    if not isinstance(value, dict):
        raise BadRequest([FieldError("body", "invalid", "Write a JSON object.")])
    errors = [
        FieldError(name, "unknown", "Unknown field. Known is requests.")
        for name in value
        if name != "requests"
    ]
    entries = value.get("requests")
    if entries is None:
        errors.append(FieldError("requests", "required", "This field is needed."))
    elif not isinstance(entries, list) or not entries:
        errors.append(FieldError("requests", "invalid", "Write a list of requests."))
    elif len(entries) > MOST_REQUESTS:
        errors.append(FieldError("requests", "too_large", f"Give at most {MOST_REQUESTS} entries."))
    if errors:
        raise BadRequest(errors)
    return list(entries or ())


def parse_entries(value: Any, members: Sequence[str], most: int) -> list[Any]:
    """Return the list under the one of ``members`` that a body has; raise BadRequest for any other body.

    What the entries are is not looked at.
    """
    known = " or ".join(members)
    if not isinstance(value, dict):
        raise BadRequest([FieldError("body", "invalid", "Write a JSON object.")])
    errors = [
        FieldError(name, "unknown", f"Unknown field. Known is {known}.")
        for name in value
        if name not in members
    ]
    given = [name for name in members if value.get(name) is not None]
    if not given:
        errors.append(FieldError(members[0], "required", f"This field is needed: give {known}."))
    errors += [FieldError(name, "invalid", f"Give either {known}, not both.") for name in given[1:]]
    entries = value[given[0]] if given else []
    if given and (not isinstance(entries, list) or not entries):
        errors.append(FieldError(given[0], "invalid", "Write a list with at least one entry."))
    elif len(entries) > most:
        errors.append(FieldError(given[0], "too_large", f"Give at most {most:,} entries."))
    if errors:
        raise BadRequest(errors)
    return list(entries)


def _field_errors(error: ValidationError, form: type[RecommendRequest]) -> list[FieldError]:
    found: dict[str, FieldError] = {}
    for one in error.errors(include_url=False, include_context=True, include_input=False):
        location, kind = one["loc"], one["type"]
        # Below a key of context or filters pydantic names the branches of its own union.
        depth = 2 if location[0] in MAPS else len(location)
        field = ".".join(str(part) for part in location[:depth])
        if kind == "extra_forbidden":
            code, message = "unknown", f"Unknown field. Known are {', '.join(form.model_fields)}."
        elif location[0] in MAPS and len(location) > 1 and location[-1] != "[key]":
            code, message = "invalid", _MAP_VALUES[str(location[0])]
        else:
            code, sentence = _SENTENCES.get(kind, ("invalid", ""))
            message = sentence.format(**one.get("ctx", {})) or f"{one['msg']}."
        found.setdefault(field, FieldError(field, code, message))
    return list(found.values())


_MAP_VALUES = {
    "context": "Write a text, a number, true, false or null.",
    "filters": 'Write a value, a list of values, or bounds such as {"lte": 30}.',
}


def parse_query(query_string: str) -> dict[str, Any]:
    """Return a GET request's parameters as the object that POST takes.

    ``item_ids`` and ``exclude_ids`` hold commas or are repeated; ``filters[price][lte]=30`` and
    ``context[region]=us`` write nested keys. A parameter without a value is as good as absent.
    """
    try:
        # WSGI hands over bytes as latin-1.
        text = query_string.encode("latin-1").decode()
        pairs = parse_qsl(text, errors="strict", max_num_fields=MOST_PARAMETERS)
    except UnicodeError as error:
        raise ApiProblem("malformed_query", "Percent-encode the query string as UTF-8.") from error
    except ValueError as error:
        raise ApiProblem(
            "malformed_query", f"Send at most {MOST_PARAMETERS} parameters."
        ) from error
    return _Parameters(pairs).value


class _Parameters:
    """Collects parameters into the object they stand for, with every one that cannot be placed."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self.value: dict[str, Any] = {}
        self.errors: list[FieldError] = []
        for name, text in pairs:
            self._place(name, text)
        if self.errors:
            raise BadRequest(self.errors)

    def _place(self, name: str, text: str) -> None:
        brackets = _BRACKETS.fullmatch(name)
        if brackets:
            self._place_nested(brackets.group(1), brackets.group(2), brackets.group(3), text)
        elif name in LISTS:
            ids = self.value.setdefault(name, [])
            ids += [part for part in text.split(",") if part]
        elif name in FIELDS and name not in MAPS:
            self._once(self.value, name, name, _scalar(name, text))
        else:
            known = ", ".join(f"{field}[…]" if field in MAPS else field for field in FIELDS)
            self._refuse(name, "unknown", f"Unknown parameter. Known are {known}.")

    def _place_nested(self, group: str, key: str, operator: str | None, text: str) -> None:
        values = self.value.setdefault(group, {})
        field = f"{group}.{key}"
        if group == "context":
            if operator:
                self._refuse(f"{field}.{operator}", "invalid", "Context values are not nested.")
            else:
                self._once(values, key, field, text)
        elif operator is None:
            chosen = values.get(key)
            if isinstance(chosen, dict):
                self._refuse(field, "invalid", "Give either values or bounds, not both.")
            elif isinstance(chosen, list):
                chosen.append(text)
            else:
                values[key] = text if chosen is None else [chosen, text]
        else:
            bounds = values.setdefault(key, {})
            if not isinstance(bounds, dict):
                self._refuse(field, "invalid", "Give either values or bounds, not both.")
            elif operator in ("any", "none"):
                bounds.setdefault(operator, []).append(text)
            else:
                self._once(bounds, operator, f"{field}.{operator}", text)

    def _once(self, into: dict[str, Any], key: str, field: str, value: Any) -> None:
        if key in into:
            self._refuse(field, "invalid", "Give this parameter once.")
        into[key] = value

    def _refuse(self, field: str, code: str, message: str) -> None:
        self.errors.append(FieldError(field, code, message))


def _scalar(name: str, text: str) -> Any:
    if name == "explain":
        return _TRUTH.get(text.lower(), text)
    if name == "limit":
        # Longer digits than any limit has would cost quadratic time to read.
        return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text
    return text
