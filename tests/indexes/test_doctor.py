"""The doctor on the real engine: what it finds, what it leaves alone, and what its repairs do."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.core.management import CommandError, call_command
from django.test import Client, override_settings
from django.utils import timezone

from indexes import builds, doctor, valkey
from indexes.admin import fleet
from indexes.doctor import Finding, Kind, Report
from indexes.errors import BuildError, SearchIndexMissing
from indexes.fleet import holdings, inventory, surroundings
from indexes.items import encode_vector
from indexes.models import BuildTransition, IndexBuild, IndexDefinition, ItemChange
from indexes.naming import index_name, key_prefix
from indexes.schema import EndpointSpec
from tests.fixtures_indexes import insert_definition
from tests.indexes.conftest import item_hash, spec_of
from tests.indexes.containers import Call, Container, answer
from tests.indexes.servers import PrivateServer
from tests.pages import text_of

pytestmark = pytest.mark.django_db
Status = IndexBuild.Status
SLUG = "shoes"
ITEMS = 5
Stand = Callable[..., IndexBuild]


@pytest.fixture(autouse=True)
def _own_namespace(namespace: str) -> Iterator[None]:
    with override_settings(VALKEY_NAMESPACE=namespace):
        yield
    for name in list(inventory_of(namespace)):
        valkey.drop_index(name)
    valkey.delete_prefix(namespace)


def inventory_of(start: str) -> Iterable[str]:
    from indexes.valkey_client import read

    names = read(lambda servers: servers.run("FT._LIST"), 5, fresh=True)
    return [raw.decode() for raw in names if raw.decode().startswith(start)]


@pytest.fixture
def index(catalog_file: Callable[[Iterable[Mapping[str, Any]]], Path]) -> IndexDefinition:
    rows = catalog_file({"id": str(n), "title": f"Shoe {n}"} for n in range(ITEMS))
    spec = EndpointSpec(slug="e", endpoint_name="e", dimension=4)
    return insert_definition(
        spec,
        rows,
        slug=SLUG,
        text_template="{title}",
        fields=[{"name": "price", "type": "numeric"}],
    )


@pytest.fixture
def stand(index: IndexDefinition, namespace: str) -> Stand:
    """A factory: a build as it stands, with its index and items in the engine."""

    def make(status: str = Status.LIVE, number: int = 1, items: int = ITEMS, **changes: Any):
        build = IndexBuild.objects.create(
            definition=index,
            number=number,
            status=status,
            spec=index.to_spec().model_dump(mode="json"),
            index_name=index_name(namespace, SLUG, number),
            key_prefix=key_prefix(namespace, SLUG, number),
            **{"written": items, "indexed": items, **changes},
        )
        put(build.index_name, build.key_prefix, items)
        if status == Status.LIVE:
            IndexDefinition.objects.filter(pk=index.pk).update(live_build=build)
        return build

    return make


def put(name: str, prefix: str, items: int) -> None:
    """Put an index with items into the engine."""
    spec = spec_of(dimension=4)
    valkey.create_index(name, prefix, spec)
    valkey.write_hashes(
        (f"{prefix}{n}", item_hash(spec, np.eye(4)[n % 4], {"price": n})) for n in range(items)
    )
    wait_until_ready(name)


def wait_until_ready(name: str) -> None:
    stop = threading.Event()
    for _ in range(1000):
        if valkey.index_info(name).ready:
            return
        stop.wait(0.01)
    raise AssertionError("the engine did not finish")


def found(report: Report) -> list[Kind]:
    return [finding.kind for finding in report.findings]


def only(report: Report) -> Finding:
    [finding] = report.findings
    assert finding.what
    assert finding.why
    assert finding.repair or finding.advice
    return finding


def look(seconds: float = 5) -> Report:
    return doctor.examine(seconds, endpoints=False)


def mend(finding: Finding, **options: Any) -> str:
    return doctor.repair(finding.kind, finding.target, wait=True, **options)


def test_nothing_is_wrong_with_a_healthy_fleet(stand: Stand):
    stand()
    stand(Status.READY, number=2)
    stand(Status.RETIRED, number=3, items=0, removed_at=timezone.now() - timedelta(hours=1))
    valkey.drop_index(IndexBuild.objects.get(number=3).index_name)
    report = look()
    assert report.findings == ()
    assert (report.complete, report.error) == (True, "")
    assert [(row.build.number, row.items) for row in report.builds] == [(1, ITEMS), (2, ITEMS)]
    assert all(row.bytes and not row.measured for row in report.builds)
    assert "All is as it should be" in report.sentence()


def test_an_index_that_no_build_owns_is_removed(stand: Stand, namespace: str):
    kept = stand()
    name, prefix = index_name(namespace, "old-boots", 4), key_prefix(namespace, "old-boots", 4)
    put(name, prefix, 3)
    finding = only(look())
    assert (finding.kind, finding.target) == (Kind.ORPHAN_INDEX, name)
    assert "3 items" in finding.what
    assert name in mend(finding)
    assert look().findings == ()
    with pytest.raises(SearchIndexMissing):
        valkey.index_info(name)
    assert inventory.keys(5).counts == {kept.key_prefix: ITEMS}


def test_keys_that_no_build_owns_are_removed(stand: Stand, namespace: str):
    stand()
    prefix = key_prefix(namespace, "old-boots", 4)
    valkey.write_hashes([(f"{prefix}{n}", {"price": 1}) for n in range(3)])
    finding = only(look())
    assert (finding.kind, finding.target) == (Kind.ORPHAN_KEYS, prefix)
    mend(finding)
    assert look().findings == ()


def test_what_belongs_to_others_is_never_touched(namespace: str):
    """Namespaces that begin alike, and indexes of another form."""
    theirs = {
        # Index "shoes" of the namespace {namespace}_b has the name that "b-shoes" of ours would have.
        index_name(f"{namespace}_b", "shoes", 1): key_prefix(f"{namespace}_b", "shoes", 1),
        index_name(f"{namespace}0", "shoes", 1): key_prefix(f"{namespace}0", "shoes", 1),
        f"{namespace}_handmade": f"{namespace}:handmade:",
        f"{namespace}_shoes_v2": f"{namespace}:shoes:v3:",
    }
    for name, prefix in theirs.items():
        put(name, prefix, 2)
    valkey.write_hashes(
        [(f"{namespace}:celery:v1", {"a": "b"}), (f"{namespace}:serving", {"a": "b"})]
    )
    report = look()
    # Their keys only where they have the form of ours, and then no index of ours.
    assert [finding.key for finding in report.findings] == [f"orphan-keys:{namespace}:shoes:v3:"]
    for name, prefix in theirs.items():
        with pytest.raises(BuildError):
            doctor.repair(Kind.ORPHAN_INDEX, name, wait=True)
        assert valkey.index_info(name).num_docs == 2, prefix
    with pytest.raises(BuildError):
        doctor.repair(Kind.ORPHAN_KEYS, f"{namespace}_b:shoes:v1:", wait=True)
    with pytest.raises(BuildError):
        doctor.repair(Kind.ORPHAN_KEYS, f"{namespace}:", wait=True)


def test_a_build_that_begins_meanwhile_is_no_orphan(stand: Stand, namespace: str):
    name, prefix = index_name(namespace, SLUG, 1), key_prefix(namespace, SLUG, 1)
    put(name, prefix, ITEMS)
    finding = only(look())
    assert finding.kind == Kind.ORPHAN_INDEX
    # A definition of the same slug is made, and built.
    stand()
    assert look().findings == ()
    with pytest.raises(BuildError, match="owns"):
        mend(finding)
    assert valkey.index_info(name).num_docs == ITEMS


def test_little_time_gives_part_of_the_answer(stand: Stand, namespace: str):
    stand(items=1500)
    prefix = key_prefix(namespace, "old-boots", 4)
    valkey.write_hashes([(f"{prefix}{n}", {"price": 1}) for n in range(1500)])
    report = look(seconds=0)
    assert report.complete is False
    assert "Only part" in report.sentence()
    # What was not counted is not taken for lost.
    assert set(found(report)) <= {Kind.ORPHAN_KEYS}
    assert all("at least" in finding.what for finding in report.findings)


class TestMissingIndex:
    def test_it_is_created_again_over_the_items(self, stand: Stand):
        build = stand()
        valkey.drop_index(build.index_name)
        finding = only(look())
        assert finding.kind == Kind.MISSING_INDEX
        assert "fallback" in finding.why
        done = mend(finding)
        assert f"{ITEMS} items" in done
        assert valkey.index_info(build.index_name).num_docs == ITEMS
        assert look().findings == ()
        why = BuildTransition.objects.get(build=build).why
        assert "created again" in why
        assert not build.definition.builds.filter(status=Status.PENDING).exists()
        with pytest.raises(BuildError, match="by now"):
            mend(finding)

    def test_where_items_are_gone_too_a_new_build_starts(self, stand: Stand):
        build = stand()
        valkey.drop_index(build.index_name)
        valkey.delete_prefix(f"{build.key_prefix}1")
        mend(only(look()))
        # What is left is served until then.
        assert valkey.index_info(build.index_name).num_docs == ITEMS - 1
        assert build.definition.builds.get(status=Status.PENDING).number == 2

    def test_a_ready_build_of_which_nothing_is_left_is_retired(self, stand: Stand):
        stand()
        build = stand(Status.READY, number=2)
        valkey.drop_index(build.index_name)
        valkey.delete_prefix(build.key_prefix)
        mend(only(look()))
        build.refresh_from_db()
        assert build.status == Status.RETIRED

    def test_a_running_build_of_which_nothing_is_left_starts_anew(self, stand: Stand):
        build = stand(Status.LOADING)
        valkey.drop_index(build.index_name)
        valkey.delete_prefix(build.key_prefix)
        mend(only(look()))
        build.refresh_from_db()
        assert build.status == Status.CANCELLED
        assert build.definition.builds.get(status=Status.PENDING).number == 2

    def test_one_that_ends_meanwhile_gets_no_index(
        self, stand: Stand, monkeypatch: pytest.MonkeyPatch
    ):
        stand()
        build = stand(Status.READY, number=2)
        valkey.drop_index(build.index_name)
        finding = only(look())

        def count(prefix: str, *, enough: int) -> int:
            IndexBuild.objects.filter(pk=build.pk).update(status=Status.RETIRED)
            return enough

        monkeypatch.setattr(inventory, "count", count)
        with pytest.raises(BuildError, match="retired"):
            mend(finding)
        assert build.index_name not in inventory.indexes()

    @pytest.mark.parametrize("status", [Status.PENDING, Status.CREATING])
    def test_one_that_has_not_come_so_far_misses_nothing(self, stand: Stand, status: str):
        build = stand(status, items=0)
        valkey.drop_index(build.index_name)
        assert look().findings == ()


class TestDrift:
    def test_a_counter_that_is_off_is_set(self, stand: Stand):
        build = stand(written=ITEMS - 2)
        finding = only(look())
        assert finding.kind == Kind.COUNTER
        mend(finding)
        build.refresh_from_db()
        assert (build.written, build.indexed) == (ITEMS, ITEMS)
        assert look().findings == ()

    def test_lost_items_need_a_new_build(self, stand: Stand):
        build = stand()
        valkey.delete_prefix(f"{build.key_prefix}1")
        finding = only(look())
        assert finding.kind == Kind.ITEMS_LOST
        assert "1 of 5" in finding.what
        mend(finding)
        assert build.definition.builds.get(status=Status.PENDING).number == 2
        # A second click does not start a second one.
        assert "already" in mend(finding)

    def test_items_that_are_stored_and_not_found(self, stand: Stand):
        build = stand(written=ITEMS + 1)
        # Nothing in it that the engine can index.
        valkey.write_hashes([(f"{build.key_prefix}bad", {"rp_vector": b"short", "price": "x"})])
        assert only(look()).kind == Kind.NOT_INDEXED

    def test_counts_that_move_are_not_compared(self, stand: Stand):
        build = stand(written=ITEMS - 2)
        finding = only(look())
        ItemChange.objects.create(
            definition=build.definition, item_id="1", changed_at=timezone.now()
        )
        assert look().findings == ()
        with pytest.raises(BuildError, match="being changed"):
            mend(finding)


class TestLeftovers:
    def test_a_removal_that_was_cut_off_is_finished(self, stand: Stand):
        stand()
        long_ago = timezone.now() - timedelta(hours=1)
        build = stand(Status.FAILED, number=2, heartbeat_at=long_ago)
        finding = only(look())
        assert finding.kind == Kind.LEFTOVER
        mend(finding)
        build.refresh_from_db()
        assert build.removed_at is not None
        assert look().findings == ()

    def test_one_that_goes_on_is_not_found(self, stand: Stand):
        stand(Status.CANCELLED, heartbeat_at=timezone.now())
        assert look().findings == ()

    def test_what_came_back_after_the_removal_is_found(self, stand: Stand):
        build = stand(Status.RETIRED, removed_at=timezone.now() - timedelta(minutes=5))
        finding = only(look())
        assert finding.kind == Kind.LEFTOVER
        mend(finding)
        assert look().findings == ()
        with pytest.raises(SearchIndexMissing):
            valkey.index_info(build.index_name)

    def test_a_build_that_lives_is_never_removed(self, stand: Stand):
        build = stand()
        with pytest.raises(BuildError, match="left alone"):
            doctor.repair(Kind.LEFTOVER, str(build.pk), wait=True)
        assert valkey.index_info(build.index_name).num_docs == ITEMS


class TestEndpoint:
    def test_another_model_is_told_by_its_vector(self, stand: Stand, container: Container):
        stand(probe=encode_vector(np.array([1, 0, 0, 0], dtype=np.float32)))
        container.respond = lambda call: answer([[1.0, 0.05, 0, 0] for _ in call.body["inputs"]])
        assert doctor.examine(5).findings == ()
        container.respond = lambda call: answer([[0, 1.0, 0, 0] for _ in call.body["inputs"]])
        finding = only(doctor.examine(5))
        assert finding.kind == Kind.MODEL_CHANGED
        assert finding.kind not in doctor.REPAIRABLE
        with pytest.raises(BuildError, match="person"):
            mend(finding)

    def test_one_that_is_away(self, stand: Stand, container: Container):
        stand()
        container.respond = lambda call: None
        assert found(doctor.examine(5)) == [Kind.ENDPOINT_AWAY]

    def test_one_that_hangs_holds_nothing_up(
        self, stand: Stand, container: Container, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(surroundings, "PROBE_S", 0.3)
        stand()
        over = threading.Event()

        def hang(call: Call) -> None:
            over.wait(30)

        container.respond = hang
        try:
            assert found(doctor.examine(5)) == [Kind.ENDPOINT_AWAY]
        finally:
            over.set()
        assert len(container.calls) == 1

    def test_it_is_called_once_for_all_builds_of_it(self, stand: Stand, container: Container):
        stand()
        container.respond = lambda call: answer([[1.0, 0, 0, 0] for _ in call.body["inputs"]])
        doctor.examine(5)
        assert len(container.calls) == 1


class TestServer:
    def test_eviction_and_a_full_server_are_found(self, stand: Stand, tmp_path: Path):
        server = PrivateServer(tmp_path / "server")
        try:
            with server.in_use() as own:
                own.config_set("maxmemory-policy", "allkeys-lru")
                assert found(look()) == [Kind.EVICTION]
                own.config_set("maxmemory-policy", "noeviction")
                memory: Any = own.info("memory")
                own.config_set("maxmemory", memory["used_memory"] * 11 // 10)
                assert found(look()) == [Kind.MEMORY]
        finally:
            server.stop()

    def test_replicas_that_are_away_or_cut_off_are_found(self, stand: Stand, tmp_path: Path):
        server = PrivateServer(tmp_path / "server")
        replicas = ["valkey://127.0.0.1:1/0", server.url]
        try:
            with override_settings(VALKEY_REPLICA_URLS=replicas):
                report = look()
            assert [finding.target for finding in report.findings] == ["1", "2"]
            assert "is a primary" in report.findings[1].what
            with server.connect() as own:
                own.replicaof("127.0.0.1", "1")
            with override_settings(VALKEY_REPLICA_URLS=replicas[1:]):
                assert "no link" in only(look()).what
        finally:
            server.stop()

    def test_one_that_is_away_is_told(self):
        with override_settings(VALKEY_URL="valkey://127.0.0.1:1/0", VALKEY_CLUSTER=False):
            report = look()
        assert "could not be looked at" in report.sentence()


class TestCommand:
    def run(self, *args: str) -> tuple[str, str]:
        out = StringIO()
        error = ""
        try:
            call_command("indexes", "doctor", "--no-endpoints", "--seconds=5", *args, stdout=out)
        except CommandError as problem:
            error = str(problem)
        return out.getvalue(), error

    def test_it_fails_while_findings_remain(self, stand: Stand):
        build = stand(written=1)
        said, error = self.run()
        assert "counter says 1" in said
        assert "--repair" in error
        build.refresh_from_db()
        assert build.written == 1

    def test_it_repairs(self, stand: Stand, namespace: str):
        stand(written=1)
        put(index_name(namespace, "old", 1), key_prefix(namespace, "old", 1), 1)
        said, error = self.run("--repair", "--yes")
        assert error == ""
        assert "Set the counter" in said
        assert "Removed" in said
        assert self.run() == self.run()
        assert self.run()[1] == ""

    def test_it_asks_nobody_where_nobody_is(self, stand: Stand):
        stand(written=1)
        assert "--yes" in self.run("--repair")[1]


class TestPage:
    @pytest.fixture
    def editor(self, client: Client) -> Client:
        user = User.objects.create_user("editor", is_staff=True)
        user.user_permissions.set(
            Permission.objects.filter(codename__in=["view_indexbuild", "change_indexbuild"])
        )
        client.force_login(user)
        return client

    def test_it_shows_findings_and_builds(self, stand: Stand, admin_client: Client):
        assert "No build is in the engine" in text_of(admin_client.get("/doctor/"))
        stand(written=1)
        page = text_of(admin_client.get("/doctor/"))
        assert "its counter says 1" in page
        assert "Repair…" in page
        assert "shoes-v1" in page

    def test_a_repair_asks_and_is_logged(self, stand: Stand, editor: Client):
        build = stand(written=1)
        key = f"counter:{build.pk}"
        page = editor.get("/doctor/repair/", {"finding": key})
        assert "Set the counter to 5." in text_of(page)
        build.refresh_from_db()
        assert build.written == 1
        answer = editor.post("/doctor/repair/", {"finding": key}, follow=True)
        assert "Set the counter of shoes-v1 to 5." in text_of(answer)
        build.refresh_from_db()
        assert build.written == ITEMS
        assert LogEntry.objects.get().object_id == str(build.pk)
        again = editor.post("/doctor/repair/", {"finding": key}, follow=True)
        assert "not there any more" in text_of(again)

    def test_what_little_time_did_not_show_is_not_said_to_be_gone(
        self, stand: Stand, editor: Client, monkeypatch: pytest.MonkeyPatch
    ):
        stand(items=1500)
        monkeypatch.setattr(fleet, "PAGE_S", 0)
        url = "/doctor/repair/"
        said = text_of(editor.post(url, {"finding": "orphan-keys:some"}, follow=True))
        assert "only part of the keys" in said
        assert "not there any more" not in said

    def test_orphans_are_left_to_a_worker(
        self,
        editor: Client,
        namespace: str,
        django_capture_on_commit_callbacks: Any,
    ):
        name = index_name(namespace, "old", 1)
        put(name, key_prefix(namespace, "old", 1), 1)
        with django_capture_on_commit_callbacks(execute=True):
            editor.post("/doctor/repair/", {"finding": f"orphan-index:{name}"})
        assert inventory.indexes() == {}
        assert not inventory.keys(5).counts

    def test_who_may_only_look_cannot_repair(self, stand: Stand, client: Client):
        user = User.objects.create_user("reader", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename="view_indexbuild"))
        client.force_login(user)
        build = stand(written=1)
        assert "Repair…" not in text_of(client.get("/doctor/"))
        refused = client.post("/doctor/repair/", {"finding": f"counter:{build.pk}"})
        assert refused.status_code == 403
        nobody = User.objects.create_user("nobody", is_staff=True)
        client.force_login(nobody)
        assert client.get("/doctor/").status_code == 403

    def test_it_stands_without_the_engine(self, admin_client: Client):
        with override_settings(VALKEY_URL="valkey://127.0.0.1:1/0", VALKEY_CLUSTER=False):
            page = admin_client.get("/doctor/")
        assert "could not be looked at" in text_of(page)


def test_a_build_that_starts_while_the_doctor_looks(index: IndexDefinition):
    """The engine is looked at first, the database after it."""
    seen = holdings.look(5)
    build = builds.start(index, enqueue=False)
    valkey.create_index(build.index_name, build.key_prefix, build.to_spec())
    IndexBuild.objects.filter(pk=build.pk).update(status=Status.LOADING)
    # As if its row had been read, and its index had come a moment after the look.
    seen.builds = list(IndexBuild.objects.all())
    assert list(holdings.findings(seen)) == []
