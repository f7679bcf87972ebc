"""Addresses of the preview: the surfaces to choose from, and each surface's page."""

from django.contrib import admin
from django.urls import path

from surfaces.preview import views

urlpatterns = [
    path("", admin.site.admin_view(views.surfaces), name="preview"),
    path("<slug:slug>/", admin.site.admin_view(views.surface), name="preview-surface"),
]
