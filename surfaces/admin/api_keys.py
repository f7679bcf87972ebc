"""API keys in the admin: shown once when made, revoked for good, never edited into another key."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import Field as ModelField
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from unfold.admin import ModelAdmin
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from surfaces import keys
from surfaces.admin.forms import tick_boxes
from surfaces.models import ApiKey

ACTIVE, REVOKED = "Active", "Revoked"


@admin.register(ApiKey)
class ApiKeyAdmin(ModelAdmin):
    list_display = ["name", "prefix_shown", "state", "scope", "may_change", "created_at"]
    search_fields = ["name", "prefix"]
    fields = ["name", "surfaces", "indexes"]
    actions_detail = ["revoke"]

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).prefetch_related("surfaces", "indexes")

    def formfield_for_dbfield(
        self, db_field: ModelField[Any, Any], request: HttpRequest, **kwargs: Any
    ) -> forms.Field | None:
        field: forms.Field | None = super().formfield_for_dbfield(db_field, request, **kwargs)
        if db_field.name == "surfaces" and field is not None:
            tick_boxes(field, "None ticked: every surface.")
        if db_field.name == "indexes" and field is not None:
            tick_boxes(field, "Whose items it may put and delete. None ticked: of no index.")
        return field

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        # A new key is shown next, whatever the button says.
        buttons = {"show_save_and_add_another": False, "show_save_and_continue": False}
        context = {**(extra_context or {}), **buttons}
        return super().changeform_view(request, object_id, form_url, context)

    def save_model(
        self, request: HttpRequest, obj: ApiKey, form: forms.ModelForm[ApiKey], change: bool
    ) -> None:
        if change:
            keys.rename(obj, form.cleaned_data["name"])
            return
        chosen = form.cleaned_data["surfaces"], form.cleaned_data["indexes"]
        issued, plaintext = keys.issue(obj.name, *chosen)
        obj.__dict__.update(issued.__dict__)
        # For response_add alone: the plaintext is nowhere stored.
        obj.plaintext = plaintext  # type: ignore[attr-defined]  # rides on the object of this request

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        # A key whose surfaces are all gone has none ticked: it must not open every surface.
        if change and "surfaces" in form.changed_data:
            keys.rescope(form.instance, form.cleaned_data["surfaces"])
        if change and "indexes" in form.changed_data:
            keys.allow_indexes(form.instance, form.cleaned_data["indexes"])

    def response_add(
        self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None
    ) -> HttpResponse:
        # Rendered at once and not after a redirect, which would have to keep the key somewhere.
        context = {
            **self.admin_site.each_context(request),
            "title": f"Key of {obj.name}",
            "opts": self.opts,
            "original": obj,
            "plaintext": obj.plaintext,  # type: ignore[attr-defined]  # set by save_model
            "list_url": reverse("admin:surfaces_apikey_changelist"),
        }
        return TemplateResponse(request, "admin/surfaces/apikey/issued.html", context)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        revoked = isinstance(obj, ApiKey) and obj.revoked_at is not None
        return not revoked and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # A revoked key stays as a record of who could once call.
        return False

    @display(description="Begins with")
    def prefix_shown(self, obj: ApiKey) -> str:
        return f"{obj.prefix}…"

    @display(description="State", label={ACTIVE: "success", REVOKED: "danger"})
    def state(self, obj: ApiKey) -> str:
        return REVOKED if obj.revoked_at else ACTIVE

    @display(description="Surfaces")
    def scope(self, obj: ApiKey) -> str:
        if not obj.scoped:
            return "every surface"
        return ", ".join(surface.slug for surface in obj.surfaces.all()) or "none any more"

    @display(description="Changes items of", empty_value="no index")
    def may_change(self, obj: ApiKey) -> str | None:
        return ", ".join(index.slug for index in obj.indexes.all()) or None

    @action(
        description="Revoke…",
        url_path="revoke",
        icon="block",
        permissions=["revoke"],
        variant=ActionVariant.DANGER,
    )
    def revoke(self, request: HttpRequest, object_id: str) -> HttpResponse:
        key = self.get_object(request, object_id)
        if key is None:
            raise Http404
        if request.method == "POST":
            keys.revoke(key)
            self.log_change(request, key, "Revoked.")
            messages.success(request, f"{key.name} is revoked: it is refused within a second.")
            return HttpResponseRedirect(reverse("admin:surfaces_apikey_changelist"))
        context = {
            **self.admin_site.each_context(request),
            "title": f"Revoke {key.name}",
            "opts": self.opts,
            "original": key,
            "back_url": reverse("admin:surfaces_apikey_change", args=[key.pk]),
        }
        return TemplateResponse(request, "admin/surfaces/apikey/revoke.html", context)

    def has_revoke_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        if not request.user.has_perm("surfaces.change_apikey"):
            return False
        return not ApiKey.objects.filter(pk=object_id).exclude(revoked_at=None).exists()
