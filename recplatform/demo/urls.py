"""Addresses of the demo content: the pictures of its products."""

from django.urls import path

from recplatform.demo import images

urlpatterns = [path("images/<slug:name>-<slug:tint>.svg", images.image, name="demo-image")]
