"""What serves, and every way to move it: on rows of builds whose indexes are empty but real."""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from functools import partial
from itertools import pairwise

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.db.models import RestrictedError
from django.utils import timezone

from indexes import builds, cutover, removal, valkey
from indexes.errors import BuildError, SearchIndexMissing
from indexes.models import BuildTransition, IndexBuild, IndexDefinition
from indexes.naming import index_name, key_prefix
from indexes.signals import live_build_changed

Status = IndexBuild.Status
Verdict = IndexBuild.Verdict
Make = Callable[..., IndexBuild]


@pytest.fixture
def index(new_definition: Callable[..., IndexDefinition]) -> IndexDefinition:
    return new_definition([{"id": "a", "title": "A"}])


@pytest.fixture
def make(index, namespace) -> Make:
    """A factory of builds: the number counts up, the physical index is there and empty."""

    def make(status: str = Status.READY, **changes: object) -> IndexBuild:
        number = index.builds.count() + 1
        spec = index.to_spec()
        names = (namespace, index.slug, number)
        build = IndexBuild.objects.create(
            definition=index,
            number=number,
            status=status,
            spec=spec.model_dump(mode="json"),
            fingerprint=spec.fingerprint,
            index_name=index_name(*names),
            key_prefix=key_prefix(*names),
            heartbeat_at=timezone.now(),
            **changes,
        )
        valkey.create_index(build.index_name, build.key_prefix, spec)
        if status == Status.LIVE:
            index.live_build = build
            index.save()
        return build

    return make


@pytest.fixture
def ada() -> User:
    """Somebody who may override gates."""
    user = User.objects.create_user("ada")
    user.user_permissions.add(Permission.objects.get(codename="override_gates"))
    return user


@pytest.fixture
def told() -> Iterator[list[tuple[str | None, str | None, int]]]:
    """Each time that others are told: the live build, the canary and its share, as stored then."""
    seen = []

    def receive(definition: IndexDefinition, **_: object) -> None:
        assert connection.in_atomic_block
        seen.append(pointers(definition))

    live_build_changed.connect(receive)
    yield seen
    live_build_changed.disconnect(receive)


def pointers(definition: IndexDefinition) -> tuple[str | None, str | None, int]:
    stored = IndexDefinition.objects.get(pk=definition.pk)
    live, canary = stored.live_build, stored.canary_build
    return (
        live.label if live else None,
        canary.label if canary else None,
        stored.canary_percent,
    )


def states(definition: IndexDefinition) -> list[str]:
    return list(definition.builds.order_by("number").values_list("status", flat=True))


def lines(build: IndexBuild) -> list[tuple[str, str, str | None, str]]:
    return [
        (line.from_status, line.to_status, line.by.username if line.by else None, line.why)
        for line in build.transitions.all()
    ]


def in_engine(build: IndexBuild) -> bool:
    try:
        valkey.index_info(build.index_name)
    except SearchIndexMissing:
        return False
    return True


def served(build: IndexBuild, ago: timedelta) -> None:
    IndexBuild.objects.filter(pk=build.pk).update(
        served_until=timezone.now() - ago, superseded_at=timezone.now() - ago
    )


MOVES: dict[str, tuple[Callable[[IndexBuild], object], str]] = {
    "promote": (cutover.promote, "only a build that is ready can be made live"),
    "canary": (lambda build: cutover.start_canary(build, 10), "only a build that is ready can take"),
    "retire": (cutover.retire, "not ready, so it cannot be retired"),
}  # fmt: skip


@pytest.mark.parametrize("status", sorted(set(Status) - {Status.READY}))
@pytest.mark.parametrize("name", MOVES)
def test_only_a_ready_build_moves(index, make, told, name, status):
    if status != Status.LIVE:
        make(Status.LIVE)
    build = make(status)
    before = (pointers(index), states(index))
    act, said = MOVES[name]
    with pytest.raises(BuildError, match=rf"is {build.get_status_display().lower()}.*{said}"):
        act(build)
    assert (pointers(index), states(index)) == before
    assert not BuildTransition.objects.exists()
    assert told == []


@pytest.mark.parametrize("name", MOVES)
def test_a_state_that_changed_since_it_was_looked_at_counts(index, make, name):
    make(Status.LIVE)
    build = make()
    IndexBuild.objects.filter(pk=build.pk).update(status=Status.RETIRED)
    with pytest.raises(BuildError, match="retired"):
        MOVES[name][0](build)


