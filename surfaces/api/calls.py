"""One observed call: what is measured and logged of each question to a surface."""

import hashlib
from time import perf_counter

import structlog
from django.conf import settings

from surfaces import metrics
from surfaces.api.problems import ApiProblem
from surfaces.contracts import RecommendRequest, RecommendResponse

log = structlog.get_logger(__name__)


class Call:
    """Collects what is known of a call; ``finish`` counts and logs it, once.

    The surface stays empty until a published one is found: a name that a caller
    made up becomes no label.
    """

    __slots__ = (
        "_started",
        "in_parts",
        "key",
        "outcome",
        "request",
        "request_id",
        "response",
        "surface",
    )

    def __init__(self, request_id: str, key: str = "") -> None:
        self._started = perf_counter()
        self.request_id = request_id
        self.key = key
        self.surface = ""
        self.outcome = "ok"
        self.in_parts = False
        self.request: RecommendRequest | None = None
        self.response: RecommendResponse | None = None

    def answered(self, response: RecommendResponse) -> RecommendResponse:
        """Note the answer, and pass it on."""
        self.response = response
        if response.fallback is not None:
            self.outcome = "fallback"
        elif response.degraded:
            self.outcome = "degraded"
        return response

    def failed(self, problem: ApiProblem) -> None:
        """Note that a problem was the answer."""
        self.outcome = problem.code

    def finish(self) -> None:
        """Count and log the call, unless its parts were."""
        if self.in_parts:
            return
        seconds = perf_counter() - self._started
        metrics.observe(self.surface, self.outcome, seconds, self.response)
        facts = {
            "request_id": self.request_id,
            "surface": self.surface,
            "outcome": self.outcome,
            "ms": round(seconds * 1000, 2),
            "key": self.key,
        }
        if self.request is not None and self.request.user_id:
            facts["user"] = pseudonym(self.request.user_id)
        if self.response is not None:
            facts |= {
                "revision": self.response.revision,
                "build": self.response.build,
                "items": len(self.response.items),
                "stages": self.response.timings_ms,
            }
            if self.response.variant is not None:
                facts["variant"] = self.response.variant
            if self.response.degraded:
                facts["degraded"] = [f"{d.stage}:{d.reason}" for d in self.response.degraded]
            if self.response.fallback is not None:
                facts["fallback"] = self.response.fallback.reason
        log.info("recommend", **facts)


def pseudonym(user_id: str) -> str:
    """Return what stands for a user in the log: the same each time, and not to be turned back."""
    secret = hashlib.sha256(settings.SECRET_KEY.encode()).digest()
    return hashlib.blake2b(user_id.encode(), key=secret, digest_size=8).hexdigest()
