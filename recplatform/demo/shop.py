"""The demo's storefront: a small HTTP client that asks as a shop's server would."""

import json
import time
from dataclasses import dataclass
from http.client import HTTPException
from http.cookiejar import CookieJar
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, Request, build_opener

from surfaces.contracts import RecommendResponse

TIMEOUT_S = 30.0
# The first calls of a process open its clients and connections; both web workers get some.
WARM_UP_CALLS = 20
# A key or surface that was made a moment ago reaches each web process within a second.
NOT_YET = (401, 404, 503)


class Unreachable(Exception):
    """The web server gives no answer; the message says which address."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back, whatever its status."""

    status: int
    content_type: str
    body: bytes

    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


class Shop:
    """Calls the platform at ``base_url``. Keeps cookies, so that it can also log in to the admin."""

    def __init__(self, base_url: str, api_key: str) -> None:
        self.base_url = base_url.rstrip("/")
        self.api_key = api_key
        self._cookies = CookieJar()
        self._opener = build_opener(HTTPCookieProcessor(self._cookies))

    def get(self, path: str) -> Reply:
        return self._send(Request(self.base_url + path))  # noqa: S310  (the demo's own server)

    def post(self, path: str, body: object, *, key: str | None = None) -> Reply:
        """Send JSON with the API key, or with another one; an empty key sends none."""
        headers = {"Content-Type": "application/json"}
        if sent := self.api_key if key is None else key:
            headers["Authorization"] = f"Api-Key {sent}"
        data = json.dumps(body).encode()
        return self._send(Request(self.base_url + path, data, headers))  # noqa: S310  (the demo's own server)

    def submit(self, path: str, **fields: str) -> Reply:
        """Send a form of the admin, after a GET that brought its cookie."""
        fields["csrfmiddlewaretoken"] = self.cookie("csrftoken")
        headers = {"Referer": self.base_url + path}
        data = urlencode(fields).encode()
        return self._send(Request(self.base_url + path, data, headers))  # noqa: S310  (the demo's own server)

    def cookie(self, name: str) -> str:
        return next((c.value or "" for c in self._cookies if c.name == name), "")

    def ask(self, slug: str, question: dict[str, Any]) -> Reply:
        return self.post(f"/api/v1/surfaces/{slug}/recommendations", question)

    def ask_warm(self, slug: str, question: dict[str, Any]) -> Reply:
        """Ask until the answer is whole, as it is once the web server is warm; return the last reply."""
        for _ in range(WARM_UP_CALLS):
            reply = self.ask(slug, question)
            if reply.status == 200:
                answer = RecommendResponse.model_validate_json(reply.body)
                if answer.fallback is None and not answer.degraded:
                    break
            elif reply.status not in NOT_YET:
                break
            time.sleep(0.25)
        return reply

    def _send(self, request: Request) -> Reply:
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as response:
                return Reply(response.status, response.headers.get_content_type(), response.read())
        except HTTPError as error:
            return Reply(error.code, error.headers.get_content_type(), error.read())
        except (URLError, HTTPException, OSError) as error:
            raise Unreachable(f"{request.full_url} gives no answer: {error}") from error
