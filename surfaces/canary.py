"""A canary: the plan of a ready build beside a surface's own, for a share of its traffic.

Who is in the share is settled by ``surfaces.buckets``: a session stays where it is, a
larger share keeps those that are in, and another build gets other sessions. What the
canary fails at gets the surface's fallback, as it would live: were the live build asked
instead, a canary that cannot answer would look like one that can, and cost the time
that its deadline no longer has.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from surfaces.buckets import bucket, unit_of
from surfaces.contracts import RecommendRequest
from surfaces.document import Canary, PublishedSurface
from surfaces.plan import CanaryPlan, Plan, compile_plan

VARIANT = "canary"


def beside(plan: Plan, published: PublishedSurface, canary: Canary) -> Plan:
    """Return the plan with the canary's beside it; raise PlanInvalid where that does not compile."""
    own = replace(compile_plan(published, canary.index), variant=VARIANT)
    salt = f"canary:{canary.index.label}"
    return replace(plan, canary=CanaryPlan(own, canary.percent / 100, salt))


def choose(plan: Plan, request: RecommendRequest, request_id: str) -> Plan:
    """Return the plan that answers this request: the surface's own, or its canary's."""
    canary = plan.canary
    if canary is None:
        return plan
    unit = unit_of(request.session_id, request.user_id, request_id)
    return canary.plan if bucket(canary.salt, unit) < canary.share else plan


def with_canaries(plans: Iterable[Plan]) -> Iterator[Plan]:
    """Yield every plan, and after it that of its canary."""
    for plan in plans:
        yield plan
        if plan.canary is not None:
            yield plan.canary.plan
