"""Addresses of the API."""

from django.http import Http404, HttpRequest, HttpResponse
from django.urls import path, re_path
from django.views.decorators.csrf import csrf_exempt
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView

from surfaces.api.items import DeleteItemsView, PutItemsView
from surfaces.api.problems import problem_response, to_problem
from surfaces.api.views import PageView, RecommendationsView


@csrf_exempt
def no_such_address(request: HttpRequest) -> HttpResponse:
    """Answer what no other address takes: Django's own page is HTML while DEBUG is on."""
    return problem_response(request, to_problem(Http404()))


urlpatterns = [
    path("recommendations", PageView.as_view(), name="recommend-page"),
    path("surfaces/<str:slug>/recommendations", RecommendationsView.as_view(), name="recommend"),
    path("indexes/<str:slug>/items", PutItemsView.as_view(), name="put-items"),
    path("indexes/<str:slug>/items/delete", DeleteItemsView.as_view(), name="delete-items"),
    path("schema/", SpectacularAPIView.as_view(), name="api-schema"),
    path("docs/", SpectacularSwaggerView.as_view(url_name="api-schema"), name="api-docs"),
    re_path("", no_such_address),
]
