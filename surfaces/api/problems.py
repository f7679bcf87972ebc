"""Problems: every error of the API as RFC 9457 ``application/problem+json``.

``code`` is stable and is what a caller branches on; ``errors`` names each wrong
field as the caller wrote it, such as ``filters.price.lte`` or ``item_ids.3``.
"""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

import orjson
import structlog
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.core.signals import got_request_exception
from django.http import Http404, HttpRequest, HttpResponse, UnreadablePostError
from django.views import defaults
from pydantic import BaseModel, Field
from rest_framework.exceptions import APIException

from surfaces.api.request_id import REQUEST_ID_HEADER, request_id_of
from surfaces.errors import BadRequest, FieldError, ServiceUnavailable, UnknownSurface

CONTENT_TYPE = "application/problem+json"
API_ROOT = "/api/"
# A request with thousands of wrong ids is not helped by a list of them all.
MOST_ERRORS = 50

log = structlog.get_logger(__name__)

# code: (status, title)
CODES: dict[str, tuple[int, str]] = {
    "bad_request": (400, "The request has wrong or missing values"),
    "malformed_json": (400, "The body is not valid JSON"),
    "malformed_query": (400, "The query string cannot be read"),
    "missing_key": (401, "An API key is needed"),
    "invalid_key": (401, "The API key is not valid"),
    "out_of_scope": (403, "The API key may not do this here"),
    "forbidden": (403, "Not allowed"),
    "unknown_surface": (404, "No such surface is published"),
    "unknown_index": (404, "There is no such index"),
    "not_found": (404, "No such address"),
    "method_not_allowed": (405, "This address does not take this method"),
    "length_required": (411, "The body has no length"),
    "too_large": (413, "The body is too large"),
    "unsupported_media_type": (415, "The body is not declared as JSON"),
    "internal_error": (500, "The platform failed"),
    "unavailable": (503, "The surface cannot answer now"),
    "items_unavailable": (503, "Items cannot be changed now"),
    "not_ready": (503, "The platform is starting"),
}


class FieldProblem(BaseModel):
    """One wrong value of a request."""

    field: str = Field(description="As the caller wrote it, such as `filters.price.lte`.")
    code: str = Field(
        description="`required`, `unknown`, `invalid`, `too_large`, or `not_open`: "
        "a filter that the surface does not open to callers."
    )
    message: str


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str = Field(description="A name for the kind of problem: `urn:recplatform:problem:CODE`.")
    title: str
    status: int
    code: str = Field(description="Stable; one of: " + ", ".join(f"`{code}`" for code in CODES))
    detail: str = Field(description="What happened this time, and what to do next.")
    errors: list[FieldProblem] = []
    request_id: str


class ApiProblem(Exception):
    """Ends a request with a problem."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        errors: Iterable[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.errors = tuple(errors)[:MOST_ERRORS]
        self.headers = dict(headers or {})

    @property
    def status(self) -> int:
        return CODES[self.code][0]

    def body(self, request_id: str) -> dict[str, Any]:
        """Return the members of the problem object."""
        status, title = CODES[self.code]
        return {
            "type": f"urn:recplatform:problem:{self.code}",
            "title": title,
            "status": status,
            "code": self.code,
            "detail": self.detail,
            "errors": [error._asdict() for error in self.errors],
            "request_id": request_id,
        }


def bad_request(errors: Iterable[FieldError]) -> ApiProblem:
    """Return the problem that names every wrong field."""
    errors = tuple(errors)
    names = ", ".join(dict.fromkeys(error.field for error in errors[:5]))
    more = f" and {len(errors) - 5} more" if len(errors) > 5 else ""
    return ApiProblem("bad_request", f"Correct {names}{more}: see errors.", errors=errors)


def to_problem(error: Exception) -> ApiProblem:
    """Return the problem that an error of any layer is to the caller."""
    match error:
        case ApiProblem():
            return error
        case BadRequest():
            return bad_request(error.errors)
        case UnknownSurface():
            return ApiProblem("unknown_surface", str(error))
        case ServiceUnavailable():
            return ApiProblem("unavailable", str(error), headers={"Retry-After": "1"})
        case Http404():
            return ApiProblem("not_found", "No such address: /api/v1/docs/ lists those there are.")
        case PermissionDenied():
            return ApiProblem("forbidden", "This is not allowed.")
        case UnreadablePostError():
            return ApiProblem("malformed_json", "The body broke off.")
        case SuspiciousOperation():
            return ApiProblem("bad_request", "The request's host or form is not accepted.")
        case APIException():
            return _from_framework(error)
        case _:
            return ApiProblem(
                "internal_error", "Nothing is wrong with the request. The failure has been logged."
            )


def exception_handler(error: Exception, context: Mapping[str, Any]) -> HttpResponse:
    """Answer an error raised in a view; Django REST framework calls it."""
    request: HttpRequest = context["request"]._request
    problem = to_problem(error)
    report_fault(problem, error, request)
    return problem_response(request, problem)


def report_fault(problem: ApiProblem, error: Exception, request: HttpRequest) -> None:
    """Log an error that is a fault of the platform; no other says anything about it."""
    if problem.code != "internal_error":
        return
    log.error(
        "request failed", request_id=request_id_of(request), path=request.path, exc_info=error
    )
    got_request_exception.send(sender=None, request=request)


def problem_response(request: HttpRequest, problem: ApiProblem) -> HttpResponse:
    """Return the HTTP response of a problem."""
    request_id = request_id_of(request)
    return HttpResponse(
        orjson.dumps(problem.body(request_id)),
        status=problem.status,
        content_type=CONTENT_TYPE,
        headers={
            **problem.headers,
            REQUEST_ID_HEADER: request_id,
            "Cache-Control": "no-store",
        },
    )


def bad_address(request: HttpRequest, exception: Exception) -> HttpResponse:
    """``handler400``: a problem under the API, Django's page elsewhere."""
    if _is_api(request):
        return problem_response(request, to_problem(exception))
    return defaults.bad_request(request, exception)


def not_allowed(request: HttpRequest, exception: Exception) -> HttpResponse:
    """``handler403``: a problem under the API, Django's page elsewhere."""
    if _is_api(request):
        return problem_response(request, to_problem(exception))
    return defaults.permission_denied(request, exception)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """``handler404``: a problem under the API, Django's page elsewhere."""
    if _is_api(request):
        return problem_response(request, to_problem(Http404()))
    return defaults.page_not_found(request, exception)


def server_error(request: HttpRequest) -> HttpResponse:
    """``handler500``: a problem under the API, Django's page elsewhere."""
    if _is_api(request):
        return problem_response(request, to_problem(RuntimeError()))
    return defaults.server_error(request)


def _is_api(request: HttpRequest) -> bool:
    return request.path_info.startswith(API_ROOT)


def _from_framework(error: APIException) -> ApiProblem:
    status = HTTPStatus(error.status_code)
    code = next(
        (code for code, (known, _) in CODES.items() if known == status),
        "bad_request" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "internal_error",
    )
    return ApiProblem(code, str(error.detail))
