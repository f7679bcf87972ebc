"""Addresses: includes only. The doors of probes are in ``recplatform.health``."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", admin.site.urls),
    path("api/v1/", include("surfaces.api.urls")),
    path("doctor/", include("indexes.admin.urls")),
    path("preview/", include("surfaces.preview.urls")),
    path("demo/", include("recplatform.demo.urls")),
]

handler400 = "surfaces.api.problems.bad_address"
handler403 = "surfaces.api.problems.not_allowed"
handler404 = "surfaces.api.problems.not_found"
handler500 = "surfaces.api.problems.server_error"
