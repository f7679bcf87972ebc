"""The id of a request: the caller's own when it is one, else a new one."""

import re
import uuid

from django.http import HttpRequest

REQUEST_ID_HEADER = "X-Request-Id"

_ACCEPTED = re.compile(r"[A-Za-z0-9._-]{1,64}")


def request_id_of(request: HttpRequest) -> str:
    """Return the request's id, the same each time."""
    known: str | None = getattr(request, "recplatform_id", None)
    if known is None:
        given = request.META.get("HTTP_X_REQUEST_ID", "")
        known = given if _ACCEPTED.fullmatch(given) else uuid.uuid4().hex
        request.recplatform_id = known  # type: ignore[attr-defined]  # one request, one id
    return known