@pytest.mark.parametrize("name", MOVES)
def test_a_deleted_build_does_not_move(index, make, name):
    make(Status.LIVE)
    build = make()
    IndexBuild.objects.filter(pk=build.pk).delete()
    with pytest.raises(BuildError, match="products-v2 was deleted"):
        MOVES[name][0](build)


def test_a_deleted_index_moves_nothing(index, make):
    build = make()
    IndexDefinition.objects.filter(pk=index.pk).delete()
    with pytest.raises(BuildError, match="index of products-v1 was deleted"):
        cutover.retire(build)
    with pytest.raises(BuildError, match="was deleted"):
        cutover.stop_canary(index)


def test_promoting_tells_once_and_says_who_and_why(index, make, told, ada):
    first, second = make(Status.LIVE), make()
    cutover.promote(second, by=ada, why="Better titles.")
    assert told == [("products-v2", None, 0)]
    assert lines(second) == [("ready", "live", "ada", "Better titles.")]
    assert lines(first) == [("live", "ready", "ada", "products-v2 took its place.")]
    first.refresh_from_db()
    assert second.live_at is not None
    assert first.superseded_at == first.served_until == second.live_at


def test_exactly_one_build_is_kept_for_the_way_back(index, make):
    for _ in range(4):
        cutover.promote(make())
    assert states(index) == ["retired", "retired", "ready", "live"]
    assert cutover.way_back(index) == index.builds.get(number=3)
    assert cutover.roll_back(index).number == 3
    assert states(index) == ["retired", "retired", "live", "ready"]
    # The one that was rolled back is the way back now.
    assert cutover.way_back(index) == index.builds.get(number=4)
    cutover.promote(make())
    assert states(index) == ["retired", "retired", "ready", "retired", "live"]


def test_a_slow_older_build_leaves_one_way_back_too(index, make):
    first, slow, third = make(), make(Status.LOADING), make()
    cutover.promote(first)
    cutover.promote(third)
    cutover.roll_back(index)
    IndexBuild.objects.filter(pk=slow.pk).update(status=Status.READY)
    cutover.promote(slow)
    assert states(index) == ["ready", "live", "retired"]


def test_a_newer_build_that_waits_for_a_person_is_left(index, make):
    make(Status.LIVE), make(), make()
    cutover.promote(index.builds.get(number=2))
    assert states(index) == ["ready", "live", "ready"]


def test_without_an_earlier_build_there_is_no_way_back(index, make):
    make(Status.LIVE)
    make()
    with pytest.raises(BuildError, match="No earlier build"):
        cutover.roll_back(index)


def test_a_roll_back_is_told_in_the_timeline(index, make, ada):
    first, second = make(Status.LIVE), make()
    cutover.promote(second)
    cutover.roll_back(index, by=ada)
    assert lines(first)[-1] == ("ready", "live", "ada", "Rolled back.")
    assert lines(second)[-1] == ("live", "ready", "ada", "products-v1 took its place.")


def test_a_build_whose_items_are_gone_is_not_served(index, make):
    make(Status.LIVE)
    build = make(indexed=10)
    for act in (cutover.promote, lambda build: cutover.start_canary(build, 10)):
        with pytest.raises(BuildError, match=r"no longer has the items of .* Start a new build"):
            act(build)
    valkey.drop_index(build.index_name)
    with pytest.raises(BuildError, match=r"no longer has .* Start a new build"):
        cutover.start_canary(build, 10)


class TestOverride:
    """A failed gate holds a build back until somebody with the permission says why not."""

    @pytest.fixture
    def blocked(self, make: Make) -> IndexBuild:
        make(Status.LIVE)
        return make(verdict=Verdict.BLOCKED)

    def test_it_is_refused_with_the_way_out(self, index, blocked):
        with pytest.raises(BuildError, match=r"failed a gate: its page says which.*override"):
            cutover.promote(blocked)
        assert states(index) == ["live", "ready"]

    @pytest.mark.parametrize("who", ["nobody", "bob"])
    def test_it_takes_the_permission(self, index, blocked, who):
        by = User.objects.create_user(who) if who != "nobody" else None
        with pytest.raises(BuildError, match=r"permission.*\(indexes.override_gates\)"):
            cutover.promote(blocked, by=by, why="I know better.", override=True)
        assert states(index) == ["live", "ready"]

    @pytest.mark.parametrize("why", ["", "  "])
    def test_it_takes_a_reason(self, blocked, ada, why):
        with pytest.raises(BuildError, match="Say why"):
            cutover.promote(blocked, by=ada, why=why, override=True)

    def test_it_is_kept_with_the_name_and_through_a_roll_back(self, index, blocked, make, ada):
        cutover.promote(blocked, by=ada, why="Half the catalog is gone on purpose.", override=True)
        assert blocked.verdict == Verdict.OVERRIDDEN
        assert lines(blocked) == [
            ("ready", "live", "ada", "Half the catalog is gone on purpose.")
        ]  # fmt: skip
        cutover.promote(make())
        # The way back needs no second override.
        assert cutover.roll_back(index) == blocked
        blocked.refresh_from_db()
        assert blocked.verdict == Verdict.OVERRIDDEN

    def test_it_means_nothing_for_a_build_that_passed(self, index, make):
        build = make(verdict=Verdict.PASSED)
        cutover.promote(build, override=True)
        assert build.verdict == Verdict.PASSED

    def test_a_blocked_build_is_no_canary(self, index, blocked):
        with pytest.raises(BuildError, match="failed a gate"):
            cutover.start_canary(blocked, 10)
        assert pointers(index) == ("products-v1", None, 0)


