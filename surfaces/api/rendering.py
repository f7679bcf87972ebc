"""Answers as JSON bytes, without a walk through a serialiser."""

from typing import Any

import orjson
from pydantic import BaseModel

from surfaces.contracts import Item, RecommendResponse

# Present only when the caller asked for an explanation.
_EXPLAINED = {Item: "explanation", RecommendResponse: "debug"}


def to_json(value: Any) -> bytes:
    """Return the JSON of an answer, or of a container of answers and plain values."""
    return orjson.dumps(value, default=_members)


def _members(value: Any) -> dict[str, Any]:
    if not isinstance(value, BaseModel):
        raise TypeError(f"{type(value).__name__} has no JSON form")
    members = value.__dict__
    optional = _EXPLAINED.get(type(value))
    if optional is None or members[optional] is not None:
        return members
    return {name: member for name, member in members.items() if name != optional}
