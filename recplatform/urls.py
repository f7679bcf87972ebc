"""Addresses: includes only, and the health doors."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from recplatform import health

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", admin.site.urls),
    path("api/v1/", include("surfaces.api.urls")),
    path("preview/", include("surfaces.preview.urls")),
    path("demo/", include("recplatform.demo.urls")),
    path("healthz", health.alive, name="healthz"),
    path("readyz", health.ready, name="readyz"),
    path("metrics", health.metrics, name="metrics"),
]

handler404 = "surfaces.api.problems.not_found"
handler500 = "surfaces.api.problems.server_error"
