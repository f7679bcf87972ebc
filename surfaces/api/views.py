"""The doors of the API: each authenticates, parses, asks the pipeline and renders."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from surfaces import wiring
from surfaces.api import openapi
from surfaces.api.auth import ApiKeyAuthentication, HasApiKey, check_scope, scope_of
from surfaces.api.bodies import parse_page, parse_query, parse_request, read_json
from surfaces.api.calls import Call
from surfaces.api.contract import SurfaceRequest
from surfaces.api.problems import report_fault, to_problem
from surfaces.api.rendering import to_json
from surfaces.api.request_id import REQUEST_ID_HEADER, request_id_of
from surfaces.canary import choose
from surfaces.contracts import RecommendRequest, RecommendResponse
from surfaces.errors import UnknownSurface
from surfaces.pipeline import recommend
from surfaces.plan import Plan
from surfaces.registry import registry

# Threads for the pages of all requests in the process; each request's own thread works too.
PAGE_THREADS = 16

_page_threads = ThreadPoolExecutor(PAGE_THREADS, thread_name_prefix="page")


class ApiView(APIView):
    """A view of the hot path: one authenticator, one permission, JSON whatever is accepted."""

    authentication_classes = [ApiKeyAuthentication]
    permission_classes = [HasApiKey]
    http_method_names = ["get", "head", "post"]
    call: Call

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Answer the request, then count and log it."""
        self.call = Call(request_id_of(request))
        try:
            return super().dispatch(request, *args, **kwargs)
        finally:
            self.call.finish()

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Authenticate and check the scope; nothing is negotiated, versioned or throttled."""
        self.perform_authentication(request)
        self.call.key = scope_of(request).name
        self.check_permissions(request)

    def handle_exception(self, exc: Exception) -> Response:
        self.call.failed(to_problem(exc))
        return super().handle_exception(exc)


class RecommendationsView(ApiView):
    """Recommendations of one surface."""

    @openapi.get_recommendations
    def get(self, request: Request, slug: str) -> HttpResponse:
        return self._answer(request._request, slug, _from_query)

    @openapi.post_recommendations
    def post(self, request: Request, slug: str) -> HttpResponse:
        return self._answer(request._request, slug, _from_body)

    def _answer(
        self, http: HttpRequest, slug: str, parse: Callable[[HttpRequest], RecommendRequest]
    ) -> HttpResponse:
        plan = _published(slug)
        self.call.surface = slug
        return _json(http, _ask(plan, parse(http), self.call))


class PageView(ApiView):
    """Recommendations of several surfaces at once, each with its answer or its problem."""

    http_method_names = ["post"]

    @openapi.post_page
    def post(self, request: Request) -> HttpResponse:
        http = request._request
        first, *others = parse_page(read_json(http))
        answer = _PageAnswers(self.call.request_id, request)
        futures = [(_page_threads.submit(answer, entry), entry) for entry in others]
        responses = [answer(first)]
        # What no thread has begun yet is done here: a page never waits behind other pages.
        responses += [
            answer(entry) if future.cancel() else future.result() for future, entry in futures
        ]
        self.call.in_parts = True
        return _json(http, {"responses": responses})


class _PageAnswers:
    """Answers the questions of one page, each with a call of its own."""

    def __init__(self, request_id: str, request: Request) -> None:
        self._request_id = request_id
        self._request = request._request
        self._scope = scope_of(request)

    def __call__(self, entry: Any) -> RecommendResponse | dict[str, Any]:
        call = Call(self._request_id, self._scope.name)
        try:
            question = parse_request(entry, SurfaceRequest)
            check_scope(self._scope, question.surface)
            plan = _published(question.surface)
            call.surface = question.surface
            return _ask(plan, question, call)
        except Exception as error:  # noqa: BLE001  one surface's failure is not the page's
            problem = to_problem(error)
            report_fault(problem, error, self._request)
            call.failed(problem)
            return problem.body(self._request_id)
        finally:
            call.finish()


def _published(slug: str) -> Plan:
    plan = registry.plan(slug)
    if plan is None:
        raise UnknownSurface(slug)
    return plan


def _ask(plan: Plan, question: RecommendRequest, call: Call) -> RecommendResponse:
    call.request = question
    plan = choose(plan, question, call.request_id)
    return call.answered(recommend(plan, question, wiring.stages(), request_id=call.request_id))


def _from_query(http: HttpRequest) -> RecommendRequest:
    return parse_request(parse_query(http.META.get("QUERY_STRING", "")))


def _from_body(http: HttpRequest) -> RecommendRequest:
    return parse_request(read_json(http))


def _json(http: HttpRequest, answer: Any) -> HttpResponse:
    return HttpResponse(
        to_json(answer),
        content_type="application/json",
        headers={REQUEST_ID_HEADER: request_id_of(http), "Cache-Control": "no-store"},
    )