class TestCanary:
    @pytest.fixture
    def live(self, make: Make) -> IndexBuild:
        return make(Status.LIVE)

    def test_it_is_told_with_its_share(self, index, live, make, told, ada):
        build = make()
        cutover.start_canary(build, 10, by=ada)
        cutover.start_canary(build, 25, by=ada, why="Looks good.")
        # Nothing changes, so nobody is told.
        cutover.start_canary(build, 25, by=ada)
        cutover.stop_canary(index, by=ada)
        cutover.stop_canary(index, by=ada)
        assert told == [
            ("products-v1", "products-v2", 10),
            ("products-v1", "products-v2", 25),
            ("products-v1", None, 0),
        ]
        assert lines(build) == [
            ("ready", "ready", "ada", "Answers 10 % of the traffic."),
            ("ready", "ready", "ada", "Answers 25 % of the traffic. Looks good."),
            ("ready", "ready", "ada", "Answers no traffic any more."),
        ]

    @pytest.mark.parametrize("percent", [-1, 0, 100, 101])
    def test_it_is_a_part_of_the_traffic(self, live, make, percent):
        with pytest.raises(BuildError, match="1 to 99 %"):
            cutover.start_canary(make(), percent)

    def test_it_stands_beside_a_live_build(self, make):
        with pytest.raises(BuildError, match="No build is live"):
            cutover.start_canary(make(), 10)

    def test_another_one_takes_its_place(self, index, live, make):
        first, second = make(), make()
        cutover.start_canary(first, 10)
        cutover.start_canary(second, 20)
        assert pointers(index) == ("products-v1", "products-v3", 20)
        assert lines(first)[-1][3] == "products-v3 is the canary now."
        first.refresh_from_db()
        assert first.served_until is not None

    def test_it_ends_when_it_goes_live(self, index, live, make, told):
        build = make()
        cutover.start_canary(build, 10)
        cutover.promote(build)
        assert told[1:] == [("products-v2", None, 0)]

    def test_it_ends_when_a_newer_build_goes_live(self, index, live, make, told):
        build, newer = make(), make()
        cutover.start_canary(build, 10)
        cutover.promote(newer)
        assert told[1:] == [("products-v3", None, 0)]
        assert states(index) == ["ready", "retired", "live"]

    def test_a_newer_one_goes_on_beside_another_live_build(self, index, live, make):
        second, canary = make(), make()
        cutover.start_canary(canary, 10)
        cutover.promote(second)
        assert pointers(index) == ("products-v2", "products-v3", 10)
        cutover.roll_back(index)
        assert pointers(index) == ("products-v1", "products-v3", 10)

    def test_it_ends_when_it_is_retired(self, index, live, make, told):
        build = make()
        cutover.start_canary(build, 10)
        cutover.retire(build, why="Too slow.")
        assert told[1:] == [("products-v1", None, 0)]
        assert [line[3] for line in lines(build)][1:] == ["Too slow.", "Too slow."]

    def test_its_row_goes_only_with_the_index(self, index, live, make):
        build = make()
        cutover.start_canary(build, 10)
        with pytest.raises(RestrictedError):
            build.delete()
        index.delete()
        assert not IndexBuild.objects.exists()


