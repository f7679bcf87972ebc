"""The items API: rows put into an index or deleted from it, one by one judged and answered.

A door of the control plane on the serving address: it needs PostgreSQL, which says
what is newest, and Valkey, which holds the items.
"""

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import structlog
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from indexes import item_calls
from indexes.errors import SearchError, UnknownIndex
from surfaces import metrics
from surfaces.api import items_schema
from surfaces.api.auth import ApiKeyAuthentication, check_index, scope_of
from surfaces.api.bodies import parse_entries, read_json
from surfaces.api.items_contract import LARGEST_BODY, MOST_ITEMS, ItemsOutcome, RefusedItem
from surfaces.api.problems import ApiProblem, to_problem
from surfaces.api.rendering import to_json
from surfaces.api.request_id import REQUEST_ID_HEADER, request_id_of

log = structlog.get_logger(__name__)

RETRY_AFTER_S = 2


class MayChangeItems(BasePermission):
    """Refuses an index that the key does not name, whether there is such an index or not."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        check_index(scope_of(request), view.kwargs["slug"])
        return True


class ItemsView(APIView):
    """One call that changes items, counted and logged."""

    authentication_classes = [ApiKeyAuthentication]
    permission_classes = [MayChangeItems]
    _outcome = ""

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Answer the request, then count and log it."""
        started = perf_counter()
        self._key, self._index, self._counts = "", "", {"accepted": 0, "refused": 0}
        self._outcome = "ok"
        try:
            return super().dispatch(request, *args, **kwargs)
        finally:
            seconds = perf_counter() - started
            metrics.observe_items(self._index, self._outcome, seconds, self._counts)
            log.info(
                "items",
                request_id=request_id_of(request),
                index=self._index,
                method=request.method,
                outcome=self._outcome,
                ms=round(seconds * 1000, 2),
                key=self._key,
                **self._counts,
            )

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Authenticate and check the scope; nothing is negotiated, versioned or throttled."""
        self.perform_authentication(request)
        self._key = scope_of(request).name
        self.check_permissions(request)
        # Named by a key, so that no label is what a caller made up.
        self._index = kwargs["slug"]

    def handle_exception(self, exc: Exception) -> Response:
        self._outcome = to_problem(exc).code
        return super().handle_exception(exc)

    def answer(
        self,
        http: HttpRequest,
        slug: str,
        change: Callable[[str, Sequence[Any]], item_calls.Outcome],
        *members: str,
    ) -> HttpResponse:
        """Read the entries, change the items, and tell what became of each."""
        entries = parse_entries(read_json(http, LARGEST_BODY), members, MOST_ITEMS)
        try:
            outcome = change(slug, entries)
        except UnknownIndex as error:
            raise ApiProblem("unknown_index", str(error)) from error
        except (SearchError, OperationalError, InterfaceError) as error:
            log.warning("items not changed", request_id=request_id_of(http), error=str(error))
            raise ApiProblem(
                "items_unavailable",
                "Valkey or PostgreSQL does not answer. No item is certain to be changed: "
                "send the call again.",
                headers={"Retry-After": str(RETRY_AFTER_S)},
            ) from error
        self._counts = {"accepted": outcome.accepted, "refused": len(outcome.refused)}
        return HttpResponse(
            to_json(_contract(outcome, request_id_of(http))),
            content_type="application/json",
            headers={REQUEST_ID_HEADER: request_id_of(http), "Cache-Control": "no-store"},
        )


class PutItemsView(ItemsView):
    """Items of an index."""

    http_method_names = ["put"]

    @items_schema.put_items
    def put(self, request: Request, slug: str) -> HttpResponse:
        return self.answer(request._request, slug, item_calls.put, "items")


class DeleteItemsView(ItemsView):
    """Items of an index that shall be no more."""

    http_method_names = ["post"]

    @items_schema.delete_items
    def post(self, request: Request, slug: str) -> HttpResponse:
        return self.answer(request._request, slug, item_calls.delete, "ids", "items")


def _contract(outcome: item_calls.Outcome, request_id: str) -> ItemsOutcome:
    refused = [
        RefusedItem(
            index=one.position,
            id=one.id,
            code=one.code,
            message=one.message,
            retryable=one.retryable,
        )
        for one in outcome.refused
    ]
    return ItemsOutcome(
        request_id=request_id, accepted=outcome.accepted, refused=refused, builds=outcome.builds
    )
