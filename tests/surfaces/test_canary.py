"""A canary beside a plan: who gets it, what it searches, and that nobody pays where there is none."""

import pytest

from indexes.errors import SearchUnavailable
from indexes.schema import EndpointSpec, FieldSpec, FieldType, LiveIndex
from surfaces.canary import beside, choose, with_canaries
from surfaces.contracts import RecommendRequest
from surfaces.document import Canary, PublishedSurface
from surfaces.errors import PlanInvalid
from surfaces.plan import Plan, compile_plan
from tests.surfaces.builders import Fakes, default_items, document, ids, index_spec, live_index

pytestmark = pytest.mark.unit

OTHER_ENDPOINT = EndpointSpec(slug="new", endpoint_name="new", dimension=8)


def trial(label: str = "products-v2", **changes) -> LiveIndex:
    return LiveIndex(
        label=label, index_name=label, key_prefix=f"{label}:", spec=index_spec(**changes)
    )


def plan_with(percent: float, index: LiveIndex | None = None, **changes) -> Plan:
    published = PublishedSurface(
        revision=7, document=document(**changes), default_items=default_items("c1")
    )
    plan = compile_plan(published, live_index())
    return beside(plan, published, Canary(percent=percent, index=index or trial()))


def canary_of(plan: Plan) -> Plan:
    assert plan.canary is not None
    return plan.canary.plan


def sessions(plan: Plan, count: int = 2000) -> set[str]:
    """Those of some sessions that the canary answers."""
    names = [f"session-{number}" for number in range(count)]
    asked = {name: choose(plan, RecommendRequest(session_id=name), "r") for name in names}
    return {name for name, chosen in asked.items() if chosen.variant == "canary"}


def test_it_has_the_build_and_endpoint_of_its_own_and_the_list_of_the_live_one():
    plan = plan_with(10, trial(endpoint=OTHER_ENDPOINT))
    own = canary_of(plan)
    assert plan.endpoint
    assert own.endpoint
    assert (plan.build, plan.variant, plan.endpoint.slug) == ("products-v1", None, "words")
    assert (own.build, own.variant, own.endpoint.slug) == ("products-v2", "canary", "new")
    assert own.published is plan.published
    assert own.canary is None
    assert [plan.build for plan in with_canaries([plan])] == ["products-v1", "products-v2"]


def test_without_one_the_plan_answers_itself():
    plan = compile_plan(PublishedSurface(revision=1, document=document()), live_index())
    assert choose(plan, RecommendRequest(session_id="s"), "r") is plan
    assert list(with_canaries([plan])) == [plan]


def test_a_share_is_sticky_and_grows_around_those_who_are_in():
    few, many = sessions(plan_with(10)), sessions(plan_with(40))
    assert few == sessions(plan_with(10))
    assert len(few) == pytest.approx(200, abs=50)
    assert len(many) == pytest.approx(800, abs=80)
    assert few < many


def test_another_build_is_tried_on_other_sessions():
    first, second = sessions(plan_with(10)), sessions(plan_with(10, trial("products-v3")))
    assert len(first & second) < len(first) / 2


def test_surfaces_of_an_index_agree_on_who_is_in():
    assert sessions(plan_with(10)) == sessions(plan_with(10, slug="other", limit=1))


def test_a_user_stays_without_a_session_and_a_stranger_is_drawn_by_request():
    plan = plan_with(50)
    by_user = {choose(plan, RecommendRequest(user_id="u1"), f"r{n}").variant for n in range(50)}
    assert len(by_user) == 1
    by_request = [choose(plan, RecommendRequest(), f"r{n}").variant for n in range(200)]
    assert by_request.count("canary") == pytest.approx(100, abs=40)
    # One page has one request id, and so one side.
    assert len({choose(plan, RecommendRequest(), "page").variant for _ in range(20)}) == 1


@pytest.mark.parametrize(("percent", "variant"), [(0, None), (100, "canary")])
def test_nobody_and_everybody(percent, variant):
    chosen = choose(plan_with(percent), RecommendRequest(), "r")
    assert chosen.variant == variant


def test_one_that_lacks_a_field_of_the_surface_does_not_compile():
    fields = (FieldSpec(name="title", type=FieldType.TEXT, source="title"),)
    with pytest.raises(PlanInvalid, match="price"):
        plan_with(10, trial(fields=fields))


def test_the_answer_names_the_build_and_the_variant():
    fakes = Fakes()
    plan = plan_with(10)
    live, canary = fakes.ask(plan, query="shoes"), fakes.ask(canary_of(plan), query="shoes")
    assert (live.build, live.variant) == ("products-v1", None)
    assert (canary.build, canary.variant) == ("products-v2", "canary")


def test_what_it_fails_at_gets_the_fallback_as_live():
    fakes = Fakes()
    fakes.index.error = SearchUnavailable("down")
    answer = fakes.ask(canary_of(plan_with(10)), query="shoes")
    assert answer.fallback
    assert answer.fallback.reason == "search:unavailable"
    assert (answer.variant, ids(answer)) == ("canary", ["c1"])
