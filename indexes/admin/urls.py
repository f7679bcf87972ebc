"""Addresses of pages that belong to no model: the doctor."""

from django.contrib import admin
from django.urls import path

from indexes.admin import fleet

urlpatterns = [
    path("", admin.site.admin_view(fleet.doctor_view), name="doctor"),
    path("repair/", admin.site.admin_view(fleet.repair_view), name="doctor-repair"),
]
