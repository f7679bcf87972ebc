"""Addresses of the preview: the surfaces to choose from, and each surface's page."""

from django.urls import path

from surfaces.preview import views

urlpatterns = [
    path("", views.surfaces, name="preview"),
    path("<slug:slug>/", views.surface, name="preview-surface"),
]
