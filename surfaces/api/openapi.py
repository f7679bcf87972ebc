"""What the OpenAPI schema says of the API, next to the pydantic types of the contract."""

from typing import Any, Final

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    extend_schema,
)

from surfaces.api.contract import PageRequest, PageResponse
from surfaces.api.problems import CODES, CONTENT_TYPE, ApiProblem, Problem
from surfaces.api.request_id import REQUEST_ID_HEADER
from surfaces.contracts import RecommendRequest, RecommendResponse
from surfaces.errors import FieldError

JSON: Final = "application/json"


class ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]  # the library leaves it untyped
    """Documents the authentication of every call."""

    target_class = "surfaces.api.auth.ApiKeyAuthentication"
    name = "ApiKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return {
            "type": "apiKey",
            "in": "header",
            "name": "Authorization",
            "description": "`Api-Key rp_…`: a key made in the admin, valid for the surfaces, "
            "and for changes to items of the indexes, named there. A call outside them is 403, whether such a surface exists or not; "
            "only a key for every surface is told 404.",
        }


_REQUEST: dict[str, Any] = {
    "query": "moisturizer for dry skin",
    "user_id": "u1",
    "context": {"region": "us"},
    "filters": {"category": ["skin"], "price": {"lte": 30}},
    "limit": 12,
}
_RESPONSE: dict[str, Any] = {
    "request_id": "8f14e45fceea4c5d9a1b2c3d4e5f6071",
    "surface": "search-carousel",
    "revision": 7,
    "build": "products-v3",
    "variant": None,
    "items": [
        {
            "id": "sku-9",
            "rank": 1,
            "score": 0.83,
            "fields": {"title": "Barrier repair cream", "price": 24.5},
        }
    ],
    "degraded": [{"stage": "enrichment:trending", "reason": "timeout", "spent_ms": 20.0}],
    "fallback": None,
    "timings_ms": {"total": 21.4, "embed": 12.9, "enrich": 8.0, "search": 1.1, "rerank": 0.6},
}
REQUEST_ID = OpenApiParameter(
    REQUEST_ID_HEADER,
    OpenApiTypes.STR,
    OpenApiParameter.HEADER,
    description="Your own id of the call, of up to 64 letters, digits and `._-`; "
    "it comes back in the answer. Any other is replaced by a new one.",
)
_SLUG = OpenApiParameter(
    "slug", OpenApiTypes.STR, OpenApiParameter.PATH, description="Slug of a published surface."
)


def problems(*codes: str) -> dict[tuple[int, str], OpenApiResponse]:
    """Return the responses that problems of these codes are, by status and content type."""
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(CODES[code][0], []).append(code)
    return {
        (status, CONTENT_TYPE): OpenApiResponse(
            Problem,
            description="; ".join(f"`{code}`: {CODES[code][1]}" for code in same),
            examples=[
                OpenApiExample(
                    code,
                    value=_example_problem(code),
                    response_only=True,
                    status_codes=[str(status)],
                    media_type=CONTENT_TYPE,
                )
                for code in same
            ],
        )
        for status, same in by_status.items()
    }


def _example_problem(code: str) -> dict[str, Any]:
    errors = []
    if code == "bad_request":
        errors = [FieldError("filters.price.lte", "invalid", "Give a number.")]
    return ApiProblem(code, f"{CODES[code][1]}.", errors=errors).body(_RESPONSE["request_id"])


def _example(name: str, value: dict[str, Any], **where: Any) -> OpenApiExample:
    return OpenApiExample(name, value=value, **where)


_COMMON = ("bad_request", "missing_key", "invalid_key", "internal_error", "not_ready")
_OF_A_SURFACE = ("out_of_scope", "unknown_surface", "unavailable")
OF_A_BODY = ("malformed_json", "length_required", "too_large", "unsupported_media_type")
_ANSWER = OpenApiResponse(RecommendResponse, description="The surface's answer.")
_ANSWER_EXAMPLE = _example(
    "answer", _RESPONSE, response_only=True, status_codes=["200"], media_type=JSON
)

post_recommendations = extend_schema(
    operation_id="recommend",
    summary="Recommend items on a surface",
    description="Give a query, item ids, a user, or what else the surface starts from. "
    "A stage that failed is named in `degraded`; where a fallback answered, `fallback` says "
    f"why. The body holds at most 64 KiB of `{JSON}`.",
    tags=["recommendations"],
    parameters=[_SLUG, REQUEST_ID],
    request={JSON: RecommendRequest},
    responses={(200, JSON): _ANSWER, **problems(*_COMMON, *_OF_A_SURFACE, *OF_A_BODY)},
    examples=[_example("query", _REQUEST, request_only=True), _ANSWER_EXAMPLE],
)


def _query(name: str, description: str, **options: Any) -> OpenApiParameter:
    return OpenApiParameter(
        name,
        options.pop("type", OpenApiTypes.STR),
        OpenApiParameter.QUERY,
        description=description,
        **options,
    )


get_recommendations = extend_schema(
    operation_id="recommendGet",
    summary="Recommend items on a surface, by query string",
    description="The same as POST, with the fields as parameters. "
    "A parameter without a value is as good as absent.",
    tags=["recommendations"],
    parameters=[
        _SLUG,
        REQUEST_ID,
        _query("query", "Text to search for."),
        _query("item_ids", "Find items similar to these: `a,b`, or repeated.", many=True),
        _query("user_id", "Who asks."),
        _query("session_id", "In which session."),
        _query(
            "filters",
            "`filters[category]=skin` (repeated for any of several), `filters[price][lte]=30`, "
            "`filters[brand][none]=acme`.",
            type=OpenApiTypes.OBJECT,
            style="deepObject",
            explode=True,
        ),
        _query(
            "context",
            "`context[region]=us`.",
            type=OpenApiTypes.OBJECT,
            style="deepObject",
            explode=True,
        ),
        _query("exclude_ids", "Items to leave out: `a,b`, or repeated.", many=True),
        _query("limit", "How many items.", type=OpenApiTypes.INT),
        _query("explain", "Say how each item got its score.", type=OpenApiTypes.BOOL),
    ],
    request=None,
    responses={
        (200, JSON): _ANSWER,
        **problems(*_COMMON, "malformed_query", *_OF_A_SURFACE),
    },
    examples=[_ANSWER_EXAMPLE],
)

post_page = extend_schema(
    operation_id="recommendPage",
    summary="Recommend items on several surfaces at once",
    description="Up to 20 requests, answered in their order: each with its surface's answer, "
    "or with the problem that the surface's own address would have answered with.",
    tags=["recommendations"],
    parameters=[REQUEST_ID],
    request={JSON: PageRequest},
    responses={
        (200, JSON): OpenApiResponse(PageResponse, description="One answer for each request."),
        **problems(*_COMMON, *OF_A_BODY),
    },
    examples=[
        _example(
            "page",
            {
                "requests": [
                    {"surface": "home-row", "user_id": "u1"},
                    {"surface": "search-carousel", "query": "sunscreen", "limit": 6},
                ]
            },
            request_only=True,
        ),
        _example(
            "answers",
            {"responses": [_RESPONSE, _example_problem("unknown_surface")]},
            response_only=True,
            status_codes=["200"],
            media_type=JSON,
        ),
    ],
)
