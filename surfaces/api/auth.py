"""API keys: ``Authorization: Api-Key …``, looked up by digest in the registry. No SQL."""

from typing import TYPE_CHECKING, Any, cast

from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from surfaces.api.problems import ApiProblem
from surfaces.digest import digest
from surfaces.document import KeyScope
from surfaces.registry import registry

if TYPE_CHECKING:
    # It imports this module, by the settings.
    from rest_framework.views import APIView

SCHEME = "Api-Key"
CHALLENGE = {"WWW-Authenticate": f'{SCHEME} realm="recplatform"'}


class ApiKeyAuthentication(BaseAuthentication):
    """Gives the key's scope as ``request.auth``.

    Each presented key costs one digest and one look-up, whether it is known, wrong or
    revoked, and the look-up is by digest: time says nothing about stored keys.
    """

    def authenticate(self, request: Request) -> tuple[Any, KeyScope]:
        scheme, _, key = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
        key = key.strip()
        if scheme.lower() != SCHEME.lower() or not key:
            raise ApiProblem(
                "missing_key",
                f'Send the header "Authorization: {SCHEME} …" with a key made in the admin.',
                headers=CHALLENGE,
            )
        scope = registry.scope(digest(key))
        if scope is None:
            if not registry.loaded:
                raise not_ready()
            raise ApiProblem(
                "invalid_key",
                "This key is wrong or revoked. Make a new one in the admin.",
                headers=CHALLENGE,
            )
        return None, scope


class HasApiKey(BasePermission):
    """Refuses a surface outside the key's scope, whether such a surface exists or not.

    So a key learns the names of no surfaces but its own: only keys for every
    surface are told that one is unknown.
    """

    def has_permission(self, request: Request, view: "APIView") -> bool:
        slug = view.kwargs.get("slug")
        if slug is not None:
            check_scope(scope_of(request), slug)
        return True


def scope_of(request: Request) -> KeyScope:
    """Return what the key of an authenticated request may call."""
    return cast("KeyScope", request.auth)


def check_scope(scope: KeyScope, slug: str) -> None:
    """Raise the problem of a surface outside the key's scope."""
    if scope.surfaces is not None and slug not in scope.surfaces:
        raise ApiProblem(
            "out_of_scope",
            f'This key may not call the surface "{slug}". Add it to the key in the admin.',
        )


def check_index(scope: KeyScope, slug: str) -> None:
    """Raise the problem of an index whose items the key may not change."""
    if slug not in scope.indexes:
        raise ApiProblem(
            "out_of_scope",
            f'This key may not change items of the index "{slug}". Add the index to the key '
            "in the admin.",
        )


def not_ready() -> ApiProblem:
    """Return the problem of a process that has not read what is published."""
    return ApiProblem(
        "not_ready",
        "What is published has not been read yet. Try again in a second.",
        headers={"Retry-After": "1"},
    )