class TestLeaving:
    """What served stays in the engine until no process can be on it any more."""

    @pytest.fixture
    def commit(self, django_capture_on_commit_callbacks):
        def commit(act: Callable[..., object], *args: object) -> None:
            with django_capture_on_commit_callbacks(execute=True):
                act(*args)

        return commit

    def test_a_build_that_never_served_leaves_at_once(self, make, commit):
        build = make()
        commit(cutover.retire, build)
        assert not in_engine(build)

    def test_a_build_that_was_live_a_moment_ago_stays_for_a_while(self, index, make, commit):
        first, second, third = make(), make(), make()
        for build in (first, second, third):
            commit(cutover.promote, build)
        first.refresh_from_db()
        assert (first.status, first.removed_at) == (Status.RETIRED, None)
        removal.remove(first.pk)
        assert in_engine(first)
        served(first, removal.GRACE + timedelta(seconds=1))
        removal.remove(first.pk)
        assert not in_engine(first)
        assert in_engine(second)

    def test_so_does_one_that_was_a_canary(self, index, make, commit):
        make(Status.LIVE)
        build = make()
        cutover.start_canary(build, 10)
        commit(cutover.retire, build)
        assert in_engine(build)

    def test_what_stayed_is_removed_later_though_the_message_is_lost(self, index, make, commit):
        make(Status.LIVE)
        build = make()
        cutover.start_canary(build, 10)
        cutover.retire(build)
        served(build, removal.GRACE + timedelta(seconds=1))
        IndexBuild.objects.update(heartbeat_at=timezone.now() - timedelta(hours=1))
        commit(builds.resume_stalled)
        assert not in_engine(build)

    def test_the_message_comes_when_it_may_be_removed(self, index, make, monkeypatch):
        sent: list[float] = []
        monkeypatch.setattr(removal, "enqueue", lambda *args, delay_s: sent.append(delay_s))
        build = make(served_until=timezone.now() - removal.GRACE / 2)
        cutover.retire(build)
        cutover.retire(make())
        waited, at_once = sent
        assert waited == pytest.approx(removal.GRACE.total_seconds() / 2, abs=5)
        assert at_once == 0


class TestExpiry:
    @pytest.fixture
    def old(self, index: IndexDefinition, make: Make) -> IndexBuild:
        """A build that was live two hours ago."""
        old, new = make(Status.LIVE), make()
        cutover.promote(new)
        served(old, timedelta(hours=2))
        return old

    @pytest.mark.parametrize(("hours", "retired"), [(0, True), (1, True), (3, False)])
    def test_a_way_back_is_kept_for_its_time(self, index, old, hours, retired):
        index.keep_hours = hours
        IndexDefinition.objects.update(keep_hours=hours)
        assert cutover.retire_expired() == (["products-v1"] if retired else [])
        assert states(index) == ["retired" if retired else "ready", "live"]
        if retired:
            assert lines(old)[-1] == ("ready", "retired", None, f"Kept for {hours} hours.")
        assert cutover.retire_expired() == []

    def test_kept_for_no_time_it_still_outlasts_requests_under_way(
        self, index, make, django_capture_on_commit_callbacks
    ):
        first, second = make(Status.LIVE), make()
        cutover.promote(second)
        IndexDefinition.objects.update(keep_hours=0)
        with django_capture_on_commit_callbacks(execute=True):
            assert cutover.retire_expired() == ["products-v1"]
        assert in_engine(first)

    def test_a_canary_is_kept(self, index, old):
        IndexDefinition.objects.update(keep_hours=1)
        cutover.start_canary(old, 10)
        assert cutover.retire_expired() == []
        cutover.stop_canary(index)
        assert cutover.retire_expired() == ["products-v1"]

    def test_a_build_that_never_was_live_waits_for_a_person(self, index, make):
        make(Status.LIVE), make(finished_at=timezone.now() - timedelta(days=30))
        IndexDefinition.objects.update(keep_hours=0)
        assert cutover.retire_expired() == []

    @pytest.mark.parametrize(
        ("hours", "waited", "retired"),
        [
            (24, timedelta(hours=25), True),
            (24, timedelta(hours=23), False),
            # Somebody may be looking at it.
            (0, timedelta(minutes=50), False),
            (0, timedelta(minutes=70), True),
        ],
    )
    def test_it_waits_as_long_once_a_newer_one_waits(self, index, make, hours, waited, retired):
        make(Status.LIVE)
        build = make(finished_at=timezone.now() - waited)
        make(finished_at=timezone.now())
        IndexDefinition.objects.update(keep_hours=hours)
        assert cutover.retire_expired() == (["products-v2"] if retired else [])
        assert states(index) == ["live", "retired" if retired else "ready", "ready"]
        if retired:
            why = "Never made live, and products-v3 can be chosen instead."
            assert lines(build) == [("ready", "retired", None, why)]

    @pytest.mark.parametrize(
        ("own", "newer", "retired"),
        [
            (Verdict.PASSED, Verdict.BLOCKED, False),
            (Verdict.PASSED, Verdict.PASSED, True),
            (Verdict.BLOCKED, Verdict.BLOCKED, True),
            (Verdict.BLOCKED, Verdict.PASSED, True),
        ],
    )
    def test_what_failed_a_gate_takes_no_place(self, index, make, own, newer, retired):
        make(Status.LIVE)
        make(finished_at=timezone.now() - timedelta(days=30), verdict=own)
        make(verdict=newer)
        assert cutover.retire_expired() == (["products-v2"] if retired else [])

    def test_the_last_of_those_that_wait_stays(self, index, make):
        make(Status.LIVE)
        for _ in range(3):
            make(finished_at=timezone.now() - timedelta(days=30))
        assert cutover.retire_expired() == ["products-v2", "products-v3"]
        assert cutover.retire_expired() == []

    @pytest.mark.parametrize("status", [Status.LOADING, Status.FAILED, Status.RETIRED])
    def test_nothing_else_takes_its_place(self, index, make, status):
        make(Status.LIVE), make(finished_at=timezone.now() - timedelta(days=30)), make(status)
        assert cutover.retire_expired() == []

    def test_a_canary_that_never_was_live_is_kept(self, index, make):
        make(Status.LIVE)
        build = make(finished_at=timezone.now() - timedelta(days=30))
        make()
        cutover.start_canary(build, 10)
        assert cutover.retire_expired() == []


