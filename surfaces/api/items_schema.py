"""What the OpenAPI schema says of the calls that change items."""

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema

from surfaces.api.items_contract import (
    LARGEST_BODY,
    MOST_ITEMS,
    ItemsOutcome,
    ItemsToDelete,
    ItemsToPut,
)
from surfaces.api.openapi import JSON, OF_A_BODY, REQUEST_ID, problems

_SLUG = OpenApiParameter(
    "slug",
    OpenApiTypes.STR,
    OpenApiParameter.PATH,
    description="Slug of an index that the key may change items of.",
)
_BOUNDS = f"At most {MOST_ITEMS:,} entries and {LARGEST_BODY >> 20} MiB of `{JSON}`."
_VERSIONS = (
    "Nothing older overwrites what is newer: an entry whose version (the catalog's version field, "
    "else `version` or `updated_at`, a number or an ISO date) is below that of the item is refused "
    "as `older_version`. The same version again is accepted, and without versions the last to "
    "come wins."
)
_OUTCOME: dict[str, Any] = {
    "request_id": "8f14e45fceea4c5d9a1b2c3d4e5f6071",
    "accepted": 2,
    "refused": [
        {
            "index": 1,
            "id": "sku-8",
            "code": "older_version",
            "message": "Its version 16 is older than 17, which the index has.",
            "retryable": False,
        }
    ],
    "builds": ["products-v3"],
}
_PROBLEMS = problems(
    "bad_request",
    "missing_key",
    "invalid_key",
    "out_of_scope",
    "unknown_index",
    *OF_A_BODY,
    "internal_error",
    "items_unavailable",
    "not_ready",
)
_RESPONSES = {
    (200, JSON): OpenApiResponse(ItemsOutcome, description="What became of each entry."),
    **_PROBLEMS,
}
_ANSWER = OpenApiExample(
    "outcome", value=_OUTCOME, response_only=True, status_codes=["200"], media_type=JSON
)

put_items = extend_schema(
    operation_id="putItems",
    summary="Put items into an index",
    description="Rows in the shape of the index's catalog. A row is the whole item; one that has "
    "none of the fields of the text template changes only the fields it names, and null removes "
    "one. A text that stays the same is not embedded again. One wrong row never fails the others. "
    f"{_VERSIONS} {_BOUNDS}",
    tags=["items"],
    parameters=[_SLUG, REQUEST_ID],
    request={JSON: ItemsToPut},
    responses=_RESPONSES,
    examples=[
        OpenApiExample(
            "rows",
            value={
                "items": [
                    {"id": "sku-9", "title": "Barrier cream", "price": 24.5, "version": 17},
                    {"id": "sku-8", "title": "Night cream", "price": 31, "version": 16},
                    {"id": "sku-7", "price": 19.9, "in_stock": False},
                ]
            },
            request_only=True,
        ),
        _ANSWER,
    ],
)

delete_items = extend_schema(
    operation_id="deleteItems",
    summary="Delete items from an index",
    description="Either `ids`, or `items` with an `id` and maybe a version each. An item that "
    "does not exist is accepted: a late older row cannot bring it back. "
    f"{_VERSIONS} {_BOUNDS}",
    tags=["items"],
    parameters=[_SLUG, REQUEST_ID],
    request={JSON: ItemsToDelete},
    responses=_RESPONSES,
    examples=[
        OpenApiExample("ids", value={"ids": ["sku-9", "sku-8"]}, request_only=True),
        OpenApiExample(
            "versions", value={"items": [{"id": "sku-9", "version": 18}]}, request_only=True
        ),
        _ANSWER,
    ],
)