def at_once(*acts: Callable[[], object]) -> list[Exception]:
    """Run each in a thread of its own, all at once; return what they raised, BuildError left out."""
    errors: list[Exception] = []
    start = threading.Barrier(len(acts))

    def run(act: Callable[[], object]) -> None:
        try:
            start.wait(10)
            act()
        except BuildError:
            # A refusal is what the loser of a race gets.
            pass
        except Exception as error:  # noqa: BLE001  (shown in the main thread)
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return errors


@pytest.mark.django_db(transaction=True)
class TestRaces:
    def test_moves_of_one_index_at_once_leave_it_whole(self, index, make):
        """Whatever comes first: one live build, a canary that is ready, and a line for each move."""
        make(Status.LIVE)
        for _ in range(4):
            make()
        picks = random.Random(7)

        def some_moves(order: random.Random) -> Callable[[], None]:
            def one() -> None:
                build = order.choice(list(IndexBuild.objects.all()))
                act = order.choice(
                    [
                        lambda: cutover.promote(build),
                        lambda: cutover.roll_back(index),
                        lambda: cutover.start_canary(build, 10),
                        lambda: cutover.stop_canary(index),
                        lambda: cutover.retire(build),
                        cutover.retire_expired,
                    ]
                )
                with suppress(BuildError):
                    act()

            def run() -> None:
                for _ in range(12):
                    one()

            return run

        assert at_once(*(some_moves(random.Random(picks.random())) for _ in range(5))) == []
        index.refresh_from_db()
        assert list(index.builds.filter(status=Status.LIVE)) == [index.live_build]
        if index.canary_build is not None:
            assert index.canary_build.status == Status.READY
        for build in index.builds.all():
            # Each line begins where the one before ended, and the last is where it stands.
            at = lines(build)
            assert all(a[1] == b[0] for a, b in pairwise(at))
            assert not at or at[-1][1] == build.status

    def test_schedulers_that_run_twice_retire_once(self, index, make):
        for _ in range(3):
            make(Status.LIVE)
        IndexBuild.objects.filter(number__lt=3).update(
            status=Status.READY, superseded_at=timezone.now() - timedelta(days=30)
        )
        retired: list[str] = []
        acts = [lambda: retired.extend(cutover.retire_expired())] * 3
        assert at_once(*acts) == []
        assert sorted(retired) == ["products-v1", "products-v2"]
        assert BuildTransition.objects.count() == 2

    def test_a_worker_and_a_person_who_move_one_build_do_not_lock_each_other_out(self, index, make):
        """The worker holds the build when it ends, the person the index: the index comes first."""
        for _ in range(5):
            build = make(Status.VALIDATING)
            errors = at_once(
                partial(builds.run, build.pk),
                partial(cutover.promote, build),
                partial(cutover.retire, build),
            )
            assert errors == []
